/* What echo the linear canceller leaves: its power per bin, from which the suppressor makes its gain.
 *
 * Leakage: the error's power regressed on the echo estimate's, per band, each block weighted by the inverse square of the error's power, so
 * that double talk (a large error) hardly counts (after J.-M. Valin, IEEE TASLP 15 (2007), who regresses too, for a step size). Reverberation
 * behind the filter's tail: exponential decay of the leaked power (E. Habets, IEEE Signal Processing Letters 15 (2008)).
 * Nothing is estimated, and so nothing suppressed, while the far end is silent.
 */
#ifndef APMPI_AEC_RESIDUAL_H
#define APMPI_AEC_RESIDUAL_H

#include "kernels/arena.h"

enum { RESIDUAL_MAX_BANDS = 24 };

typedef struct {
    int bins, stride, bands;
    int edge[RESIDUAL_MAX_BANDS + 1];   /* first bin of each band */
    float *error, *echo;                /* smoothed powers per bin */
    float *power;                       /* the estimate, per bin */
    float cross[RESIDUAL_MAX_BANDS], square[RESIDUAL_MAX_BANDS]; /* weighted regression sums */
    float leak[RESIDUAL_MAX_BANDS];     /* power of the error over that of the echo estimate */
} residual_t;

void residual_init(residual_t *residual, int rate_hz, int bins, int stride, arena_t *arena);
void residual_reset(residual_t *residual);

/* error, echo: power spectra of the canceller's error and echo estimate (same window); noise: tracked noise power;
 * far: power spectrum of the far end at the filter's delay, in the scale of the others. Result in residual->power. */
void residual_process(residual_t *residual, const float *error, const float *echo, const float *noise, const float *far);

#endif
