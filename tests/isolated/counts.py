"""What decoding costs in things that can be counted, in a process of its own. Arguments: MODE [LIBRARY].

    faults              page faults of each of ten batches, from the third on
    allocations         calls of malloc and its like for each read; needs LIBRARY, which counts them, preloaded
    instructions        under callgrind: a dump for each case; needs LIBRARY, which tells callgrind so

One JSON object, case -> figures. A case is a form and a size; the bytes come from memory, as many as a read may bring.
"""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import sys

import wire
from aisfast._delivery import Form, Results
from delivering import Feed, delivery_of, entries_of

CASES = {"1k": (1 << 10, 400), "10k": (10 << 10, 100), "100k": (100 << 10, 12), "1m": (1 << 20, 3)}


class Batch:
    """`count` objects of `size` bytes, to be delivered in `form`."""

    def __init__(self, form: Form, size: int, count: int) -> None:
        entries = [wire.Entry(f"objects/{i:07d}.bin", bytes([i & 255]) * size) for i in range(count)]
        self.form, self.count = form, count
        self.asked = entries_of(entries)
        self.raw = wire.streaming(entries).raw
        self.expected = size * count

    def __call__(self, piece: int = 0) -> Feed:
        """Deliver it and drop what comes. `piece`: most that a read brings; 0: all there is room for."""
        delivery = delivery_of(self.asked, self.form, expected=self.expected)
        raw = memoryview(self.raw)
        size = piece or len(raw)
        feed = Feed(delivery, (raw[at : at + size] for at in range(0, len(raw), size)))  # type: ignore[misc]
        feed.open()
        if self.form == Form.COLUMNS:
            while not delivery.fill():
                feed.pump()
            feed.finish()
            delivery.columns()
        else:
            for _ in Results(delivery, feed):
                pass
        return feed


def batches() -> dict[str, Batch]:
    return {
        f"{form.name.lower()} {name}": Batch(form, size, count)
        for form in Form
        for name, (size, count) in CASES.items()
    }


def faults(batch: Batch) -> list[int]:
    batch(), batch()
    counts = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        batch()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return counts


def allocations(batch: Batch, library: ctypes.CDLL) -> float:
    """What a read more costs: the same bytes in twice as many."""

    def count(piece: int) -> tuple[int, int]:
        before = library.allocated()
        feed = batch(piece)
        return library.allocated() - before, feed.delivery.reads

    piece = max(len(batch.raw) // 64, 700)
    for size in (piece, piece // 2) * 2:
        count(size)
    few, reads = count(piece)
    many, more_reads = count(piece // 2)
    return (many - few) / (more_reads - reads)


def instructions(name: str, batch: Batch, library: ctypes.CDLL) -> int:
    batch(), batch()
    library.begin()
    batch()
    library.end(name.encode())
    return batch.count


def main() -> None:
    mode, *path = sys.argv[1:]
    gc.disable()
    library = ctypes.CDLL(path[0]) if path else None
    result = {}
    for name, batch in batches().items():
        if mode == "faults":
            result[name] = faults(batch)
        elif mode == "allocations":
            result[name] = allocations(batch, library)
        else:
            result[name] = instructions(name, batch, library)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
