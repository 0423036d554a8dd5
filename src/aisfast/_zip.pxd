from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef struct ZipMember:
    Py_ssize_t name             # where its name begins ...
    Py_ssize_t name_size
    Py_ssize_t data             # ... and its payload
    Py_ssize_t size
    uint32_t crc


cdef class ZipReader:
    cdef const uint8_t *data    # the whole archive, kept alive by who made the reader
    cdef Py_ssize_t size
    cdef ZipMember *members
    cdef readonly Py_ssize_t count

    cdef int read(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef int directory(self, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t count) except -1
    cdef int wide(self, Py_ssize_t at, Py_ssize_t n, int64_t *size, int64_t *stored, int64_t *local) except -1
    cdef int place(self, ZipMember *member, Py_ssize_t local, Py_ssize_t begin, Py_ssize_t i) except -1
    cdef int64_t number(self, Py_ssize_t at, int size) noexcept
    cdef object failure(self, str what, str expected, object found, Py_ssize_t at)


cdef int64_t crc32_of(object owner, uint8_t *p, Py_ssize_t n) except -1
