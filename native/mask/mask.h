/* Learned gain: a small recurrent network that tells, band by band, how much of what the statistical gain
 * leaves is a talker, and how much is no echo.
 *
 * The idea of band gains from a recurrent network over spectral features is J.-M. Valin's (MMSP 2018, for
 * noise alone); features, network and use are our own. Its inputs are ratios only (what is heard over tracked
 * noise, over residual echo, over the echo estimate, over the far end), so level, gain and most of the room
 * fall out. The network: dense (tanh), gated recurrent unit (K. Cho et al., 2014), dense (sigmoid) over both;
 * weights of 8 bits, made by training/train.py from speech, rooms and loudspeakers that it generates itself.
 * It hears 200 Hz bands to 1 kHz, then fifths of the frequency, up to 8 kHz; bins above follow the last band,
 * and open while somebody talks.
 */
#ifndef APMPI_MASK_GAIN_H
#define APMPI_MASK_GAIN_H

#include <stdint.h>

#include "base/arena.h"

enum {
    MASK_BANDS = 17, /* of spectrum_band_end, up to 8 kHz */
    MASK_FEATURES = 5 * MASK_BANDS,
    MASK_LAST_BIN = 160, /* 8 kHz */
    MASK_UNITS = 64,
    MASK_OUTPUTS = 2 * MASK_BANDS + 1,
};

/* Powers of the same block by bin, through the same window (far: any). */
typedef struct {
    const float *error;    /* after the echo canceller */
    const float *echo;     /* the canceller's estimate */
    const float *cross;    /* real part of error * conj(echo) */
    const float *residual; /* expected residual echo */
    const float *noise;    /* tracked noise */
    const float *far;      /* far end at the echo's delay */
} mask_input_t;

typedef struct {
    int bins;
    float tiny;           /* power of a bin under which nothing is heard */
    float *speech, *rest; /* gain by bin that keeps the talker; that keeps talker and noise */
    float speech_probability;
    float spoken;            /* speech_probability, held over the length of a sibilant */
    float state[MASK_UNITS]; /* of the recurrent unit */
} mask_t;

/* window_power: sum of the squared analysis window. */
void mask_init(mask_t *gain, int bins, int stride, float window_power, arena_t *arena);
void mask_reset(mask_t *gain);

/* Results in speech, rest and speech_probability. */
void mask_process(mask_t *gain, const mask_input_t *input);

/* What the network is told of a block; for its training. */
void mask_features(const mask_t *gain, const mask_input_t *input, float features[MASK_FEATURES]);

#endif
