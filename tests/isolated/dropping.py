"""What a stream holds over baseline while each item is dropped as it comes."""

import os

import wire
from aisfast._delivery import Form, Results
from delivering import Feed, delivery_of, entries_of


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most(asked, raw):
    """Bytes over baseline, at most, and the payload bytes seen."""
    pieces = (raw[i : i + 65536] for i in range(0, len(raw), 65536))
    before = top = resident()
    delivery = delivery_of(asked, Form.ITEMS)
    feed = Feed(delivery, pieces)
    feed.open()
    size = 0
    for i, item in enumerate(Results(delivery, feed)):
        size += len(item)
        if i % 50 == 0 or size > 60 << 20:
            top = max(top, resident())
    return top - before, size


for count, each in ((10_000, 1024), (64, 1 << 20)):
    entries = [wire.Entry(f"o{i}", bytes(each)) for i in range(count)]
    asked, raw = entries_of(entries), memoryview(wire.streaming(entries).raw)
    del entries
    held, size = most(asked, raw)
    assert size == count * each
    assert held <= 4 << 20, held
    print(f"{count} x {each}: at most {held}")
