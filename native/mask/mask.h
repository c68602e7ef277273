/* Learned mask: a small recurrent network that estimates, band by band, how much of the statistical gain's
 * output is near-end speech and how much is no echo.
 *
 * Band gains from a recurrent network over spectral features are J.-M. Valin's idea (MMSP 2018, for noise
 * alone); features, network and use are our own. All inputs are power ratios (error over tracked noise, over
 * residual echo; echo estimate and far end over error) and the coherence of error and echo estimate, so
 * level, gain and most of the room cancel out. Network: dense (tanh), gated recurrent unit (K. Cho et al.,
 * 2014), dense (sigmoid) over both. The weights have 8 bits and are made by training/train.py from speech,
 * rooms and loudspeakers that it generates itself. Bands are 200 Hz wide to 1 kHz, then a fifth of their
 * frequency, up to 8 kHz. Bins above follow the last band, and are opened during near-end speech.
 */
#ifndef APMPI_MASK_H
#define APMPI_MASK_H

#include <stdint.h>

#include "base/arena.h"

enum {
    MASK_BANDS = 17,                /* of spectrum_band_end, up to 8 kHz */
    MASK_FEATURES = 5 * MASK_BANDS, /* four ratios and a coherence a band */
    MASK_LAST_BIN = 160,            /* 8 kHz */
    MASK_UNITS = 64,                /* of the first and of the recurrent layer; 96 did no better */
    MASK_OUTPUTS = 2 * MASK_BANDS + 1,
};

/* Powers of one block by bin, `bins` each, through the same window (far: any window). */
typedef struct {
    const float *error;    /* output of the echo canceller */
    const float *echo;     /* its echo estimate */
    const float *cross;    /* real part of error * conj(echo) */
    const float *residual; /* expected residual echo */
    const float *noise;    /* tracked noise */
    const float *far;      /* far end at the echo's delay */
} mask_input_t;

typedef struct {
    int bins;
    float quiet_power; /* of a bin: added to all powers, so that quantisation noise gives ratios near 1 */
    float *speech;     /* result, by bin, 0..1: gain that keeps near-end speech alone */
    float *rest;       /* result, by bin, 0..1: gain that keeps near-end speech and noise */
    float speech_probability;      /* result: of near-end speech, 0..1 */
    float held_speech_probability; /* the same, decaying over the length of a sibilant */
    float state[MASK_UNITS];       /* of the recurrent layer */
} mask_t;

/* stride: floats of a spectrum, >= bins; window_power: sum of the squared analysis window. */
void mask_init(mask_t *mask, int bins, int stride, float window_power, arena_t *arena);
/* Gains 1, probability 0. */
void mask_reset(mask_t *mask);

/* One block; results in speech, rest and speech_probability. */
void mask_process(mask_t *mask, const mask_input_t *input);

/* The network's input for a block, about -3..3 each; for its training. */
void mask_features(const mask_t *mask, const mask_input_t *input, float features[MASK_FEATURES]);

#endif
