"""Instructions that an object costs, from an answer in memory to the consumer: counted, so the same on a busy machine.

    python bench/instructions.py [--most BASELINE.json] [--json FILE]

Needs valgrind. Each way runs twice under callgrind, with few answers and with more; the difference is what the answers
cost, and what starting Python costs is in neither. 1,000 objects of 1 KiB; no sockets. `--most` compares with figures
kept before, and fails where one is more than 3 % above: use it with the compiler and the Python that made them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

WORKLOAD = "instructions"
FEW, MORE = 2, 6  # answers
SLACK = 1.03
COPIES = "glibc.cpu.x86_rep_movsb_threshold=0x40000000"  # else callgrind counts a large copy's bytes as instructions
WAYS = ("get", "stream", "fetch")


def deliver(way: str, answers: int, file: Path) -> None:
    """What is counted. What it imports is light."""
    from aisfast._delivery import Form, Results
    from aisfast._request import Entries
    from memory import Memory

    raw, names = file.read_bytes(), sys.stdin.read().split()
    entries = Entries()
    entries.extend(names, WORKLOAD, None)
    for _ in range(answers):
        memory = Memory(raw, entries, {"get": Form.PAIRS, "stream": Form.ITEMS, "fetch": Form.COLUMNS}[way])
        if way == "fetch":
            while not memory.delivery.fill():
                memory.pump()
        else:
            for _ in Results(memory.delivery, memory):
                pass


def instructions(way: str, answers: int, names: list[str], file: Path) -> int:
    """Of a whole process that delivers so many answers."""
    command = [
        "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
        sys.executable, __file__, "--deliver", way, "--answers", str(answers), "--file", str(file),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "0", "GLIBC_TUNABLES": COPIES}
    done = subprocess.run(command, env=environment, input="\n".join(names), capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"callgrind failed:\n{done.stderr}")
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--most", type=Path, metavar="BASELINE.json")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--deliver", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.deliver:
        deliver(options.deliver, options.answers, options.file)
        return
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed: nothing was counted")
    import payloads

    workload = payloads.WORKLOADS[WORKLOAD]
    names, file = workload.names, payloads.answer_file(workload)
    known = json.loads(options.most.read_text()) if options.most else {}
    found = {}
    for way in WAYS:
        counted = [instructions(way, answers, names, file) for answers in (FEW, MORE)]
        found[way] = (counted[1] - counted[0]) / (workload.count * (MORE - FEW))
        more = f"  ({found[way] / known[way] - 1:+.1%})" if way in known else ""
        print(f"{way:8}{found[way]:10.1f} instructions per object{more}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if worse := [way for way in found if way in known and found[way] > SLACK * known[way]]:
        raise SystemExit(f"more instructions than before: {', '.join(worse)}")


if __name__ == "__main__":
    main()
