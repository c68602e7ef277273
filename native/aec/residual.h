/* What echo the linear canceller leaves: its power per bin, from which the suppressor makes its gain.
 *
 * Leakage, the error's power over the echo estimate's, is regressed per band, each block weighted by the
 * inverse square of its error: a block of double talk, whose error is large, hardly counts (J.-M. Valin, IEEE
 * TASLP 15 (2007) regresses too, for a step size). It covers a filter that has not converged, loudspeaker
 * distortion and the room behind the filter's tail alike; late reverberation lets it decay exponentially (E.
 * Habets et al., IEEE Signal Processing Letters 15 (2008), in its simplest form). Coupling, the error's power
 * over the far end's, is regressed in the same way: it finds echoes that no linear filter predicts (a device
 * with an echo canceller or noise gate of its own, a codec on the way). One quiet block while the far end is
 * loud refutes it, so an unrelated far end costs nothing. Trust: where nearly all of the echo goes, the
 * little that leaks need not be taken at a talker's expense. Truth: an echo estimate that is no echo (another
 * far end plays, or none reaches the microphone) has nothing in common with the microphone. Its least-squares
 * share in the microphone scales the residual, so that nobody is suppressed for what is not there.
 */
#ifndef APMPI_AEC_RESIDUAL_H
#define APMPI_AEC_RESIDUAL_H

#include "base/arena.h"

enum { RESIDUAL_MAX_BANDS = 32 };

/* Weighted sums of error times source and of source squared. */
typedef struct {
    float cross, square;
} regression_t;

typedef struct {
    int bins, stride, bands;
    int edge[RESIDUAL_MAX_BANDS + 1]; /* first bin of each band */
    float *error, *echo;              /* smoothed powers per bin */
    float *far;                       /* power of the far end per bin, with the room's decay */
    float *power;                     /* the result, stride; stays 0 in the padding */
    /* regression terms of the last block per bin; stay 0 in the padding; in between scratch */
    float *told_cross, *told_square;
    regression_t leakage[RESIDUAL_MAX_BANDS], coupling[RESIDUAL_MAX_BANDS];
    /* whitened averages: of echo estimate times microphone, of the estimate's power */
    float shared, claimed;
    float truth;    /* shared / claimed, 0..1 */
    float believed; /* 0..1: from what chance gives to what an echo gives */
    float trust;    /* 0..1: in the canceller, by the leakage */
} residual_t;

void residual_init(residual_t *residual, int bins, int stride, arena_t *arena);
void residual_reset(residual_t *residual);

/* moved: 0..1, how likely the echo is elsewhere than where it is estimated: then all of it is left.
 * error, echo: power spectra of the canceller's error and echo estimate, through the same window; cross: real
 * part of error times conj(echo); noise: tracked noise power; far: power of the far end at the echo's delay,
 * zeros while that is unknown. Result in residual->power. */
void residual_process(residual_t *residual, const float *error, const float *echo, const float *cross,
                      const float *noise, const float *far, float moved);

#endif
