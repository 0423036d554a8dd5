"""A ZIP archive in memory, from its central directory: members stored without compression, as AIStore writes them.

The directory comes last, and local headers do not tell sizes: nothing can be handed out before all is here. Every place
that the directory names is held against the archive's length and the local header there; members must lie one behind
the other, so that none can be had twice.
Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from aisfast.errors import WireError

cdef enum:
    END = 22                    # bytes of the end record, without its comment
    END_64 = 56
    LOCATOR_64 = 20
    ENTRY = 46                  # of an entry of the directory, without name, extra field and comment
    LOCAL = 30                  # of a local header, the same
    COMMENT = 0xffff            # longest comment behind the end record


@cython.final
cdef class ZipReader:
    """The members of an archive."""

    def __dealloc__(self):
        free(self.members)

    cdef int read(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Find all members.

        Raises:
            WireError: The archive is damaged, or holds what AIStore does not write.
        """
        cdef Py_ssize_t end, at, start
        cdef int64_t count, length, begin
        self.data = data
        self.size = size
        end = size - END
        while end >= 0 and end >= size - END - COMMENT:
            if memcmp(data + end, b"PK\5\6", 4) == 0 and end + END + self.number(end + 20, 2) == size:
                break
            end -= 1
        if end < 0 or end < size - END - COMMENT:
            raise self.failure("the archive", "an end record", "none", size)
        count = self.number(end + 10, 2)
        length = self.number(end + 12, 4)
        begin = self.number(end + 16, 4)
        if count == 0xffff or length == 0xffffffff or begin == 0xffffffff:
            at = end - LOCATOR_64
            if at < 0 or memcmp(data + at, b"PK\6\7", 4):
                raise self.failure("the archive", "a locator of the ZIP64 end record", "none", end)
            start = <Py_ssize_t> self.number(at + 8, 8)
            if start < 0 or start > at - END_64 or memcmp(data + start, b"PK\6\6", 4):
                raise self.failure("the archive", "a ZIP64 end record", start, at)
            end = start
            count = self.number(end + 32, 8)
            length = self.number(end + 40, 8)
            begin = self.number(end + 48, 8)
        if begin < 0 or length < 0 or begin > end or length != end - begin or count < 0 or count > length // ENTRY:
            raise self.failure("the central directory", "one right before its end record", (begin, length, count), end)
        self.members = <ZipMember *> calloc(<size_t> max(count, 1), sizeof(ZipMember))
        if self.members == NULL:
            raise MemoryError(f"no memory for {count} entries of a ZIP directory")
        self.directory(<Py_ssize_t> begin, end, <Py_ssize_t> count)
        return 0

    cdef int directory(self, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t count) except -1:
        """Read the directory, from `begin` to `end`."""
        cdef Py_ssize_t at = begin, free_from = 0, name_size, extra, i
        cdef int64_t size, stored, local
        cdef ZipMember *member
        for i in range(count):
            if end - at < ENTRY or memcmp(self.data + at, b"PK\1\2", 4):
                raise self.failure(f"entry {i} of the directory", "its signature", "none", at)
            name_size = <Py_ssize_t> self.number(at + 28, 2)
            extra = <Py_ssize_t> self.number(at + 30, 2)
            if end - at - ENTRY < name_size + extra + self.number(at + 32, 2):
                raise self.failure(f"entry {i} of the directory", "all of it", "the directory's end", at)
            if self.number(at + 10, 2) or self.number(at + 8, 2) & 1:
                raise self.failure(f"entry {i} of the directory", "a stored member", "a compressed or secret one", at)
            size = self.number(at + 24, 4)
            stored = self.number(at + 20, 4)
            local = self.number(at + 42, 4)
            self.wide(at + ENTRY + name_size, extra, &size, &stored, &local)
            if size < 0 or size != stored or local < free_from or local > begin - LOCAL:
                found = (local, size, stored)
                raise self.failure(f"entry {i} of the directory", "a member behind the one before", found, at)
            member = &self.members[i]
            member.name = at + ENTRY
            member.name_size = name_size
            member.size = <Py_ssize_t> size
            member.crc = <uint32_t> self.number(at + 16, 4)
            self.place(member, <Py_ssize_t> local, begin, i)
            free_from = member.data + member.size
            at += ENTRY + name_size + extra + <Py_ssize_t> self.number(at + 32, 2)
        if at != end:
            raise self.failure("the central directory", f"{count} entries", "more bytes", at)
        self.count = count
        return 0

    cdef int wide(self, Py_ssize_t at, Py_ssize_t n, int64_t *size, int64_t *stored, int64_t *local) except -1:
        """Take the numbers that do not fit into 32 bits from the ZIP64 extra field."""
        cdef Py_ssize_t end = at + n, stop
        cdef int64_t *numbers[3]
        cdef int i
        numbers[0], numbers[1], numbers[2] = size, stored, local
        while end - at >= 4:
            stop = at + 4 + <Py_ssize_t> self.number(at + 2, 2)
            if stop > end:
                break
            if self.number(at, 2) == 1:
                at += 4
                for i in range(3):
                    if numbers[i][0] == 0xffffffff:
                        if stop - at < 8:
                            raise self.failure("a ZIP64 extra field", "8 bytes for each number", stop - at, at)
                        numbers[i][0] = self.number(at, 8)
                        at += 8
                return 0
            at = stop
        return 0

    cdef int place(self, ZipMember *member, Py_ssize_t local, Py_ssize_t begin, Py_ssize_t i) except -1:
        """Find the payload behind its local header."""
        cdef Py_ssize_t name_size = <Py_ssize_t> self.number(local + 26, 2)
        cdef Py_ssize_t header = LOCAL + name_size + <Py_ssize_t> self.number(local + 28, 2)
        if memcmp(self.data + local, b"PK\3\4", 4) or header > begin - local or name_size != member.name_size \
                or memcmp(self.data + local + LOCAL, self.data + member.name, <size_t> name_size):
            raise self.failure(f"member {i}", "a local header of the same name", "another", local)
        member.data = local + header
        if member.size > begin - member.data:
            raise self.failure(f"member {i}", "a payload before the directory", member.size, local)
        return 0

    cdef int64_t number(self, Py_ssize_t at, int size) noexcept:
        """A little-endian number of `size` bytes, which are there."""
        cdef uint64_t value = 0
        cdef int i
        for i in range(size - 1, -1, -1):
            value = value << 8 | self.data[at + i]
        return <int64_t> value

    cdef object failure(self, str what, str expected, object found, Py_ssize_t at):
        where = f"{what} of the ZIP answer is damaged at byte {at}"
        return WireError(0, f"{where}: expected {expected}, found {found}", layer="zip", offset=at, expected=expected,
                         found=str(found))
