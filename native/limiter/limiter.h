/* Look-ahead limiter: neither a sample nor the curve between two leaves above the ceiling.
 *
 * Peaks between samples are found at four times the rate, as by the meter of ITU-R BS.1770-4, annex 2; the
 * interpolator is a Kaiser-windowed sinc of our own. The gain that the highest peak of the coming look-ahead
 * needs is reached just in time by a moving average as long as the look-ahead less the interpolator's reach
 * (a minimum filter followed by a box filter: the classic construction of G. Nielsen/F. Adriaensen's
 * limiters), and given back exponentially. All channels share one gain, so that the stereo picture holds
 * still.
 */
#ifndef APMPI_LIMITER_H
#define APMPI_LIMITER_H

#include "base/arena.h"

enum {
    LIMITER_REACH = 6, /* samples that the interpolator needs on either side of a peak */
    LIMITER_TAPS = 2 * LIMITER_REACH,
    LIMITER_CHUNK = 80, /* samples that are judged together */
};

typedef struct {
    /* samples from the interpolator's middle to the output: its reach less than the delay */
    int channels, lookahead;
    int memory;    /* samples kept of each channel */
    float ceiling; /* linear */
    float release; /* per-sample rate */
    /* the curve at 1/4, 1/2 and 3/4 between the two middle ones of LIMITER_TAPS samples */
    float taps[3][LIMITER_TAPS];
    float *heard; /* channels * (memory + LIMITER_CHUNK): what has come, the newest last */
    /* ring of lookahead: gain each peak needs; of the last round, the lowest from there on */
    float *needed;
    float *reached; /* ring of lookahead: minimum-filtered gains in the box filter */
    float lowest;   /* need of this round */
    double sum;     /* of `reached` */
    int at;         /* in both rings */
    float between;  /* the peak behind the last sample judged */
    float held;     /* the minimum, given back at `release` */
    int at_rest;    /* samples in a row without need or memory of gain, saturating */
} limiter_t;

void limiter_init(limiter_t *limiter, int rate_hz, int channels, arena_t *arena);
/* How far below full scale the ceiling is. */
void limiter_configure(limiter_t *limiter, float headroom_db);
void limiter_reset(limiter_t *limiter);
/* x[c]: `count` samples of channel c, in place, delayed by limiter_latency_samples(). */
void limiter_process(limiter_t *limiter, float *const *x, int count);

static inline int limiter_latency_samples(int rate_hz) { return rate_hz / 1000; }

#endif
