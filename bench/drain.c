/* The raw drain: one send of a ready request, then a bare recv loop into one small, hot buffer until `expected` bytes of
 * the answer have come. No JSON, no HTTP, no decoding: the floor of a client that copies from a TCP socket. */
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

static char hot[128 << 10];

long drain(int fd, const char *request, size_t size, size_t expected) {
    size_t got = 0;
    while (size) {
        ssize_t n = send(fd, request, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        request += n;
        size -= (size_t) n;
    }
    while (got < expected) {
        size_t want = expected - got < sizeof hot ? expected - got : sizeof hot;
        ssize_t n = recv(fd, hot, want, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        got += (size_t) n;
    }
    return (long) got;
}
