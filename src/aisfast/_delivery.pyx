# cython: nonecheck=True
"""What was asked for against what came: verifies every entry, places its payload, and knows when a batch is whole.

No socket and no clock: time is an argument. A `Resume` (`resume.py`) decides what to ask for and what an end means, a
shell (`transport.py`) moves the bytes; both can be replaced by a simulation.

    begin, on_head                      a request for some of the entries goes out, a 200 has come
    get_buffer, then commit             a read; or on_eof, on_error
    take, fill                          what is complete, or nothing: then `want` says what is needed to go on
    supply, supply_missing              an entry that was got in another way
    leftover                            all entries of the answer are here: what follows them is nobody's wait

A compressed archive is inflated into the buffer that a plain one is received into, and its last entry is handed out
once its end mark and checksum were right. A ZIP is read from its directory, which comes last: it is kept until then.

An entry is verified when a member stands at its position, under one of the names it may have, with a right header
checksum, the length that its range or the metadata says, and its whole payload is here. What follows the last entry's
last byte decides only whether the connection may be used again.

Where a payload goes depends on the form it is handed out in:

    PAIRS       a `bytes` object of its own; from 64 KiB on, reads go straight into it
    ITEMS       stays in the block it was received into; one that does not fit there moves to the next block, or to
                a block of its own
    COLUMNS     one slab, payloads back to back. Reads go into it behind the last payload, and each payload moves down
                over the headers before it while it is in the caches; copying out of another buffer costs twice that.
                Into memory of the caller's nothing but payload is written: there it is as for PAIRS
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
from aisfast._request cimport Entries, Place, Row
from aisfast._zip cimport ZipMember, ZipReader, crc32_of

from base64 import b64decode
from json import loads

from aisfast._blocks import span_of
from aisfast._decode import boundary_of
from aisfast.errors import AISConnectionError, ErrObjNotFound, LimitError, WireError
from aisfast.inflate import Gzip, Lz4
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
    DIRECT_READ = 0x100000      # the same, straight into a payload or the slab
    STAGING = 0x40000           # the buffer that payloads are copied out of, while they are in the caches
    DIRECT = 0x10000            # a payload with so much missing is read straight into its place
    ARENA = 0x80000             # a block of ITEMS
    OWN_BLOCK = 0x20000         # an item larger than this that does not fit in its arena gets a block of its own
    LEAST_ROOM = 0x4000         # an arena with less room is left for the next
    GROWTH = 0x400000           # memory taken ahead of the bytes received, at most
    MOST_EXPECTED = 0x40000000  # a slab begins with no more, whatever was seen before
    TRAIL_LIMIT = 0x10000       # bytes behind the last entry that are still waited for
    DOUBT_ZONE = 0x2000         # bytes that a server's buffers may hold back over a silence
    ON_THE_WAY = 0x1000000      # bytes that the buffers of two sockets may hold
    ZIP_ENTRY = 0x200           # more than an answer holds of a ZIP's member besides its payload, as a rule
    PACKED = 0x10000            # a read of a compressed archive
    INFLATE = 0x20000           # most it is inflated by at once
    TELLING = 8                 # so many bytes of a closing delimiter cannot be there by chance

cdef enum State:
    IDLE                        # no answer is coming
    PROLOGUE                    # in what precedes the archive
    HEADER                      # before or in a member's headers
    PAYLOAD
    ENDING                      # behind the last payload, before the end mark of a compressed archive
    PAUSED                      # at a member whose entry is held back until something is decided: see `want`

cpdef enum Want:
    """What a Delivery needs to go on."""
    BYTES                       # the next read
    MISS                        # a decision: does the entry count as missing?
    DOUBT                       # a decision: is this the range that was asked for, or the whole object?
    ANSWER                      # another answer; `over` says how this one ended

cpdef enum Over:
    """How an answer ended."""
    GOING                       # it has not
    WINDOW                      # with all entries that it was asked for
    SHORT                       # properly, but too soon
    LOST                        # with the connection
    DAMAGED                     # in bytes that are wrong

cdef enum Ended:
    OPEN                        # more bytes may come
    CLEAN                       # the body is over, as its framing says
    CUT_OFF                     # the connection ended or failed before that
    DAMAGE                      # the framing is wrong

cpdef enum Form:
    PAIRS
    ITEMS
    COLUMNS

# output format -> content types of a streaming answer
cdef dict CONTENT_TYPES = {
    ".tar": ("application/x-tar",),
    ".tgz": ("application/gzip", "application/x-gzip"),
    ".tar.gz": ("application/gzip", "application/x-gzip"),
    ".tar.lz4": ("application/x-lz4",),
    ".zip": ("application/zip",),
}

# brackets and braces in the metadata, those in texts included: 64 in all, and so many for each entry
cdef Py_ssize_t NESTED = 64
cdef Py_ssize_t NESTED_PER_ENTRY = 512

# what to do about damage, by the layer that objects
cdef dict REMEDIES = {"http": "is this endpoint an AIStore gateway, and nothing on the way that changes answers?"}
cdef str REMEDY = "ask again; if it stays so, the server or something on the way damages its answers"

cdef double SILENCE = 0.5       # seconds without a byte, after which a range may come from the server's recovery
cdef double SLOW_HEAD = 1.0     # the same for a buffered answer, which begins when all is read

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
        return (self.framing.done and not self.framing.excess and not self.broken
                and (self.tar is None or self.tar.done) and self.matched == PyBytes_GET_SIZE(self.closing))

    cdef void look(self, const uint8_t *p, Py_ssize_t n):
        """Go on with decoded bytes."""
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.closing)
        self.seen += n
        if self.tar is not None and not self.tar.done and not self.broken:
            try:
                i = self.skip_members(p, n)
            except WireError:
                self.broken = True
        while i < n and not self.broken:
            if self.matched == size or p[i] != <uint8_t> PyBytes_AS_STRING(self.closing)[self.matched]:
                self.broken = True
            self.matched += 1
            i += 1
        if self.framing.fault or self.framing.excess or self.seen > TRAIL_LIMIT \
                or (self.framing.done and ((self.tar is not None and not self.tar.done) or self.matched != size)):
            self.broken = True

    cdef Py_ssize_t skip_members(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Pass over the archive, with no more members than were asked for: bytes used."""
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t run
        while True:
            run = min(self.inside, n - i)
            i += run
            self.inside -= run
            if self.inside:
                return i
            if self.within:
                self.within = False
                self.tar.payload_done()
            self.within = self.tar.next(p + i, n - i) == TAR_MEMBER
            i += self.tar.used
            if not self.within:
                return i
            self.extra -= 1
            if self.extra < 0 or self.tar.size > TRAIL_LIMIT:
                self.broken = True
                return i
            self.inside = <Py_ssize_t> self.tar.size

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
        streaming: Whether the batch asks for streaming answers.
        only_obj_name: Whether members are named without their bucket.
        missing_raises: Whether a missing entry is an error.
        max_entry: Largest payload accepted, in bytes.
        mime: Output format asked for, a key of CONTENT_TYPES.
        into: COLUMNS: a writable buffer for the payloads, or None.
        expected: Bytes the payloads will likely take, from what was seen before; 0 if nothing was. COLUMNS and ZIPs
            begin with so much memory.
    Attributes:
        hold_misses: Stop at an entry that an answer reports missing (`want` is MISS) until `settle` or `supply`.
    Raises:
        BufferError, TypeError: `into` is not a writable, contiguous buffer.
    """

    def __cinit__(self, Entries entries not None, int form, *, bint streaming, bint only_obj_name,
                  bint missing_raises, int64_t max_entry, str mime=".tar", into=None, int64_t expected=0):
        self.entries = entries
        self.count = entries.count
        self.form = form
        self.bucket_prefix = entries.bucket.encode() + b"/" if entries.bucket else b""
        self.asks_streaming = streaming
        self.only_obj_name = only_obj_name
        self.missing_raises = missing_raises
        self.max_entry = max_entry
        self.mime = mime
        self.packs = mime != ".tar"
        self.in_place = form == COLUMNS and into is None and mime != ".zip"
        self.expected = <Py_ssize_t> min(expected, MOST_EXPECTED)
        self.url = ""
        self.want = ANSWER
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

    def begin(self, bint streaming, Py_ssize_t stop, double now, Py_ssize_t extra=0) -> None:
        """A request for the entries from `index` to `stop` is on its way, for a streaming or a buffered answer.

        Args:
            now: Seconds, on a clock that does not stand still while the consumer works.
            extra: Entries asked for behind them, which are nobody's.
        """
        if not self.index < stop <= self.count:
            raise ValueError("nothing to ask for")
        self.streaming = streaming
        self.stop = stop
        self.extra = extra
        self.drop_answer()
        self.want = BYTES
        self.over = GOING
        self.cause = None
        self.wrong_range = False
        self.read_at = now
        self.received = 0
        self.doubtful = 0

    def on_head(self, Head head not None, Framing framing not None, str url, double now) -> None:
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
            expected = CONTENT_TYPES[self.mime][0]
            good = kind in ("", "application/octet-stream") or kind in CONTENT_TYPES[self.mime]
        else:
            expected = "multipart/mixed"
            good = kind.startswith("multipart/") or (framing.done and not kind)     # a stopped job's empty 200
        if not good:
            raise self.damage("http", "the answer's content type", expected, kind or "none")
        coding = head.headers.get("content-encoding", "identity")
        if coding != "identity":
            raise self.damage("http", "the answer's content encoding", "none: none was offered", coding)
        if not self.streaming:
            self.slow_head = now - self.read_at > SLOW_HEAD
            if kind:
                most = min(MAX_METADATA, 4096 + MAX_METADATA_PER_ENTRY * (self.stop - self.index))
                self.multipart = Multipart(boundary_of(head.headers["content-type"]), most)
        if self.mime == ".tar.lz4":
            self.inflater = Lz4()
        elif self.mime != ".tar" and self.mime != ".zip":
            self.inflater = Gzip()
        self.state = HEADER if self.streaming else PROLOGUE
        if framing.done:
            self.ended = CLEAN

    def get_buffer(self) -> memoryview:
        """Memory for the next read; to be released before `commit`."""
        cdef Py_ssize_t n
        cdef object owner
        if self.dest != NULL and self.pos == self.end and self.size - self.filled >= DIRECT \
                and not self.packs and not self.in_place:
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
                owner = self
        elif self.packs:
            self.make_room_packed()
            self.lent = self.packed.data + self.packed_end
            self.lent_size = min(self.packed.capacity - self.packed_end, READ_SIZE if self.inflater is None else PACKED)
            self.lent_direct = False
            owner = self.packed
        else:
            self.make_room()
            self.lent = self.buffer.data + self.end
            self.lent_size = min(self.buffer.capacity - self.end, self.most_in_slab() if self.in_place else READ_SIZE)
            self.lent_direct = False
            owner = self.buffer
        return memoryview(span(owner, self.lent, self.lent_size, False))

    def commit(self, Py_ssize_t n, double now, Py_ssize_t start=0, double waited=0.0) -> None:
        """n bytes were read into the memory; the answer's body begins at `start`.

        Args:
            now: Seconds, on the clock of `begin`.
            waited: Seconds that the read itself waited for them.
        """
        cdef Py_ssize_t m
        if not 0 <= start <= n <= self.lent_size or (start and self.lent_direct):
            raise ValueError("more bytes than were asked for")
        if now - self.read_at >= SILENCE:
            # What comes within 8 KiB (the server's buffers) after a silence may be its recovery's work. A silence that
            # the consumer overslept cannot be seen: then all that can have gathered on the way meanwhile is in doubt.
            self.doubtful = max(self.doubtful, self.received + (n + DOUBT_ZONE if waited >= SILENCE else ON_THE_WAY))
        self.read_at = now
        self.reads += 1
        self.wire_bytes += n - start
        self.lent_size = 0
        if start and self.packs:        # a response head stood before the body, in an empty buffer
            self.packed_pos = self.packed_end = self.lent + start - self.packed.data
        elif start:
            self.pos = self.end = self.lent + start - self.buffer.data
        m = self.framing.strip(self.lent + start, n - start)
        self.received += m
        if self.lent_direct:
            self.filled += m
        elif self.packs:
            self.packed_end += m
        else:
            self.end += m
        if self.framing.fault:
            self.ended = DAMAGE
        elif self.framing.done:
            self.ended = CLEAN
        if self.ended != OPEN:
            self.hold_back()

    def on_eof(self) -> None:
        """The connection has ended."""
        if self.ended == OPEN:
            self.ended = CLEAN if self.framing.at_close else CUT_OFF
            self.error = AISConnectionError(
                0, "the connection ended before the answer did", self.url,
                remedy="the server or the network broke off: ask again")
            self.hold_back()

    def on_error(self, error) -> None:
        """A read failed: no more bytes come."""
        if self.ended == OPEN:
            self.ended = CUT_OFF
            self.error = error
            self.hold_back()

    cdef int hold_back(self) except -1:
        """Hold back the last bytes, which may be the closing delimiter. Once no more come: if they do not end in it,
        what looks like the beginning of one; the bytes before that are the archive's."""
        cdef Py_ssize_t n
        if self.multipart is None or not self.multipart.at_archive:
            return 0
        cdef uint8_t *data = self.packed.data if self.packs else self.buffer.data
        cdef Py_ssize_t pos = self.packed_pos if self.packs else self.pos
        cdef Py_ssize_t end = self.packed_end if self.packs else self.end
        self.held = PyBytes_GET_SIZE(self.multipart.closing)
        if self.ended == OPEN or (self.ended == CLEAN and end - pos >= self.held and self.multipart.closes(data + end)):
            return 0
        tail = bytes(data[pos:end]) if end > pos else b""
        if self.dest != NULL and len(tail) < self.held and not self.packs:
            n = min(self.held - len(tail), self.filled)
            tail = bytes(self.dest[self.filled - n:self.filled]) + tail
        for n in range(min(self.held, len(tail)), TELLING - 1, -1):
            if self.multipart.closing.startswith(tail[len(tail) - n:]):
                self.held = n
                return 0
        self.held = 0
        return 0

    def settle(self, Py_ssize_t skip=0, Py_ssize_t keep=-1, str err_msg=None) -> None:
        """Go on from MISS or DOUBT: hand out what came, or `keep` bytes of it after the first `skip`.

        Args:
            err_msg: MISS: why the entry is missing, if better known than from the answer.
        """
        if self.state != PAUSED:
            raise RuntimeError("nothing to settle")
        if keep >= 0:
            if skip > self.size or keep > self.size - skip:
                raise ValueError("not a part of the payload")
            self.cut_at = skip
            self.size = keep
        if err_msg is not None:
            self.err_msg = err_msg
        self.settled = True
        self.want = BYTES

    def supply(self, payload) -> None:
        """The payload of the entry at hand, got in another way. What an answer under way has for it is passed over."""
        if self.given is not None:
            raise RuntimeError("an entry was supplied and not yet taken")
        self.given = memoryview(payload).cast("B")
        self.err_msg = None
        if self.want == ANSWER:
            self.drop_answer()
        else:
            self.want = BYTES

    def supply_missing(self, str err_msg not None) -> None:
        """The entry at `index` is missing, for a reason that no answer under way has told."""
        self.supply(b"")
        self.err_msg = err_msg
        self.count_miss()

    def abandon(self) -> None:
        """Nothing more is wanted of the answer."""
        self.drop_answer()
        self.want = ANSWER

    def leftover(self) -> Trail:
        """What of the answer has not been read, once the batch is whole, or if the answer `drains`."""
        cdef Trail trail = Trail.__new__(Trail)
        trail.framing = self.framing
        trail.extra = self.extra
        trail.closing = self.multipart.closing if self.multipart is not None else b""
        if self.packs:
            trail.look(self.packed.data + self.packed_pos, self.packed_end - self.packed_pos)
        else:
            trail.tar = self.tar
            trail.look(self.buffer.data + self.pos, self.end - self.pos)
        self.drop_answer()
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

    def latest_sizes(self) -> list:
        """(index, bytes of payload) of some of the entries that came last, as members of a plain archive."""
        return [(self.latest[i].index, self.latest[i].size) for i in range(min(self.came, LATEST))]

    @property
    def due(self) -> int:
        """Bytes of which it is certain that the answer under way still has to bring them, and that may gather: up to
        the end of its first entry, or all."""
        cdef Py_ssize_t rest = 512 * (self.stop - self.index if self.index > self.first else 1)
        if self.packs or self.state == PROLOGUE or (self.index == self.first and self.state != PAYLOAD):
            return 0
        if self.state == PAYLOAD:
            rest += self.size - 512 - (self.filled if self.dest != NULL else 0)
        return max(0, rest - (self.end - self.pos))

    @property
    def inside(self) -> bool:
        """An answer ended inside the payload of the entry at `index`."""
        return self.over != GOING and self.was_inside

    @property
    def kept_bytes(self) -> int:
        """Bytes of payload that have come, those of an entry not yet complete included."""
        cdef Py_ssize_t here = 0
        if self.packs and self.inflater is None:
            here = self.packed_end          # of a ZIP no payload is known before all of it is here
        elif self.state == PAYLOAD:
            here = self.filled if self.dest != NULL else min(self.limit() - self.pos, self.size)
        return self.payload_bytes + here

    @property
    def supplied(self) -> bool:
        """The entry at `index` was supplied and waits to be taken."""
        return self.given is not None

    @property
    def kept_size(self) -> int:
        """Bytes of the payload at hand, when it is held."""
        return self.size

    def missing_error(self, str reason, Py_ssize_t index=-1) -> ErrObjNotFound:
        """The error for an entry that is missing: the one at hand if no other is named."""
        error = self.not_found([self.index if index < 0 else index])
        error.message = f"{error.message}: {reason}"
        return error

    def metadata_ready(self) -> bool:
        """Buffered mode: the server's record of each entry is here, or what is at hand is known in another way. False:
        `want` says what is needed.

        Raises:
            ErrObjNotFound: It reports a missing entry, and that is an error.
        """
        if self.given is not None:
            return True
        if self.want == BYTES and self.state == PROLOGUE:
            self.go_on(True)
        if self.out is None:
            return self.index == self.count
        if self.missing_raises and not self.hold_misses:
            missing = [self.first + i for i, record in enumerate(self.out) if type(record) is tuple and record[3]]
            if missing:
                raise self.not_found(missing)
        return True

    def fill(self) -> bool:
        """COLUMNS: take what is here. True when the batch is whole, else `want` says what is needed."""
        cdef Block slab
        cdef int64_t *offsets = <int64_t *> self.offsets.data
        while self.index < self.count:
            if not self.complete():
                return False
            if self.given is not None:
                if self.slab is not None and self.slab is self.packed:     # what is given is not within the archive
                    slab = take_block(max(self.used + self.size, self.expected))
                    memcpy(slab.data, self.slab.data, <size_t> self.used)
                    self.slab = slab
                self.begin_payload()
                self.reserve(self.size)
                self.copy_given(self.dest)
                self.dest = NULL
            elif self.cut_at:
                memmove(self.slab_at(), self.slab_at() + self.cut_at, <size_t> self.size)
                self.cut_at = 0
            if self.err_msg is not None:
                self.errors[self.index] = self.err_msg
            self.present.data[self.index] = self.err_msg is None
            self.used += self.size
            self.index += 1
            offsets[self.index] = self.used
        if self.errors and self.missing_raises:
            missing = sorted(self.errors)
            error = self.not_found(missing)
            error.message = f"{error.message}: {self.errors[missing[0]]}"
            raise error
        return True

    cdef object take(self):
        """The next item, or None: the batch is at its end, or `want` says what is needed."""
        cdef Py_ssize_t i = self.index
        cdef object payload
        cdef Block block
        cdef uint8_t *at
        if i == self.count or not self.complete():
            return None
        if self.err_msg is not None and self.missing_raises:
            raise self.not_found([i])
        self.index += 1
        if self.form == PAIRS:
            if self.given is not None:
                payload = bytes(self.given)
                self.given = None
            elif self.whole_bytes != NULL:
                payload = <object> self.whole_bytes
                Py_XDECREF(self.whole_bytes)
                self.whole_bytes = NULL
                if self.cut_at or self.size != PyBytes_GET_SIZE(payload):
                    payload = payload[self.cut_at:self.cut_at + self.size]
            else:
                at = (self.packed if self.zip is not None else self.buffer).data
                payload = PyBytes_FromStringAndSize(<const char *> at + self.payload_at + self.cut_at, self.size)
                self.bytes_copied += self.size
            self.cut_at = 0
            return (make_moss_out(self.entries, i, self.asks_streaming, self.size, self.err_msg), payload)
        if self.given is not None:
            block = take_block(self.size)
            self.copy_given(block.data)
            at = block.data
        elif self.own_block is not None:
            block = self.own_block
            self.own_block = None
            at = block.data + self.cut_at
        else:
            block = self.packed if self.zip is not None else self.buffer
            at = block.data + self.payload_at + self.cut_at
        self.cut_at = 0
        return make_item(self.entries, i, block, at, self.size, self.err_msg)

    cdef int copy_given(self, uint8_t *to) except -1:
        """Put the supplied payload where it belongs."""
        cdef Py_buffer view
        PyObject_GetBuffer(self.given, &view, 0)
        memcpy(to, view.buf, <size_t> view.len)
        PyBuffer_Release(&view)
        self.bytes_copied += self.size
        self.given = None
        return 0

    # ------------------------------------------------------------------------------------------------------ the machine

    cdef Py_ssize_t limit(self) noexcept:
        """End, in the buffer, of what certainly belongs to the archive."""
        cdef Py_ssize_t at = self.end - self.held_here()
        return at if at > self.pos else self.pos

    cdef Py_ssize_t held_here(self) noexcept:
        """Bytes at the buffer's end that may be the closing delimiter."""
        return 0 if self.packs else self.held

    cdef int complete(self) except -1:
        """Go on to the end of the entry at hand: 1, or 0: `want` says what is needed."""
        if self.given is not None:
            return self.pass_over()
        if self.want != BYTES:
            return 0
        if self.index == self.stop:
            return self.end_answer(WINDOW, None)
        return self.go_on(False)

    cdef int go_on(self, bint only_metadata) except -1:
        """Decode what is here: 1, or 0. Wrong bytes end the answer."""
        try:
            return self.read_metadata() if only_metadata else self.advance()
        except LimitError as error:
            raise self.in_context(error)
        except WireError as error:
            if self.inflater is not None and self.index > self.first and not self.wrong_range:
                # a checksum comes last: what was handed out of this answer may be wrong, and cannot be taken back;
                # but a whole object in place of a range is what the server means, not damage
                raise self.in_context(error)
            return self.end_answer(DAMAGED, self.in_context(error))

    cdef int pass_over(self) except -1:
        """The entry at hand was supplied. Of an answer that has stopped at it, go on behind it."""
        if self.state == PAUSED:
            self.free_payload()
            if self.zip is None:
                self.tar.payload_done()
            self.state = HEADER
        elif self.state != IDLE:
            raise RuntimeError("an entry was supplied while an answer brings it")
        self.size = len(self.given)
        self.payload_bytes += self.size
        return 1

    cdef int advance(self) except -1:
        """Go on to the end of the entry at hand: 1, or 0. Its payload is at `payload_at` in the buffer, or gathered."""
        cdef Py_ssize_t run
        cdef int event
        if self.state == PROLOGUE and not self.read_metadata():
            return 0
        if self.packs and self.inflater is None:
            return self.advance_zip()
        while True:
            if self.state == HEADER:
                event = self.tar.next(self.buffer.data + self.pos, self.limit() - self.pos)
                self.pos += self.tar.used
                if event == TAR_MEMBER:
                    if self.multipart is not None and self.index - self.first >= len(self.out):
                        return self.too_short("metadata", "the records end too soon", len(self.out))
                    self.verify(self.tar.name, self.tar.name_size, self.tar.size)
                    self.begin_payload()
                    self.state = PAYLOAD
                    if self.err_msg is not None and self.hold_misses:
                        self.state = PAUSED
                        self.settled = False
                        self.want = MISS
                        return 0
                elif event == TAR_END:
                    return self.too_short("batch", "the archive ends too soon", self.index - self.first)
                elif self.inflate():
                    continue
                else:
                    return self.starved()
            if self.state == PAYLOAD:
                if self.dest == NULL:
                    if self.limit() - self.pos < self.size:
                        if self.inflate():
                            continue
                        return self.starved()
                    self.payload_at = self.pos
                    self.pos += self.size
                else:
                    run = self.end - self.pos   # all of them, if more must follow: none is the closing delimiter's
                    if run >= self.size - self.filled:
                        run = min(self.limit() - self.pos, self.size - self.filled)
                    if run > 0:
                        self.reserve(self.filled + run)
                        if self.dest + self.filled != self.buffer.data + self.pos:
                            memmove(self.dest + self.filled, self.buffer.data + self.pos, <size_t> run)
                            self.bytes_copied += run
                        self.filled += run
                        self.pos += run
                    if self.filled < self.size or self.end - self.pos < self.held_here():
                        if self.inflate():
                            continue
                        return self.starved()
                    self.dest = NULL
                self.state = ENDING
            if self.state == ENDING:
                if self.inflater is not None and self.index + 1 == self.stop and not self.stream_ends():
                    return 0
                if self.in_doubt():
                    self.state = PAUSED
                    self.settled = False
                    self.want = DOUBT
                    return 0
            elif not self.settled:          # PAUSED
                return 0
            self.tar.payload_done()
            self.state = HEADER
            self.payload_bytes += self.size
            if self.err_msg is not None:
                self.count_miss()
            else:
                self.latest[self.came % LATEST] = Arrival(self.index, self.size)
                self.came += 1
            return 1

    cdef int advance_zip(self) except -1:
        """The same for a ZIP: nothing before the archive is here as a whole."""
        cdef Py_ssize_t i = self.index - self.first
        cdef Py_ssize_t size
        cdef int64_t found
        cdef ZipMember *member
        if self.zip is None:
            if self.ended != CLEAN or (self.multipart is not None
                                       and self.held != PyBytes_GET_SIZE(self.multipart.closing)):
                return self.starved()
            size = self.packed_end - self.packed_pos - self.held
            if not size:
                return self.too_short("batch", "the archive is empty", 0)
            self.zip = ZipReader.__new__(ZipReader)
            self.zip.read(self.packed.data + self.packed_pos, size)
            if self.slab is None and self.form == COLUMNS and not self.has_into:
                self.slab = self.packed     # payloads move together where they are: each lies behind all before it
        if self.state == HEADER:
            if i >= self.zip.count:
                return self.too_short("batch", "the archive ends too soon", i)
            if self.multipart is not None and i >= len(self.out):
                return self.too_short("metadata", "the records end too soon", len(self.out))
            member = &self.zip.members[i]
            self.tar.offset = member.data
            self.verify(self.zip.data + member.name, member.name_size, member.size)
            found = crc32_of(self.packed, self.packed.data + self.packed_pos + member.data, member.size)
            if found != member.crc:
                raise self.damage("zip", "a member's CRC", f"{member.crc:08x}", f"{found:08x}")
            self.payload_at = self.packed_pos + member.data
            self.state = PAYLOAD
            if self.err_msg is not None and self.hold_misses:
                self.state = PAUSED
                self.settled = False
                self.want = MISS
                return 0
            if self.in_doubt():
                self.state = PAUSED
                self.settled = False
                self.want = DOUBT
                return 0
        elif self.state == PAUSED and not self.settled:
            return 0
        if self.form == COLUMNS:
            self.room = 0
            self.begin_payload()
            self.reserve(self.size)
            memmove(self.dest, self.packed.data + self.payload_at + self.cut_at, <size_t> self.size)
            self.bytes_copied += self.size
            self.dest = NULL
            self.cut_at = 0
        if i + 1 == self.zip.count:     # what follows the last member is the directory
            self.packed_pos = self.packed_end - self.held
        self.state = HEADER
        self.payload_bytes += self.size
        if self.err_msg is not None:
            self.count_miss()
        return 1

    cdef int inflate(self) except -1:
        """Go on inflating into the buffer: 1, or 0: there is nothing to inflate."""
        cdef Py_ssize_t n
        if self.inflater is None:
            return 0
        self.make_room()
        out = self.pull(min(self.buffer.capacity - self.end, INFLATE))
        n = PyBytes_GET_SIZE(out)
        memcpy(self.buffer.data + self.end, PyBytes_AS_STRING(out), <size_t> n)
        self.end += n
        return n > 0

    cdef bytes pull(self, Py_ssize_t most):
        """The next inflated bytes; none: more must be received, or the stream is done."""
        cdef Py_ssize_t n
        cdef bytes out = self.inflater.pull(most)
        if not out:
            n = self.packed_end - self.packed_pos - self.held
            if n > 0:
                self.inflater.push(PyBytes_FromStringAndSize(<const char *> self.packed.data + self.packed_pos, n))
                self.packed_pos += n
                out = self.inflater.pull(most)
        return out

    cdef int stream_ends(self) except -1:
        """All entries are here: go on to the end mark of a compressed archive. 1, or 0."""
        cdef bytes out
        while not self.inflater.done:
            out = self.pull(INFLATE)
            self.behind += PyBytes_GET_SIZE(out)
            if self.behind > TRAIL_LIMIT:
                raise self.damage(self.mime[1:], "the archive", "its end behind the last entry", "more than 64 KiB")
            if not out and not self.inflater.done:
                return self.starved()
        return 1

    cdef void count_miss(self) noexcept:
        if not self.misses:
            self.first_miss = self.index
        self.misses += 1

    cdef bint in_doubt(self) noexcept:
        """May the payload at hand be the whole object, where a range was asked for? Its length does not tell."""
        cdef Row *row = &self.entries.rows[self.index]
        if not row.length or self.err_msg is not None:
            return False
        if not row.start and self.size:     # from 0 on, what has the right length is the right range
            return False
        if self.multipart is not None:
            return self.slow_head
        if self.packs:      # what is compressed has no place to compare: any silence will do
            return self.doubtful > 0
        return self.tar.offset < self.doubtful

    cdef int starved(self) except -1:
        """More bytes are needed: 0; if none will come, the answer is over."""
        if self.ended == OPEN:
            return 0
        if self.ended == DAMAGE:
            return self.end_answer(DAMAGED, self.in_context(self.framing.failure()))
        if self.ended == CUT_OFF:
            return self.end_answer(LOST, self.in_context(self.error))
        if self.multipart is not None and self.multipart.at_archive \
                and self.held != PyBytes_GET_SIZE(self.multipart.closing):
            cause = self.damage("multipart", "the end of the answer", "the closing delimiter", "another")
        elif self.state == PAYLOAD:
            here = self.filled if self.dest != NULL else self.limit() - self.pos
            cause = self.damage("tar", "the archive is cut", f"{self.size} bytes of a payload", here)
        else:
            cause = self.damage("tar", "the archive is cut", "a member", "the end of the answer")
        return self.end_answer(SHORT, cause)

    cdef int too_short(self, str layer, str what, Py_ssize_t came) except -1:
        return self.end_answer(SHORT, self.damage(layer, what, f"{self.stop - self.first} entries", came))

    cdef int end_answer(self, int over, object cause) except -1:
        """The answer brings nothing more. 0."""
        self.over = over
        self.cause = cause
        self.was_inside = self.state == PAYLOAD
        self.want = ANSWER
        self.drains = over == WINDOW or (over == SHORT and self.tar.done and not self.packs)
        if not self.drains:
            self.drop_answer()
        return 0

    cdef int drop_answer(self) except -1:
        """Forget the answer's decoders and what has not been handed out of it."""
        self.free_payload()
        self.state = IDLE
        self.drains = False
        self.framing = None
        self.multipart = None
        self.tar = None
        self.zip = None
        self.inflater = None
        self.behind = 0
        self.out = None
        self.held = 0
        self.ended = OPEN
        self.error = None
        self.slow_head = False
        self.pos = self.end
        self.packed_pos = self.packed_end = 0
        if self.mime == ".zip":         # items may refer to it
            self.packed = None
        self.first = self.index
        return 0

    cdef void free_payload(self) noexcept:
        """Let go of the payload at hand."""
        self.dest = NULL
        Py_XDECREF(self.whole_bytes)
        self.whole_bytes = NULL
        self.own_block = None
        self.cut_at = 0

    cdef int begin_payload(self) except -1:
        """Choose the place of a payload of `size` bytes that begins at `pos`."""
        cdef Py_ssize_t here = self.limit() - self.pos
        self.filled = 0
        if self.form == ITEMS:
            if self.size <= self.buffer.capacity - self.pos - self.held_here():
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
        elif self.in_place:
            if self.given is not None:
                self.make_gap()
            self.room = self.size           # what has come lies behind, and moves down
            self.dest = self.slab_at()
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

    cdef uint8_t *slab_at(self) noexcept:
        """Where the payload at hand lies in the slab."""
        return (<uint8_t *> self.into.buf if self.has_into else self.slab.data) + self.used

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
        else:
            if self.has_into:
                ahead = self.into.len - self.used
            else:
                if self.slab is None:
                    self.slab = take_block(max(self.used + ahead, self.expected))
                elif self.used + ahead > self.slab.capacity:
                    self.slab.grow(max(self.used + ahead, 2 * self.slab.capacity))
                ahead = self.slab.capacity - self.used
            self.dest = self.slab_at()
        self.room = ahead
        return 0

    cdef int make_room(self) except -1:
        """Have room in the buffer behind `end`."""
        if self.in_place:
            return self.make_room_in_slab()
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

    cdef int make_room_in_slab(self) except -1:
        """Have room in the slab behind `end`. What was not decoded yet moves down to what was, so that the rest of a
        payload is received where it belongs."""
        cdef Py_ssize_t floor = self.used
        if self.state >= PAYLOAD:
            floor += self.filled
        if self.slab is None:
            self.slab = self.buffer = take_block(self.expected + STAGING)
        if self.pos != floor:
            memmove(self.slab.data + floor, self.slab.data + self.pos, <size_t> (self.end - self.pos))
            self.end -= self.pos - floor
            self.pos = floor
        if self.slab.capacity - self.end < STAGING // 2:
            self.grow_slab(self.end + STAGING)
        return 0

    cdef Py_ssize_t most_in_slab(self) noexcept:
        """Most that the next read into the slab may bring: of a large payload its rest and no more, so that it need not
        move; where payloads are small, many of them."""
        cdef Py_ssize_t missing = self.size - self.filled if self.state == PAYLOAD else 0
        if missing >= READ_SIZE:
            return min(missing, DIRECT_READ)
        return DIRECT_READ if 0 < self.size < READ_SIZE else READ_SIZE

    cdef int make_gap(self) except -1:
        """Have room in the slab for a payload of `size` bytes that was got in another way, before what was not decoded
        yet."""
        cdef Py_ssize_t left = self.end - self.pos
        cdef Py_ssize_t behind = self.used + self.size
        if self.slab is None:
            self.make_room_in_slab()
        if behind > self.pos:
            self.grow_slab(behind + left)
            memmove(self.slab.data + behind, self.slab.data + self.pos, <size_t> left)
            self.pos = behind
            self.end = behind + left
        return 0

    cdef int grow_slab(self, Py_ssize_t at_least) except -1:
        if at_least > self.slab.capacity:
            self.slab.grow(max(at_least, 2 * self.slab.capacity))
            if self.dest != NULL:
                self.dest = self.slab_at()
        return 0

    cdef int make_room_packed(self) except -1:
        """Have room in `packed` behind `packed_end`. A ZIP is kept as a whole; of others, what was not inflated yet."""
        cdef Py_ssize_t likely
        if self.zip is not None:
            raise AssertionError("the archive is whole, and must stay where it is")
        if self.packed is None and self.mime == ".zip":     # a block that grows is not one of those that were idle
            likely = (self.expected // self.count + ZIP_ENTRY) * (self.stop - self.index) if self.expected else 0
            self.packed = take_block(max(GROWTH, likely))
        elif self.packed is None:
            self.packed = take_block(2 * PACKED)
        if self.mime == ".zip":
            if self.packed.capacity - self.packed_end < PACKED:
                self.packed.grow(min(2 * self.packed.capacity, self.packed.capacity + 16 * GROWTH))
        elif self.packed_pos == self.packed_end:
            self.packed_pos = self.packed_end = 0
        elif self.packed.capacity - self.packed_end < PACKED:
            memmove(self.packed.data, self.packed.data + self.packed_pos, <size_t> (self.packed_end - self.packed_pos))
            self.packed_end -= self.packed_pos
            self.packed_pos = 0
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

    cdef int verify(self, const uint8_t *name, Py_ssize_t n, int64_t size) except -1:
        """Is the member at hand the entry at `index`? Sets `size`, and `err_msg` if the entry is missing."""
        cdef int64_t length = self.entries.rows[self.index].length
        cdef str reported = self.check_out(size) if self.multipart is not None else None
        if size > PY_SSIZE_T_MAX // 2:
            raise self.damage("tar", "a member's size", "a possible one", size)
        if size > self.max_entry:       # the TAR reader has its own eye on that
            raise LimitError(0, f"{self.entries.describe(self.index)} of {size} bytes is over the limit for one entry",
                             layer="zip", remedy="raise Policy(max_entry=...) or ask for ranges of it")
        self.size = <Py_ssize_t> size
        self.err_msg = None
        if self.is_named(name, n, False):
            if reported is not None:
                raise self.damage(
                    "batch", "the member of an entry that is reported missing", "__404__/...", name[:min(n, 200)])
            if length > 0 and self.size != length:
                self.wrong_range = True
                raise self.damage(
                    "batch", "a byte range came with the wrong length (the server's recovery sends the whole object)",
                    length, self.size)
        elif self.size == 0 and n > 8 and memcmp(name, b"__404__/", 8) == 0 and self.is_named(name + 8, n - 8, True):
            self.err_msg = reported if reported is not None else MISSING
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
        cdef Py_ssize_t size
        if self.multipart is None:      # an answer without a body has no content type either
            return self.starved()
        if self.packs:
            size = self.packed_end - self.packed_pos
            self.packed_pos += self.multipart.take(self.packed.data + self.packed_pos, size)
        else:
            self.pos += self.multipart.take(self.buffer.data + self.pos, self.end - self.pos)
        if not self.multipart.at_archive:
            return self.starved()
        beginning = self.multipart.metadata[:64]
        try:
            text = self.multipart.metadata.decode()
            if text.count("[") + text.count("{") > NESTED + NESTED_PER_ENTRY * (self.stop - self.first):
                raise ValueError("a bomb: each costs more memory than it has bytes")
            self.multipart.metadata = b""       # it may be megabytes, and is not needed twice
            answer = loads(text, object_hook=record_of)
            out = answer["out"] if answer["out"] is not None else []
            good = isinstance(out, list) and all([type(record) in (tuple, dict) for record in out])
        except (ValueError, KeyError, TypeError, RecursionError):
            good = False
        if not good:
            raise self.damage("metadata", "the metadata part", '{"out": [{...}, ...]}', beginning)
        if len(out) > self.stop - self.first:
            raise self.damage("metadata", "the number of records", self.stop - self.first, len(out))
        self.out = out
        self.hold_back()
        self.state = HEADER
        return 1

    cdef str check_out(self, int64_t came):
        """Hold the server's record of the entry at hand against entry and member. Why it is missing, or None."""
        cdef Py_ssize_t i = self.index
        record = self.out[i - self.first]
        name = self.entries.names[i]
        if type(record) is dict:
            raise self.damage("metadata", "a record's objname", name, "none")
        got, size, back, reason = <tuple> record
        archpath = self.entries.archpath(i)
        if got != name and (archpath is None or got not in (f"{name}/{archpath}", f"{name}{archpath}")):
            raise self.damage("metadata", "a record's objname", name, got)
        if type(size) is not int or size != came:
            raise self.damage("metadata", "a record's size", f"{came}, as the member's header says", size)
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
        if entry not in error.message:
            error.message = f"{error.message}; at {entry}"
        error.req_url = error.req_url or self.url
        if isinstance(error, WireError):
            error.entry = error.entry or entry
            error.remedy = error.remedy or REMEDIES.get(error.layer, REMEDY)
        return error

    cdef object not_found(self, list indices):
        """Entries that are missing, and that is an error."""
        named = "; ".join([self.entries.describe(i) for i in indices[:20]])
        if len(indices) > 20:
            named = f"{named}; and {len(indices) - 20} more"
        return ErrObjNotFound(
            404, f"{named}: no such object or member ({len(indices)} of {self.count} entries)", self.url,
            missing=tuple(indices),
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
        cdef bint returned = True               # the caller had control since the latest step
        if self.busy:
            raise RuntimeError("another thread is reading these results: a batch belongs to one thread at a time")
        if call is None:
            raise StopIteration
        self.busy = True
        try:
            while True:
                item = self.delivery.take()
                if item is not None:
                    if self.delivery.index == self.delivery.count:
                        self.finish()
                    return item
                call.pump(returned)
                returned = False
        except BaseException as error:
            self.close(error)
            raise
        finally:
            self.busy = False

    def finish(self) -> None:
        """Whole: the connection goes back to the pool, its last bytes are nobody's wait."""
        call, self.call = self.call, None
        if call is not None:
            call.finish()

    def close(self, error=None) -> None:
        """Give up what has not been received. The connection is closed, nothing else."""
        call, self.call = self.call, None
        if call is not None:
            call.close(error)
