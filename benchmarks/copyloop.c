/*
 * The least that a receiver of whole lines can do, and so the limit on this machine: one thread that receives, sets
 * unfinished lines aside, counts newlines and writes.
 *
 *   copyloop PORT FILE
 *
 * It has no limits, no timeouts and no accounts: something to measure against, not something to run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ = 256 * 1024, CARRY = 64 * 1024, GATHERED = 1024 * 1024, EVENTS = 256, DESCRIPTORS = 65536 };

struct partial {
    char *bytes;
    size_t length;
};

static struct partial partials[DESCRIPTORS];
static char gathered[GATHERED];
static size_t filled;
static uint64_t newlines;
static int output, epoll;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void flush(void)
{
    for (size_t done = 0; done < filled;) {
        ssize_t written = write(output, gathered + done, filled - done);
        if (written < 0)
            fail("write");
        done += (size_t)written;
    }
    filled = 0;
}

static void count_newlines(const char *at, size_t length)
{
    const char *end = at + length;
    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        newlines++;
        at++;
    }
}

/* Keep what is behind the last newline; what is longer than a carry goes out as it is. */
static size_t set_aside(struct partial *partial, const char *block, size_t length)
{
    const char *last = memrchr(block, '\n', length);
    size_t whole = last ? (size_t)(last - block) + 1 : 0;
    if (length - whole > CARRY)
        whole = length;
    partial->length = length - whole;
    memcpy(partial->bytes, block + whole, partial->length);
    return whole;
}

static void finish(int fd)
{
    struct partial *partial = &partials[fd];
    if (partial->length) {
        memcpy(gathered + filled, partial->bytes, partial->length);
        filled += partial->length;
        gathered[filled++] = '\n';
    }
    partial->length = 0;
    close(fd);
}

/* Receive behind the carried bytes, in the place from which they will be written. */
static void receive(int fd)
{
    struct partial *partial = &partials[fd];
    if (GATHERED - filled < READ + CARRY + 1)
        flush();
    char *block = gathered + filled;
    ssize_t length = recv(fd, block + partial->length, READ, 0);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) {
        finish(fd);
        return;
    }
    memcpy(block, partial->bytes, partial->length);
    count_newlines(block + partial->length, (size_t)length);
    filled += set_aside(partial, block, partial->length + (size_t)length);
}

static void admit(int listener)
{
    struct epoll_event readable = {.events = EPOLLIN};
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= DESCRIPTORS)
            fail("too many connections");
        if (!partials[fd].bytes && !(partials[fd].bytes = malloc(CARRY)))
            fail("malloc");
        readable.data.fd = fd;
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &readable);
    }
}

static int listen_on(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        fail("listen");
    return listener;
}

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    output = open(words[2], O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (output < 0)
        fail(words[2]);
    int listener = listen_on(atoi(words[1]));
    struct epoll_event events[EVENTS], readable = {.events = EPOLLIN, .data.fd = listener};
    epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &readable);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++)
            if (events[i].data.fd == listener)
                admit(listener);
            else
                receive(events[i].data.fd);
        flush();
    }
}
