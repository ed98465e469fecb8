/*
 * The least that a receiver can do that tears nothing, and so the limit on this machine: one thread that receives, sets
 * unfinished records aside, and writes.
 *
 *   limit lines|octets PORT FILE
 *
 * Of lines it looks for the last newline of each read only; of counted frames (RFC 6587) it takes the counts off.
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
static int output, epoll, counted;

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

/* Take the counts off, in place; what has not come whole is kept as it came. Gives the bytes of the lines made of it. */
static size_t take_apart(struct partial *partial, char *block, size_t length)
{
    char *at = block, *end = block + length, *into = block;
    for (;;) {
        char *body = at;
        size_t count = 0;
        while (body < end && *body >= '0' && *body <= '9' && count < CARRY)
            count = count * 10 + (size_t)(*body++ - '0');
        if (body >= end || (size_t)(end - body) < count + 1)
            break;
        memmove(into, body + 1, count);
        into += count;
        *into++ = '\n';
        at = body + 1 + count;
    }
    partial->length = (size_t)(end - at);
    if (partial->length > CARRY)
        fail("a frame too long");
    memcpy(partial->bytes, at, partial->length);
    return (size_t)(into - block);
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
    length += (ssize_t)partial->length;
    filled += counted ? take_apart(partial, block, (size_t)length) : set_aside(partial, block, (size_t)length);
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
    if (count != 4)
        return 2;
    counted = !strcmp(words[1], "octets");
    output = open(words[3], O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (output < 0)
        fail(words[3]);
    int listener = listen_on(atoi(words[2]));
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
