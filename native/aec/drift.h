/* Drift of the microphone's clock against the far end's, from the lag of the echo behind its estimate.
 *
 * An echo that is late by a lag of l samples has the spectrum Y exp(-j w l) where Y was estimated, so the
 * canceller's error E holds -j w l Y. The maximum-likelihood lag under Gaussian noise of power N per bin is
 *
 *   l = - sum w Im(E conj Y) / N  /  I,   I = sum w^2 |Y|^2 / N,   with variance 1 / I,
 *
 * the gradient of M. Pawig, G. Enzner, P. Vary, "Adaptive sampling rate correction for acoustic echo control
 * in voice-over-IP", IEEE Trans. Signal Processing 58 (2010), weighted by bin. Double talk and a path that is
 * not learned yet have a large N and little weight. Random errors of the path average out, since they are
 * independent of the estimate's derivative. Blocks in which the canceller reduces the echo by less than 3 dB
 * are left out: nonlinear echo of that amount (an overdriven loudspeaker, another device's processing)
 * resembles a lag, and making up for one would gain nothing.
 *
 * The canceller's path follows the lag, so the mean lag gives the sign of a drift but not its size. Hence two
 * phases. Detection: until the lag of the last seconds is significant. Steering: a Kalman filter of two
 * states (the lag, and the rate at which it grows) sets the resampler's slide, which closes the loop: the
 * rate is right when no lag is left. Left out: that the path follows a part of the lag, which only makes the
 * loop slower.
 *
 * A drift is on trial for its first seconds: if the canceller then reduces the echo by clearly less than its
 * best before, the drift is withdrawn, and the next one needs more significance.
 */
#ifndef APMPI_AEC_DRIFT_H
#define APMPI_AEC_DRIFT_H

#include "base/tape.h"

typedef struct {
    int hop;
    int steering; /* 0: detection, 1: a drift was found and the resampler is to follow drift_process() */
    float rate;   /* samples per block by which the echo falls behind */
    float lag_variance, covariance, rate_variance; /* samples^2, of lag and rate */
    float lag_sum, information;                    /* detection: averages over the last seconds */
    float threshold;               /* square of the lag over its variance from which a drift is accepted */
    float best_before, best_since; /* largest reduction: in the last seconds without the drift; with it */
    int trial_blocks;              /* of the trial up to now, TRIAL_BLOCKS after it */
} drift_t;

/* hop: samples of a block of 10 ms. */
void drift_init(drift_t *drift, int hop);
void drift_reset(drift_t *drift);

/* lag_sum, information: of the last block, - sum w Im(E conj Y) / N and I, w in rad per sample; both 0 where
 * the block is left out. reduction: smoothed energy of the microphone over that of the canceller's error.
 * Returns the samples by which the far end is to be read later over the next block. */
float drift_process(drift_t *drift, float lag_sum, float information, float reduction);

/* Microphone clock over far-end clock, deviation from 1 in ppm. */
float drift_ppm(const drift_t *drift);

/* Keeps the phase, the rate and its variance. */
void drift_keep(drift_t *drift, tape_t *tape);

#endif
