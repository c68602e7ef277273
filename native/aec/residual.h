/* Residual echo of the linear canceller: its expected power per bin, from which the suppressor makes its
 * gain.
 *
 * The largest of two estimates, which decay exponentially as late reverberation does (E. Habets et al., IEEE
 * Signal Processing Letters 15 (2008), in its simplest form):
 *
 *   leakage, the error's power over the echo estimate's, times the echo estimate's power. It covers a filter
 *   that has not converged, loudspeaker distortion, and the room behind the filter's tail.
 *   coupling, the error's power over the far end's, times the far end's power. It covers echoes that no
 *   linear filter predicts: a device with an echo canceller or a noise gate of its own, a codec on the way.
 *
 * Both are regressed per band, each block weighted by the inverse square of its error, so that a block of
 * double talk, whose error is large, hardly counts (J.-M. Valin, IEEE TASLP 15 (2007) regresses too, for a
 * step size). For the same reason one quiet block during a loud far end refutes a coupling: an unrelated far
 * end costs nothing.
 *
 * Two judgements follow. Confidence: an estimate that is no echo (another far end plays, or none reaches the
 * microphone) has no coherence with the microphone. It scales the leakage, so that near-end speech is not
 * attenuated for an echo that isn't there. Convergence: where nearly all of the echo is cancelled, the rest
 * need not be attenuated at the expense of near-end speech.
 */
#ifndef APMPI_AEC_RESIDUAL_H
#define APMPI_AEC_RESIDUAL_H

#include "aec/regression.h"
#include "base/arena.h"

enum { RESIDUAL_MAX_BANDS = 32 };

typedef struct {
    int bins, stride, bands;          /* stride: floats of a spectrum, see spectrum_stride() */
    int edge[RESIDUAL_MAX_BANDS + 1]; /* first bin of each band, and the end of the last */
    float *error, *echo;              /* smoothed powers, stride */
    float *far;                       /* power of the far end with the room's decay, stride */
    float *power;                     /* the result: power of the residual echo, stride; 0 in the padding */
    /* Terms of the current regression by bin, stride; 0 in the padding. In between scratch. */
    float *block_cross, *block_square;
    regression_t leakage[RESIDUAL_MAX_BANDS], coupling[RESIDUAL_MAX_BANDS];
    regression_t coherence; /* of microphone and echo estimate, whitened */
    float confidence;       /* 0..1: that the echo estimate is an echo */
    float convergence;      /* 0..1: of the canceller, by the leakage */
} residual_t;

/* Power spectra of the same window, stride floats each with 0 in the padding; none overlaps another. */
typedef struct {
    const float *error, *echo; /* of the canceller's error and of its echo estimate */
    const float *cross;        /* real part of error times conj(echo) */
    const float *noise;        /* tracked power of the noise, above 0 in all bins */
    const float *far;          /* far end at the echo's delay; 0 while that is unknown */
    float moved;               /* 0..1: likelihood that the echo has moved; then all of it is residual */
} residual_input_t;

void residual_init(residual_t *residual, int bins, int stride, arena_t *arena);
void residual_reset(residual_t *residual);
/* Updates power, confidence and convergence. */
void residual_process(residual_t *residual, const residual_input_t *input);

#endif
