"""What a batch asks for, as columns; and the JSON body made of them without a Python object per entry.

Names stay the caller's own strings; ranges and places are plain C rows. The standard `json` module reads a body back
identically.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy, memset

from base64 import b64decode
from json import dumps

cdef const char *HEX = b"0123456789abcdef"
cdef const char *BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

# ASCII characters that JSON does not take as they are
cdef uint8_t[256] ESCAPED
memset(ESCAPED, 0, 256)
memset(ESCAPED, 1, 32)
ESCAPED[c'"'] = 1
ESCAPED[c"\\"] = 1


# -------------------------------------------------------------------------------------------------------------- writer

@cython.final
@cython.internal
cdef class Writer:
    """A growing buffer of UTF-8 JSON text."""
    cdef uint8_t *text
    cdef Py_ssize_t size
    cdef Py_ssize_t room
    cdef bint surrogates        # a string with lone surrogates was written

    def __cinit__(self, Py_ssize_t room):
        self.text = <uint8_t *> malloc(<size_t> room)
        if self.text == NULL:
            raise MemoryError()
        self.room = room

    def __dealloc__(self):
        free(self.text)

    cdef int need(self, Py_ssize_t n) except -1:
        """Make room for n more bytes."""
        cdef Py_ssize_t room
        cdef uint8_t *text
        if n <= self.room - self.size:
            return 0
        room = self.room * 2
        if room - self.size < n:
            room = self.size + n
        text = <uint8_t *> realloc(self.text, <size_t> room)
        if text == NULL:
            raise MemoryError()
        self.text = text
        self.room = room
        return 0

    cdef int raw(self, const char *p, Py_ssize_t n) except -1:
        self.need(n)
        memcpy(self.text + self.size, p, <size_t> n)
        self.size += n
        return 0

    cdef int literal(self, bytes text) except -1:
        return self.raw(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef int string(self, str value) except -1:
        """A JSON string, quotes included."""
        cdef Py_ssize_t n, i, run = 0
        cdef const uint8_t *p
        cdef uint8_t *out
        cdef uint8_t c
        try:
            p = <const uint8_t *> PyUnicode_AsUTF8AndSize(value, &n)
        except UnicodeEncodeError:      # lone surrogates have no UTF-8 form, but JSON can spell them
            self.surrogates = True
            return self.literal(dumps(value).encode("ascii"))
        self.need(6 * n + 2)
        out = self.text + self.size
        out[0] = c'"'
        out += 1
        for i in range(n):
            c = p[i]
            if not ESCAPED[c]:
                continue
            memcpy(out, p + run, <size_t> (i - run))
            out += i - run
            run = i + 1
            out[0] = c"\\"
            if c == c'"' or c == c"\\":
                out[1] = c
                out += 2
            else:
                memcpy(out + 1, b"u00", 3)
                out[4] = HEX[c >> 4]
                out[5] = HEX[c & 15]
                out += 6
        memcpy(out, p + run, <size_t> (n - run))
        out += n - run
        out[0] = c'"'
        self.size = out + 1 - self.text
        return 0

    cdef int number(self, int64_t value) except -1:
        cdef char digits[20]
        cdef int i = 20
        cdef uint64_t left = <uint64_t> value
        self.need(21)
        if value < 0:
            left = 0 - left
        while True:
            i -= 1
            digits[i] = <char> (48 + left % 10)
            left //= 10
            if not left:
                break
        if value < 0:
            self.text[self.size] = c"-"
            self.size += 1
        memcpy(self.text + self.size, digits + i, <size_t> (20 - i))
        self.size += 20 - i
        return 0

    cdef int base64(self, bytes value) except -1:
        """A JSON string: standard alphabet, padded (the server takes no other)."""
        cdef const uint8_t *p = <const uint8_t *> PyBytes_AS_STRING(value)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(value), i = 0
        cdef uint8_t *out
        cdef uint8_t second, third
        self.need((n + 2) // 3 * 4 + 2)
        out = self.text + self.size
        out[0] = c'"'
        out += 1
        while i < n:
            second = p[i + 1] if i + 1 < n else 0
            third = p[i + 2] if i + 2 < n else 0
            out[0] = BASE64[p[i] >> 2]
            out[1] = BASE64[(p[i] & 3) << 4 | second >> 4]
            out[2] = BASE64[(second & 15) << 2 | third >> 6] if i + 1 < n else c"="
            out[3] = BASE64[third & 63] if i + 2 < n else c"="
            out += 4
            i += 3
        out[0] = c'"'
        self.size = out + 1 - self.text
        return 0


# ------------------------------------------------------------------------------------------------------------- entries

cdef str exact(str what, value):
    """`value` as a plain str (numpy's strings are a subclass)."""
    if type(value) is str:
        return <str> value
    if isinstance(value, str):
        return "".join(value)
    raise TypeError(f"an entry's {what} must be a str, not {type(value).__name__}")


cpdef str name_fault(str name):
    """What is wrong with an object name or archpath, or None: the rules every AIStore node applies.

    Source: AIStore cmn/cos/err.go (ValidateOname).
    """
    cdef Py_ssize_t n, at = 0, end
    cdef const char *p
    cdef const char *hit
    try:
        p = PyUnicode_AsUTF8AndSize(name, &n)
    except UnicodeEncodeError:
        return "holds lone surrogates, so it is no UTF-8 text"
    if n == 0:
        return "is empty"
    if p[n - 1] == c"/":
        return "ends in '/'"
    if memchr(p, 0, <size_t> n) != NULL:
        return "holds a NUL"
    if n >= 2 and p[0] == c"~" and p[1] == c"/":
        return "begins with '~/'"
    while True:
        hit = <const char *> memchr(p + at, c".", <size_t> (n - at))
        if hit == NULL:
            return None
        at = hit - p
        if at == 0 or p[at - 1] == c"/":
            end = at + 1
            if end < n and p[end] == c".":
                end += 1
            if end == n or p[end] == c"/":
                return "has a '.' or '..' path component"
        at += 1


def check_names(list names) -> bool:
    """See that objects can have these names. False: not all of them are plain strings.

    Raises:
        ValueError: One cannot be a name; it is named.
    """
    for name in names:
        if type(name) is not str:
            return False
    for i, name in enumerate(names):
        fault = name_fault(name)
        if fault is not None:
            raise ValueError(f"entry {i}: the name {name[:200]!r} {fault}: no object can have it")
    return True


@cython.final
cdef class Place:
    """Where entries live: bucket and provider as sent (None: the batch's own), or a bucket's uname."""

    def __cinit__(self, bucket, provider, uname):
        cdef Writer out = Writer(64)
        self.bucket = None if bucket is None else exact("bucket", bucket)
        self.provider = None if provider is None else exact("provider", provider)
        self.uname = None if uname is None else exact("uname", uname)
        for key, value in ((b',"bucket":', self.bucket), (b',"provider":', self.provider), (b',"uname":', self.uname)):
            if value is not None:
                out.literal(key)
                out.string(value)
        self.json = PyBytes_FromStringAndSize(<const char *> out.text, out.size)
        if self.bucket is not None:
            self.prefix = self.bucket.encode("utf-8", "surrogatepass") + b"/"


@cython.final
cdef class Entries:
    """The entries of one batch, as columns, in order.

    One that was handed to a call is `frozen`: its owner copies it before the next change, so that a call keeps what it
    asked for.
    """

    def __cinit__(self):
        self.names = []
        self.places = []
        self.place_index = {}
        self.unspeakable = -1

    def __dealloc__(self):
        free(self.rows)

    def __len__(self):
        return self.count

    cdef int reserve(self, Py_ssize_t count) except -1:
        """Make room for `count` rows in all."""
        cdef Py_ssize_t room
        cdef Row *rows
        if count <= self.room:
            return 0
        room = max(count, 2 * self.room, 16)
        rows = <Row *> realloc(self.rows, <size_t> room * sizeof(Row))
        if rows == NULL:
            raise MemoryError()
        self.rows = rows
        self.room = room
        return 0

    cdef int32_t place(self, bucket, provider, uname) except -1:
        """Index of a place, a new one if need be."""
        cdef Place last
        if self.places:
            last = self.places[len(self.places) - 1]
            if last.bucket is bucket and last.provider is provider and last.uname is uname:
                return <int32_t> (len(self.places) - 1)
        key = (bucket, provider, uname)
        index = self.place_index.get(key)
        if index is None:
            index = len(self.places)
            if index >= INT32_MAX:
                raise OverflowError("too many different buckets in one batch")
            self.places.append(Place(bucket, provider, uname))
            self.place_index[key] = index
        return index

    cpdef append(self, name, bucket, provider, archpath=None, bytes opaque=None, int64_t start=0, int64_t length=0,
                 uname=None):
        """Add one entry; nothing about it is checked but its types.

        Args:
            name: Object name.
            bucket, provider: As sent; None leaves the key out.
            archpath: Path of a member in the object, or None.
            opaque: Bytes that come back with the entry, or None.
            start, length: Byte range; 0, 0 is the whole.
            uname: Fully qualified name of the bucket, or None.
        """
        cdef int32_t place = self.place(bucket, provider, uname)
        name = exact("name", name)
        if archpath:
            archpath = exact("archpath", archpath)
        self.reserve(self.count + 1)
        self.rows[self.count].start = start
        self.rows[self.count].length = length
        self.rows[self.count].place = place
        self.names.append(name)
        if archpath and self.archpaths is None:
            self.archpaths = [None] * self.count
        if self.archpaths is not None:
            self.archpaths.append(archpath or None)
        if opaque and self.opaques is None:
            self.opaques = [None] * self.count
        if self.opaques is not None:
            self.opaques.append(opaque or None)
        self.count += 1

    def extend(self, list names, bucket, provider):
        """Add entries by name, all in one place.

        Raises:
            TypeError: A name is not a str; nothing was added.
        """
        cdef Py_ssize_t i, n = len(names)
        cdef int32_t place = self.place(bucket, provider, None)
        names = [exact("name", name) for name in names]
        self.reserve(self.count + n)
        for i in range(self.count, self.count + n):
            self.rows[i].start = 0
            self.rows[i].length = 0
            self.rows[i].place = place
        self.names += names
        if self.archpaths is not None:
            self.archpaths += [None] * n
        if self.opaques is not None:
            self.opaques += [None] * n
        self.count += n

    def subset(self, indices) -> Entries:
        """Some of the entries, in the order given, as a new Entries."""
        cdef Entries other = Entries()
        other.bucket = self.bucket
        other.provider = self.provider
        cdef Py_ssize_t i
        cdef Place place
        for index in indices:
            i = index
            if not 0 <= i < self.count:
                raise IndexError(f"no entry {i} in a batch of {self.count}")
            place = self.place_of(i)
            other.append(self.names[i], place.bucket, place.provider, self.archpath(i), self.opaque(i),
                         self.rows[i].start, self.rows[i].length, place.uname)
        return other

    def copy(self) -> Entries:
        """The same entries, free to be changed."""
        cdef Entries other = Entries()
        other.reserve(self.count)
        if self.count:
            memcpy(other.rows, self.rows, <size_t> self.count * sizeof(Row))
        other.count = self.count
        other.names = list(self.names)
        other.archpaths = None if self.archpaths is None else list(self.archpaths)
        other.opaques = None if self.opaques is None else list(self.opaques)
        other.places = list(self.places)
        other.place_index = dict(self.place_index)
        return other

    cdef object archpath(self, Py_ssize_t i):
        return None if self.archpaths is None else self.archpaths[i]

    cdef object opaque(self, Py_ssize_t i):
        return None if self.opaques is None else self.opaques[i]

    cdef Place place_of(self, Py_ssize_t i):
        return <Place> self.places[self.rows[i].place]

    def covers(self, Entries other not None) -> bool:
        """Every entry of the other lives in a bucket that one of these lives in."""
        return other.place_index.keys() <= self.place_index.keys()

    def name_buckets(self) -> bool:
        """Every entry names its bucket itself."""
        cdef Place place
        for place in self.places:
            if place.bucket is None and place.uname is None:
                return False
        return True

    def row(self, Py_ssize_t i) -> tuple:
        """(name, bucket, provider, archpath, opaque, start, length, uname) of an entry: what `append` takes."""
        if not 0 <= i < self.count:
            raise IndexError(f"no entry {i} in a batch of {self.count}")
        cdef Place place = self.place_of(i)
        return (self.names[i], place.bucket, place.provider, self.archpath(i), self.opaque(i),
                self.rows[i].start, self.rows[i].length, place.uname)

    cpdef str describe(self, Py_ssize_t i):
        """An entry as errors name it: `entry 3 (bucket/name/archpath)`, with its range if it has one."""
        cdef Place place
        if not 0 <= i < self.count:
            raise IndexError(f"no entry {i} in a batch of {self.count}")
        place = self.place_of(i)
        bucket = place.bucket or place.uname or self.bucket
        text = "/".join([part for part in (bucket, self.names[i], self.archpath(i)) if part])
        if len(text) > 300:
            text = f"{text[:200]}...{text[len(text) - 80:]}"
        if self.rows[i].length:
            text = f"{text}, range start={self.rows[i].start} length={self.rows[i].length}"
        return f"entry {i} ({text})"

    def body(self, mime, coer, onob, strm, coloc=None, Entries tail=None) -> bytes:
        """The JSON body of a GetBatch request for all entries.

        Args:
            mime: Output format, or None.
            coer, onob, strm: Continue on error, object-name-only, streaming; None leaves the key out.
            coloc: Colocation level; left out if 0 or None.
            tail: Entries to ask for behind them.
        Returns:
            UTF-8 text, keys as AIStore names them.
        Source: AIStore api/apc/ml.go (MossReq, MossIn).
        """
        cdef Writer out = Writer(256 + 96 * self.count)
        out.raw(b'{"in":[', 7)
        self.write(out)
        if tail is not None:
            out.raw(b",", 1)
            tail.write(out)
        out.raw(b"]", 1)
        if mime is not None:
            out.raw(b',"mime":', 8)
            out.string(mime)
        for key, value in ((b',"coer":', coer), (b',"onob":', onob), (b',"strm":', strm)):
            if value is not None:
                out.literal(key)
                out.literal(b"true" if value else b"false")
        if coloc:
            out.raw(b',"coloc":', 9)
            out.number(coloc)
        out.raw(b"}", 1)
        return PyBytes_FromStringAndSize(<const char *> out.text, out.size)

    cdef int write(self, out_) except -1:
        """All entries, as JSON objects with commas between them."""
        cdef Writer out = out_
        cdef Py_ssize_t i
        cdef Row *row
        for i in range(self.count):
            row = &self.rows[i]
            if i:
                out.raw(b",", 1)
            out.raw(b'{"objname":', 11)
            out.string(<str> self.names[i])
            out.literal((<Place> self.places[row.place]).json)
            if self.archpaths is not None and self.archpaths[i] is not None:
                out.raw(b',"archpath":', 12)
                out.string(self.archpaths[i])
            if self.opaques is not None and self.opaques[i] is not None:
                out.raw(b',"opaque":', 10)
                out.base64(self.opaques[i])
            if row.start:
                out.raw(b',"start":', 9)
                out.number(row.start)
            if row.length:
                out.raw(b',"length":', 10)
                out.number(row.length)
            out.raw(b"}", 1)
            if out.surrogates and self.unspeakable < 0:
                self.unspeakable = i
        return 0

    def __reduce__(self):
        return _entries, ([self.row(i) for i in range(self.count)], self.bucket, self.provider)

    @staticmethod
    def of_models(models) -> Entries:
        """Entries from a list of objects with the attributes of a `MossIn`.

        Raises:
            ValueError: An item lacks an attribute or holds the wrong type; it is named by its index.
        """
        cdef Entries self = Entries()
        for i, model in enumerate(models):
            try:
                opaque = model.opaque
                self.append(model.obj_name, model.bck, model.provider, model.archpath,
                            b64decode(opaque, validate=True) if opaque else None,
                            model.start or 0, model.length or 0, model.uname)
            except (AttributeError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"requests_list[{i}] ({model!r:.200}) is not an entry: {error}; append MossIn objects") from None
        return self


def _entries(rows, bucket, provider) -> Entries:
    cdef Entries self = Entries()
    self.bucket = bucket
    self.provider = provider
    for row in rows:
        (<object> self).append(*row)
    return self
