"""`Columns`: a whole batch in one slab, with its faces for numpy and Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy
import numpy.typing

from aisfast._arrow import array_capsule, asks_small, schema_capsule
from aisfast._blocks import Span, span_of
from aisfast._items import item_at

if TYPE_CHECKING:
    from aisfast._delivery import Delivery
    from aisfast._items import Item
    from aisfast._request import Entries
    from aisfast.stats import Stats

MOST_OF_BINARY = (1 << 31) - 1  # bytes


class Columns(Sequence["Item"]):
    """What `Batch.fetch()` returns: n payloads back to back, and where each lies.

    Entry i is `data[offsets[i]:offsets[i + 1]]`: the layout of an Arrow large_binary array, and what speaks the Arrow
    PyCapsule protocol takes it for one, without a copy, missing entries as nulls: `pyarrow.array(columns)`. Indexing
    and iterating give `Item`s. They keep the slab alive, as every view of `data` and every Arrow array does; it is
    used again when none is left.

    Pickled with protocol 5 and a `buffer_callback`, the slab travels as a buffer out of band and is not copied.

    `torch.from_dlpack(columns.data)` (numpy 2.1 or newer) is a tensor over the slab, not to be written to;
    `torch.from_numpy` too, but it warns of that. `.pin_memory()` of it is one copy; none is needed to have payloads in
    memory of torch's own, pinned or shared: `fetch(into=tensor.numpy())`.

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
        self._slab, self._offsets, self._ok = slab, offsets, ok
        self.data: numpy.typing.NDArray[numpy.uint8] = numpy.frombuffer(slab, dtype=numpy.uint8)
        self.offsets: numpy.typing.NDArray[numpy.int64] = numpy.frombuffer(offsets, dtype=numpy.int64)
        self.ok: numpy.typing.NDArray[numpy.bool_] = numpy.frombuffer(ok, dtype=numpy.bool_)
        self.errors = errors
        self.stats = stats

    @classmethod
    def of(cls, delivery: Delivery, stats: Stats) -> Columns:
        """What a delivery has brought so far."""
        return cls(delivery.entries, *delivery.columns(), delivery.errors, stats)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        kind: Callable[[Span], PickleBuffer | bytes] = PickleBuffer if protocol >= 5 else bytes
        spans = map(kind, (self._slab, self._offsets, self._ok))
        return _columns, (self._entries, *spans, self.errors, self.stats)

    def __arrow_c_schema__(self) -> object:
        """A capsule of the Arrow schema: large_binary, nullable."""
        return schema_capsule(True)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Capsules of the Arrow schema and of an array over the slab. A missing entry is null.

        Args:
            requested_schema: A capsule of the schema a consumer would like, or None. The array comes as large_binary;
                as binary, its offsets copied, if that is asked for and fits.
        Raises:
            TypeError, ValueError: `requested_schema` is no capsule of an Arrow schema.
        """
        large = not asks_small(requested_schema) or len(self.data) > MOST_OF_BINARY
        offsets = self._offsets if large else span_of(self.offsets.astype(numpy.int32))
        missing = len(self) - int(numpy.count_nonzero(self.ok))
        valid = numpy.packbits(self.ok, bitorder="little").tobytes() if missing else None
        return schema_capsule(large), array_capsule(large, self._slab, offsets, valid, missing)

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

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: Any) -> Item | list[Item]:
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


def _columns(entries: Entries, data: Any, offsets: Any, ok: Any, errors: dict[int, str], stats: Stats) -> Columns:
    return Columns(entries, span_of(data), span_of(offsets), span_of(ok), errors, stats)
