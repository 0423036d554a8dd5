# cython: nonecheck=True
"""What was asked for against what came: verifies every entry, places its payload, and knows when a batch is whole.

No socket and no clock: a shell (`transport.py`) moves the bytes and reports what happened. Everything is decided here,
so it can be tested without a network.

    sent, on_head                       the request went out, a 200 has come
    get_buffer, then commit             a read; or on_eof, on_error
    take, fill                          what is complete; nothing if more reads are needed; an exception if none help
    leftover                            the batch is whole: what follows it is nobody's wait

An entry is verified when a member stands at its position, under one of the names it may have, with a right header
checksum, the length that its range or the metadata says, and its whole payload is here. What follows the last entry's
last byte decides only whether the connection may be used again.

Where a payload goes depends on the form it is handed out in:

    PAIRS       a `bytes` object of its own; from 64 KiB on, reads go straight into it
    ITEMS       stays in the block it was received into; one that does not fit there moves to the next block, or to
                a block of its own
    COLUMNS     one slab, payloads back to back; from 64 KiB on, reads go straight into it
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp, memcpy, memmove

from aisfast._blocks cimport Block, span, take_block
from aisfast._decode cimport TAR_END, TAR_MEMBER, Framing, Head, Multipart, TarReader
from aisfast._items cimport make_item, make_moss_out
from aisfast._request cimport Entries, Place

from base64 import b64decode
from json import loads

from aisfast._blocks import span_of
from aisfast._decode import boundary_of
from aisfast.errors import AISConnectionError, ErrObjNotFound, IncompleteBatchError, LimitError, WireError
from aisfast.settings import MAX_METADATA, MAX_METADATA_PER_ENTRY

cdef extern from "Python.h":
    PyObject *_new_bytes "PyBytes_FromStringAndSize"(const char *, Py_ssize_t) except NULL
    char *_bytes_at "PyBytes_AS_STRING"(PyObject *) noexcept
    int _resize_bytes "_PyBytes_Resize"(PyObject **, Py_ssize_t) except -1
    Py_ssize_t Py_REFCNT(PyObject *) noexcept
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    # bytes
    READ_SIZE = 0x40000         # most a read into the buffer may bring
    DIRECT_READ = 0x100000      # the same, straight into a payload
    STAGING = 0x40000           # the buffer of PAIRS and COLUMNS: payloads are copied out while they are in the caches
    DIRECT = 0x10000            # a payload with so much missing is read straight into its place
    ARENA = 0x80000             # a block of ITEMS
    OWN_BLOCK = 0x20000         # an item larger than this that does not fit in its arena gets a block of its own
    LEAST_ROOM = 0x4000         # an arena with less room is left for the next
    GROWTH = 0x400000           # memory taken ahead of the bytes received, at most
    MOST_EXPECTED = 0x40000000  # a slab begins with no more, whatever was seen before
    TRAIL_LIMIT = 0x10000       # bytes behind the last entry that are still waited for
    TELLING = 8                 # so many bytes of a closing delimiter cannot be there by chance

cdef enum State:
    NEW                         # nothing was sent
    HEAD                        # sent; no answer yet
    PROLOGUE                    # in what precedes the archive
    HEADER                      # before or in a member's headers
    PAYLOAD
    WHOLE

cdef enum Ended:
    OPEN                        # more bytes may come
    CLEAN                       # the body is over, as its framing says
    LOST                        # the connection ended or failed before that
    DAMAGED                     # the framing is wrong

cpdef enum Form:
    PAIRS
    ITEMS
    COLUMNS

# what to do about damage, by the layer that objects
cdef dict REMEDIES = {"http": "is this endpoint an AIStore gateway, and nothing on the way that changes answers?"}
cdef str REMEDY = "ask again; if it stays so, the server or something on the way damages its answers"

# what the official SDK says of a missing entry of a streaming answer
cdef str MISSING = "Batch entry failed on the server"


def record_of(fields):
    """Of the server's record of an entry, what is held against the entry; the rest need not be kept in memory.
    (Every JSON object passes through here: a record is one that names an object.)"""
    if "objname" not in fields:
        return fields
    return fields["objname"], fields.get("size"), fields.get("opaque"), fields.get("err_msg")


@cython.final
cdef class Trail:
    """What follows the last entry: padding, trailer, closing delimiter, terminal chunk. Nobody waits for it.

    `done` once all of it came and was right: then the connection may be used again. `broken`: it never may.
    """

    @property
    def done(self) -> bool:
        return (self.framing.done and not self.framing.excess and not self.broken and self.tar.done
                and self.matched == PyBytes_GET_SIZE(self.closing))

    cdef void look(self, const uint8_t *p, Py_ssize_t n):
        """Go on with decoded bytes."""
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.closing)
        self.seen += n
        if not self.tar.done and not self.broken:
            try:
                self.broken = self.tar.next(p, n) == TAR_MEMBER     # more members than entries
            except WireError:
                self.broken = True
            i = self.tar.used
        while i < n and not self.broken:
            if self.matched == size or p[i] != <uint8_t> PyBytes_AS_STRING(self.closing)[self.matched]:
                self.broken = True
            self.matched += 1
            i += 1
        if self.framing.fault or self.framing.excess or self.seen > TRAIL_LIMIT \
                or (self.framing.done and (not self.tar.done or self.matched != size)):
            self.broken = True

    def get_buffer(self) -> memoryview:
        """Memory for the next read."""
        if self.scratch is None:
            self.scratch = take_block(TRAIL_LIMIT)
        return memoryview(span(self.scratch, self.scratch.data, self.scratch.capacity, False))

    def commit(self, Py_ssize_t n) -> None:
        """n bytes were read into the memory."""
        if not 0 <= n <= self.scratch.capacity:
            raise ValueError("more bytes than were asked for")
        self.look(self.scratch.data, self.framing.strip(self.scratch.data, n))


@cython.final
cdef class Delivery:
    """One batch on its way. See the module's docstring.

    Args:
        entries: What is asked for, and the batch's own bucket; not changed any more.
        form: PAIRS, ITEMS or COLUMNS.
        streaming: Whether a streaming answer is asked for, else a buffered one.
        only_obj_name: Whether members are named without their bucket.
        missing_raises: Whether a missing entry is an error.
        max_entry: Largest payload accepted, in bytes.
        make_rest: Makes of the entries not received what `IncompleteBatchError.rest()` returns.
        into: COLUMNS: a writable buffer for the payloads, or None.
        expected: COLUMNS: bytes the payloads will likely take, from what was seen before; 0 if nothing was.
    Raises:
        BufferError, TypeError: `into` is not a writable, contiguous buffer.
    """

    def __cinit__(self, Entries entries not None, int form, *, bint streaming, bint only_obj_name,
                  bint missing_raises, int64_t max_entry, make_rest, into=None, int64_t expected=0):
        self.entries = entries
        self.count = entries.count
        self.form = form
        self.bucket_prefix = entries.bucket.encode() + b"/" if entries.bucket else b""
        self.streaming = streaming
        self.only_obj_name = only_obj_name
        self.missing_raises = missing_raises
        self.max_entry = max_entry
        self.make_rest = make_rest
        self.expected = <Py_ssize_t> min(expected, MOST_EXPECTED)
        self.url = ""
        if form == COLUMNS:
            self.errors = {}
            self.offsets = take_block((self.count + 1) * <Py_ssize_t> sizeof(int64_t))
            (<int64_t *> self.offsets.data)[0] = 0
            self.present = take_block(self.count)
            if into is not None:
                PyObject_GetBuffer(into, &self.into, PyBUF_WRITABLE)
                self.has_into = True

    def __dealloc__(self):
        Py_XDECREF(self.whole_bytes)
        if self.has_into:
            PyBuffer_Release(&self.into)

    # ------------------------------------------------------------------------------------------------ towards the shell

    def sent(self) -> None:
        """The request is on its way."""
        self.state = HEAD
        self.attempts += 1

    def on_head(self, Head head not None, Framing framing not None, str url) -> None:
        """A 200 has come. What follows its head is read through `framing`.

        Raises:
            WireError: It is not an answer to a GetBatch request.
        """
        kind = head.headers.get("content-type", "").lower()
        if self.buffer is None:
            self.make_room()
        self.url = url
        self.framing = framing
        self.tar = TarReader(self.max_entry)
        if self.streaming:
            self.state = HEADER
            expected = "application/x-tar"
            good = kind in ("", "application/x-tar", "application/octet-stream")
        else:
            self.state = PROLOGUE
            expected = "multipart/mixed"
            good = kind.startswith("multipart/") or (framing.done and not kind)     # a stopped job's empty 200
        if not good:
            raise self.damage("http", "the answer's content type", expected, kind or "none")
        coding = head.headers.get("content-encoding", "identity")
        if coding != "identity":
            raise self.damage("http", "the answer's content encoding", "none: none was offered", coding)
        if not self.streaming and kind:
            most = min(MAX_METADATA, 4096 + MAX_METADATA_PER_ENTRY * self.count)
            self.multipart = Multipart(boundary_of(head.headers["content-type"]), most)
        if framing.done:
            self.ended = CLEAN

    def get_buffer(self) -> memoryview:
        """Memory for the next read; to be released before `commit`."""
        cdef Py_ssize_t n
        cdef object owner
        if self.dest != NULL and self.pos == self.end and self.size - self.filled >= DIRECT:
            self.reserve(min(self.size, self.filled + GROWTH))
            self.lent = self.dest + self.filled
            n = min(self.size, self.room) - self.filled     # never more than is missing: framing only shrinks
            self.lent_size = min(n, DIRECT_READ)
            self.lent_direct = True
            if self.form == PAIRS:
                owner = <object> self.whole_bytes
            elif self.form == ITEMS:
                owner = self.own_block
            else:
                owner = self if self.has_into else self.slab
        else:
            self.make_room()
            self.lent = self.buffer.data + self.end
            self.lent_size = min(self.buffer.capacity - self.end, READ_SIZE)
            self.lent_direct = False
            owner = self.buffer
        return memoryview(span(owner, self.lent, self.lent_size, False))

    def commit(self, Py_ssize_t n, Py_ssize_t start=0) -> None:
        """n bytes were read into the memory; the answer's body begins at `start`."""
        cdef Py_ssize_t m
        if not 0 <= start <= n <= self.lent_size or (start and self.lent_direct):
            raise ValueError("more bytes than were asked for")
        self.reads += 1
        self.wire_bytes += n - start
        self.lent_size = 0
        if start:                       # a response head stood before the body, in an empty buffer
            self.pos = self.end = self.lent + start - self.buffer.data
        m = self.framing.strip(self.lent + start, n - start)
        if self.lent_direct:
            self.filled += m
        else:
            self.end += m
        if self.framing.fault:
            self.ended = DAMAGED
        elif self.framing.done:
            self.ended = CLEAN
        if self.ended != OPEN:
            self.hold_back()

    def on_eof(self) -> None:
        """The connection has ended."""
        if self.ended == OPEN:
            self.ended = CLEAN if self.framing.at_close else LOST
            self.error = AISConnectionError(
                0, "the connection ended before the answer did", self.url,
                remedy="the server or the network broke off: ask again")
            self.hold_back()

    def on_error(self, error) -> None:
        """A read failed: no more bytes come."""
        if self.ended == OPEN:
            self.ended = LOST
            self.error = error
            self.hold_back()

    cdef int hold_back(self) except -1:
        """Hold back the last bytes, which may be the closing delimiter. Once no more come: if they do not end in it,
        what looks like the beginning of one; the bytes before that are the archive's."""
        cdef Py_ssize_t n
        if self.multipart is None or not self.multipart.at_archive:
            return 0
        self.held = PyBytes_GET_SIZE(self.multipart.closing)
        if self.ended == OPEN or (self.ended == CLEAN and self.end - self.pos >= self.held
                                  and self.multipart.closes(self.buffer.data + self.end)):
            return 0
        tail = bytes(self.buffer.data[self.pos:self.end]) if self.end > self.pos else b""
        if self.dest != NULL and len(tail) < self.held:
            n = min(self.held - len(tail), self.filled)
            tail = bytes(self.dest[self.filled - n:self.filled]) + tail
        for n in range(min(self.held, len(tail)), TELLING - 1, -1):
            if self.multipart.closing.startswith(tail[len(tail) - n:]):
                self.held = n
                return 0
        self.held = 0
        return 0

    def leftover(self) -> Trail:
        """What of the answer has not been read, once the batch is whole."""
        cdef Trail trail = Trail.__new__(Trail)
        trail.framing = self.framing
        trail.tar = self.tar
        trail.closing = self.multipart.closing if self.multipart is not None else b""
        trail.look(self.buffer.data + self.pos, self.end - self.pos)
        self.framing = None
        return trail

    def columns(self) -> tuple:
        """COLUMNS: (payloads, offsets, present), buffers over `used` bytes, `index + 1` int64 and `index` uint8."""
        cdef object data
        if self.has_into:
            data = span(self, <uint8_t *> self.into.buf, self.used, True)
        elif self.slab is not None:
            data = span(self.slab, self.slab.data, self.used, True)
        else:
            data = span_of(b"")
        return (data, span(self.offsets, self.offsets.data, (self.index + 1) * <Py_ssize_t> sizeof(int64_t), True),
                span(self.present, self.present.data, self.index, True))

    # ----------------------------------------------------------------------------------------------- towards the caller

    def metadata_ready(self) -> bool:
        """Buffered mode: the server's record of each entry is here. False: more bytes are needed.

        Raises:
            ErrObjNotFound: It reports a missing entry, and that is an error.
            WireError, LimitError, IncompleteBatchError: The answer is not what it should be.
        """
        if self.state == PROLOGUE and not self.read_metadata():
            return False
        if self.missing_raises:
            missing = [i for i, record in enumerate(self.out) if type(record) is tuple and record[3]]
            if missing:
                raise self.not_found(missing)
        return True

    def fill(self) -> bool:
        """COLUMNS: take what is here. True when the batch is whole, False when more bytes are needed."""
        cdef int64_t *offsets = <int64_t *> self.offsets.data
        while self.index < self.count:
            if not self.advance():
                return False
            if self.err_msg is not None:
                self.errors[self.index] = self.err_msg
            self.present.data[self.index] = self.err_msg is None
            self.used += self.size
            self.index += 1
            offsets[self.index] = self.used
        self.state = WHOLE
        if self.errors and self.missing_raises:
            raise self.not_found(sorted(self.errors))
        return True

    cdef object take(self):
        """The next item, or None: more bytes are needed, or there is none."""
        cdef Py_ssize_t i = self.index
        cdef object payload
        cdef Block owner
        if i == self.count or not self.advance():
            return None
        if self.err_msg is not None and self.missing_raises:
            raise self.not_found([i])
        self.index += 1
        if self.index == self.count:
            self.state = WHOLE
        if self.form == PAIRS:
            if self.whole_bytes != NULL:
                payload = <object> self.whole_bytes
                Py_XDECREF(self.whole_bytes)
                self.whole_bytes = NULL
            else:
                payload = PyBytes_FromStringAndSize(<const char *> self.buffer.data + self.pos - self.size, self.size)
                self.bytes_copied += self.size
            return (make_moss_out(self.entries, i, self.streaming, self.size, self.err_msg), payload)
        if self.own_block is not None:
            owner = self.own_block
            self.own_block = None
            return make_item(self.entries, i, owner, owner.data, self.size, self.err_msg)
        return make_item(self.entries, i, self.buffer, self.buffer.data + self.pos - self.size, self.size, self.err_msg)

    # ------------------------------------------------------------------------------------------------------ the machine

    cdef Py_ssize_t limit(self) noexcept:
        """End, in the buffer, of what certainly belongs to the archive."""
        cdef Py_ssize_t at = self.end - self.held
        return at if at > self.pos else self.pos

    cdef int advance(self) except -1:
        """Go on to the end of the entry at hand: 1, or 0: more bytes are needed. Its payload ends at `pos`, or is
        gathered elsewhere."""
        cdef Py_ssize_t run
        cdef int event
        if self.state < HEADER:
            if self.state != PROLOGUE or not self.read_metadata():
                return self.starved()
        while True:
            if self.state == HEADER:
                try:
                    event = self.tar.next(self.buffer.data + self.pos, self.limit() - self.pos)
                except WireError as error:
                    raise self.in_context(error)
                self.pos += self.tar.used
                if event == TAR_MEMBER:
                    self.verify()
                    self.begin_payload()
                    self.state = PAYLOAD
                elif event == TAR_END:
                    raise self.incomplete(self.damage(
                        "batch", "the archive ends too soon", f"{self.count} entries", f"{self.index}"))
                else:
                    return self.starved()
            if self.dest == NULL:
                if self.limit() - self.pos < self.size:
                    return self.starved()
                self.pos += self.size
            else:
                run = self.end - self.pos       # all of them, if more must follow: then none is the closing delimiter's
                if run >= self.size - self.filled:
                    run = min(self.limit() - self.pos, self.size - self.filled)
                if run > 0:
                    self.reserve(self.filled + run)
                    memcpy(self.dest + self.filled, self.buffer.data + self.pos, <size_t> run)
                    self.filled += run
                    self.pos += run
                    self.bytes_copied += run
                if self.filled < self.size or self.end - self.pos < self.held:
                    return self.starved()
                self.dest = NULL
            self.tar.payload_done()
            self.state = HEADER
            self.payload_bytes += self.size
            return 1

    cdef int starved(self) except -1:
        """More bytes are needed: 0, or an exception if none will come."""
        if self.ended == OPEN:
            return 0
        if self.ended == DAMAGED:
            raise self.in_context(self.framing.failure())
        if self.ended == LOST:
            raise self.incomplete(self.in_context(self.error))
        if self.multipart is not None and self.held != PyBytes_GET_SIZE(self.multipart.closing):
            raise self.incomplete(self.damage("multipart", "the end of the answer", "the closing delimiter", "another"))
        if self.state == PAYLOAD:
            found = f"{self.filled if self.dest != NULL else self.limit() - self.pos} of its {self.size} bytes"
        else:
            found = "the end of the answer"
        raise self.incomplete(self.damage("tar", "the archive is cut", self.entries.describe(self.index), found))

    cdef int begin_payload(self) except -1:
        """Choose the place of a payload of `size` bytes that begins at `pos`."""
        cdef Py_ssize_t here = self.limit() - self.pos
        self.filled = 0
        if self.form == ITEMS:
            if self.size <= self.buffer.capacity - self.pos - self.held:
                self.dest = NULL
            elif self.size <= OWN_BLOCK:
                self.bytes_copied += min(here, self.size)
                self.new_arena()
                self.dest = NULL
            else:
                self.room = min(self.size, GROWTH)
                self.own_block = take_block(self.room)
                self.dest = self.own_block.data
        elif self.form == PAIRS:
            if here >= self.size:
                self.dest = NULL        # it is all here: `take` makes the bytes object
            else:
                self.room = min(self.size, GROWTH)
                self.whole_bytes = _new_bytes(NULL, self.room)
                self.dest = <uint8_t *> _bytes_at(self.whole_bytes)
        else:
            if self.has_into and self.size > self.into.len - self.used:
                raise LimitError(
                    0, f"{self.entries.describe(self.index)} of {self.size} bytes does not fit into the buffer: "
                    f"{self.into.len - self.used} of its {self.into.len} bytes are left", self.url, layer="batch",
                    entry=self.entries.describe(self.index), expected=f"at most {self.into.len - self.used}",
                    found=str(self.size), remedy="give fetch(into=...) a larger buffer, or leave it out")
            self.room = 0
            self.reserve(min(self.size, GROWTH))
        return 0

    cdef int reserve(self, Py_ssize_t room) except -1:
        """Have room for so many bytes of the payload at hand. Memory is taken as bytes arrive, not as headers claim."""
        cdef Py_ssize_t ahead
        if room <= self.room and self.dest != NULL:
            return 0
        ahead = min(self.size, max(room, 2 * self.room))
        if self.form == PAIRS:
            if Py_REFCNT(self.whole_bytes) != 1:
                raise BufferError("the memory lent for the last read was not released")
            _resize_bytes(&self.whole_bytes, ahead)
            self.dest = <uint8_t *> _bytes_at(self.whole_bytes)
        elif self.form == ITEMS:
            self.own_block.grow(ahead)
            self.dest = self.own_block.data
        elif self.has_into:
            self.dest = <uint8_t *> self.into.buf + self.used
            ahead = self.into.len - self.used
        else:
            if self.slab is None:
                self.slab = take_block(max(self.used + ahead, self.expected))
            elif self.used + ahead > self.slab.capacity:
                self.slab.grow(max(self.used + ahead, 2 * self.slab.capacity))
            self.dest = self.slab.data + self.used
            ahead = self.slab.capacity - self.used
        self.room = ahead
        return 0

    cdef int make_room(self) except -1:
        """Have room in the buffer behind `end`."""
        if self.buffer is None:
            self.buffer = take_block(ARENA if self.form == ITEMS else STAGING)
        if self.form == ITEMS:
            if self.buffer.capacity - self.end < LEAST_ROOM and not (self.state == PAYLOAD and self.dest == NULL):
                self.new_arena()
        elif self.pos == self.end:
            self.pos = self.end = 0
        elif self.buffer.capacity - self.end < STAGING // 2:
            memmove(self.buffer.data, self.buffer.data + self.pos, <size_t> (self.end - self.pos))
            self.end -= self.pos
            self.pos = 0
        return 0

    cdef int new_arena(self) except -1:
        """Go on in a fresh arena. Its first bytes are those that were not handed out from the old one."""
        cdef Block arena = take_block(ARENA)
        cdef Py_ssize_t n = self.end - self.pos
        if n > arena.capacity:
            raise AssertionError("more bytes than an arena holds")
        memcpy(arena.data, self.buffer.data + self.pos, <size_t> n)
        self.buffer = arena
        self.pos = 0
        self.end = n
        return 0

    # ---------------------------------------------------------------------------------------------------- verification

    cdef int verify(self) except -1:
        """Is the member at hand the entry at `index`? Sets `size`, and `err_msg` if the entry is missing."""
        cdef const uint8_t *name = self.tar.name
        cdef Py_ssize_t n = self.tar.name_size
        cdef int64_t length = self.entries.rows[self.index].length
        cdef str reported = self.check_out() if self.multipart is not None else None
        if self.tar.size > PY_SSIZE_T_MAX // 2:
            raise self.damage("tar", "a member's size", "a possible one", self.tar.size)
        self.size = <Py_ssize_t> self.tar.size
        self.err_msg = None
        if self.is_named(name, n, False):
            if reported is not None:
                raise self.damage(
                    "batch", "the member of an entry that is reported missing", "__404__/...", name[:min(n, 200)])
            if length > 0 and self.size != length:
                raise self.damage(
                    "batch", "a byte range came with the wrong length (the server's recovery sends the whole object)",
                    length, self.size)
        elif self.size == 0 and n > 8 and memcmp(name, b"__404__/", 8) == 0 and self.is_named(name + 8, n - 8, True):
            self.err_msg = reported if reported is not None else MISSING
            self.misses += 1
        else:
            raise self.damage("batch", "a member's name", self.entries.describe(self.index), name[:min(n, 200)])
        return 0

    cdef bint is_named(self, const uint8_t *p, Py_ssize_t n, bint missing) except -1:
        """Is p[0:n] a name of the entry at `index`? Protocol: [bucket/]objname[/archpath], with two ways to join an
        archpath that begins with a slash, and a missing shard's archpath left out."""
        cdef Place place = self.entries.place_of(self.index)
        cdef const char *text
        cdef Py_ssize_t size
        cdef bytes prefix
        if place.uname is None or self.only_obj_name:       # with a uname the server leaves bucket and name out
            if not self.only_obj_name:
                prefix = place.prefix if place.prefix is not None else self.bucket_prefix
                size = PyBytes_GET_SIZE(prefix)
                if n < size or memcmp(p, PyBytes_AS_STRING(prefix), <size_t> size):
                    return False
                p += size
                n -= size
            text = PyUnicode_AsUTF8AndSize(self.entries.names[self.index], &size)
            if n < size or memcmp(p, text, <size_t> size):
                return False
            p += size
            n -= size
        archpath = self.entries.archpath(self.index)
        if archpath is None:
            return n == 0
        if n == 0:
            return missing
        if p[0] != c"/":
            return False
        text = PyUnicode_AsUTF8AndSize(archpath, &size)
        if text[0] == c"/" and n == size and memcmp(p, text, <size_t> size) == 0:
            return True
        return n - 1 == size and memcmp(p + 1, text, <size_t> size) == 0

    cdef int read_metadata(self) except -1:
        """Go on to the archive: 1, or 0 if more bytes are needed."""
        cdef Py_ssize_t used
        if self.multipart is None:      # an answer without a body has no content type either
            return 0 if self.ended == OPEN else self.starved()
        try:
            used = self.multipart.take(self.buffer.data + self.pos, self.end - self.pos)
        except WireError as error:
            raise self.in_context(error)
        self.pos += used
        if not self.multipart.at_archive:
            return self.starved()
        beginning = self.multipart.metadata[:64]
        try:
            text = self.multipart.metadata.decode()
            self.multipart.metadata = b""       # it may be megabytes, and is not needed twice
            answer = loads(text, object_hook=record_of)
            out = answer["out"] if answer["out"] is not None else []
            good = isinstance(out, list) and all([type(record) in (tuple, dict) for record in out])
        except (ValueError, KeyError, TypeError, RecursionError):
            good = False
        if not good:
            raise self.damage("metadata", "the metadata part", '{"out": [{...}, ...]}', beginning)
        if len(out) > self.count:
            raise self.damage("metadata", "the number of records", self.count, len(out))
        self.out = out
        self.hold_back()
        self.state = HEADER
        return 1

    cdef str check_out(self):
        """Hold the server's record of the entry at hand against entry and member. Why it is missing, or None."""
        cdef Py_ssize_t i = self.index
        if i >= len(self.out):
            raise self.incomplete(self.damage("metadata", "the records end too soon", self.count, len(self.out)))
        name = self.entries.names[i]
        if type(self.out[i]) is dict:
            raise self.damage("metadata", "a record's objname", name, "none")
        got, size, back, reason = <tuple> self.out[i]
        archpath = self.entries.archpath(i)
        if got != name and (archpath is None or got not in (f"{name}/{archpath}", f"{name}{archpath}")):
            raise self.damage("metadata", "a record's objname", name, got)
        if type(size) is not int or size != self.tar.size:
            raise self.damage("metadata", "a record's size", f"{self.tar.size}, as the member's header says", size)
        opaque = self.entries.opaque(i)
        if opaque is not None or back is not None:
            try:
                same = b64decode(back.replace("-", "+").replace("_", "/"), validate=True) == opaque
            except (ValueError, AttributeError):
                same = False
            if not same:
                raise self.damage("metadata", "a record's opaque", "what was given with the entry", back)
        if not reason:
            return None
        return reason if type(reason) is str else repr(reason)

    # ---------------------------------------------------------------------------------------------------------- errors

    cdef object damage(self, str layer, str what, object expected, object found):
        """A WireError about the entry at hand."""
        entry = self.entries.describe(self.index)
        found = found if isinstance(found, str) else repr(found)
        return WireError(
            0, f"{what}: expected {expected}, found {found[:300]}; at {entry}", self.url, layer=layer,
            offset=self.tar.offset if layer in ("tar", "batch") else -1, expected=str(expected), found=found[:300],
            entry=entry, remedy=REMEDIES.get(layer, REMEDY))

    cdef object in_context(self, object error):
        """A decoder's or the connection's error, with the entry and the place it happened at."""
        entry = self.entries.describe(self.index)
        error.message = f"{error.message}; at {entry}, after {self.index} of {self.count} entries"
        error.req_url = error.req_url or self.url
        if isinstance(error, WireError):
            error.entry = error.entry or entry
            error.remedy = error.remedy or REMEDIES.get(error.layer, REMEDY)
        return error

    cdef object incomplete(self, object cause):
        """The batch cannot be made whole."""
        missing = tuple(range(self.index, self.count))
        error = IncompleteBatchError(
            0, f"the batch is incomplete: {self.index} of {self.count} entries came, the first that did not is "
            f"{self.entries.describe(self.index)}: {cause.message}", self.url,
            remedy="error.rest() is a batch of what is missing", requested=self.count, received=self.index,
            missing=missing, attempts=self.attempts, _rest=self.make_rest(self.entries.subset(missing)))
        error.__cause__ = cause
        return error

    cdef object not_found(self, list indices):
        """Entries that are missing, and that is an error."""
        named = "; ".join([self.entries.describe(i) for i in indices[:20]])
        if len(indices) > 20:
            named = f"{named}; and {len(indices) - 20} more"
        return ErrObjNotFound(
            404, f"{len(indices)} of {self.count} entries do not exist: {named}", self.url, missing=tuple(indices),
            remedy="check the names, or take missing entries as items with missing='mark' (get(): cont_on_err=True)")


cdef class Results:
    """Iterator over what one call delivers. After its end, or an exception, it is at its end."""

    def __init__(self, Delivery delivery, call):
        self.delivery = delivery
        self.call = call

    def __iter__(self):
        return self

    def __reduce__(self):
        raise TypeError("the results of a call cannot be copied or pickled: its connection is theirs alone")

    def __next__(self):
        cdef object item, call = self.call      # another thread may close us in between
        if self.busy:
            raise RuntimeError("another thread is reading these results: a batch belongs to one thread at a time")
        if call is None:
            raise StopIteration
        self.busy = True
        try:
            while True:
                item = self.delivery.take()
                if item is not None:
                    if self.delivery.state == WHOLE:
                        self.finish()
                    return item
                call.pump()
        except BaseException:
            self.close()
            raise
        finally:
            self.busy = False

    def finish(self) -> None:
        """Whole: the connection goes back to the pool, its last bytes are nobody's wait."""
        call, self.call = self.call, None
        if call is not None:
            call.finish()

    def close(self) -> None:
        """Give up what has not been received. The connection is closed, nothing else."""
        call, self.call = self.call, None
        if call is not None:
            call.close()
