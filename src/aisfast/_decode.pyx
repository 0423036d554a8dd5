"""Decoders from bytes to items. Nothing here opens, reads or waits; the only imports are our errors and limits.

    read ──► Framing ──► [Multipart] ──► TarReader ──► members
             in place     part 2 as      headers only;
                          it stands      payload is counted, never touched

Each is a small machine that takes its input in any split. They work on memory of the caller's: `Framing` moves payload
down over the framing it takes off, the other two only look. Lengths from the wire are bounded before they are used, and
compared with what is left, never added to a pointer. Each has a C face (see `_decode.pxd`) and a Python face, `feed`,
which copies and serves tests and tools.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from aisfast.errors import LimitError, WireError
from aisfast.settings import MAX_CHUNK_LINE, MAX_HEAD, MAX_METADATA, MAX_PAX

cdef extern from "Python.h":
    str PyUnicode_DecodeLatin1(const char *, Py_ssize_t, const char *)
    str PyUnicode_New(Py_ssize_t, unsigned int)
    void *PyUnicode_1BYTE_DATA(object) noexcept

cdef int64_t CHUNK_LINE_LIMIT = MAX_CHUNK_LINE
cdef int64_t HEAD_LIMIT = MAX_HEAD
cdef int64_t PAX_LIMIT = MAX_PAX
cdef int64_t NO_LIMIT = 0x7fffffffffffffff


cdef str quote(const uint8_t *p, Py_ssize_t n):
    """At most 16 bytes, for a message."""
    return repr(PyBytes_FromStringAndSize(<const char *> p, min(n, 16)))


# ------------------------------------------------------------------------------------------------------- response head

@cython.final
cdef class Head:
    """An HTTP response head: `status`, `reason`, `headers` (names in lower case), `size` in bytes."""

    def __repr__(self):
        return f"Head({self.status} {self.reason}, {self.headers})"


# the characters of a header's name, in lower case; 0: none
cdef uint8_t[256] TOKEN

cdef int fill_tokens() except -1:
    cdef uint8_t c
    memset(TOKEN, 0, 256)
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
        TOKEN[c] = c
        if c"a" <= c <= c"z":
            TOKEN[c - 32] = c
    return 0

fill_tokens()


cpdef Head parse_head(object data):
    """The response head that `data` begins with.

    Args:
        data: Contiguous bytes.
    Returns:
        The head, or None while its empty line has not come.
    Raises:
        WireError: Not an HTTP/1.x response head; layer "http".
        LimitError: Longer than `settings.MAX_HEAD`.
    Source: RFC 9112 sections 2 to 5, strict form: CRLF only, no obs-fold, no space before a colon.
    """
    cdef Py_buffer view
    cdef const uint8_t *p
    cdef const uint8_t *hit
    cdef Py_ssize_t n, at = 0, end = -1
    cdef Head head
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        p = <const uint8_t *> view.buf
        n = view.len
        if n and memcmp(p, b"HTTP/1.", min(n, 7)):
            raise _head_error(0, "an HTTP/1.x status line", quote(p, n))
        while at < n and at < HEAD_LIMIT:
            hit = <const uint8_t *> memchr(p + at, 10, <size_t> (n - at))
            if hit == NULL:
                break
            at = hit - p + 1
            if at < 2 or p[at - 2] != 13:
                raise _head_error(at - 1, "CR LF at the end of a line", "LF alone")
            if at >= 4 and p[at - 4] == 13 and p[at - 3] == 10:
                end = at
                break
        if end < 0 or end > HEAD_LIMIT:
            if n > HEAD_LIMIT:
                raise LimitError(
                    0, f"the response head is longer than {HEAD_LIMIT} bytes", layer="http", offset=HEAD_LIMIT,
                    remedy="is this endpoint an AIStore gateway?")
            return None
        head = Head.__new__(Head)
        head.size = end
        head.headers = {}
        at = read_status(head, p, end)
        while at < end - 2:
            at = read_header(head.headers, p, at, end)
        return head
    finally:
        PyBuffer_Release(&view)


cdef str latin1(const uint8_t *p, Py_ssize_t n):
    return PyUnicode_DecodeLatin1(<const char *> p, n, NULL)


cdef Py_ssize_t line_end(const uint8_t *p, Py_ssize_t at, Py_ssize_t end) noexcept:
    """Where the text of the line ends: CR LF follow (that was seen)."""
    return <const uint8_t *> memchr(p + at, 10, <size_t> (end - at)) - p - 1


cdef Py_ssize_t read_status(Head head, const uint8_t *p, Py_ssize_t end) except -1:
    """The status line, HTTP/1.x SP 3DIGIT [SP reason]: where the next line begins."""
    cdef Py_ssize_t n = line_end(p, 0, end)
    cdef int i
    if n < 12 or p[7] not in (c"0", c"1") or p[8] != c" " or (n > 12 and p[12] != c" "):
        raise _head_error(0, "an HTTP/1.x status line", repr(latin1(p, min(n, 32))))
    head.status = 0
    for i in range(9, 12):
        if not c"0" <= p[i] <= c"9":
            raise _head_error(0, "an HTTP/1.x status line", repr(latin1(p, min(n, 32))))
        head.status = 10 * head.status + p[i] - 48
    head.reason = latin1(p + 13, n - 13) if n > 13 else ""
    return n + 2


cdef Py_ssize_t read_header(dict headers, const uint8_t *p, Py_ssize_t at, Py_ssize_t head_end) except -1:
    """One header line: where the next one begins."""
    cdef Py_ssize_t end = line_end(p, at, head_end)
    cdef Py_ssize_t colon = at, i, first, last
    cdef uint8_t *to
    while colon < end and TOKEN[p[colon]]:
        colon += 1
    if colon == at or colon == end or p[colon] != c":":
        raise _head_error(at, "a header line 'name: value'", repr(latin1(p + at, min(end - at, 32))))
    name = PyUnicode_New(colon - at, 127)
    to = <uint8_t *> PyUnicode_1BYTE_DATA(name)
    for i in range(at, colon):
        to[i - at] = TOKEN[p[i]]
    first, last = colon + 1, end
    while first < last and (p[first] == c" " or p[first] == 9):
        first += 1
    while last > first and (p[last - 1] == c" " or p[last - 1] == 9):
        last -= 1
    if memchr(p + first, 0, <size_t> (last - first)) != NULL or memchr(p + first, 13, <size_t> (last - first)) != NULL:
        raise _head_error(
            at, "a header value without control characters", repr(latin1(p + at, min(end - at, 32))))
    value = latin1(p + first, last - first)
    if name not in headers:
        headers[name] = value
    elif name != "content-length":
        headers[name] = f"{headers[name]}, {value}"
    elif headers[name] != value:
        raise _head_error(at, "one Content-Length", f"{headers[name]!r} and {value!r}")
    return end + 2


cdef object _head_error(Py_ssize_t at, str expected, str found):
    return WireError(0, f"the response head is not HTTP at byte {at}: expected {expected}, found {found}",
                     layer="http", offset=at, expected=expected, found=found,
                     remedy="is this endpoint an AIStore gateway?")


# ------------------------------------------------------------------------------------------------------------- framing

cdef enum FramingState:
    SIZE                        # in the hex digits of a chunk size
    BLANK                       # in blanks behind them, before ";"
    EXTENSION                   # behind ";", up to CR
    SIZE_LF
    DATA                        # `left` bytes of chunk data, or of a body with Content-Length
    DATA_CR
    DATA_LF
    TRAILER                     # in a trailer line, or at its beginning
    TRAILER_LF
    END

cdef enum FramingFault:
    BAD_SIZE = 1
    SIZE_TOO_LARGE
    BAD_SIZE_END
    LONG_SIZE_LINE
    BAD_DATA_END
    BAD_TRAILER
    LONG_TRAILERS

cdef dict _FRAMING_FAULTS = {
    BAD_SIZE: ("a chunk size in hex digits", "something else"),
    SIZE_TOO_LARGE: ("a chunk size of at most 15 hex digits", "a longer one"),
    BAD_SIZE_END: ("LF after the CR of a chunk-size line", "something else"),
    LONG_SIZE_LINE: (f"a chunk-size line of at most {MAX_CHUNK_LINE} bytes", "a longer one"),
    BAD_DATA_END: ("CR LF after a chunk's data", "something else"),
    BAD_TRAILER: ("CR LF at the end of a trailer line", "something else"),
    LONG_TRAILERS: (f"a trailer section of at most {MAX_HEAD} bytes", "a longer one"),
}


@cython.final
cdef class Framing:
    """Takes HTTP/1.1 body framing off, in place.

    After a fault nothing more is taken: `strip` returns the good bytes before it, then 0.
    Source: RFC 9112 section 7.1 (chunked), section 6.3 (lengths); strict form.
    """

    @staticmethod
    def chunked() -> Framing:
        """Framing of a body with `Transfer-Encoding: chunked`."""
        cdef Framing self = Framing.__new__(Framing)
        self.is_chunked = True
        self.state = SIZE
        return self

    @staticmethod
    def length(int64_t n) -> Framing:
        """Framing of a body with `Content-Length: n`."""
        cdef Framing self = Framing.__new__(Framing)
        if n < 0:
            raise ValueError("a length cannot be negative")
        self.left = n
        self.state = DATA
        if n == 0:
            self.state = END
            self.done = True
        return self

    @staticmethod
    def until_close() -> Framing:
        """Framing of a body that ends with the connection."""
        cdef Framing self = Framing.__new__(Framing)
        self.left = NO_LIMIT
        self.state = DATA
        self.at_close = True
        return self

    cdef Py_ssize_t strip(self, uint8_t *p, Py_ssize_t n) noexcept nogil:
        """Move the payload in p[0:n] to p[0:m] and return m. Sets `done`, or `fault`, when it gets there."""
        cdef Py_ssize_t i = 0       # raw bytes looked at
        cdef Py_ssize_t m = 0       # payload bytes kept
        cdef Py_ssize_t run
        cdef uint8_t c
        cdef int value
        if self.fault:
            return 0
        while i < n:
            if self.state == DATA:
                run = n - i
                if run > self.left:
                    run = <Py_ssize_t> self.left
                if m != i:
                    memmove(p + m, p + i, <size_t> run)
                m += run
                i += run
                self.left -= run
                if self.left == 0:
                    if self.is_chunked:
                        self.state = DATA_CR
                    else:
                        self.state = END
                        self.done = True
                continue
            c = p[i]
            if self.state == SIZE:
                if 48 <= c <= 57:
                    value = c - 48
                elif 97 <= c <= 102:
                    value = c - 87
                elif 65 <= c <= 70:
                    value = c - 55
                else:
                    value = -1
                if value >= 0:
                    if self.digits == 15:       # 60 bits: the shift cannot overflow, no body is longer
                        self.fault = SIZE_TOO_LARGE
                        break
                    self.left = self.left << 4 | value
                    self.digits += 1
                elif self.digits == 0:
                    self.fault = BAD_SIZE
                    break
                elif c == 13:
                    self.state = SIZE_LF
                elif c == 59:                   # ";"
                    self.state = EXTENSION
                elif c == 32 or c == 9:
                    self.state = BLANK
                else:
                    self.fault = BAD_SIZE
                    break
                self.line += 1
            elif self.state == BLANK:
                if c == 59:
                    self.state = EXTENSION
                elif c != 32 and c != 9:
                    self.fault = BAD_SIZE
                    break
                self.line += 1
                if self.line > CHUNK_LINE_LIMIT:
                    self.fault = LONG_SIZE_LINE
                    break
            elif self.state == EXTENSION:
                if c == 13:
                    self.state = SIZE_LF
                elif c == 10 or c == 0:
                    self.fault = BAD_SIZE_END
                    break
                self.line += 1
                if self.line > CHUNK_LINE_LIMIT:
                    self.fault = LONG_SIZE_LINE
                    break
            elif self.state == SIZE_LF:
                if c != 10:
                    self.fault = BAD_SIZE_END
                    break
                self.digits = 0
                self.line = 0
                self.state = DATA if self.left else TRAILER
                self.trailer_line = 0
            elif self.state == DATA_CR:
                if c != 13:
                    self.fault = BAD_DATA_END
                    break
                self.state = DATA_LF
            elif self.state == DATA_LF:
                if c != 10:
                    self.fault = BAD_DATA_END
                    break
                self.state = SIZE
            elif self.state == TRAILER:
                if c == 13:
                    self.state = TRAILER_LF
                elif c == 10 or c == 0:
                    self.fault = BAD_TRAILER
                    break
                else:
                    self.trailer_line += 1
                self.line += 1
                if self.line > HEAD_LIMIT:
                    self.fault = LONG_TRAILERS
                    break
            elif self.state == TRAILER_LF:
                if c != 10:
                    self.fault = BAD_TRAILER
                    break
                if self.trailer_line:
                    self.trailer_line = 0
                    self.state = TRAILER
                else:
                    self.state = END
                    self.done = True
            else:                       # END
                self.excess += n - i
                break
            i += 1
        self.offset += i
        return m

    cdef object failure(self):
        """The exception for the fault."""
        expected, found = _FRAMING_FAULTS[self.fault]
        cls = LimitError if self.fault in (SIZE_TOO_LARGE, LONG_SIZE_LINE, LONG_TRAILERS) else WireError
        where = f"the answer's chunked coding is damaged at byte {self.offset}"
        return cls(0, f"{where}: expected {expected}, found {found}", layer="http", offset=self.offset,
                   expected=expected, found=found)

    def feed(self, data) -> bytes:
        """The payload bytes in the next read.

        Args:
            data: Contiguous bytes.
        Raises:
            WireError: Framing is wrong; `offset` counts from the body's first byte.
        """
        copy = bytearray(data)
        cdef uint8_t *p = copy
        cdef Py_ssize_t m = self.strip(p, len(copy))
        if self.fault:
            raise self.failure()
        return bytes(copy[:m])


# ----------------------------------------------------------------------------------------------------------- multipart

cdef enum MultipartPhase:
    OPENING                     # before part 1: its delimiter
    HEADERS_1
    BODY_1                      # metadata
    AFTER_1                     # the line end behind the delimiter
    HEADERS_2
    ARCHIVE
    REFUSED                     # after an error

cdef Py_ssize_t PART_HEADERS_LIMIT = MAX_HEAD


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart content type.

    Raises:
        WireError: It has none, or one that RFC 2046 does not allow.
    Source: RFC 2046 section 5.1.1, RFC 9110 section 5.6.6 (parameters, quoted or not).
    """
    rest = content_type.partition(";")[2]
    boundary = None
    while rest:
        name, _, rest = rest.strip(" \t;").partition("=")
        if rest[:1] == '"':
            value, i = [], 1
            while i < len(rest) and rest[i] != '"':
                i += rest[i] == "\\"
                value.append(rest[i:i + 1])
                i += 1
            value, rest = "".join(value), rest[i + 1:]
        else:
            value, _, rest = rest.partition(";")
            value = value.strip(" \t")
        if name.strip(" \t").lower() == "boundary":
            boundary = value
            break
    if not boundary or len(boundary) > 70 or boundary.endswith(" ") or not boundary.isascii() \
            or not boundary.isprintable():
        raise WireError(0, f"the answer's content type {content_type[:120]!r} has no usable boundary",
                        layer="multipart", offset=0, expected="boundary=...", found=content_type[:120])
    return boundary.encode("ascii")


@cython.final
cdef class Multipart:
    """A GetBatch multipart body: part 1 is metadata (JSON), part 2 is the archive.

    Part 2 runs to the end of the body and is never searched: the last `len(closing)` bytes are held back until the end,
    and must then be exactly the closing delimiter. So member data may contain the boundary.
    Source: RFC 2046 section 5.1; what AIStore writes.
    """

    def __cinit__(self, bytes boundary not None, Py_ssize_t max_metadata=MAX_METADATA):
        self.boundary = boundary
        self.opening = b"--" + boundary + b"\r\n"
        self.delimiter = b"\r\n--" + boundary
        self.closing = b"\r\n--" + boundary + b"--\r\n"
        self.max_metadata = max_metadata
        self.held = bytearray()
        self.tail = bytearray()

    cdef object failure(self, str expected, object found):
        self.phase = REFUSED
        where = f"the multipart answer is damaged near byte {self.offset}"
        return WireError(0, f"{where}: expected {expected}, found {found!r}",
                         layer="multipart", offset=self.offset, expected=expected, found=repr(found))

    cdef Py_ssize_t take(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Use bytes up to the archive's first; return how many. `at_archive` tells whether it has begun."""
        cdef Py_ssize_t at = 0, used
        cdef bytes text
        while at < n and not self.at_archive:
            if self.phase == OPENING or self.phase == AFTER_1:
                text = self.opening if self.phase == OPENING else b"\r\n"
                if p[at] != <uint8_t> PyBytes_AS_STRING(text)[self.matched]:
                    raise self.failure(f"{text!r}", (p + at)[:min(n - at, 16)])
                self.matched += 1
                self.offset += 1
                at += 1
                if self.matched == PyBytes_GET_SIZE(text):
                    self.matched = 0
                    self.held = bytearray(b"\r\n")      # an empty header section begins with its end
                    self.phase += 1
            elif self.phase == HEADERS_1 or self.phase == HEADERS_2:
                used = self.gather(p + at, n - at, b"\r\n\r\n", PART_HEADERS_LIMIT)
                at += used if used >= 0 else n - at
                if used >= 0:
                    self.held = bytearray()
                    self.phase += 1
                    self.at_archive = self.phase == ARCHIVE
            elif self.phase == BODY_1:
                used = self.gather(p + at, n - at, self.delimiter, self.max_metadata)
                at += used if used >= 0 else n - at
                if used >= 0:
                    self.metadata = bytes(self.held)
                    self.held = bytearray()
                    self.phase += 1
            else:
                raise self.failure("nothing after an error", (p + at)[:min(n - at, 16)])
        return at

    cdef Py_ssize_t gather(self, const uint8_t *p, Py_ssize_t n, bytes end, Py_ssize_t limit) except -2:
        """Take bytes up to `end` into `held`, and past it; how many, or -1: all of them, and more are needed."""
        cdef Py_ssize_t before = len(self.held), size = len(end), at
        cdef Py_ssize_t run = min(n, limit + size - before)
        self.held += p[:run]
        at = self.held.find(end, max(0, before - size + 1))
        if at >= 0:
            del self.held[at:]
            self.offset += at + size - before
            return at + size - before
        self.offset += run
        if run < n or before + run == limit + size:
            self.phase = REFUSED
            what = "metadata part" if end is self.delimiter else "header section of a part"
            raise LimitError(0, f"the {what} of the multipart answer is longer than {limit} bytes", layer="multipart",
                             offset=self.offset, remedy="ask for fewer entries at a time")
        return -1

    cdef bint closes(self, const uint8_t *end) noexcept:
        """Do the bytes right before `end` form the closing delimiter? At least len(closing) of them must be there."""
        cdef Py_ssize_t n = PyBytes_GET_SIZE(self.closing)
        return memcmp(end - n, PyBytes_AS_STRING(self.closing), <size_t> n) == 0

    @property
    def done(self) -> bool:
        """The closing delimiter was seen at the end of the body (Python face)."""
        return self.phase == ARCHIVE and self.tail is None

    def feed(self, data) -> list:
        """Events of the next bytes: ("metadata", json) once, then ("archive", some bytes) any number of times.

        Raises:
            WireError: A delimiter is not where it should be.
            LimitError: Metadata or part headers are longer than allowed.
        """
        cdef bytes copy = bytes(data)
        cdef bint had = self.metadata is not None
        if self.phase == REFUSED:
            raise self.failure("nothing after an error", copy[:16])
        cdef Py_ssize_t used
        if self.tail is None:
            raise self.failure("the end", copy[:16])
        used = self.take(<const uint8_t *> PyBytes_AS_STRING(copy), len(copy))
        events = []
        if self.metadata is not None and not had:
            events.append(("metadata", self.metadata))
        if self.at_archive and used < len(copy):
            self.offset += len(copy) - used
            self.tail += copy[used:]
            ready = len(self.tail) - len(self.closing)
            if ready > 0:
                events.append(("archive", bytes(self.tail[:ready])))
                del self.tail[:ready]
        return events

    def close(self) -> list:
        """The body has ended.

        Returns:
            The last ("archive", bytes) event, if the held-back bytes hold any.
        Raises:
            WireError: The body does not end in the closing delimiter.
        """
        if not self.at_archive or bytes(self.tail) != self.closing:
            end = bytes(self.tail if self.at_archive else self.held)
            raise self.failure("the closing delimiter at the end", end[max(0, len(end) - 16):])
        self.tail = None
        return []


# ----------------------------------------------------------------------------------------------------------------- TAR

cdef enum TarState:
    HEADER
    TEXT                        # payload of a PAX or GNU long-name header
    SKIP                        # padding, or payload nobody wants
    PAYLOAD                     # the caller's: `payload_done` ends it
    DONE
    BROKEN                      # after an error: it never finds its way back


cdef uint32_t header_sum(const uint8_t *p) noexcept nogil:
    """Sum of the header's bytes with the checksum field read as spaces: eight lanes at a time, no per-machine code."""
    cdef uint64_t word, even = 0, odd = 0
    cdef uint64_t mask = 0x00ff00ff00ff00ff
    cdef uint32_t total = 0
    cdef int i
    for i in range(64):
        memcpy(&word, p + 8 * i, 8)
        even += word & mask             # four lanes of 16 bits; 64 x 255 fits
        odd += (word >> 8) & mask
    for i in range(4):
        total += <uint32_t> ((even >> (16 * i)) & 0xffff) + <uint32_t> ((odd >> (16 * i)) & 0xffff)
    for i in range(148, 156):
        total += 32
        total -= p[i]
    return total


cdef int64_t tar_number(const uint8_t *p, int n) noexcept nogil:
    """A number field: octal with leading or trailing spaces and NULs, or base-256. -1: none, negative or too large."""
    cdef int i = 0
    cdef int64_t value = 0
    if p[0] & 0x80:                     # base-256, big-endian, two's complement in the lower bits
        if p[0] & 0x40:
            return -1
        value = p[0] & 0x3f
        for i in range(1, n):
            if value >> 55:
                return -1
            value = value << 8 | p[i]
        return value
    while i < n and (p[i] == 32 or p[i] == 0):
        i += 1
    while i < n and 48 <= p[i] <= 55:
        value = value << 3 | (p[i] - 48)    # at most 12 digits: 36 bits
        i += 1
    while i < n:
        if p[i] != 32 and p[i] != 0:
            return -1
        i += 1
    return value


cdef Py_ssize_t field_size(const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """Bytes of a text field before its NUL, or all of it."""
    cdef const uint8_t *hit = <const uint8_t *> memchr(p, 0, <size_t> n)
    return n if hit == NULL else hit - p


cdef bint all_zero(const uint8_t *p) noexcept nogil:
    return p[0] == 0 and memcmp(p, p + 1, TAR_BLOCK - 1) == 0


@cython.final
cdef class TarReader:
    """TAR headers at any split: USTAR with prefix, PAX, GNU long names, base-256.

    The caller passes over a member's payload itself (`size` bytes) and then calls `payload_done`. Every header's
    checksum is verified. Directories, links, devices and volume labels are skipped; sparse and multi-volume members are
    refused, since their payload is not what the file holds.
    Source: POSIX.1-2017 pax, "ustar Interchange Format", "pax Interchange Format"; GNU tar manual, "Basic Tar Format".
    """

    def __cinit__(self, int64_t max_entry=NO_LIMIT):
        self.max_entry = max_entry
        self.pax_size = -1
        self.global_size = -1

    cdef object failure(self, str what, str expected, str found):
        self.state = BROKEN
        return WireError(0, f"the TAR is damaged at byte {self.offset}: {what}: expected {expected}, found {found}",
                         layer="tar", offset=self.offset, expected=expected, found=found)

    cdef int next(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Go on with p[0:n]; an event. `used` tells how many bytes it took, `name` and `size` what the member is."""
        cdef Py_ssize_t at = 0, run
        cdef const uint8_t *header
        cdef int event
        while True:
            if self.state == SKIP:
                run = n - at
                if run > self.skip:
                    run = <Py_ssize_t> self.skip
                at += run
                self.offset += run
                self.skip -= run
                if self.skip:
                    break
                self.state = HEADER
            elif self.state == TEXT:
                run = n - at
                if run > self.text_left:
                    run = <Py_ssize_t> self.text_left
                self.text += (p + at)[:run]
                at += run
                self.offset += run
                self.text_left -= run
                if self.text_left:
                    break
                self._text_done()
            elif self.state == HEADER:
                run = n - at
                if self.have == 0 and run >= TAR_BLOCK:
                    header = p + at
                    at += TAR_BLOCK
                else:
                    if run > TAR_BLOCK - self.have:
                        run = TAR_BLOCK - self.have
                    memcpy(self.gathered + self.have, p + at, <size_t> run)
                    self.have += run
                    at += run
                    if self.have < TAR_BLOCK:
                        break
                    self.have = 0
                    header = self.gathered
                event = self._header(header)
                self.offset += TAR_BLOCK
                if event != TAR_NEED:
                    self.used = at
                    return event
            elif self.state == DONE:
                self.used = at
                return TAR_END
            elif self.state == BROKEN:
                raise self.failure("what follows an error", "nothing", "more bytes")
            else:
                raise AssertionError("the payload at hand is not finished")
        self.used = at
        return TAR_NEED

    cdef void payload_done(self) noexcept:
        """The payload of the member at hand has been passed over."""
        self.offset += self.size
        self.skip = -self.size & (TAR_BLOCK - 1)
        self.state = SKIP

    cdef int _header(self, const uint8_t *p) except -1:
        """One header block. TAR_NEED stands for: go on."""
        cdef int64_t size, checksum
        cdef uint8_t kind = p[156]
        cdef Py_ssize_t prefix
        if p[0] == 0 and all_zero(p):
            self.zero_blocks += 1
            if self.zero_blocks == 2:
                self.state = DONE
                self.done = True
                return TAR_END
            return TAR_NEED
        if self.zero_blocks:
            raise self.failure("a zero block in the middle", "a second zero block", quote(p, 16))
        checksum = tar_number(p + 148, 8)
        if checksum != header_sum(p):
            raise self.failure("a header block", f"checksum {header_sum(p)}", quote(p + 148, 8))
        size = tar_number(p + 124, 12)
        if size < 0:
            raise self.failure("a header's size field", "an octal or base-256 number", quote(p + 124, 12))
        if kind == c"x" or kind == c"g" or kind == c"L" or kind == c"K":
            if size > PAX_LIMIT:
                self.state = BROKEN
                raise LimitError(0, f"a TAR extension header of {size} bytes at byte {self.offset} is over {PAX_LIMIT}",
                                 layer="tar", offset=self.offset, expected=f"at most {PAX_LIMIT}", found=str(size))
            self.gathering = kind
            self.text = bytearray()
            self.text_left = size
            self.size = size
            self.state = TEXT
            return TAR_NEED
        if self.pax_size >= 0:
            size = self.pax_size
        elif self.global_size >= 0:
            size = self.global_size
        if self.pax_name is not None or self.global_name is not None:
            name = self.pax_name if self.pax_name is not None else self.global_name
            self.text = bytearray(name)             # kept alive while `name` points into it
            self.name = self.text
            self.name_size = len(name)
        else:
            self.name_size = field_size(p, 100)
            prefix = 0
            if memcmp(p + 257, b"ustar\0", 6) == 0:     # in GNU's own format these bytes are something else
                prefix = field_size(p + 345, 155)
            if prefix:
                memcpy(self.name_buffer, p + 345, <size_t> prefix)
                self.name_buffer[prefix] = c"/"
                prefix += 1
            memcpy(self.name_buffer + prefix, p, <size_t> self.name_size)
            self.name = self.name_buffer
            self.name_size += prefix
        self.pax_name = None
        self.pax_size = -1
        if kind == c"S" or kind == c"M":
            raise self.failure("a member's type", "a regular file", f"type {chr(kind)!r} (sparse or multi-volume)")
        if kind == 0 and self.name_size and self.name[self.name_size - 1] == c"/":
            kind = c"5"                             # how a directory was written before there was a type for it
        if kind == 0 or kind == c"0" or kind == c"7":
            if size > self.max_entry:
                self.state = BROKEN
                raise LimitError(
                    0, f"member {self._text_name()!r} of {size} bytes is over the limit of {self.max_entry} an entry",
                    layer="tar", offset=self.offset, expected=f"at most {self.max_entry}", found=str(size),
                    entry=self._text_name(), remedy="raise Policy(max_entry=...) or ask for ranges of it")
            self.size = size
            self.state = PAYLOAD
            return TAR_MEMBER
        if c"1" <= kind <= c"6":                    # links, devices, directories, FIFOs: a header only
            size = 0
        if size > NO_LIMIT - TAR_BLOCK:
            raise self.failure("a skipped member's size", "a possible one", str(size))
        self.skip = size + (-size & (TAR_BLOCK - 1))
        self.state = SKIP
        return TAR_NEED

    cdef str _text_name(self):
        return PyBytes_FromStringAndSize(<const char *> self.name, self.name_size).decode("utf-8", "backslashreplace")

    cdef int _text_done(self) except -1:
        """The payload of an extension header is complete."""
        cdef bytes text = bytes(self.text)
        self.skip = -self.size & (TAR_BLOCK - 1)
        self.state = SKIP
        if self.gathering == c"L":
            self.pax_name = text.split(b"\0", 1)[0]
        elif self.gathering != c"K":                # a long link's target is of no use
            self._records(text, self.gathering == c"g")
        return 0

    cdef int _records(self, bytes text, bint for_all) except -1:
        """PAX records "LENGTH KEY=VALUE\\n", the length counting itself."""
        cdef Py_ssize_t at = 0, end, space, equals, n = len(text)
        cdef int64_t size
        while at < n:
            space = text.find(b" ", at, at + 20)
            digits = text[at:space] if space > at else b""
            if not digits.isdigit() or digits[0] == 48 or len(digits) > 7:
                raise self.failure("a PAX record", "its length in decimal digits and a space", repr(text[at:at + 16]))
            end = at + int(digits)                  # at most 7 digits: no overflow
            equals = text.find(b"=", space, min(end, n))
            if end > n or equals < 0 or text[end - 1] != 10:
                raise self.failure("a PAX record", "key=value and LF at the length it says", repr(text[at:at + 16]))
            key, value = text[space + 1:equals], text[equals + 1:end - 1]
            if key == b"path":
                if b"\0" in value:
                    raise self.failure("a PAX path", "no NUL in it", repr(value[:16]))
                if for_all:
                    self.global_name = value or None
                else:
                    self.pax_name = value or None
            elif key == b"size":
                if not value.isdigit() or len(value) > 18:
                    raise self.failure("a PAX size", "at most 18 decimal digits", repr(value[:24]))
                size = int(value)
                if for_all:
                    self.global_size = size
                else:
                    self.pax_size = size
            elif key.startswith(b"GNU.sparse."):
                raise self.failure("a member's type", "a regular file", "a sparse one")
            elif key == b"mtime" and not _is_time(value):
                raise self.failure("a PAX mtime", "a decimal number", repr(value[:24]))
            at = end
        return 0

    def feed(self, data) -> list:
        """Events of the next bytes: ("member", name, size), ("data", some of its payload), ("end",) at two zero blocks.

        What follows the two zero blocks is not looked at.

        Raises:
            WireError: A header is damaged, or of a kind that is refused.
            LimitError: A payload over `max_entry`, or an extension header over `settings.MAX_PAX`.
        """
        cdef bytes copy = bytes(data)
        cdef const uint8_t *p = <const uint8_t *> PyBytes_AS_STRING(copy)
        cdef Py_ssize_t at = 0, n = len(copy), run
        cdef int event
        events = []
        while not self.done:
            if self.state == PAYLOAD:
                run = min(n - at, self.payload_left)
                if run:
                    events.append(("data", copy[at:at + run]))
                at += run
                self.payload_left -= run
                if self.payload_left:
                    break
                self.payload_done()
            event = self.next(p + at, n - at)
            at += self.used
            if event == TAR_MEMBER:
                name = PyBytes_FromStringAndSize(<const char *> self.name, self.name_size)
                events.append(("member", name, self.size))
                self.payload_left = self.size
            elif event == TAR_END:
                events.append(("end",))
            else:
                break
        return events

    def close(self) -> None:
        """The input has ended.

        Raises:
            WireError: Not at the two zero blocks.
        """
        if not self.done:
            raise self.failure("the end of the input", "two zero blocks", "no more bytes")


cdef bint _is_time(bytes value):
    digits = value.removeprefix(b"-").replace(b".", b"", 1)
    return digits.isdigit() and len(digits) < 64
