/* Opens MQTT connections as fast as a server takes them, or at a pace: prepared CONNECT packets in, CONNACKs counted.
 *
 * usage: connector HOST PORT AT_ONCE STAY [RATE] < packets
 *   packets   each a 4-byte big-endian length and the bytes of one CONNECT
 *   AT_ONCE   connections under way at a time
 *   STAY      1: keep every admitted connection open until all are in; 0: DISCONNECT and close after each CONNACK
 *   RATE      connections begun a second, each at its own time after the start; left out or 0: as fast as they are taken
 * prints one line: admitted refused retried seconds p50_us p99_us max_us (from connect(2) to the CONNACK)
 *
 * One thread, epoll, no allocation per connection. A connection that is reset or closed before its CONNACK is tried
 * again, as a device would, at most RETRIES times in all. Ends by itself after 60 s without progress.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RETRIES = 100000, EVENTS = 256, STALLED_MS = 60000 };

struct client {
    const uint8_t *packet;
    uint32_t size;
    uint32_t got;
    int fd;
    int sent;
    double began;
    uint8_t answer[5];
};

static int epoll_fd;
static struct sockaddr_in server;
static struct client *clients;
static size_t count, next; /* how many clients there are, and which begins next */
static size_t at_once;
static double rate, started;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void begin(struct client *c) {
    int one = 1;
    c->got = 0;
    c->sent = 0;
    if (c->began == 0)
        c->began = now();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        fail("connect");
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
        fail("epoll_ctl");
}

static double due_in(size_t n) {
    return rate > 0 ? started + (double)n / rate - now() : 0;
}

/* Begin what is due, as far as no more than AT_ONCE are under way then. */
static void begin_due(size_t done) {
    while (next < count && next - done < at_once && due_in(next) <= 0)
        begin(&clients[next++]);
}

/* Milliseconds to wait for an answer, or for the time of the next client if that may begin. */
static int patience(size_t done) {
    if (rate > 0 && next < count && next - done < at_once)
        return (int)(due_in(next) * 1e3) + 1;
    return STALLED_MS;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint8_t *read_all(size_t *size) {
    size_t room = 1 << 20, used = 0;
    uint8_t *data = malloc(room);
    for (;;) {
        ssize_t more = read(0, data + used, room - used);
        if (more < 0)
            fail("read");
        if (more == 0)
            break;
        used += (size_t)more;
        if (used == room)
            data = realloc(data, room *= 2);
    }
    *size = used;
    return data;
}

int main(int argc, char **argv) {
    if (argc != 5 && argc != 6) {
        fprintf(stderr, "usage: connector HOST PORT AT_ONCE STAY [RATE] < packets\n");
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) {
        fprintf(stderr, "`%s` is no IPv4 address\n", argv[1]);
        return 2;
    }
    at_once = strtoul(argv[3], NULL, 10);
    int stay = atoi(argv[4]);
    rate = argc == 6 ? atof(argv[5]) : 0;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    size_t size;
    uint8_t *data = read_all(&size);
    for (size_t at = 0; at + 4 <= size; count++)
        at += 4 + (((size_t)data[at] << 24) | ((size_t)data[at + 1] << 16) | ((size_t)data[at + 2] << 8) | data[at + 3]);
    clients = calloc(count + 1, sizeof *clients);
    double *took = calloc(count + 1, sizeof *took);
    size_t n = 0;
    for (size_t at = 0; n < count; n++) {
        uint32_t length =
            ((uint32_t)data[at] << 24) | ((uint32_t)data[at + 1] << 16) | ((uint32_t)data[at + 2] << 8) | data[at + 3];
        clients[n].packet = data + at + 4;
        clients[n].size = length;
        at += 4 + length;
    }

    epoll_fd = epoll_create1(0);
    size_t admitted = 0, refused = 0, retried = 0;
    started = now();
    struct epoll_event events[EVENTS];
    while (admitted + refused < count) {
        begin_due(admitted + refused);
        int wait = patience(admitted + refused);
        int ready = epoll_wait(epoll_fd, events, EVENTS, wait);
        if (ready < 0 || (ready == 0 && wait == STALLED_MS)) {
            fprintf(stderr, "no progress at %zu of %zu\n", admitted + refused, count);
            return 1;
        }
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            int lost = 0;
            if (!c->sent) {
                ssize_t out = send(c->fd, c->packet, c->size, MSG_NOSIGNAL);
                if (out == (ssize_t)c->size) {
                    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
                    c->sent = 1;
                    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
                    continue;
                }
                lost = 1;
            } else {
                ssize_t in = recv(c->fd, c->answer + c->got, sizeof c->answer - c->got, 0);
                if (in > 0) {
                    c->got += (uint32_t)in;
                    if (c->got < 4)
                        continue;
                } else if (in < 0 && errno == EAGAIN) {
                    continue;
                } else {
                    lost = 1;
                }
            }
            if (lost) {
                if (++retried > RETRIES) {
                    fprintf(stderr, "lost too many connections\n");
                    return 1;
                }
                close(c->fd);
                begin(c);
                continue;
            }
            took[admitted + refused] = now() - c->began;
            int is_admitted = c->answer[0] == 0x20 && c->answer[3] == 0;
            if (is_admitted)
                admitted++;
            else
                refused++;
            if (stay && is_admitted) {
                struct epoll_event event = {.events = 0, .data.ptr = c};
                epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, &event);
            } else {
                if (is_admitted)
                    send(c->fd, "\xe0\x00", 2, MSG_NOSIGNAL);
                close(c->fd);
            }
            begin_due(admitted + refused);
        }
    }
    double seconds = now() - started;
    size_t all = admitted + refused;
    qsort(took, all, sizeof *took, by_value);
    printf("%zu %zu %zu %.6f %.1f %.1f %.1f\n", admitted, refused, retried, seconds, took[all / 2] * 1e6,
           took[all * 99 / 100] * 1e6, took[all - 1] * 1e6);
    return 0;
}
