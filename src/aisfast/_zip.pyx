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

import zlib

from aisfast._blocks cimport span
from aisfast.errors import WireError

cdef extern from *:
    """
    /* The CRC-32 of ZIP, where the processor multiplies without carries: many times as fast as zlib's. What is D bits
     * further on is folded in by x^(D+32) and x^(D-32) modulo the polynomial, for the two halves of 16 bytes.
     * Everything is bit-reversed, as this CRC is. Source: V. Gopal et al., "Fast CRC Computation for Generic
     * Polynomials Using PCLMULQDQ Instruction", Intel 2009. */
    #include <stddef.h>
    #include <stdint.h>

    #if defined(__x86_64__) && !defined(_MSC_VER) && (defined(__clang__) || __GNUC__ >= 9)
    #include <immintrin.h>

    #define WITH(features) __attribute__((target(features)))

    static uint32_t crc_of_byte[256];
    static int crc_wide;    /* it multiplies twice as much at once */

    static int crc_begin(void) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t crc = i;
            for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
            crc_of_byte[i] = crc;
        }
        __builtin_cpu_init();
        crc_wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vpclmulqdq");
        return __builtin_cpu_supports("pclmul");
    }

    static uint32_t crc_bytes(uint32_t crc, const uint8_t *p, size_t n) {
        while (n--) crc = crc >> 8 ^ crc_of_byte[(crc ^ *p++) & 0xff];
        return crc;
    }

    WITH("pclmul") static inline __m128i crc_fold(__m128i from, __m128i by, __m128i into) {
        __m128i low = _mm_clmulepi64_si128(from, by, 0x00), high = _mm_clmulepi64_si128(from, by, 0x11);
        return _mm_xor_si128(_mm_xor_si128(low, high), into);
    }

    WITH("avx2,vpclmulqdq") static inline __m256i crc_fold_wide(__m256i from, __m256i by, __m256i into) {
        __m256i low = _mm256_clmulepi64_epi128(from, by, 0x00), high = _mm256_clmulepi64_epi128(from, by, 0x11);
        return _mm256_xor_si256(_mm256_xor_si256(low, high), into);
    }

    /* Folds n bytes, a multiple of 64 and not 0, into 64. */
    WITH("pclmul") static void crc_fold_64(const uint8_t *p, size_t n, __m128i lane[4]) {
        const __m128i by_512 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), *at = (const __m128i *) p;
        for (int i = 0; i < 4; i++) lane[i] = _mm_loadu_si128(at++);
        lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi32_si128(-1));
        while (n -= 64)
            for (int i = 0; i < 4; i++) lane[i] = crc_fold(lane[i], by_512, _mm_loadu_si128(at++));
    }

    /* Folds n bytes, a multiple of 128 and not 0, into 128. */
    WITH("avx2,vpclmulqdq") static void crc_fold_128(const uint8_t *p, size_t n, __m128i lane[8]) {
        const __m256i by_1024 = _mm256_set_epi64x(0x14a7fe880, 0x1e88ef372, 0x14a7fe880, 0x1e88ef372);
        const __m256i *at = (const __m256i *) p;
        __m256i wide[4];
        for (int i = 0; i < 4; i++) wide[i] = _mm256_loadu_si256(at++);
        wide[0] = _mm256_xor_si256(wide[0], _mm256_set_epi32(0, 0, 0, 0, 0, 0, 0, -1));
        while (n -= 128)
            for (int i = 0; i < 4; i++) wide[i] = crc_fold_wide(wide[i], by_1024, _mm256_loadu_si256(at++));
        for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *) lane + i, wide[i]);
    }

    WITH("pclmul") static uint32_t crc_sum(const uint8_t *p, size_t n) {
        const __m128i by_128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
        const size_t step = crc_wide && n >= 256 ? 128 : 64;
        __m128i lane[8];
        if (n < step) return ~crc_bytes(~0u, p, n);
        (step == 128 ? crc_fold_128 : crc_fold_64)(p, n - n % step, lane);
        p += n - n % step;
        for (size_t i = 1; i < step / 16; i++) lane[0] = crc_fold(lane[0], by_128, lane[i]);
        for (n %= step; n >= 16; n -= 16, p += 16)
            lane[0] = crc_fold(lane[0], by_128, _mm_loadu_si128((const __m128i *) p));
        return ~crc_bytes(crc_bytes(0, (const uint8_t *) lane, 16), p, n);
    }
    #else
    static int crc_begin(void) { return 0; }
    static uint32_t crc_sum(const uint8_t *p, size_t n) { (void) p; (void) n; return 0; }
    #endif
    """
    bint crc_begin()                                                # may crc_sum be called?
    uint32_t crc_sum(const uint8_t *p, size_t n) noexcept nogil

cdef enum:
    END = 22                    # bytes of the end record, without its comment
    END_64 = 56
    LOCATOR_64 = 20
    ENTRY = 46                  # of an entry of the directory, without name, extra field and comment
    LOCAL = 30                  # of a local header, the same
    COMMENT = 0xffff            # longest comment behind the end record
    LONG = 0x10000              # a payload from this size on is summed without the GIL

cdef bint folds = crc_begin()   # else zlib's CRC has to do


cdef int64_t crc32_of(object owner, uint8_t *p, Py_ssize_t n) except -1:
    """CRC-32 of the n bytes at p, which `owner` keeps alive."""
    cdef int64_t crc
    if not folds:
        return zlib.crc32(span(owner, p, n, True))
    if n < LONG:
        return crc_sum(p, <size_t> n)
    with nogil:
        crc = crc_sum(p, <size_t> n)
    return crc


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
