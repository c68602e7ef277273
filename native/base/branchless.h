/* Selections and conversions of single floats, written without branches or calls, so that compilers turn
 * loops over them into vector instructions on every processor. Results for NaN are stated where they are
 * relied on; elsewhere arguments are numbers. */
#ifndef APMPI_BASE_BRANCHLESS_H
#define APMPI_BASE_BRANCHLESS_H

#include <stdint.h>
#include <string.h>

static inline float lesser(float a, float b) { return a < b ? a : b; }
static inline float greater(float a, float b) { return a > b ? a : b; }

/* x limited to low .. high, low <= high; a NaN gives low. */
static inline float clamp(float x, float low, float high) { return lesser(greater(x, low), high); }

/* 0 at `from`, 1 at `to`, linear in between, constant outside; from != to, from > to gives a falling ramp. */
static inline float ramp(float x, float from, float to)
{
    return clamp((x - from) / (to - from), 0.0f, 1.0f);
}

static inline int32_t bits_of_float(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* x rounded to the nearest integer, ties to even; -2^15 <= x <= 2^15 - 1. Adding 1.5 * 2^23 leaves no
 * fraction bits, so that the integer stands in the lowest bits of the sum. */
static inline int16_t nearest_int16(float x) { return (int16_t)bits_of_float(x + 12582912.0f); }

/* The same of any -2^22 < x < 2^22, limited to 16 bits. Limiting an integer takes two vector instructions,
 * limiting a float six. */
static inline int16_t limited_int16(float x)
{
    const int32_t whole = bits_of_float(x + 12582912.0f) - bits_of_float(12582912.0f),
                  above = whole > INT16_MIN ? whole : INT16_MIN;
    return (int16_t)(above < INT16_MAX ? above : INT16_MAX);
}

/* A sample of full scale 1 as 16 bits, limited to their range; a NaN is silence. */
static inline int16_t sample_to_int16(float x)
{
    return nearest_int16(clamp(x == x ? x * 32768.0f : 0.0f, -32768.0f, 32767.0f));
}

#endif
