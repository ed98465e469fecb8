/*
 * The least that a RELP server can do that keeps its word: one thread that reads what there is of every session, writes
 * all records of that group, makes the device keep them, and answers.
 *
 *   syncloop PORT FILE
 *
 * It takes the frames of a well-behaved client, has no limits and no accounts: something to measure against.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SESSIONS = 256, HELD = 1024 * 1024, GROUP = SESSIONS * 64 * 1024, READ = 64 * 1024 };

struct session {
    int socket;
    size_t held, due;
    char in[HELD], out[HELD];
};

static struct session *sessions[SESSIONS];
static size_t number_of_sessions, filled;
static char group[GROUP];
static int output;

static const char OFFERS[] = "200 OK\nrelp_version=0\nrelp_software=syncloop\ncommands=syslog";

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void answer(struct session *to, const char *number, size_t digits, const char *text)
{
    if (to->due + strlen(text) + 64 > sizeof to->out)
        exit(2);
    to->due += (size_t)snprintf(to->out + to->due, sizeof to->out - to->due, "%.*s rsp %zu%s%s\n", (int)digits, number,
                                strlen(text), *text ? " " : "", text);
}

/* Take the frame at the front, if it is whole; gives its size. */
static size_t take(struct session *from, char *at, size_t length)
{
    char *end = at + length;
    char *command = memchr(at, ' ', length);
    if (!command)
        return 0;
    char *size = memchr(command + 1, ' ', (size_t)(end - command - 1));
    if (!size)
        return 0;
    char *data = size + 1;
    size_t bytes = 0;
    while (data < end && *data >= '0' && *data <= '9')
        bytes = bytes * 10 + (size_t)(*data++ - '0');
    if (data == end)
        return 0;
    data += bytes > 0;
    if ((size_t)(end - data) < bytes + 1)
        return 0;
    size_t digits = (size_t)(command - at);
    if (command[1] == 's') {
        if (filled + bytes + 1 > sizeof group)
            return 0;
        memcpy(group + filled, data, bytes);
        group[filled + bytes] = '\n';
        filled += bytes + 1;
        answer(from, at, digits, "200 OK");
    } else {
        answer(from, at, digits, command[1] == 'o' ? OFFERS : "");
    }
    return (size_t)(data + bytes + 1 - at);
}

static int receive(struct session *from)
{
    size_t room = sizeof from->in - from->held;
    ssize_t got = recv(from->socket, from->in + from->held, room < READ ? room : READ, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (got <= 0)
        return 0;
    from->held += (size_t)got;
    size_t done = 0, size;
    while ((size = take(from, from->in + done, from->held - done)))
        done += size;
    memmove(from->in, from->in + done, from->held - done);
    from->held -= done;
    return 1;
}

static void commit(void)
{
    for (size_t done = 0; done < filled;) {
        ssize_t written = write(output, group + done, filled - done);
        if (written < 0)
            fail("write");
        done += (size_t)written;
    }
    if (filled && fdatasync(output))
        fail("fdatasync");
    filled = 0;
}

static void welcome(int listening)
{
    struct session *made = calloc(1, sizeof *made);
    int on = 1;
    if (!made || number_of_sessions == SESSIONS)
        exit(2);
    made->socket = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    if (made->socket < 0)
        fail("accept");
    setsockopt(made->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sessions[number_of_sessions++] = made;
}

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (struct sockaddr *)&here, sizeof here) || listen(listening, SESSIONS))
        fail("listen");
    output = open(words[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (output < 0)
        fail(words[2]);
    for (;;) {
        struct pollfd ready[SESSIONS + 1] = {{.fd = listening, .events = POLLIN}};
        for (size_t i = 0; i < number_of_sessions; i++)
            ready[i + 1] = (struct pollfd){.fd = sessions[i]->socket, .events = POLLIN};
        size_t known = number_of_sessions;
        if (poll(ready, known + 1, -1) < 0 && errno != EINTR)
            fail("poll");
        if (ready[0].revents)
            welcome(listening);
        for (size_t i = known; i-- > 0;) {
            if (ready[i + 1].revents && !receive(sessions[i])) {
                close(sessions[i]->socket);
                free(sessions[i]);
                sessions[i] = sessions[--number_of_sessions];
            }
        }
        commit();
        for (size_t i = 0; i < number_of_sessions; i++) {
            struct session *to = sessions[i];
            if (to->due && send(to->socket, to->out, to->due, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
                fail("send");
            to->due = 0;
        }
    }
}
