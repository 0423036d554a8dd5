from libc.stdint cimport uint8_t

from aisfast._request cimport Entries


cdef class Item:
    cdef Entries entries        # what was asked
    cdef readonly Py_ssize_t index  # position in the request
    cdef Py_ssize_t row         # position in `entries`
    cdef object owner           # what keeps the payload's memory alive
    cdef uint8_t *at
    cdef Py_ssize_t length
    cdef readonly str err_msg   # why the entry is missing, or None

    cdef int present(self) except -1


cdef class MossOut:
    cdef public object obj_name
    cdef public object archpath
    cdef public object bucket
    cdef public object provider
    cdef public object opaque
    cdef public object err_msg
    cdef public Py_ssize_t size
    cdef public object _given   # names of the fields that were given; None: all


cdef Item make_item(Entries entries, Py_ssize_t index, object owner, uint8_t *at, Py_ssize_t length, str err_msg)
cdef MossOut make_moss_out(Entries entries, Py_ssize_t index, bint streaming, Py_ssize_t size, object err_msg)
