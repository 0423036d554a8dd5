"""What a call delivers, as programs of the official SDK know it.

A record of the official SDK is a pydantic model, which costs more to build than all the rest of an entry. An `Info` has
its fields in C and says that it is one; whatever else is asked of it, a real one answers, made when it is asked for.
"""

cimport cython
from base64 import b64decode

from aisfast._items cimport MossOut
from aisfast._request cimport Entries

from aisfast.errors import AISError

cdef object RECORD = None       # the class of the installed SDK that infos stand for
cdef object CONSTRUCT = None    # makes one of its fields, unchecked
cdef tuple ENTRY = ("obj_name", "bck", "provider", "archpath", "opaque", "start", "length", "uname")
cdef tuple FIELDS = ("obj_name", "archpath", "bucket", "provider", "opaque", "err_msg", "size")


def entries_of(models) -> Entries:
    """The entries of official models, or of what looks like them.

    Older versions write opaque URL-safe; the server reads standard base64 only.

    Raises:
        AttributeError, TypeError, ValueError, OverflowError: One of them is something else.
    """
    cdef Entries entries = Entries()
    cdef object opaque
    cdef dict values
    for model in models:
        values = getattr(model, "__dict__", None)   # of a pydantic model: one by one its fields cost twice as much
        if values is None or len(values) < 8 or "obj_name" not in values:
            values = {name: getattr(model, name) for name in ENTRY}
        opaque = values["opaque"]
        if opaque:
            opaque = b64decode(opaque.replace("-", "+").replace("_", "/"), validate=True)
        entries.append(
            values["obj_name"], values["bck"] or None, values["provider"] or None, values["archpath"] or None,
            opaque or None, values["start"] or 0, values["length"] or 0, values["uname"] or None)
    return entries


def stand_for(record) -> None:
    """Say which class infos stand for: `MossOut`, or `BatchResponseItem` of aistore 1.16."""
    global RECORD, CONSTRUCT
    RECORD = record
    CONSTRUCT = record.model_construct if hasattr(record, "model_construct") else record.construct


@cython.freelist(64)
cdef class Info:
    """The record of one entry. `isinstance`, attributes, methods, `==`, `repr`, copies and pickles are the official
    one's; only `type(info)` tells the difference."""

    cdef public object obj_name
    cdef public object archpath
    cdef public object bucket
    cdef public object provider
    cdef public object opaque
    cdef public object err_msg
    cdef public object size

    @property
    def __class__(self):
        return RECORD

    @property
    def __dict__(self):
        return self.fields()

    cdef dict fields(self):
        return {name: getattr(self, name) for name in FIELDS}

    cdef object real(self):
        return CONSTRUCT(**self.fields())

    def __getattr__(self, name):
        cdef object value
        if name[:2] == "__":    # of the class, without a record to be made: `isinstance` looks for some
            value = getattr(RECORD, name, None)
            if value is not None and not hasattr(type(value), "__get__"):
                return value
        return getattr(self.real(), name)

    def __eq__(self, other):
        return self.real() == ((<Info> other).real() if type(other) is type(self) else other)

    __hash__ = None

    def __repr__(self):
        return repr(self.real())

    def __str__(self):
        return str(self.real())

    def __iter__(self):
        return iter(self.real())

    def __reduce_ex__(self, protocol):
        return self.real().__reduce_ex__(protocol)

    def __copy__(self):
        return self.real()

    def __deepcopy__(self, memo):
        return self.real()


cdef class LegacyInfo(Info):
    """The record of aistore 1.16, which has one field more."""

    cdef public object is_missing

    cdef dict fields(self):
        cdef dict fields = Info.fields(self)
        fields["is_missing"] = self.is_missing
        return fields


cdef class Pairs:
    """Iterator of (info, payload) over the results of a call.

    Args:
        results: The call's (MossOut, bytes) pairs.
        translate: Makes an error one of the official SDK's too.
        legacy: Infos are those of aistore 1.16.
        named, sized: Of those: members are named with their bucket; the size is told.
    """

    cdef object results
    cdef object translate
    cdef tuple first            # decoded by `prime`, not yet handed out
    cdef bint legacy
    cdef bint named
    cdef bint sized

    def __init__(self, results, translate, bint legacy=False, bint named=True, bint sized=True):
        self.results = results
        self.translate = translate
        self.legacy = legacy
        self.named = named
        self.sized = sized

    def prime(self) -> None:
        """Decode the first entry: what can fail before it fails here."""
        self.first = next(self, None)

    def __iter__(self):
        return self

    def __next__(self):
        cdef tuple pair
        cdef MossOut out
        cdef Info info
        if self.first is not None:
            pair = self.first
            self.first = None
            return pair
        try:
            pair = next(self.results)
        except AISError as error:
            self.translate(error)
            raise
        out = pair[0]
        info = self.legacy_info(out) if self.legacy else Info.__new__(Info)
        info.obj_name = out.obj_name
        info.archpath = out.archpath
        info.bucket = out.bucket
        info.provider = out.provider
        info.opaque = out.opaque
        info.err_msg = out.err_msg
        info.size = out.size if self.sized else 0
        return info, pair[1]

    cdef Info legacy_info(self, MossOut out):
        cdef LegacyInfo info = LegacyInfo.__new__(LegacyInfo)
        info.is_missing = self.named and out.err_msg is not None and not out.archpath
        if out.archpath is None:
            out.archpath = ""
        return info

    # The rest of what a generator has.

    def close(self) -> None:
        """Give up what has not been received."""
        self.first = None
        self.results.close()

    def send(self, value):
        """The next pair, as a generator gives it; there is nothing to be sent."""
        return next(self)

    def throw(self, kind, value=None, trace=None):
        """Give up, and raise the error."""
        self.close()
        error = kind if isinstance(kind, BaseException) else value if isinstance(value, BaseException) else kind()
        raise error.with_traceback(trace) if trace is not None else error
