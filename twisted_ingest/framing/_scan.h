/*
 * What is ordinary, byte by byte: shared by the modules in C that look through what was read.
 *
 * No Python in here: all of it may run without the interpreter's lock.
 */

#ifndef INGEST_SCAN_H
#define INGEST_SCAN_H

#include <stddef.h>
#include <string.h>

struct bytes {
    const unsigned char *at;
    ptrdiff_t length;
};

enum { EVIDENCE = 17 }; /* "1234567 ", a BOM, "<123>": as much as shows how a line begins, and one more */

static inline const unsigned char *skip_bom(const unsigned char *at)
{
    return at[0] == 0xEF && at[1] == 0xBB && at[2] == 0xBF ? at + 3 : at;
}

static inline int is_digit(unsigned char byte)
{
    return byte >= '0' && byte <= '9';
}

/* Whether a priority stands here. What is read ends in LF, which ends every comparison in time. */
static inline int has_priority(const unsigned char *at)
{
    int digits = 1;

    if (at[0] != '<')
        return 0;
    while (digits <= 3 && is_digit(at[digits]))
        digits++;
    return digits > 1 && at[digits] == '>';
}

/* Whether a line, ended by LF, begins like a counted frame, or with what belongs to no record: see detect.py. */
static inline int is_odd(const unsigned char *at)
{
    int length = 0;

    switch (at[0]) {
    case ' ':
        while (length < 8 && at[length] == ' ')
            length++;
        return at[length] == '<';
    case 0xEF:
        return skip_bom(at) != at && at[3] == '<';
    case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        while (length < 7 && is_digit(at[length]))
            length++;
        return at[length] == ' ' && has_priority(skip_bom(at + length + 1));
    default:
        return 0;
    }
}

/* The same for a line that begins in one buffer and goes on in another, at the end of which LF stands. */
static inline int is_odd_in_two(struct bytes first, const unsigned char *second, ptrdiff_t second_length)
{
    unsigned char head[EVIDENCE + 1];
    ptrdiff_t length = first.length < EVIDENCE ? first.length : EVIDENCE;
    ptrdiff_t more = EVIDENCE - length < second_length ? EVIDENCE - length : second_length;

    memcpy(head, first.at, (size_t)length);
    memcpy(head + length, second, (size_t)more);
    head[length + more] = '\n';
    return is_odd(head);
}

static inline int holds_nul(const void *at, ptrdiff_t length)
{
    return memchr(at, 0, (size_t)length) != NULL;
}

/* Count ordinary lines from `at` on; `*end` is where the first begins that is none, or has not come whole. */
static inline ptrdiff_t count_lines(struct bytes partial, const unsigned char *at, const unsigned char *stop,
                                    ptrdiff_t limit, int evidence, const unsigned char **end)
{
    ptrdiff_t count = 0, held = partial.length;
    const unsigned char *lf;

    if (evidence && held && holds_nul(partial.at, held))
        stop = at;
    while (at < stop && (lf = memchr(at, '\n', (size_t)(stop - at))) != NULL) {
        unsigned char last = lf > at ? lf[-1] : held ? partial.at[held - 1] : '\n';

        if (last == '\n' || last == '\r' || held + (lf - at) > limit)
            break;
        if (evidence && (holds_nul(at, lf - at) || (held ? is_odd_in_two(partial, at, lf - at) : is_odd(at))))
            break;
        count++;
        held = 0;
        at = lf + 1;
    }
    *end = at;
    return count;
}

struct frame {
    const unsigned char *body;
    ptrdiff_t length;           /* without what is stripped of its end */
    const unsigned char *after; /* where the next one begins */
};

/* The count before a frame, and the blank; NULL where none stands here whole. */
static inline const unsigned char *parse_count(const unsigned char *at, const unsigned char *stop, ptrdiff_t *count)
{
    const unsigned char *first = at;

    *count = 0;
    if (at >= stop || *at == '0')
        return NULL;
    while (at < stop && at - first < 7 && is_digit(*at))
        *count = *count * 10 + (*at++ - '0');
    return at > first && at < stop && *at == ' ' ? at + 1 : NULL;
}

/* Take one LF, CRLF or NUL off the end of a frame. */
static inline ptrdiff_t stripped(const unsigned char *body, ptrdiff_t length)
{
    if (body[length - 1] == '\n')
        return length - (length > 1 && body[length - 2] == '\r' ? 2 : 1);
    return body[length - 1] == 0 ? length - 1 : length;
}

/* Whether the header of another counted frame may stand within a frame, behind its own priority. */
static inline int holds_header(const unsigned char *body, ptrdiff_t length)
{
    const unsigned char *at = body + 1, *stop = body + length;

    while ((at = memchr(at, '<', (size_t)(stop - at))) != NULL) {
        if (at - body >= 2 && (at[-1] == ' ' || at[-1] == 0xBF))
            return 1;
        at++;
    }
    return 0;
}

/* Take apart the frame that stands here, if it has come whole, is not too long, and begins as it must. */
static inline int take_apart(const unsigned char *at, const unsigned char *stop, ptrdiff_t limit, int evidence,
                             struct frame *found)
{
    ptrdiff_t count;
    int digits = 1;

    if (!evidence && at < stop && *at == '\n')
        at++;
    at = parse_count(at, stop, &count);
    if (at == NULL || count > limit || count > stop - at || *at == 0xEF)
        return 0;
    if (evidence) {
        if (at >= stop || *at != '<')
            return 0;
        while (digits <= 3 && at + digits < stop && is_digit(at[digits]))
            digits++;
        if (digits == 1 || at + digits >= stop || at[digits] != '>')
            return 0;
    }
    found->body = at;
    found->length = stripped(at, count);
    found->after = at + count;
    return 1;
}

/* Where a byte comes next, looked for once and not for each frame. */
static inline const unsigned char *next_of(int byte, const unsigned char *last, const unsigned char *at,
                                           const unsigned char *stop)
{
    if (last >= at)
        return last;
    at = memchr(at, byte, (size_t)(stop - at));
    return at == NULL ? stop : at;
}

/* Count ordinary frames from `at` on, and the bytes of their contents with an LF behind each; `*end` as for lines. */
static inline ptrdiff_t count_frames(const unsigned char *at, const unsigned char *stop, ptrdiff_t limit, int evidence,
                                     const unsigned char **end, ptrdiff_t *size)
{
    const unsigned char *lf = NULL, *nul = NULL;
    struct frame frame;
    ptrdiff_t count = 0;

    for (*size = 0; take_apart(at, stop, limit, evidence, &frame) && frame.length > 0; at = frame.after) {
        lf = next_of('\n', lf, frame.body, stop);
        if (lf < frame.body + frame.length)
            break;
        if (evidence) {
            nul = next_of(0, nul, frame.body, stop);
            if (nul < frame.body + frame.length || holds_header(frame.body, frame.length))
                break;
        }
        *size += frame.length + 1;
        count++;
    }
    *end = at;
    return count;
}

#endif
