/* Look-ahead limiter: no sample leaves above the ceiling, none is clipped.
 *
 * The gain that the loudest sample of the coming look-ahead needs is reached just in time by a moving average as long as the look-ahead
 * (a minimum filter followed by a box filter: the classic construction of G. Nielsen/F. Adriaensen's limiters), and given back exponentially.
 * All channels share one gain, so that the stereo picture holds still.
 */
#ifndef APMPI_LIMITER_H
#define APMPI_LIMITER_H

#include "kernels/arena.h"

typedef struct {
    int channels, lookahead; /* samples */
    float ceiling;           /* linear */
    float release;           /* per-sample rate */
    float *delayed;          /* ring of lookahead frames, interleaved by channel */
    float *needed;           /* ring: gain each delayed frame needs; of the last round, the lowest from there on */
    float *reached;          /* ring: minimum-filtered gains in the box filter */
    float lowest;            /* need of this round */
    double sum;              /* of `reached` */
    int at;
    float held;              /* the minimum, given back at `release` */
    int at_rest;             /* samples in a row without need or memory of gain, saturating */
} limiter_t;

void limiter_init(limiter_t *limiter, int rate_hz, int channels, float ceiling_dbfs, arena_t *arena);
void limiter_reset(limiter_t *limiter);
/* x[c]: `count` samples of channel c, in place, delayed by limiter_latency_samples(). */
void limiter_process(limiter_t *limiter, float *const *x, int count);

static inline int limiter_latency_samples(int rate_hz) { return rate_hz / 1000; }

#endif
