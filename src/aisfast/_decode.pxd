from libc.stdint cimport int64_t, uint8_t

cdef enum:
    TAR_BLOCK = 512             # the unit of a TAR: a header block, and what payloads are padded to

cdef enum TarEvent:
    TAR_NEED = 0                # everything given was used, more is needed
    TAR_MEMBER = 1              # a regular member's headers are complete: `name`, `size`; its payload follows
    TAR_END = 2                 # two zero blocks


cdef class Framing:
    cdef int state
    cdef int fault              # what is wrong at `offset`, or 0
    cdef bint is_chunked
    cdef bint at_close          # the body ends with the connection
    cdef readonly bint done     # the body's end was seen
    cdef int64_t left           # bytes left of this chunk, or of the body
    cdef int digits             # hex digits of this chunk size so far
    cdef int64_t line           # bytes of this chunk-size line, or of the trailer section, so far
    cdef int64_t trailer_line   # bytes of this trailer line so far
    cdef readonly int64_t offset    # raw bytes taken so far
    cdef readonly int64_t excess    # raw bytes that came behind the end

    cdef Py_ssize_t strip(self, uint8_t *p, Py_ssize_t n) noexcept nogil
    cdef object failure(self)


cdef class Multipart:
    cdef readonly bytes boundary
    cdef bytes opening          # delimiter line that begins part 1
    cdef bytes delimiter        # between the parts
    cdef readonly bytes closing  # after part 2
    cdef int phase
    cdef Py_ssize_t matched     # bytes of the delimiter at hand that came
    cdef bytearray held         # what came of the headers or metadata at hand
    cdef readonly bytes metadata    # part 1, once it is whole
    cdef Py_ssize_t max_metadata
    cdef readonly int64_t offset
    cdef bint at_archive        # part 2 has begun
    cdef bytearray tail         # Python face only: archive bytes held back

    cdef Py_ssize_t take(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef Py_ssize_t gather(self, const uint8_t *p, Py_ssize_t n, bytes end, Py_ssize_t limit) except -2
    cdef bint closes(self, const uint8_t *end) noexcept
    cdef object failure(self, str expected, object found)


cdef class TarReader:
    cdef int state
    cdef uint8_t gathered[512]  # a header block that came in pieces
    cdef Py_ssize_t have        # bytes of it
    cdef int64_t skip           # padding or skipped payload to pass over
    cdef int zero_blocks
    cdef int gathering          # what `text` is: type flag of the header it belongs to
    cdef bytearray text         # records of a PAX header, or a GNU long name, so far
    cdef int64_t text_left
    cdef bytes pax_name         # path from PAX or GNU long name, for the next member only
    cdef int64_t pax_size       # size from PAX, or -1
    cdef bytes global_name      # the same from a global PAX header
    cdef int64_t global_size
    cdef int64_t max_entry
    cdef readonly bint done
    cdef readonly int64_t offset
    # the member at hand
    cdef uint8_t name_buffer[257]
    cdef const uint8_t *name    # its name; valid until the next call
    cdef Py_ssize_t name_size
    cdef int64_t size           # bytes of its payload
    cdef Py_ssize_t used        # bytes that the last call used

    cdef int64_t payload_left   # Python face only

    cdef int next(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef void payload_done(self) noexcept
    cdef int _header(self, const uint8_t *p) except -1
    cdef int _text_done(self) except -1
    cdef int _records(self, bytes text, bint for_all) except -1
    cdef str _text_name(self)
    cdef object failure(self, str what, str expected, str found)


cdef class Head:
    cdef readonly int status
    cdef readonly str reason
    cdef readonly dict headers
    cdef readonly Py_ssize_t size


cpdef Head parse_head(object data)
