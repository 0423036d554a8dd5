# cython: nonecheck=True
"""What is handed out: `Item` (a slice of received memory, and what was asked for), `MossOut` (the official record)."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from aisfast._blocks cimport Span, fill_view
from aisfast._request cimport Entries, Place

from aisfast.errors import ErrObjNotFound
from aisfast.models import Model, fill, spec_of


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Item:
    """One delivered entry. Its payload is a slice of the memory it was received into: no copy was made.

    The item is a read-only buffer of its payload: `memoryview(item)`, `numpy.frombuffer(item, "u1")`,
    `file.write(item)`, `hashlib.sha256(item)` take it as it is. A view stays valid for as long as it is held. It may
    keep a block of up to 1 MiB alive with it: to keep few items out of many, take `tobytes()`.

    Attributes:
        index: Position in the request.
        name, archpath, bucket, provider, opaque: What was asked for; `archpath` and `opaque` are None where not given.
        size: Bytes of the payload; 0 for a missing entry.
        err_msg: None, or why the entry is missing.
        ok: Whether the entry is here. Touching the payload of one that is not raises `ErrObjNotFound`: a hole is never
            mistaken for an empty object.
    """

    def __init__(self):
        raise TypeError("items come from Batch.stream() and Batch.fetch()")

    @property
    def name(self) -> str:
        return self.entries.names[self.row]

    @property
    def archpath(self):
        return self.entries.archpath(self.row)

    @property
    def bucket(self):
        place = self.entries.place_of(self.row)
        return self.entries.bucket if place.bucket is None and place.uname is None else place.bucket

    @property
    def provider(self):
        place = self.entries.place_of(self.row)
        return self.entries.provider if place.bucket is None and place.uname is None else place.provider

    @property
    def opaque(self):
        return self.entries.opaque(self.row)

    @property
    def size(self) -> int:
        return self.length

    @property
    def ok(self) -> bool:
        return self.err_msg is None

    cdef int present(self) except -1:
        if self.err_msg is not None:
            raise ErrObjNotFound(
                0, f"{self.entries.describe(self.row)} is missing: {self.err_msg}",
                remedy="test item.ok before touching its payload, or fetch with missing='raise'")
        return 0

    @property
    def data(self) -> memoryview:
        """The payload: a read-only view, no copy.

        Raises:
            ErrObjNotFound: The entry is missing.
        """
        return memoryview(self)

    def tobytes(self) -> bytes:
        """A copy of the payload, which keeps nothing else alive."""
        self.present()
        return PyBytes_FromStringAndSize(<const char *> self.at, self.length)

    def numpy(self):
        """The payload as a read-only numpy array of uint8, shape (size,), no copy."""
        import numpy
        return numpy.frombuffer(self, dtype=numpy.uint8)

    def __bytes__(self):
        return self.tobytes()

    def __len__(self):
        self.present()
        return self.length

    def __bool__(self):
        return self.err_msg is None

    def __getbuffer__(self, Py_buffer *view, int flags):
        self.present()
        fill_view(view, self, self.at, self.length, True, flags)

    def __reduce__(self):
        payload = None if self.err_msg is not None else self.tobytes()
        return _item, (self.entries.row(self.row), self.index, payload, self.err_msg)

    def __repr__(self):
        state = f"{self.length} bytes" if self.err_msg is None else f"missing: {self.err_msg}"
        described = self.entries.describe(self.row).partition(" (")[2]
        return f"<Item {self.index} ({described}: {state}>"


cdef uint8_t[1] NOTHING     # what the view of an empty payload points at


cdef Item make_item(Entries entries, Py_ssize_t index, object owner, uint8_t *at, Py_ssize_t length, str err_msg):
    cdef Item item = Item.__new__(Item)
    item.entries = entries
    item.index = index
    item.row = index
    item.owner = owner
    item.at = at if length else NOTHING
    item.length = length
    item.err_msg = err_msg
    return item


def item_at(Entries entries, Py_ssize_t index, Span data, Py_ssize_t start, Py_ssize_t stop, str err_msg) -> Item:
    """An item over data[start:stop]."""
    if not 0 <= start <= stop <= data.size:
        raise ValueError("not a slice of the data")
    return make_item(entries, index, data, data.at + start, stop - start, err_msg)


def _item(row, index, payload, err_msg) -> Item:
    """An item of its own: its entry alone, its payload in `bytes` (what pickle carries)."""
    cdef Entries entries = Entries()
    cdef Item item
    cdef bytes owner = payload
    (<object> entries).append(*row)
    if owner is None:
        item = make_item(entries, 0, None, NULL, 0, err_msg)
    else:
        item = make_item(entries, 0, owner, <uint8_t *> <const char *> owner, len(owner), None)
    item.index = index
    return item


@cython.freelist(64)
cdef class MossOut:
    """What the server (or, streaming, the request) says of one delivered entry; the official SDK's record of that name.

    Fields that it does not know are ignored: a newer server may send more.

    What it can do: see `aisfast.models.Model`.

    Attributes:
        obj_name, bucket, provider: As asked for.
        archpath: Path in the archive; "" (streaming) or None (buffered) if none was asked for.
        opaque: Bytes given with the entry, or None.
        err_msg: Why the entry is missing, or None.
        size: Bytes of the payload.
    Source: AIStore api/apc/ml.go (MossOut).
    """

    _title = "MossOut"
    _specs = (
        spec_of("obj_name", "str", wire="objname"),
        spec_of("archpath", "str | None", None),
        spec_of("bucket", "str"),
        spec_of("provider", "str"),
        spec_of("opaque", "Echo", None),
        spec_of("err_msg", "str | None", None),
        spec_of("size", "int", 0),
    )

    def __init__(self, **fields):
        fill(self, (), fields)

    model_validate = classmethod(Model.model_validate.__func__)
    model_validate_json = classmethod(Model.model_validate_json.__func__)
    model_dump = Model.model_dump
    model_dump_json = Model.model_dump_json
    model_copy = Model.model_copy
    json = Model.json

    def dict(self, *_args, **_kwargs) -> dict:
        """The fields under their names on the wire, defaults left out."""
        return self.model_dump(by_alias=True, exclude_defaults=True)

    def __eq__(self, other):
        return Model.__eq__(self, other)

    __hash__ = None

    def __iter__(self):
        return Model.__iter__(self)

    def __reduce__(self):
        return Model.__reduce__(self)

    def __repr__(self):
        return Model.__repr__(self)

    def __str__(self):
        return Model.__str__(self)

    _shown = Model._shown


cdef MossOut make_moss_out(Entries entries, Py_ssize_t index, bint streaming, Py_ssize_t size, object err_msg):
    cdef MossOut out = MossOut.__new__(MossOut)
    cdef Place place = entries.place_of(index)
    out.obj_name = entries.names[index]
    out.archpath = entries.archpath(index)
    if streaming and out.archpath is None:
        out.archpath = ""
    if place.bucket is None and place.uname is None:
        out.bucket = entries.bucket or ""
        out.provider = entries.provider or ""
    else:
        out.bucket = place.bucket or ""
        out.provider = place.provider or ""
    out.opaque = entries.opaque(index)
    out.err_msg = err_msg
    out.size = size
    return out
