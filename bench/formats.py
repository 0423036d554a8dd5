"""The compressed formats and ZIP end to end: the official SDK and this library, and what inflating alone costs.

    python bench/formats.py [--format .tgz ...] [--workload text-10k ...] [--rounds 7] [--json FILE]

As `getbatch.py`: one process, random order within each round, the same objects (checked by hash before anything is
timed). Here the objects are texts, and the figures are paired: a ratio is taken within each round. What the official
SDK cannot read (`.tar.lz4`) is held against what it does with the same objects as `.tgz`. The limit, `inflate`, is the
library's own decompressor over an archive in memory, 64 KiB at a time; for a ZIP, zlib's CRC of every payload.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import payloads
import replay
from getbatch import (
    OURS,
    check_equal,
    environment,
    forget_proxies,
    loop,
    measure,
    repeated,
    results_of,
    scale,
)

PIECE = 64 << 10
SAMPLE = 4_000_000  # bytes of payload in a sample, at least: clocks are coarse


class Format(NamedTuple):
    """An output format, and the package that it is inflated with, if not by the standard library."""

    mime: str
    package: str = ""

    def __str__(self) -> str:
        return f"{self.mime} isal" if self.package == "isal" else self.mime


FORMATS = {
    str(form): form
    for form in (
        Format(".tgz"),
        Format(".tgz", "isal"),
        Format(".tar.gz"),
        Format(".tar.lz4", "lz4"),
        Format(".zip"),
    )
}

# (format, workload, field) -> least official / ours in streaming mode, for every way of ours
TARGETS = {
    (".tgz", "text-10k", "cpu"): 1.8,
    (".tgz", "text-10k", "wall"): 1.8,
    (".tar.lz4", "text-10k", "cpu"): 5.0,
    (".tar.lz4", "text-10k", "wall"): 5.0,
    (".zip", "text-1k", "cpu"): 8.0,
    (".zip", "text-10k", "cpu"): 8.0,
}


@contextmanager
def isal_if(wanted: bool) -> Iterator[None]:
    """Have the package isal importable, or as if it were not installed."""
    names = [name for name in sys.modules if name.partition(".")[0] == "isal"]
    kept = {name: sys.modules.pop(name) for name in names}
    if wanted:
        sys.modules.update(kept)
    else:
        sys.modules["isal"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop("isal", None)
        sys.modules.update(kept)


def bare(form: Format, workload: payloads.Workload) -> Callable[[], None]:
    """What no client can avoid: to inflate the archive, or to sum the payloads of a ZIP."""
    library: Any = zlib
    if form.package == "isal":
        from isal import isal_zlib as library
    if form.mime == ".zip":
        contents = payloads.payloads(workload)

        def sums() -> None:
            for content in contents:
                library.crc32(content)

        return sums
    whole = memoryview(b"".join(payloads.archive(workload, form.mime)))
    pieces = [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)]

    def inflate() -> None:
        if form.mime == ".tar.lz4":
            from lz4.frame import LZ4FrameDecompressor

            stream = LZ4FrameDecompressor()
        else:
            stream = library.decompressobj(31)
        for piece in pieces:
            stream.decompress(piece)
        assert stream.eof

    return inflate


def compare(result: dict[str, dict[str, Any]]) -> None:
    """Adds the ratios official / it and it / inflate of CPU and wall time: median and quartiles over the rounds."""
    for row in result.values():
        for field in ("cpu", "wall"):
            own = [sample[field] for sample in row["samples"]]
            for base, key in (("official", f"official_over_{field}"), ("inflate", f"over_inflate_{field}")):
                other = [sample[field] for sample in result[base]["samples"]]
                pairs = zip(other, own, strict=True) if base == "official" else zip(own, other, strict=True)
                ratios = [above / below for above, below in pairs]
                low, median, high = statistics.quantiles(ratios, n=4)
                row[key] = {"low": low, "median": median, "high": high}


def table(result: dict[str, dict[str, Any]], workload: payloads.Workload, targets: dict[str, float]) -> list[str]:
    """One format of one workload, for people."""
    lines = []
    for name, row in result.items():

        def ratio(key: str, row: dict[str, Any] = row) -> str:
            value = row[key]
            return f"{value['median']:.2f} ({value['low']:.2f}-{value['high']:.2f})"

        cpu, wall = row["cpu"]["median"], row["wall"]["median"]
        missed = [
            f"{field} under {least}"
            for field, least in targets.items()
            if name in OURS and row[f"official_over_{field}"]["median"] < least
        ]
        lines.append(
            f"  {name:10}{1e6 * cpu / workload.count:>9.2f}{workload.payload_bytes / cpu / 1e6:>9.0f}"
            f"{workload.payload_bytes / wall / 1e6:>9.0f}{ratio('official_over_cpu'):>22}"
            f"{ratio('official_over_wall'):>22}{ratio('over_inflate_cpu'):>20}" + "".join(f"  ! {it}" for it in missed)
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--format", nargs="+", choices=sorted(FORMATS), default=list(FORMATS))
    parser.add_argument("--workload", nargs="+", choices=payloads.TEXTS, default=payloads.TEXTS)
    parser.add_argument("--mode", nargs="+", choices=("streaming", "buffered"), default=["streaming", "buffered"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--consumer", choices=("drop", "hold", "touch"), default="drop")
    parser.add_argument("--seed", type=int, default=None, help="of the order within rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    forget_proxies()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    order = random.Random(seed)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options) | {"seed": seed}, "results": []}
    report["options"]["json"] = str(options.json) if options.json else None
    print(
        f"{'':12}{'us/obj':>9}{'MB/s CPU':>9}{'wall':>9}{'official/it CPU':>22}{'wall':>22}{'it/inflate CPU':>20}"
        f"   medians (quartiles) of {options.rounds} rounds"
    )
    forms = [FORMATS[name] for name in options.format]
    for form in [form for form in forms if form.package and find_spec(form.package) is None]:
        print(f"{form}: the package {form.package} is not installed")
        forms.remove(form)
    mimes = {form.mime for form in forms} | {".tgz"}
    for workload in (payloads.WORKLOADS[name] for name in options.workload):
        for mode in options.mode:
            streaming = mode == "streaming"
            with ExitStack() as stack:
                endpoints = {}
                for mime in mimes:
                    path = payloads.answer_file(workload, streaming, mime=mime)
                    endpoints[mime] = stack.enter_context(replay.Replay({workload.name: path})).endpoint
                for form in forms:
                    with isal_if(form.package == "isal"):
                        mime = ".tgz" if form.mime == ".tar.lz4" else form.mime
                        ways = {"official": results_of("official", endpoints[mime], workload, streaming, mime)}
                        for name in OURS:
                            ways[name] = results_of(name, endpoints[form.mime], workload, streaming, form.mime)
                        check_equal(ways, workload)
                        calls: dict[str, Callable[[], object]] = {
                            name: loop(name, results, options.consumer) for name, results in ways.items()
                        }
                        calls["inflate"] = bare(form, workload)
                        batches = -(-SAMPLE // workload.payload_bytes)
                        result = measure(
                            {name: repeated(call, batches) for name, call in calls.items()}, options.rounds, order
                        )
                    scale(result, batches, 0)
                    compare(result)
                    targets = {
                        field: least
                        for (at, name, field), least in TARGETS.items()
                        if streaming and (at, name) == (str(form), workload.name)
                    }
                    print(f"{form}, {workload}, {mode}")
                    print("\n".join(table(result, workload, targets)), flush=True)
                    report["results"].append(
                        {"format": str(form), "workload": workload.name, "mode": mode, "alternatives": result}
                    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
