/* How much faster the microphone's clock runs than the far end's, from how the echo slides past the
 * canceller's estimate of it.
 *
 * An echo that comes late by a lag l has the spectrum Y exp(-j w l) where Y was estimated, so the canceller's
 * error E holds -j w l Y. The lag of most likelihood under Gaussian noise of power N per bin is
 *
 *   l = - sum w Im(E conj Y) / N  /  I,   I = sum w^2 |Y|^2 / N,   with variance 1 / I,
 *
 * the gradient of M. Pawig, G. Enzner, P. Vary, "Adaptive sampling rate correction for acoustic echo control
 * in voice-over-IP", IEEE Trans. Signal Processing 58 (2010), weighed by bin. Double talk and a path not
 * learned yet make N large and say little; random errors of the path average out, because they have nothing
 * to do with the estimate's derivative. Where less than 3 dB of an echo go nothing is taken: what bends the
 * echo more than that (an overdriven loudspeaker, another device's processing) looks like a lag, and making
 * up for one would gain nothing. The canceller takes the lag over by and by, so its mean tells the sign of a
 * drift but not its size. Hence two phases: watching, until the lag of the last seconds is beyond chance;
 * then a Kalman filter of two states (lag; rate at which it grows) steers the resampler, which closes the
 * loop: the rate is right when no lag is left. Left out: that the canceller takes part of the lag over, which
 * only makes the loop slower. A drift is on trial for its first seconds: if the canceller then takes clearly
 * less of the echo than it did at its best before, the drift is given back, and the next one needs more to be
 * believed.
 */
#ifndef APMPI_AEC_DRIFT_H
#define APMPI_AEC_DRIFT_H

#include "base/tape.h"

typedef struct {
    int hop;
    int steering;                                  /* a drift was found: the resampler is to follow */
    float rate;                                    /* samples a block by which the echo falls behind */
    float lag_variance, covariance, rate_variance; /* samples^2, of lag and rate */
    float lag_sum, information;                    /* while watching: of the last seconds */
    float proof; /* square of the lag over its variance from which a drift is taken up */
    /* the canceller's reduction at its best: lately without the drift, with it */
    float best_before, best_since;
    int trial_blocks; /* of the trial up to now */
} drift_t;

void drift_init(drift_t *drift, int hop);
void drift_reset(drift_t *drift);

/* lag_sum: the last block's sum - w Im(E conj Y) / N, information: its I, w in rad a sample; both 0 where the
 * block says nothing. reduction: the microphone's energy over the canceller's error's, smoothed. Returns the
 * samples by which the far end is
 * to fall back during the next block. */
float drift_process(drift_t *drift, float lag_sum, float information, float reduction);

/* Microphone clock over far-end clock. */
float drift_ppm(const drift_t *drift);

/* What is worth keeping over a restart: the rate. */
void drift_keep(drift_t *drift, tape_t *tape);

#endif
