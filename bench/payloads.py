"""The named workloads: what is asked for, and the answer a target would send, made once and kept in a file.

Payloads are a window that moves over one block of random bytes: no two are the same, no answer is
compressible. Those of a workload of texts follow one another in one long text: words that are rare and common as in
a language, which gzip makes about a third as large.
"""

from __future__ import annotations

import array
import functools
import random
import sys
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
BUILD = HERE / "build"
sys.path.insert(0, str(HERE.parent / "tests"))

import wire  # noqa: E402
from aisfast.emulator.outputs import WRITERS  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
STEP = 257  # bytes the window moves from one payload to the next
COPY = 32 * KIB  # a buffered archive is sent in pieces of this size, and an object read in such
BUFFER = 4 * KIB  # of Go's HTTP server in front of the socket
TEXT = 8 * MIB  # after so many bytes the text begins anew: further than any compressor looks back


class Workload(NamedTuple):
    """`count` objects of `size` bytes, in a bucket of the workload's name."""

    name: str
    count: int
    size: int
    text: bool = False

    @property
    def names(self) -> list[str]:
        suffix = "txt" if self.text else "bin"
        return [f"objects/{i:07d}.{suffix}" for i in range(self.count)]

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
        Workload("live-1k", 5_000, KIB),
        Workload("live-10k", 5_000, 10 * KIB),
        Workload("live-100k", 1_000, 100 * KIB),
        Workload("live-1m", 200, MIB),
        Workload("text-1k", 4_000, KIB, text=True),
        Workload("text-10k", 1_000, 10 * KIB, text=True),
        Workload("text-100k", 100, 100 * KIB, text=True),
    )
}
MAIN = ["1k", "10k", "100k", "1m"]
TEXTS = ["text-1k", "text-10k", "text-100k"]


@functools.cache
def text(seed: int) -> bytes:
    """TEXT bytes of sentences."""
    draw = random.Random(seed)
    sounds = "bcdfglmnprstv", "aeiou", "nrstl"
    syllables = ["".join(map(draw.choice, sounds))[: draw.choice((2, 3))] for _ in range(600)]
    words = ["".join(draw.choices(syllables, k=draw.choice((1, 2, 2, 3, 4)))) for _ in range(8_000)]
    common = list(accumulate(1 / (rank + 2) for rank in range(len(words))))  # Zipf's law
    phrases = [" ".join(draw.choices(words, cum_weights=common, k=4)) for _ in range(2000)]
    out, size = [], 0
    while size < TEXT:
        sentence = draw.choices(words, cum_weights=common, k=draw.randrange(4, 20))
        sentence[2:2] = draw.choices(phrases, k=draw.randrange(4))
        out.append(" ".join(sentence).capitalize() + draw.choice((". ", ". ", ", ", "? ", ".\n")))
        size += len(out[-1])
    return "".join(out).encode()[:TEXT]


def payloads(workload: Workload, seed: int = 1) -> list[memoryview]:
    """The objects' contents, in order."""
    if workload.text:
        whole = memoryview(text(seed))
        return [
            whole[at : at + workload.size]
            for at in (i * workload.size % (TEXT - workload.size) for i in range(workload.count))
        ]
    window = memoryview(random.Random(seed).randbytes(workload.size + workload.count * STEP))
    return [window[i * STEP : i * STEP + workload.size] for i in range(workload.count)]


class Pieces(list[bytes]):
    """A sink of the emulator's writers: what was written."""

    def write(self, data: bytes | memoryview) -> None:
        self.append(bytes(data))


def archive(workload: Workload, mime: str, seed: int = 1) -> Pieces:
    """The archive of an answer, as the emulator writes it."""
    pieces = Pieces()
    writer = WRITERS[mime](pieces)
    for name, payload in zip(workload.names, payloads(workload, seed), strict=True):
        writer.member(f"{workload.name}/{name}", len(payload), 1_700_000_000_000_000_000, [payload])
    writer.close()
    return pieces


def answer(workload: Workload, streaming: bool, seed: int, mime: str) -> bytes:
    """The whole HTTP answer."""
    entries = [
        wire.Entry(name, payload, bucket=workload.name)  # type: ignore[arg-type]
        for name, payload in zip(workload.names, payloads(workload, seed), strict=True)
    ]
    if mime == ".tar":
        return (wire.streaming if streaming else wire.buffered)(entries).raw
    writes: list[bytes] = archive(workload, mime, seed)
    kind = WRITERS[mime].content_type
    if not streaming:
        kind = f"multipart/mixed; boundary={wire.BOUNDARY}"
        body = wire.multipart(wire.metadata_json([entry.out() for entry in entries]), b"".join(writes))
        writes = [body[at : at + COPY] for at in range(0, len(body), COPY)]
    head = wire.head(headers=[("Content-Type", kind), wire.DATE, ("Transfer-Encoding", "chunked")])
    return head + wire.chunked(b"".join(writes), wire.go_chunks(map(len, writes)))


def answer_file(workload: Workload, streaming: bool = True, seed: int = 1, mime: str = ".tar") -> Path:
    """The file of the whole HTTP answer; made if it is not there."""
    path = BUILD / f"{workload.name}{mime}-{'streaming' if streaming else 'buffered'}-{seed}.http"
    if not path.exists():
        BUILD.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(answer(workload, streaming, seed, mime))
        partial.replace(path)
    return path


class Pace(NamedTuple):
    """How long a live target works, in microseconds (what one took on loopback, the cost of sending included)."""

    entry: float = 55.0  # before the first byte of an entry: find, open
    piece: float = 8.0  # for each 32 KiB of it, at most: read, write

    def file(self, workload: Workload, seed: int = 1) -> Path:
        """The file that tells the replay server how a streaming answer is sent: for each send the nanoseconds of work
        before it, and its bytes."""
        path = BUILD / f"{workload.name}.tar-streaming-{seed}-{self.entry:g}-{self.piece:g}.pace"
        whole = answer_file(workload, True, seed)
        if not path.exists() or path.stat().st_mtime < whole.stat().st_mtime:
            with whole.open("rb") as file:
                head = file.read(4 * KIB).index(b"\r\n\r\n") + 4
            numbers = array.array("I")
            for work, size in self._sends(workload, head):
                numbers.extend((round(1e3 * work), size))
            path.write_bytes(numbers.tobytes())
        return path

    def _sends(self, workload: Workload, head: int) -> Iterator[tuple[float, int]]:
        """Work, and bytes sent then: as Go's HTTP server makes them of what the target writes."""
        writes: list[tuple[float, int]] = []
        for _ in range(workload.count):
            whole, rest = divmod(workload.size, COPY)
            gap = -workload.size % 512
            writes += [(self.entry, 512), *[(self.piece, COPY)] * whole, (self.piece if rest else 0, rest), (0, gap)]
        writes += [(0, 512)] * 2
        framed = [(0.0, head)]
        for work, size in buffered(2048, writes):
            framed += [(work, len(f"{size:x}\r\n")), (0, size), (0, 2)]
        return buffered(BUFFER, [*framed, (0, len("0\r\n\r\n"))])


def buffered(limit: int, writes: Iterable[tuple[float, int]]) -> Iterator[tuple[float, int]]:
    """What a buffer of Go's passes on of what is written to it, with the work done since it last did."""
    held, done = 0, 0.0
    for work, size in writes:
        done += work
        while size > limit - held:
            passed, taken = (limit, limit - held) if held else (size, size)
            yield done, passed
            held, done, size = 0, 0.0, size - taken
        held += size
    if held:
        yield done, held
