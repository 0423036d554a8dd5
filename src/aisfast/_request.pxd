from libc.stdint cimport int32_t, int64_t, uint8_t


cdef struct Row:
    int64_t start               # range, as asked; 0, 0 is the whole
    int64_t length
    int32_t place               # index into Entries.places


cdef class Place:
    cdef readonly str bucket    # as sent, or None: the batch's bucket
    cdef readonly str provider  # as sent, or None
    cdef readonly str uname     # fully qualified bucket, or None
    cdef bytes json             # its keys as JSON text, with a leading comma
    cdef bytes prefix           # what members' names begin with: "bucket/"; None: the batch's bucket


cdef class Entries:
    cdef readonly list names        # object name of each entry
    cdef list archpaths             # of each entry, or None while no entry has one
    cdef list opaques               # bytes of each entry, or None while no entry has any
    cdef Row *rows
    cdef Py_ssize_t count
    cdef Py_ssize_t room            # rows that fit
    cdef readonly list places
    cdef dict place_index
    cdef readonly Py_ssize_t unspeakable    # an entry with text that has no UTF-8 form (found by `body`), or -1
    cdef public str bucket          # the batch's own bucket, for entries that name none; or None
    cdef public str provider        # its provider
    cdef public bint frozen         # somebody else refers to it: copy before changing

    cdef int reserve(self, Py_ssize_t count) except -1
    cdef int32_t place(self, bucket, provider, uname) except -1
    cpdef append(self, name, bucket, provider, archpath=*, bytes opaque=*, int64_t start=*, int64_t length=*, uname=*)
    cdef object archpath(self, Py_ssize_t i)
    cdef object opaque(self, Py_ssize_t i)
    cdef Place place_of(self, Py_ssize_t i)
    cdef int write(self, out_) except -1
    cpdef str describe(self, Py_ssize_t i)


cpdef str name_fault(str name)
