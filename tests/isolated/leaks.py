"""A thousand batches of one kind must not grow the process. Argument: the kind."""

import gc
import os
import sys

import wire
from aisfast._blocks import trim
from aisfast._delivery import Form, Results
from aisfast.errors import AISError, IncompleteBatchError
from delivering import Feed, deliver, delivery_of, entries_of

SIZES = [0, 10, 3000, 70_000, 300_000]
ENTRIES = [wire.Entry(f"object-{i}", bytes([i]) * size, opaque="eA==") for i, size in enumerate(SIZES)]
STREAMING = wire.streaming(ENTRIES).raw
BUFFERED = wire.buffered(ENTRIES).raw


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def once(kind, i):
    asked = entries_of(ENTRIES)
    raw, streaming = (STREAMING, True) if i % 2 else (BUFFERED, False)
    if kind == "errors":
        raw = raw[: 600 + (i * 397) % (len(raw) - 5000)]
        got = deliver(asked, [raw], list(Form)[i % 3], streaming=streaming)
        assert type(got.error) is IncompleteBatchError
        assert len(got.error.rest()) > 0
    elif kind == "dropped":
        delivery = delivery_of(asked, [Form.PAIRS, Form.ITEMS][i % 2], streaming=streaming)
        feed = Feed(delivery, [raw[:250_000]], streaming)
        feed.open()
        results = Results(delivery, feed)
        for _ in range(i % 4):
            next(results)
        try:
            if i % 5 == 0:
                list(results)
        except AISError:
            pass
    else:
        got = deliver(asked, [raw], Form[kind.upper()], streaming=streaming)
        assert got.error is None


kind = sys.argv[1]
for i in range(200):
    once(kind, i)
gc.collect()
trim()
before = resident()
objects = len(gc.get_objects())
for i in range(1000):
    once(kind, i)
gc.collect()
trim()
grown = resident() - before
assert grown < 4 << 20, f"grown by {grown} bytes"
assert len(gc.get_objects()) - objects < 50
print(f"grown by {grown} bytes")
