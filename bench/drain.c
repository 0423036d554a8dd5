/* The raw drain, a plain recv loop: one send of a ready request, then recv into one small, hot buffer until `expected`
 * bytes of the answer have come (0: until a read ends with the last chunk). No JSON, no HTTP, no decoding: the floor of a
 * client that copies from a TCP socket and reads whatever is there. Counts its reads. With a slab of `expected` bytes it
 * receives into that, one read behind the other, and what it returns is still there afterwards. */
#ifdef _WIN32
#error "a POSIX program"
#endif
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

static char hot[128 << 10];

long drain(int fd, const char *request, size_t size, size_t expected, size_t *reads,
           char *slab) {
    size_t got = 0;
    while (size) {
        ssize_t n = send(fd, request, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        request += n;
        size -= (size_t) n;
    }
    for (;;) {
        size_t want = expected && (slab || expected - got < sizeof hot) ? expected - got : sizeof hot;
        ssize_t n = recv(fd, slab ? slab + got : hot, want, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        got += (size_t) n;
        ++*reads;
        if (expected ? got >= expected : n >= 5 && !memcmp(hot + n - 5, "0\r\n\r\n", 5)) return (long) got;
    }
}
