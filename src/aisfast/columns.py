"""`Columns`: a whole batch in one slab, with its numpy face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import numpy.typing

from aisfast._blocks import Span, span_of
from aisfast._items import item_at

if TYPE_CHECKING:
    from aisfast._delivery import Delivery
    from aisfast._items import Item
    from aisfast._request import Entries
    from aisfast.stats import Stats


class Columns(Sequence["Item"]):
    """What `Batch.fetch()` returns: n payloads back to back, and where each lies.

    Entry i is `data[offsets[i]:offsets[i + 1]]`: the layout of an Arrow large_binary array. Indexing and iterating give
    `Item`s, which keep the slab alive, as every view of `data` does.

    Attributes:
        data: numpy uint8, shape (bytes,), read-only: payloads in request order.
        offsets: numpy int64, shape (n + 1,), read-only.
        ok: numpy bool, shape (n,), read-only: False where the entry is missing (its payload is empty).
        errors: index -> why it is missing.
        stats: What the fetch cost.
    """

    def __init__(
        self, entries: Entries, slab: Span, offsets: Span, ok: Span, errors: dict[int, str], stats: Stats
    ) -> None:
        self._entries = entries
        self._slab = slab
        self.data: numpy.typing.NDArray[numpy.uint8] = numpy.frombuffer(slab, dtype=numpy.uint8)
        self.offsets: numpy.typing.NDArray[numpy.int64] = numpy.frombuffer(offsets, dtype=numpy.int64)
        self.ok: numpy.typing.NDArray[numpy.bool_] = numpy.frombuffer(ok, dtype=numpy.bool_)
        self.errors = errors
        self.stats = stats

    @classmethod
    def of(cls, delivery: Delivery, stats: Stats) -> Columns:
        """What a delivery has brought so far."""
        return cls(delivery.entries, *delivery.columns(), delivery.errors, stats)

    def __reduce__(self) -> tuple[Any, ...]:
        spans = (self.data.tobytes(), self.offsets.tobytes(), self.ok.tobytes())
        return _columns, (self._entries, *spans, self.errors, self.stats)

    @property
    def sizes(self) -> numpy.typing.NDArray[numpy.int64]:
        """numpy int64, shape (n,): bytes of each payload."""
        return numpy.diff(self.offsets)

    @property
    def names(self) -> list[str]:
        """Object name of each entry."""
        return self._entries.names[: len(self)]

    def __len__(self) -> int:
        return len(self.ok)

    def __getitem__(self, index: Any) -> Any:
        n = len(self)
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(n))]
        i = index + n if index < 0 else index
        if not 0 <= i < n:
            raise IndexError(f"no entry {index} in {n} columns")
        return item_at(self._entries, i, self._slab, int(self.offsets[i]), int(self.offsets[i + 1]), self.errors.get(i))

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<Columns of {len(self)} entries, {len(self.data)} bytes, {len(self.errors)} missing>"


def _columns(
    entries: Entries, data: bytes, offsets: bytes, ok: bytes, errors: dict[int, str], stats: Stats
) -> Columns:
    return Columns(entries, span_of(data), span_of(offsets), span_of(ok), errors, stats)
