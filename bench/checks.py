"""What the checks cost: this library against a private build of it that believes everything.

`python bench/checks.py`. The build without checks is made in build/unchecked: there no header checksum is summed, and
no name, length or range is held against the entry asked for. Both deliver the same answer from memory, in turns, in
processes of their own; a figure is the median of the differences, in ns of CPU per entry. (`fetch()` runs the same
checks, but its page faults are louder than they are.)
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
UNCHECKED = HERE / "build" / "unchecked"
SHAPES = {"10,000 x 1 KiB": (10_000, 1 << 10), "10,000 x 10 KiB": (10_000, 10 << 10)}

# (file, what a check is there, what stands in its place)
CHECKS = [
    ("_decode.pyx", r"        if checksum != header_sum\(p\):\n", "        if checksum < 0:\n"),
    (
        "_delivery.pyx",
        r"        if self\.is_named\(name, n, False\):\n",
        "        if n and name[0] != c\"_\":\n",
    ),
    ("_delivery.pyx", r"            if length > 0 and self\.size != length:\n", "            if length < -9:\n"),
    ("_delivery.pyx", r"                if self\.in_doubt\(\):\n", "                if self.size < 0:\n"),
]

WORKER = """
import json, sys, time
sys.path[:0] = [sys.argv[1], {bench!r}]
from test_kernels import Shape
from memory import Memory
from aisfast._delivery import Results
import aisfast
assert aisfast.__file__.startswith(sys.argv[1]), aisfast.__file__
shapes = [Shape(*given) for given in json.loads(sys.argv[2])]
for line in sys.stdin:
    at, form = json.loads(line)
    memory, count = Memory(shapes[at].answer.raw, shapes[at].entries, form), 0
    began = time.process_time_ns()
    for _ in Results(memory.delivery, memory):
        count += 1
    print((time.process_time_ns() - began) / count, flush=True)
"""


def build() -> None:
    """Make the build without checks."""
    shutil.rmtree(UNCHECKED, ignore_errors=True)
    shutil.copytree(ROOT / "src", UNCHECKED / "src", ignore=shutil.ignore_patterns("*.so", "*.c", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, UNCHECKED)
    for name, check, instead in CHECKS:
        path = UNCHECKED / "src" / "aisfast" / name
        text, found = re.subn(check, instead, path.read_text("utf-8"))
        if found != 1:
            raise SystemExit(f"{name}: {check!r} is there {found} times, not once: mend CHECKS")
        path.write_text(text, "utf-8")
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=UNCHECKED, check=True)


class Worker:
    """A process that delivers answers with one of the builds."""

    def __init__(self, source: Path) -> None:
        program = WORKER.format(bench=str(HERE))
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, str(source), json.dumps(list(SHAPES.values()))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def measure(self, shape: int, form: int) -> float:
        """ns of CPU per entry."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([shape, form]) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    build()
    checked, unchecked = Worker(ROOT / "src"), Worker(UNCHECKED / "src")
    print(f"{'':18}{'':8}{'checked':>10}{'unchecked':>11}{'checks':>8}   ns of CPU per entry, medians of {rounds}")
    for at, name in enumerate(SHAPES):
        for form, way in enumerate(("get", "stream")):
            pairs = [(checked.measure(at, form), unchecked.measure(at, form)) for _ in range(rounds + 2)][2:]
            cost = statistics.median(a - b for a, b in pairs)
            a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
            print(f"{name:18}{way:8}{a:10.0f}{b:11.0f}{cost:8.0f}")
    checked.close()
    unchecked.close()


if __name__ == "__main__":
    main()
