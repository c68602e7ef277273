/* Look-ahead limiter: neither a sample nor the curve between two exceeds the ceiling.
 *
 * Peaks between samples are estimated at four times the rate, as by the meter of ITU-R BS.1770-4, annex 2;
 * the interpolator is a Kaiser-windowed sinc of our own. The gain for the highest peak of the coming
 * look-ahead is reached in time by a moving average as long as the look-ahead less the interpolator's reach
 * (a minimum filter followed by a box filter: the classic construction of G. Nielsen/F. Adriaensen's
 * limiters), and released exponentially. All channels share one gain, so that the stereo image does not move.
 * The delay is 1 ms.
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
    int channels;
    int lookahead; /* samples from the newest judged one to the output: delay less interpolator's reach */
    int memory;    /* samples kept of each channel */
    float ceiling; /* linear */
    float release; /* share of the remaining way a sample */
    /* the curve at 1/4, 1/2 and 3/4 between the two middle ones of LIMITER_TAPS samples */
    float taps[3][LIMITER_TAPS];
    float *input;   /* channels * (memory + LIMITER_CHUNK) samples, the newest last */
    float *needed;  /* ring of lookahead: gain that each peak needs; of the last round its suffix minimum */
    float *reached; /* ring of lookahead: minimum-filtered gains in the box filter */
    float lowest;   /* minimum of the gains needed in this round */
    double sum;     /* of `reached` */
    int at;         /* in both rings */
    float between;  /* the peak behind the last judged sample */
    float held;     /* the minimum filter's output with release */
    int at_rest;    /* samples in a row for which `held` was 1, saturating */
} limiter_t;

void limiter_init(limiter_t *limiter, int rate_hz, int channels, arena_t *arena);
/* headroom_db: 0..20, from the ceiling to full scale. */
void limiter_configure(limiter_t *limiter, float headroom_db);
void limiter_reset(limiter_t *limiter);
/* x[c]: `count` samples of channel c, in place, delayed by limiter_latency_samples(). */
void limiter_process(limiter_t *limiter, float *const *x, int count);

static inline int limiter_latency_samples(int rate_hz) { return rate_hz / 1000; }

#endif
