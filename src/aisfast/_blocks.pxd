from libc.stdint cimport uint8_t


cdef class Block:
    cdef uint8_t *data          # the memory, never moved while anybody but its filler refers to this Block
    cdef readonly Py_ssize_t capacity  # bytes at `data`

    cdef int grow(self, Py_ssize_t at_least) except -1


cdef class Span:
    cdef object owner           # what keeps the memory alive
    cdef uint8_t *at
    cdef Py_ssize_t size
    cdef bint readonly


cdef int fill_view(Py_buffer *view, object owner, uint8_t *at, Py_ssize_t size, bint readonly, int flags) except -1
cdef Block take_block(Py_ssize_t at_least)
cdef Span span(object owner, uint8_t *at, Py_ssize_t size, bint readonly)
