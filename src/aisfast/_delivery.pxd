from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t

from aisfast._blocks cimport Block
from aisfast._decode cimport Framing, Multipart, TarReader
from aisfast._request cimport Entries
from aisfast._zip cimport ZipReader


cdef enum:
    LATEST = 16


cdef struct Arrival:
    Py_ssize_t index
    Py_ssize_t size


cdef class Trail:
    cdef Framing framing
    cdef TarReader tar
    cdef bytes closing          # what must follow the archive, or b""
    cdef Py_ssize_t matched     # bytes of it that have come
    cdef int64_t seen           # decoded bytes so far
    cdef Py_ssize_t extra       # members that may still come
    cdef bint within            # one is coming ...
    cdef Py_ssize_t inside      # ... of which so many bytes
    cdef readonly bint broken   # something came that should not: the connection is of no more use
    cdef Block scratch

    cdef void look(self, const uint8_t *p, Py_ssize_t n)
    cdef Py_ssize_t skip_members(self, const uint8_t *p, Py_ssize_t n) except -1


cdef class Delivery:
    # what was asked
    cdef readonly Entries entries
    cdef readonly Py_ssize_t count      # entries
    cdef readonly int form              # PAIRS, ITEMS or COLUMNS
    cdef bint asks_streaming
    cdef bint only_obj_name
    cdef readonly bint missing_raises
    cdef bytes bucket_prefix            # "bucket/" of the batch's own bucket, b"" if it has none
    cdef int64_t max_entry
    cdef str mime               # output format
    cdef bint packs             # it is another than ".tar"
    cdef bint in_place          # COLUMNS: `buffer` is the slab, where bytes lie behind the payloads

    # where it stands
    cdef readonly Py_ssize_t index      # the next entry to be handed out; all before it are verified
    cdef readonly int want              # what is needed to go on: a Want
    cdef public bint hold_misses

    # the answer, to a request for the entries from `first` to `stop`
    cdef Py_ssize_t first
    cdef readonly Py_ssize_t stop
    cdef Py_ssize_t extra               # entries asked for behind them, for nobody
    cdef bint streaming
    cdef int state
    cdef readonly str url               # where it comes from
    cdef readonly int over              # how it ended: an Over
    cdef readonly object cause          # the error that tells more of it, or None
    cdef bint was_inside                # it ended inside a payload
    cdef readonly bint drains           # it ended as a good one does: what follows is a `leftover`
    cdef readonly bint wrong_range      # it brought something else than the range that was asked for
    cdef int ended                      # what is known of its end: an Ended
    cdef object error                   # what broke its connection
    cdef Framing framing
    cdef Multipart multipart            # buffered mode only
    cdef TarReader tar
    cdef list out                       # buffered mode: of each entry (objname, size, opaque, err_msg), by the server
    cdef Py_ssize_t held                # last bytes that may be the closing delimiter
    cdef double read_at                 # when the latest bytes came
    cdef int64_t received               # bytes of body, framing taken off
    cdef int64_t doubtful               # members that begin before this offset may come from the server's recovery
    cdef bint slow_head                 # buffered mode: the answer took its time

    # bytes received and not yet handed out: buffer.data[pos:end]
    cdef Block buffer
    cdef Py_ssize_t pos
    cdef Py_ssize_t end

    # the archive as received, of another format than ".tar": packed.data[packed_pos:packed_end]
    cdef Block packed
    cdef Py_ssize_t packed_pos
    cdef Py_ssize_t packed_end
    cdef object inflater
    cdef ZipReader zip
    cdef Py_ssize_t behind              # bytes inflated behind the last entry

    # memory lent for the next read
    cdef uint8_t *lent
    cdef Py_ssize_t lent_size
    cdef bint lent_direct               # it is the payload's own

    # the payload at hand
    cdef Py_ssize_t size
    cdef Py_ssize_t payload_at          # where it lies in `buffer`, if it was not gathered
    cdef Py_ssize_t cut_at              # bytes of it that do not belong to the range
    cdef uint8_t *dest                  # where it is gathered; NULL: it stays in `buffer`, or is complete
    cdef Py_ssize_t filled
    cdef Py_ssize_t room                # bytes at `dest`
    cdef PyObject *whole_bytes          # PAIRS: the bytes object being filled; its only reference
    cdef Block own_block                # ITEMS: a block of its own
    cdef readonly str err_msg           # why the entry at hand is missing, or None
    cdef bint settled                   # what it was held for is decided
    cdef object given                   # its payload, got in another way: a memoryview

    # COLUMNS: payloads back to back
    cdef Block slab
    cdef Py_buffer into                 # or the caller's buffer
    cdef bint has_into
    cdef readonly int64_t used          # bytes of it
    cdef Py_ssize_t expected            # bytes it, or a ZIP's payloads, will likely take
    cdef Block offsets                  # int64, count + 1
    cdef Block present                  # uint8, count
    cdef readonly dict errors           # index -> why it is missing

    # counted
    cdef readonly int64_t misses
    cdef readonly Py_ssize_t first_miss  # its index, if there are misses
    cdef readonly int64_t payload_bytes
    cdef readonly int64_t wire_bytes
    cdef readonly int64_t bytes_copied
    cdef readonly int64_t reads
    cdef Arrival[LATEST] latest         # entries that have come ...
    cdef Py_ssize_t came                # ... the latest of so many

    cdef object take(self)
    cdef int copy_given(self, uint8_t *to) except -1
    cdef int hold_back(self) except -1
    cdef Py_ssize_t limit(self) noexcept
    cdef Py_ssize_t held_here(self) noexcept
    cdef int complete(self) except -1
    cdef int go_on(self, bint only_metadata) except -1
    cdef int pass_over(self) except -1
    cdef int advance(self) except -1
    cdef int advance_zip(self) except -1
    cdef int inflate(self) except -1
    cdef bytes pull(self, Py_ssize_t most)
    cdef int stream_ends(self) except -1
    cdef void count_miss(self) noexcept
    cdef bint in_doubt(self) noexcept
    cdef int starved(self) except -1
    cdef int too_short(self, str layer, str what, Py_ssize_t came) except -1
    cdef int end_answer(self, int over, object cause) except -1
    cdef int drop_answer(self) except -1
    cdef void free_payload(self) noexcept
    cdef int begin_payload(self) except -1
    cdef uint8_t *slab_at(self) noexcept
    cdef int reserve(self, Py_ssize_t room) except -1
    cdef int make_room(self) except -1
    cdef int make_room_in_slab(self) except -1
    cdef Py_ssize_t most_in_slab(self) noexcept
    cdef int make_gap(self) except -1
    cdef int grow_slab(self, Py_ssize_t at_least) except -1
    cdef int make_room_packed(self) except -1
    cdef int new_arena(self) except -1
    cdef int verify(self, const uint8_t *name, Py_ssize_t n, int64_t size) except -1
    cdef bint is_named(self, const uint8_t *p, Py_ssize_t n, bint missing) except -1
    cdef int read_metadata(self) except -1
    cdef str check_out(self, int64_t came)
    cdef object not_found(self, list indices)
    cdef object damage(self, str layer, str what, object expected, object found)
    cdef object in_context(self, object error)


cdef class Results:
    cdef Delivery delivery
    cdef object call            # the shell that moves bytes; None at the end
    cdef bint busy              # a thread is inside
