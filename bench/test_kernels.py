"""Decoding alone: an answer in memory to items, without a socket.

`pytest bench/test_kernels.py --benchmark-enable`; `extra_info` of a result tells GB/s of payload and ns per
member, of the fastest round. A delivery gets its bytes as from a socket, by a copy into the memory it lends;
`copy` is that copy alone. The other two baselines, a walk over a memoryview in plain Python and `tarfile`,
get a contiguous archive without HTTP framing, which favours them.
"""

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import payloads
import wire
from aisfast._delivery import Form, Results
from aisfast._request import Entries
from memory import READ, Memory

SHAPES = {"1k": (2000, 1 << 10), "10k": (1000, 10 << 10), "100k": (100, 100 << 10), "1m": (20, 1 << 20)}


class Shape:
    """A workload small enough for rounds of milliseconds, and its answer."""

    def __init__(self, count, size):
        self.workload = payloads.Workload("kernels", count, size)
        entries = [
            wire.Entry(name, bytes(data), bucket="kernels")
            for name, data in zip(self.workload.names, payloads.payloads(self.workload), strict=True)
        ]
        self.answer = wire.streaming(entries)
        self.entries = Entries()
        self.entries.extend(self.workload.names, "kernels", None)


@pytest.fixture(params=SHAPES, scope="module")
def shape(request):
    return Shape(*SHAPES[request.param])


def measure(benchmark, shape, call):
    """Runs `call`, which returns a number of members."""
    assert benchmark(call) == shape.workload.count
    if benchmark.stats:
        best = benchmark.stats.stats.min
        benchmark.extra_info["GB/s"] = round(shape.workload.payload_bytes / best / 1e9, 2)
        benchmark.extra_info["ns/member"] = round(1e9 * best / shape.workload.count)


@pytest.mark.parametrize("form", [Form.PAIRS, Form.ITEMS], ids=["get", "stream"])
def test_items(benchmark, shape, form):
    def call():
        memory, count = Memory(shape.answer.raw, shape.entries, form), 0
        for _ in Results(memory.delivery, memory):
            count += 1
        return count

    measure(benchmark, shape, call)


def test_columns(benchmark, shape):
    def call():
        memory = Memory(shape.answer.raw, shape.entries, Form.COLUMNS)
        while not memory.delivery.fill():
            memory.pump()
        return memory.delivery.index

    measure(benchmark, shape, call)


def test_copy(benchmark, shape):
    raw, into = memoryview(shape.answer.raw), memoryview(bytearray(READ))

    def call():
        for at in range(0, len(raw), READ):
            piece = raw[at : at + READ]
            into[: len(piece)] = piece
        return shape.workload.count

    measure(benchmark, shape, call)


def test_python_walk(benchmark, shape):
    """The least a pure Python decoder can do: no checksum, no framing, no payload byte touched."""
    archive = memoryview(shape.answer.body)

    def call():
        at = count = 0
        while archive[at]:
            head = bytes(archive[at : at + 512])
            size = int(head[124:135], 8)
            name = head[:100].rstrip(b"\0").decode()
            item = (name, archive[at + 512 : at + 512 + size])
            at += 512 + (size + 511 & ~511)
            count += len(item) // 2
        return count

    measure(benchmark, shape, call)


def test_tarfile(benchmark, shape):
    def call():
        count = 0
        with tarfile.open(fileobj=io.BytesIO(shape.answer.body), mode="r|") as tar:
            for info in tar:
                tar.extractfile(info).read()
                count += 1
        return count

    measure(benchmark, shape, call)


@pytest.mark.parametrize("writer", ["aisfast", "json"])
def test_request_body(benchmark, writer):
    names = payloads.WORKLOADS["1k"].names

    def ours():
        entries = Entries()
        entries.extend(names, None, None)
        return entries.body(".tar", True, False, True)

    def standard():
        entries = [{"objname": name} for name in names]
        return json.dumps({"in": entries, "mime": ".tar", "coer": True, "onob": False, "strm": True}).encode()

    body = benchmark(ours if writer == "aisfast" else standard)
    assert json.loads(body) == json.loads(standard())
    if benchmark.stats:
        benchmark.extra_info["ns/entry"] = round(1e9 * benchmark.stats.stats.min / len(names))
