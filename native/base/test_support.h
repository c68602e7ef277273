/* For C tests only: a check that prints its figures, memory of the exact size, so that a sanitizer finds
 * accesses beyond it, and random numbers that are the same on every machine. */
#ifndef APMPI_BASE_TEST_SUPPORT_H
#define APMPI_BASE_TEST_SUPPORT_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

static int test_failures;

/* Prints the line whether the check holds or not, so that the log has the figures of passed checks, too. */
#define CHECK(holds, ...)                                                                                    \
    do {                                                                                                     \
        const int holds_ = (holds);                                                                          \
        printf("%s ", holds_ ? "ok    " : "FAILED");                                                         \
        printf(__VA_ARGS__);                                                                                 \
        printf("\n");                                                                                        \
        test_failures += !holds_;                                                                            \
    } while (0)

static uint64_t test_state = 88172645463325252u;

/* Uniform in [-1, 1): G. Marsaglia, "Xorshift RNGs" (2003), 64 bits. Successive numbers of a linear
 * congruential generator are too strongly correlated for tests of spectra. */
static inline float test_random(void)
{
    test_state ^= test_state << 13;
    test_state ^= test_state >> 7;
    test_state ^= test_state << 17;
    return (float)((int32_t)(test_state >> 32) >> 8) * 0x1p-23f;
}

/* Zeroed memory aligned as an arena's; the caller frees it. */
static inline void *test_memory(size_t bytes)
{
    void *memory = aligned_alloc(ARENA_ALIGN, arena_round(bytes));
    memset(memory, 0, arena_round(bytes));
    return memory;
}

/* Mean square. */
static inline double test_power(const float *x, int count)
{
    double sum = 0.0;
    for (int i = 0; i < count; i++)
        sum += (double)x[i] * (double)x[i];
    return sum / count;
}

/* Raises *worst to `error`; a NaN counts as infinity (fmax would ignore it). */
static inline void test_worst(double *worst, double error)
{
    if (!(error <= *worst))
        *worst = isnan(error) ? HUGE_VAL : error;
}

/* Power in dB; -300 dB for 0. */
static inline double test_db(double power) { return 10.0 * log10(power + 1e-30); }

#endif
