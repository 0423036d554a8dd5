/* Answers every GetBatch request with bytes made beforehand: a server that costs what the kernel costs.
 *
 *     replay NAME=FILE[:PACE] ...
 *
 * FILE is a whole HTTP answer; NAME is the bucket it answers for. Two ports on loopback are opened and printed as
 * "TARGET PROXY\n". The target sends the file of the bucket in the request's path, in one plain send loop; with PACE, as
 * a live target does: that file holds pairs of 32-bit numbers, the nanoseconds that the target works before a send and
 * the bytes of that send. It works as a target works, by using its processor, not by sleeping. The proxy
 * answers with a 307 to the target, and with a cluster map when asked for one. A request's body is read by its
 * Content-Length and thrown away. Keep-alive, one thread per connection, TCP_NODELAY. Ends when its stdin does.
 */
#ifdef _WIN32
#error "a POSIX program"
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem, MAP_POPULATE */
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* SIGPIPE is ignored anyway */
#endif
#ifndef MAP_POPULATE
#define MAP_POPULATE 0
#endif

struct step { uint32_t work, size; };
struct answer { const char *name; size_t name_size; const char *data; size_t size; const struct step *steps; size_t step_count; };
struct connection { int fd; int is_proxy; };

static struct answer answers[64];
static int answer_count;
static int target_port, proxy_port;

static void die(const char *what) { perror(what); exit(1); }

static int send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        data += n;
        size -= (size_t) n;
    }
    return 0;
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t) time.tv_sec * 1000000000u + (uint64_t) time.tv_nsec;
}

/* What a live target does: it works, sends what its 4 KiB buffer could not hold, works again. */
static int send_paced(int fd, const struct answer *answer) {
    const char *data = answer->data;
    for (size_t i = 0; i < answer->step_count; i++) {
        for (uint64_t until = now() + answer->steps[i].work; now() < until;) { }
        if (send_all(fd, data, answer->steps[i].size)) return -1;
        data += answer->steps[i].size;
    }
    return 0;
}

/* The answer for a path "/v1/ml/moss/BUCKET[/...][?...]"; NULL if there is none. */
static const struct answer *find(const char *path) {
    const char *prefix = "/v1/ml/moss/";
    if (strncmp(path, prefix, strlen(prefix))) return NULL;
    path += strlen(prefix);
    size_t size = strcspn(path, "/?");
    for (int i = 0; i < answer_count; i++)
        if (answers[i].name_size == size && !memcmp(answers[i].name, path, size)) return &answers[i];
    return NULL;
}

static int send_text(int fd, const char *status, const char *headers, const char *body) {
    char text[8192];
    int n = snprintf(text, sizeof text, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n%s", status, headers, strlen(body), body);
    return n < 0 || n >= (int) sizeof text ? -1 : send_all(fd, text, (size_t) n);
}

static int send_map(int fd) {
    static const char *node =
        "{\"daemon_id\":\"%s\",\"daemon_type\":\"%s\",\"flags\":\"0\",\"id_digest\":1,"
        "\"public_net\":{\"node_ip_addr\":\"127.0.0.1\",\"daemon_port\":\"%d\",\"direct_url\":\"http://127.0.0.1:%d\"},"
        "\"intra_control_net\":{\"node_ip_addr\":\"127.0.0.1\",\"daemon_port\":\"%d\",\"direct_url\":\"http://127.0.0.1:%d\"},"
        "\"intra_data_net\":{\"node_ip_addr\":\"127.0.0.1\",\"daemon_port\":\"%d\",\"direct_url\":\"http://127.0.0.1:%d\"}}";
    char proxy[1024], target[1024], map[4096];
    int p = proxy_port, t = target_port;
    snprintf(proxy, sizeof proxy, node, "p1", "proxy", p, p, p, p, p, p);
    snprintf(target, sizeof target, node, "t1", "target", t, t, t, t, t, t);
    snprintf(map, sizeof map,
             "{\"pmap\":{\"p1\":%s},\"proxy_si\":%s,\"tmap\":{\"t1\":%s},\"version\":\"1\",\"uuid\":\"replay\",\"creation_time\":\"\"}",
             proxy, proxy, target);
    return send_text(fd, "200 OK", "Content-Type: application/json; charset=utf-8\r\n", map);
}

static int respond(int fd, int is_proxy, char *path) {
    const struct answer *answer = find(path);
    if (is_proxy && !strncmp(path, "/v1/daemon", 10)) return send_map(fd);
    if (!answer)
        return send_text(fd, "404 Not Found", "Content-Type: application/json\r\n",
                         "{\"message\":\"the replay server has no such bucket\",\"status\":404}");
    if (!is_proxy) return answer->steps ? send_paced(fd, answer) : send_all(fd, answer->data, answer->size);
    char headers[4096];
    char *query = strchr(path, '?');
    if (query) *query++ = 0;
    int n = snprintf(headers, sizeof headers,
                     "Content-Type: text/html; charset=utf-8\r\n"
                     "Location: http://127.0.0.1:%d%s/gbt-replay001/replay-1/1?%s%spid=p1&utm=dn1nmwi8b1uc\r\n",
                     target_port, path, query ? query : "", query ? "&" : "");
    return n < 0 || n >= (int) sizeof headers ? -1 : send_text(fd, "307 Temporary Redirect", headers, "");
}

static void *serve(void *argument) {
    struct connection connection = *(struct connection *) argument;
    int fd = connection.fd, one = 1;
    size_t have = 0, room = 1 << 16;
    char *data = malloc(room);
    free(argument);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (data) {
        char *end;
        while (!(end = memmem(data, have, "\r\n\r\n", 4))) {
            if (have == room) goto out;
            ssize_t n = recv(fd, data + have, room - have, 0);
            if (n <= 0) goto out;
            have += (size_t) n;
        }
        *end = 0;
        size_t head = (size_t) (end - data) + 4, length = 0;
        char *path = strchr(data, ' ');
        if (!path) goto out;
        path++;
        for (char *line = strstr(data, "\r\n"); line; line = strstr(line + 2, "\r\n"))
            if (!strncasecmp(line + 2, "content-length:", 15)) length = strtoull(line + 17, NULL, 10);
        path[strcspn(path, " \r\n")] = 0;
        size_t body = have - head;
        if (body > length) goto out; /* no pipelining */
        path = strdup(path);
        if (!path) goto out;
        while (body < length) {
            size_t want = length - body < room - head ? length - body : room - head;
            ssize_t n = recv(fd, data + head, want, 0);
            if (n <= 0) { free(path); goto out; }
            body += (size_t) n;
        }
        have = 0;
        int failed = respond(fd, connection.is_proxy, path);
        free(path);
        if (failed) break;
    }
out:
    free(data);
    close(fd);
    return NULL;
}

static int listen_on_loopback(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *) &address, size) || listen(fd, 128)) die("listen");
    if (getsockname(fd, (struct sockaddr *) &address, &size)) die("getsockname");
    *port = ntohs(address.sin_port);
    return fd;
}

struct listener { int fd; int is_proxy; };

static void *accept_all(void *argument) {
    struct listener listener = *(struct listener *) argument;
    for (;;) {
        pthread_t thread;
        struct connection *connection = malloc(sizeof *connection);
        int fd = accept(listener.fd, NULL, NULL);
        if (fd < 0 || !connection) { free(connection); continue; }
        *connection = (struct connection) {fd, listener.is_proxy};
        if (pthread_create(&thread, NULL, serve, connection)) { close(fd); free(connection); }
        else pthread_detach(thread);
    }
    return NULL;
}

static const char *map_file(const char *file, size_t *size) {
    struct stat status;
    int fd = open(file, O_RDONLY);
    if (fd < 0 || fstat(fd, &status)) die(file);
    void *data = mmap(NULL, (size_t) status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED) die("mmap");
    close(fd);
    *size = (size_t) status.st_size;
    return data;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    for (int i = 1; i < argc && answer_count < 64; i++) {
        char *file = strchr(argv[i], '=');
        if (!file) { fprintf(stderr, "usage: replay NAME=FILE[:PACE] ...\n"); return 2; }
        *file++ = 0;
        char *pace = strchr(file, ':');
        if (pace) *pace++ = 0;
        struct answer *answer = &answers[answer_count++];
        answer->name = argv[i];
        answer->name_size = strlen(argv[i]);
        answer->data = map_file(file, &answer->size);
        if (pace) {
            size_t size = 0, sent = 0;
            answer->steps = (const struct step *) map_file(pace, &size);
            answer->step_count = size / sizeof *answer->steps;
            for (size_t j = 0; j < answer->step_count; j++) sent += answer->steps[j].size;
            if (sent != answer->size) { fprintf(stderr, "%s: not the pace of %s\n", pace, file); return 2; }
        }
    }
    struct listener target = {.is_proxy = 0}, proxy = {.is_proxy = 1};
    pthread_t threads[2];
    target.fd = listen_on_loopback(&target_port);
    proxy.fd = listen_on_loopback(&proxy_port);
    if (pthread_create(&threads[0], NULL, accept_all, &target) || pthread_create(&threads[1], NULL, accept_all, &proxy))
        die("pthread_create");
    printf("%d %d\n", target_port, proxy_port);
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) { }
    return 0;
}
