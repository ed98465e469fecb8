/*
 * Send numbered lines over many connections as fast as they are taken, or at a rate.
 *
 *   load -p PORT -c CONNECTIONS -n LINES_PER_CONNECTION -s SIZE -f FILLER [-1] [-o] [-r LINES_PER_SECOND] [-t SECONDS]
 *
 * -s 0 mixes lengths; -1 sends one line with each send() instead of large blocks; -o counts octets (RFC 6587);
 * -t gives up after that long. Lines are made while sending, into a buffer that stays in the processor's cache.
 * Prints one JSON object; exit status 1 when not everything was taken.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "line.h"

enum { BLOCK = 256 * 1024, EVENTS = 256 };

struct connection {
    int fd;
    uint32_t number;
    bool blocked, over;
    char *buffer;
    size_t held, sent;
};

static uint32_t port, connections = 1, lines, size, rate, patience = 120;
static bool one, octets;
static struct connection *all;
static uint32_t live, blocked, failed;
static uint64_t wire_bytes, line_bytes, lines_made;
static double began;
static int epoll;

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static void read_options(int count, char **words)
{
    int option;
    while ((option = getopt(count, words, "p:c:n:s:f:r:t:1o")) != -1)
        switch (option) {
        case 'p': port = (uint32_t)atoi(optarg); break;
        case 'c': connections = (uint32_t)atoi(optarg); break;
        case 'n': lines = (uint32_t)atoi(optarg); break;
        case 's': size = (uint32_t)atoi(optarg); break;
        case 'f': read_filler(optarg); break;
        case 'r': rate = (uint32_t)atoi(optarg); break;
        case 't': patience = (uint32_t)atoi(optarg); break;
        case '1': one = true; break;
        case 'o': octets = true; break;
        default: exit(2);
        }
    if (!port || !lines || !connections || size > LONGEST || (size && size < FILLER_AT + 2)) {
        fprintf(stderr, "load: read the comment at the top of load.c\n");
        exit(2);
    }
}

static void open_connection(uint32_t id)
{
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event writable = {.events = EPOLLOUT | EPOLLET, .data.u32 = id};
    struct connection *peer = &all[id];
    int yes = 1;
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (peer->fd < 0 || connect(peer->fd, (struct sockaddr *)&target, sizeof target))
        fail("connect");
    setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(peer->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, peer->fd, &writable))
        fail("epoll_ctl");
    peer->buffer = malloc(one ? LONGEST + 16 : BLOCK + LONGEST + 16);
    if (!peer->buffer)
        fail("malloc");
}

static void refill(struct connection *peer)
{
    uint32_t id = (uint32_t)(peer - all);
    peer->held = peer->sent = 0;
    do {
        char *at = peer->buffer + peer->held;
        uint32_t length = length_of(scatter(id, peer->number), size);
        int prefix = octets ? sprintf(at, "%u ", length - 1) : 0;
        put_line(at + prefix, id, peer->number++, size);
        peer->held += (size_t)prefix + length - octets; /* a count needs no LF */
        line_bytes += length;
        lines_made++;
    } while (!one && peer->number < lines && peer->held < BLOCK);
}

static void end(struct connection *peer, bool badly)
{
    peer->over = true;
    live--;
    failed += badly;
    shutdown(peer->fd, SHUT_WR);
}

/* Sleep while ahead of the rate. */
static void pace(void)
{
    double ahead = (double)lines_made / rate - (now(CLOCK_MONOTONIC) - began);
    if (ahead > 0.0005) {
        struct timespec pause = {(time_t)ahead, (long)((ahead - (double)(time_t)ahead) * 1e9)};
        nanosleep(&pause, NULL);
    }
}

static void send_some(struct connection *peer)
{
    if (peer->sent == peer->held) {
        if (peer->number == lines) {
            end(peer, false);
            return;
        }
        refill(peer);
    }
    ssize_t taken = send(peer->fd, peer->buffer + peer->sent, peer->held - peer->sent, MSG_NOSIGNAL);
    if (taken >= 0) {
        peer->sent += (size_t)taken;
        wire_bytes += (size_t)taken;
        if (rate)
            pace();
    } else if (errno == EAGAIN) {
        peer->blocked = true;
        blocked++;
    } else if (errno != EINTR) {
        end(peer, true);
    }
}

static void unblock(int timeout)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout);
    for (int i = 0; i < count; i++) {
        struct connection *peer = &all[events[i].data.u32];
        blocked -= peer->blocked;
        peer->blocked = false;
    }
}

/* Everybody in turn, so that connections advance together. */
static void send_all(void)
{
    while (live && now(CLOCK_MONOTONIC) - began < patience) {
        for (uint32_t id = 0; id < connections; id++)
            if (!all[id].blocked && !all[id].over)
                send_some(&all[id]);
        if (blocked)
            unblock(blocked >= live ? 100 : 0);
    }
}

/* A server that has read everything closes its side. Leaving earlier could cost lines with some. */
static void wait_closed(void)
{
    char byte;
    double until = now(CLOCK_MONOTONIC) + 10;
    for (uint32_t id = 0; id < connections; id++)
        while (recv(all[id].fd, &byte, 1, 0) < 0 && errno == EAGAIN && now(CLOCK_MONOTONIC) < until)
            usleep(1000);
}

int main(int count, char **words)
{
    read_options(count, words);
    all = calloc(connections, sizeof *all);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!all || epoll < 0)
        fail("load");
    for (uint32_t id = 0; id < connections; id++)
        open_connection(id);
    live = connections;
    double clock = now(CLOCK_REALTIME);
    began = now(CLOCK_MONOTONIC);
    send_all();
    double seconds = now(CLOCK_MONOTONIC) - began;
    failed += live;
    if (!live)
        wait_closed();
    printf("{\"began\": %.6f, \"seconds\": %.6f, \"bytes\": %llu, \"line_bytes\": %llu, \"lines\": %llu, \"failed\": %u}\n",
           clock, seconds, (unsigned long long)wire_bytes, (unsigned long long)line_bytes,
           (unsigned long long)lines_made, failed);
    return failed ? 1 : 0;
}
