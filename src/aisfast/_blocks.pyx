"""Pooled memory: who owns a byte, and how long a view of it lives.

A `Block` owns memory that payload is received into. Whoever points into it (an item, a span, a view of one) holds a
reference to the Block; with the last reference the memory returns to the pool and may be filled anew. So memory that
somebody can see is never rewritten, and a view stays valid for as long as it is held: nothing else need be kept alive.

The pool exists because fresh memory is dear: a page fault per 4 KiB costs more than receiving the bytes. It keeps a
bounded number of idle bytes, newest first (they are the ones in the caches), and not for ever: what a program no longer
needs goes back to the system while it goes on with other batches.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_IsContiguous
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc

cdef enum:
    MAX_IDLE_REGIONS = 1024            # at the size of an arena: more than MAX_IDLE
    STALE = 4096                       # returns to the pool after which a region that was idle meanwhile is given up
    GRAIN = 64 * 1024                  # capacities are multiples of it, so that near sizes share regions

cdef Py_ssize_t MAX_IDLE = 512 << 20   # bytes of idle memory kept for reuse

cdef struct Region:
    uint8_t *data
    Py_ssize_t capacity
    int64_t since               # which return to the pool it was

cdef Region[MAX_IDLE_REGIONS] idle     # a stack, the most recently returned on top
cdef int idle_count = 0
cdef Py_ssize_t idle_bytes = 0
cdef int64_t returns = 0


cdef void give_back(uint8_t *data, Py_ssize_t capacity) noexcept:
    """Put a region on the idle stack; the oldest ones go to the system while there are too many, or they are stale."""
    global idle_count, idle_bytes, returns
    cdef int i
    if capacity > MAX_IDLE:
        free(data)
        return
    returns += 1
    while idle_count == MAX_IDLE_REGIONS or idle_bytes + capacity > MAX_IDLE \
            or (idle_count and returns - idle[0].since > STALE):
        free(idle[0].data)
        idle_bytes -= idle[0].capacity
        idle_count -= 1
        for i in range(idle_count):
            idle[i] = idle[i + 1]
    idle[idle_count].data = data
    idle[idle_count].capacity = capacity
    idle[idle_count].since = returns
    idle_count += 1
    idle_bytes += capacity


cdef uint8_t *take_idle(Py_ssize_t at_least, Py_ssize_t *capacity) noexcept:
    """The newest idle region that fits without wasting more than half of itself; NULL if there is none."""
    global idle_count, idle_bytes
    cdef uint8_t *data
    cdef int i = idle_count - 1
    while i >= 0:
        if at_least <= idle[i].capacity and idle[i].capacity // 2 <= at_least:
            data = idle[i].data
            capacity[0] = idle[i].capacity
            idle_bytes -= idle[i].capacity
            idle_count -= 1
            while i < idle_count:
                idle[i] = idle[i + 1]
                i += 1
            return data
        i -= 1
    return NULL


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Block:
    """Memory from the pool. Made by `take_block` only; its contents are reached through spans and items."""

    def __cinit__(self):
        self.data = NULL
        self.capacity = 0

    def __dealloc__(self):
        if self.data != NULL:
            give_back(self.data, self.capacity)

    cdef int grow(self, Py_ssize_t at_least) except -1:
        """Make room for `at_least` bytes. Moves the memory: for the one who fills it, before anything is exported."""
        cdef uint8_t *data
        if at_least <= self.capacity:
            return 0
        at_least = (at_least + GRAIN - 1) // GRAIN * GRAIN
        data = <uint8_t *> realloc(self.data, <size_t> at_least)
        if data == NULL:
            raise MemoryError(f"no memory for a block of {at_least} bytes")
        self.data = data
        self.capacity = at_least
        return 0


cdef char *UNSIGNED_BYTES = b"B"


cdef int fill_view(Py_buffer *view, object owner, uint8_t *at, Py_ssize_t size, bint readonly, int flags) except -1:
    """Answer a buffer request: `size` bytes at `at`, for as long as `owner` is referred to.

    (PyBuffer_FillInfo would overwrite the reference that Cython has put into `view.obj`, and so leak it.)
    """
    if readonly and flags & PyBUF_WRITABLE == PyBUF_WRITABLE:
        raise BufferError("this memory is read-only")
    view.obj = owner
    view.buf = at
    view.len = size
    view.readonly = readonly
    view.itemsize = 1
    view.format = UNSIGNED_BYTES if flags & PyBUF_FORMAT == PyBUF_FORMAT else NULL
    view.ndim = 1
    view.shape = &view.len if flags & PyBUF_ND == PyBUF_ND else NULL
    view.strides = &view.itemsize if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
    view.suboffsets = NULL
    view.internal = NULL
    return 0


cdef Block take_block(Py_ssize_t at_least):
    """A Block with room for `at_least` bytes, which the caller alone refers to."""
    cdef Block block = Block.__new__(Block)
    if at_least < GRAIN:
        at_least = GRAIN
    at_least = (at_least + GRAIN - 1) // GRAIN * GRAIN
    block.data = take_idle(at_least, &block.capacity)
    if block.data == NULL:
        block.data = <uint8_t *> malloc(<size_t> at_least)
        if block.data == NULL:
            raise MemoryError(f"no memory for a block of {at_least} bytes")
        block.capacity = at_least
    return block


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Span:
    """A stretch of somebody's memory as a buffer. Keeps the owner alive for as long as any view of it lives."""

    def __init__(self):
        raise TypeError("spans are made by `span` and `span_of`")

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer *view, int flags):
        fill_view(view, self, self.at, self.size, self.readonly, flags)


cdef Span span(object owner, uint8_t *at, Py_ssize_t size, bint readonly):
    """`size` bytes at `at`, kept alive by `owner`, as something `memoryview` takes."""
    cdef Span self = Span.__new__(Span)
    self.owner = owner
    self.at = at
    self.size = size
    self.readonly = readonly
    return self


def span_of(data) -> Span:
    """All of a contiguous buffer as a read-only Span."""
    cdef object view = memoryview(data)
    cdef Py_buffer *buffer = PyMemoryView_GET_BUFFER(view)
    if not PyBuffer_IsContiguous(buffer, c"C"):
        raise BufferError("this memory is not contiguous")
    return span(view, <uint8_t *> buffer.buf, buffer.len, True)


def trim() -> int:
    """Give the pool's idle memory back to the system.

    Returns:
        Bytes that were idle.
    """
    global idle_count, idle_bytes
    cdef Py_ssize_t freed = idle_bytes
    while idle_count:
        idle_count -= 1
        free(idle[idle_count].data)
    idle_bytes = 0
    return freed


def idle_memory() -> int:
    """Bytes the pool keeps for reuse."""
    return idle_bytes
