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

/* Lines that were found one after the other, the first of them begun elsewhere. */
struct walk {
    struct bytes partial;    /* what the line at hand begins with */
    const unsigned char *at; /* where it goes on */
    ptrdiff_t count;
};

/* Take the line at hand, which ends at `lf` and holds no NUL where that matters; 0 where it is odd. */
static inline int take_line(struct walk *walk, const unsigned char *lf, ptrdiff_t limit, int evidence)
{
    const unsigned char *at = walk->at;
    ptrdiff_t held = walk->partial.length;
    unsigned char last = lf > at ? lf[-1] : held ? walk->partial.at[held - 1] : '\n';

    if (last == '\n' || last == '\r' || held + (lf - at) > limit)
        return 0;
    if (evidence && (held ? is_odd_in_two(walk->partial, at, lf - at) : is_odd(at)))
        return 0;
    walk->partial.length = 0;
    walk->at = lf + 1;
    walk->count++;
    return 1;
}

enum { NUL_BLOCK = 4096 }; /* bytes looked through for NUL at a time, so that a line that is odd costs no look at the rest */

/* Take lines from where the walk is up to the first odd one; `seen` is how far there is no NUL. */
static inline void take_lines(struct walk *walk, const unsigned char *seen, const unsigned char *stop, ptrdiff_t limit,
                              int evidence)
{
    const unsigned char *lf = seen, *nul, *next;

    for (; lf < stop && (lf = memchr(lf, '\n', (size_t)(stop - lf))) != NULL; lf++) {
        for (; evidence && seen < lf && seen < stop; seen = next) {
            next = stop - seen < NUL_BLOCK ? stop : seen + NUL_BLOCK;
            nul = memchr(seen, 0, (size_t)(next - seen));
            if (nul != NULL)
                next = stop = nul;
        }
        if (lf >= stop || !take_line(walk, lf, limit, evidence))
            return;
    }
}

#if defined(__SSE2__)
#include <emmintrin.h>
#include <stdint.h>

enum {
    BLOCK = 64,
    SAMPLE = 2048,  /* bytes by which it is judged how long lines are */
    LONG_LINE = 300 /* bytes of a line from which on memchr finds its end faster, which uses wider registers */
};

/* A bit for each byte of a block: whether it is LF; and whether one of them is NUL. */
static inline uint64_t line_ends(const unsigned char *block, int *holds_nul_byte)
{
    const __m128i lf = _mm_set1_epi8('\n');
    __m128i part, least = lf;
    uint64_t ends = 0;
    int place;

    for (place = 0; place < BLOCK; place += 16) {
        part = _mm_loadu_si128((const __m128i *)(const void *)(block + place));
        least = _mm_min_epu8(least, part);
        ends |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part, lf)) << place;
    }
    *holds_nul_byte = _mm_movemask_epi8(_mm_cmpeq_epi8(least, _mm_setzero_si128())) != 0;
    return ends;
}

/* Do the same block by block, up to where lines are long; 0 where an odd line was met. */
static inline int take_blocks(struct walk *walk, const unsigned char **seen, const unsigned char *stop, ptrdiff_t limit,
                              int evidence)
{
    const unsigned char *first = *seen, *block = first;
    uint64_t ends;
    int nul;

    for (; stop - block >= BLOCK; block += BLOCK) {
        *seen = block;
        if (block - first == SAMPLE && walk->count < SAMPLE / LONG_LINE)
            return 1;
        ends = line_ends(block, &nul);
        if (evidence && nul)
            return 1;
        for (; ends != 0; ends &= ends - 1)
            if (!take_line(walk, block + __builtin_ctzll(ends), limit, evidence))
                return 0;
    }
    *seen = block;
    return 1;
}
#endif

/* Count ordinary lines from `at` on; `*end` is where the first begins that is none, or has not come whole. */
static inline ptrdiff_t count_lines_portably(struct bytes partial, const unsigned char *at, const unsigned char *stop,
                                             ptrdiff_t limit, int evidence, const unsigned char **end)
{
    struct walk walk = {partial, at, 0};

    if (!(evidence && partial.length && holds_nul(partial.at, partial.length)))
        take_lines(&walk, at, stop, limit, evidence);
    *end = walk.at;
    return walk.count;
}

/* The same, as fast as we can. */
static inline ptrdiff_t count_lines(struct bytes partial, const unsigned char *at, const unsigned char *stop,
                                    ptrdiff_t limit, int evidence, const unsigned char **end)
{
#if defined(__SSE2__)
    struct walk walk = {partial, at, 0};
    const unsigned char *seen = at;

    if (!(evidence && partial.length && holds_nul(partial.at, partial.length))
        && take_blocks(&walk, &seen, stop, limit, evidence))
        take_lines(&walk, seen, stop, limit, evidence);
    *end = walk.at;
    return walk.count;
#else
    return count_lines_portably(partial, at, stop, limit, evidence, end);
#endif
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
