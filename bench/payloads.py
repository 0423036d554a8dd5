"""The named workloads: what is asked for, and the answer a target would send, made once and kept in a file.

Payloads are a window that moves over one block of random bytes: no two are the same, no answer is
compressible.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
BUILD = HERE / "build"
sys.path.insert(0, str(HERE.parent / "tests"))

import wire  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
STEP = 257  # bytes the window moves from one payload to the next


class Workload(NamedTuple):
    """`count` objects of `size` bytes, in a bucket of the workload's name."""

    name: str
    count: int
    size: int

    @property
    def names(self) -> list[str]:
        return [f"objects/{i:07d}.bin" for i in range(self.count)]

    @property
    def payload_bytes(self) -> int:
        return self.count * self.size

    def __str__(self) -> str:
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB"
        return f"{self.count:,} x {size}"


WORKLOADS = {
    w.name: w
    for w in (
        Workload("tiny", 4, KIB),  # warms a process up; not measured
        Workload("1", 1, KIB),
        Workload("32", 32, KIB),
        Workload("100", 100, KIB),
        Workload("1k", 10_000, KIB),
        Workload("10k", 10_000, 10 * KIB),
        Workload("100k", 2_000, 100 * KIB),
        Workload("1m", 300, MIB),
    )
}
MAIN = ["1k", "10k", "100k", "1m"]


def payloads(workload: Workload, seed: int = 1) -> list[memoryview]:
    """The objects' contents, in order."""
    window = memoryview(random.Random(seed).randbytes(workload.size + workload.count * STEP))
    return [window[i * STEP : i * STEP + workload.size] for i in range(workload.count)]


def answer_file(workload: Workload, streaming: bool = True, seed: int = 1) -> Path:
    """The file of the whole HTTP answer; made if it is not there."""
    path = BUILD / f"{workload.name}-{'streaming' if streaming else 'buffered'}-{seed}.http"
    if not path.exists():
        BUILD.mkdir(exist_ok=True)
        entries = [
            wire.Entry(name, payload, bucket=workload.name)  # type: ignore[arg-type]
            for name, payload in zip(workload.names, payloads(workload, seed), strict=True)
        ]
        answer = (wire.streaming if streaming else wire.buffered)(entries)
        partial = path.with_suffix(".partial")
        partial.write_bytes(answer.raw)
        partial.replace(path)
    return path
