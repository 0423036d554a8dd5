"""The Arrow C data interface of `Columns`: one array of binaries over the memory that is there, without a dependency.

A consumer gets two capsules and takes the structs out of them (it marks them as released); what nobody takes is
released with its capsule. Until the array is released it refers to the memory it shows, so that is not filled anew.
Source: Arrow C data interface, Arrow PyCapsule interface.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_CheckExact, PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_IsValid, \
    PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t
from libc.string cimport memset, strcmp

from aisfast._blocks cimport Span

cdef extern from "Python.h":
    int Py_IsInitialized() nogil

cdef extern from *:
    """
    struct ArrowSchema {
        const char *format, *name, *metadata;
        int64_t flags, n_children;
        struct ArrowSchema **children, *dictionary;
        void (*release)(struct ArrowSchema *);
        void *private_data;
    };
    struct ArrowArray {
        int64_t length, null_count, offset, n_buffers, n_children;
        const void **buffers;
        struct ArrowArray **children, *dictionary;
        void (*release)(struct ArrowArray *);
        void *private_data;
    };
    """
    struct ArrowSchema:
        const char *format
        const char *name
        int64_t flags
        void (*release)(ArrowSchema *) noexcept nogil

    struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t n_buffers
        const void **buffers
        void (*release)(ArrowArray *) noexcept nogil
        void *private_data

cdef enum:
    NULLABLE = 2        # ARROW_FLAG_NULLABLE

cdef char *BINARY = b"z"            # offsets of 32 bits
cdef char *LARGE_BINARY = b"Z"      # of 64
cdef char *NO_NAME = b""
cdef char *SCHEMA = b"arrow_schema"
cdef char *ARRAY = b"arrow_array"


@cython.final
cdef class Shown:
    """What a consumer's array refers to."""
    cdef Span data, offsets
    cdef bytes valid                # bitmap, or None: all are
    cdef const void *buffers[3]


cdef void release_schema(ArrowSchema *schema) noexcept nogil:
    schema.release = NULL           # all it points at is constant


cdef void release_array(ArrowArray *array) noexcept nogil:
    """By any thread, with or without the GIL, and perhaps when Python has ended: then there is nothing to give back."""
    if array.release != NULL and Py_IsInitialized():
        let_go(array.private_data)
    array.release = NULL


cdef void let_go(void *shown) noexcept with gil:
    Py_DECREF(<object> shown)


cdef void free_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *> PyCapsule_GetPointer(capsule, SCHEMA)
    if schema.release != NULL:
        schema.release(schema)
    PyMem_Free(schema)


cdef void free_array(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *> PyCapsule_GetPointer(capsule, ARRAY)
    if array.release != NULL:
        array.release(array)
    PyMem_Free(array)


def schema_capsule(bint large):
    """The schema of a nullable array of large_binary or binary, in a capsule."""
    cdef ArrowSchema *schema = <ArrowSchema *> PyMem_Malloc(sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError()
    memset(schema, 0, sizeof(ArrowSchema))
    schema.format = LARGE_BINARY if large else BINARY
    schema.name = NO_NAME
    schema.flags = NULLABLE
    schema.release = release_schema
    try:
        return PyCapsule_New(schema, SCHEMA, free_schema)
    except BaseException:
        PyMem_Free(schema)
        raise


def array_capsule(bint large, Span data not None, Span offsets not None, bytes valid, int64_t missing):
    """An array over memory that stays as it is, in a capsule.

    Args:
        data: Payloads back to back.
        offsets: int64, or int32 if it is not large, of each payload's begin, and of the last one's end.
        valid: Bitmap of the entries that are here, least significant bit first; None: all are.
        missing: Entries that are not.
    """
    cdef Shown shown = Shown()
    cdef ArrowArray *array
    shown.data = data
    shown.offsets = offsets
    shown.valid = valid
    if valid is not None:
        shown.buffers[0] = PyBytes_AS_STRING(valid)
    shown.buffers[1] = offsets.at
    shown.buffers[2] = data.at
    array = <ArrowArray *> PyMem_Malloc(sizeof(ArrowArray))
    if array == NULL:
        raise MemoryError()
    memset(array, 0, sizeof(ArrowArray))
    array.length = offsets.size // (8 if large else 4) - 1
    array.null_count = missing
    array.n_buffers = 3
    array.buffers = shown.buffers
    array.release = release_array
    array.private_data = <PyObject *> shown
    try:
        capsule = PyCapsule_New(array, ARRAY, free_array)
    except BaseException:
        PyMem_Free(array)
        raise
    Py_INCREF(shown)                # the array's own reference
    return capsule


def asks_small(requested) -> bool:
    """Does a consumer ask for offsets of 32 bits? Anything else that it may ask for is its own to cast to, as the
    protocol allows.

    Args:
        requested: A capsule of a schema, or None.
    Raises:
        TypeError: It is no capsule.
        ValueError: It is a capsule of something else, or was used up.
    """
    cdef ArrowSchema *schema
    cdef const char *name
    if requested is None:
        return False
    if not PyCapsule_CheckExact(requested):
        raise TypeError(f"requested_schema must be an \"arrow_schema\" capsule or None, not {type(requested).__name__}")
    if not PyCapsule_IsValid(requested, SCHEMA):
        name = PyCapsule_GetName(requested)
        found = "without a name" if name == NULL else f"named {(<bytes> name).decode('utf-8', 'replace')!r}"
        raise ValueError(f"requested_schema must be a capsule named 'arrow_schema', not one {found}")
    schema = <ArrowSchema *> PyCapsule_GetPointer(requested, SCHEMA)
    if schema.release == NULL:
        raise ValueError("requested_schema was released")
    return strcmp(schema.format, BINARY) == 0
