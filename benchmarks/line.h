/*
 * The lines that load.c sends and verify.c expects. A line is a function of its connection and its number alone,
 * so that whoever finds one can tell what every byte of it must be; lines.py says the same in Python.
 *
 *   <14>1 - - load - - - CCCCC NNNNNNNNN filler.
 */
#ifndef LINE_H
#define LINE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "<14>1 - - load - - - "

enum {
    CONNECTION_AT = sizeof HEAD - 1,
    CONNECTION_DIGITS = 5,
    NUMBER_AT = CONNECTION_AT + CONNECTION_DIGITS + 1,
    NUMBER_DIGITS = 9,
    FILLER_AT = NUMBER_AT + NUMBER_DIGITS + 1,
    STARTS = 65536, /* places in the filler where a line may begin */
    LONGEST = 65536,
    MIXED_LONGEST = 872,
};

static char filler[STARTS + LONGEST];

static void read_filler(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fread(filler, 1, sizeof filler, file) != sizeof filler) {
        fprintf(stderr, "%s: not the filler file\n", path);
        exit(2);
    }
    fclose(file);
}

static inline uint32_t scatter(uint32_t connection, uint32_t number)
{
    uint32_t x = connection * 2654435761u + number * 2246822519u;
    x = (x ^ x >> 15) * 739982445u;
    return x ^ x >> 12;
}

/* The length with its LF: `size`, or, where that is 0, a mixture with a mean of 220. */
static inline uint32_t length_of(uint32_t spread, uint32_t size)
{
    static const uint16_t mixture[16] = {96,  104, 112, 120, 128, 136, 144, 152,
                                         160, 176, 192, 208, 240, 288, 400, 864};
    return size ? size : mixture[spread & 15] + (spread >> 4) % 17 - 8;
}

static inline void put_digits(char *at, uint32_t value, int width)
{
    while (width--) {
        at[width] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* Write a line with its LF; gives its length. */
static inline uint32_t put_line(char *at, uint32_t connection, uint32_t number, uint32_t size)
{
    uint32_t spread = scatter(connection, number), length = length_of(spread, size);
    memcpy(at, HEAD, CONNECTION_AT);
    put_digits(at + CONNECTION_AT, connection, CONNECTION_DIGITS);
    at[NUMBER_AT - 1] = ' ';
    put_digits(at + NUMBER_AT, number, NUMBER_DIGITS);
    at[FILLER_AT - 1] = ' ';
    memcpy(at + FILLER_AT, filler + (spread >> 16), length - FILLER_AT - 2);
    at[length - 2] = '.';
    at[length - 1] = '\n';
    return length;
}

#endif
