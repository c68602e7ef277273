/* Plain C that becomes vector instructions on every processor: without calls, for numbers only. */
#ifndef APMPI_KERNELS_BRANCHLESS_H
#define APMPI_KERNELS_BRANCHLESS_H

#include <stdint.h>
#include <string.h>

static inline float lesser(float a, float b) { return a < b ? a : b; }
static inline float greater(float a, float b) { return a > b ? a : b; }
/* 0 at `from`, 1 at `to`, straight in between, level outside. */
static inline float ramp(float x, float from, float to)
{
    return lesser(1.0f, greater(0.0f, (x - from) / (to - from)));
}

static inline int32_t bits_of_float(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* To the nearest, ties to even; x from -2^15 to 2^15 - 1. Adding 1.5 * 2^23 rounds to an integer, which
 * then is in the lowest bits. */
static inline int16_t nearest_int16(float x) { return (int16_t)bits_of_float(x + 12582912.0f); }

#endif
