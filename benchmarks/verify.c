/*
 * Hold a file that a server wrote against what load.c sent.
 *
 *   verify -c CONNECTIONS -n LINES_PER_CONNECTION -s SIZE -f FILLER [-j] FILE
 *
 * -j: each line is a JSON object, the sent line is its "message". Prints one JSON object with the sums and, for the
 * first connections that something happened to, their own; exit status 1 when anything did.
 *
 * missing    sent, and nowhere in the file as it was sent
 * doubled    there more than once
 * torn       a line of the file that nobody sent: cut, glued, changed
 * reordered  behind a later line of its own connection
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "line.h"

enum { SHOWN = 10 };

struct fate {
    uint32_t good, doubled, torn, reordered, highest;
};

static uint32_t connections, lines, size;
static bool json;
static struct fate *fates, sum;
static uint64_t stray, found;
static unsigned char *seen;

static void read_options(int count, char **words)
{
    int option;
    while ((option = getopt(count, words, "c:n:s:f:j")) != -1)
        switch (option) {
        case 'c': connections = (uint32_t)atoi(optarg); break;
        case 'n': lines = (uint32_t)atoi(optarg); break;
        case 's': size = (uint32_t)atoi(optarg); break;
        case 'f': read_filler(optarg); break;
        case 'j': json = true; break;
        default: exit(2);
        }
    if (!connections || !lines || optind != count - 1) {
        fprintf(stderr, "verify: read the comment at the top of verify.c\n");
        exit(2);
    }
}

static bool read_digits(const char *at, int width, uint32_t *value)
{
    for (*value = 0; width--; at++) {
        if (*at < '0' || *at > '9')
            return false;
        *value = *value * 10 + (uint32_t)(*at - '0');
    }
    return true;
}

/* What follows a backslash; gives how many characters it took. */
static size_t unescape(const char *at, size_t left, char *out)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = left ? memchr(names, *at, sizeof names - 1) : NULL;
    if (name) {
        *out = values[name - names];
        return 1;
    }
    *out = left > 4 ? (char)strtoul((char[]){at[3], at[4], 0}, NULL, 16) : '?';
    return 5; /* uXXXX, of which ours are all ASCII */
}

/* Give the "message" of a JSON object in `out`, or length 0. */
static size_t message_of(const char *line, size_t length, char *out)
{
    static const char key[] = "\"message\":";
    const char *end = line + length, *at = memmem(line, length, key, sizeof key - 1);
    size_t written = 0;
    if (!at || length > LONGEST)
        return 0;
    for (at += sizeof key - 1; at < end && *at == ' ';)
        at++;
    for (at++; at < end && *at != '"'; written++)
        if (*at == '\\') {
            at += 1 + unescape(at + 1, (size_t)(end - at) - 1, out + written);
        } else {
            out[written] = *at++;
        }
    return at < end && end[-1] == '}' ? written : 0;
}

static void arrived(uint32_t connection, uint32_t number)
{
    struct fate *fate = &fates[connection];
    unsigned char *mark = &seen[(size_t)connection * lines + number];
    if (*mark) {
        fate->doubled++;
        return;
    }
    *mark = 1;
    fate->good++;
    if (number < fate->highest)
        fate->reordered++;
    else
        fate->highest = number;
}

/* Look at a line without its LF. */
static void look(const char *line, size_t length)
{
    static char expected[LONGEST + 1];
    uint32_t connection, number;
    if (length < FILLER_AT || !read_digits(line + CONNECTION_AT, CONNECTION_DIGITS, &connection) ||
        !read_digits(line + NUMBER_AT, NUMBER_DIGITS, &number) || connection >= connections || number >= lines) {
        stray++;
        return;
    }
    if (put_line(expected, connection, number, size) == length + 1 && !memcmp(expected, line, length))
        arrived(connection, number);
    else
        fates[connection].torn++;
}

static void read_all(const char *text, size_t length)
{
    static char message[LONGEST + 1];
    const char *end = text + length;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t count = (size_t)((stop ? stop : end) - text);
        found++;
        if (!stop)
            stray++; /* nothing ends it, so it is not what was sent */
        else if (json)
            look(message, message_of(text, count, message));
        else
            look(text, count);
        text += count + 1;
    }
}

static void read_file(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status)) {
        perror(path);
        exit(2);
    }
    if (!status.st_size)
        return;
    char *text = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (text == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    read_all(text, (size_t)status.st_size);
}

static bool report(void)
{
    uint32_t shown = 0;
    printf("{\"connections\": [");
    for (uint32_t id = 0; id < connections; id++) {
        struct fate *fate = &fates[id];
        uint32_t missing = lines - fate->good;
        sum.good += fate->good;
        sum.doubled += fate->doubled;
        sum.torn += fate->torn;
        sum.reordered += fate->reordered;
        if ((missing || fate->doubled || fate->torn || fate->reordered) && shown < SHOWN)
            printf("%s{\"connection\": %u, \"missing\": %u, \"doubled\": %u, \"torn\": %u, \"reordered\": %u}",
                   shown++ ? ", " : "", id, missing, fate->doubled, fate->torn, fate->reordered);
    }
    uint64_t missing = (uint64_t)connections * lines - sum.good, torn = sum.torn + stray;
    printf("], \"lines\": %llu, \"good\": %u, \"missing\": %llu, \"doubled\": %u, \"torn\": %llu, \"reordered\": %u}\n",
           (unsigned long long)found, sum.good, (unsigned long long)missing, sum.doubled, (unsigned long long)torn,
           sum.reordered);
    return missing || sum.doubled || torn || sum.reordered;
}

int main(int count, char **words)
{
    read_options(count, words);
    fates = calloc(connections, sizeof *fates);
    seen = calloc(connections, lines);
    if (!fates || !seen)
        return 2;
    read_file(words[optind]);
    return report() ? 1 : 0;
}
