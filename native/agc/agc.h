/* Automatic gain: brings the talker's active level to a target, slowly, by what is speech and nothing else.
 *
 * The level is a logarithmic average over blocks that hold speech (after ITU-T P.56, whose active speech level also leaves the pauses
 * out). Noise and echo, told by the speech probability, neither raise nor lower the gain. All channels share it.
 */
#ifndef APMPI_AGC_H
#define APMPI_AGC_H

#include "kernels/tape.h"

typedef struct {
    float target_dbfs;  /* active speech level wanted */
    float max_gain_db, min_gain_db;
    float block_power;  /* smoothed over about a syllable */
    float level_dbfs;   /* tracked active speech level */
    float heard_s;      /* speech heard so far */
    float gain_db;
    float last_gain;    /* linear, at the end of the last block */
} agc_t;

void agc_init(agc_t *agc, float target_dbfs);
void agc_reset(agc_t *agc);

/* x[c]: count samples (10 ms) of channel c, in place; speech_probability: 0..1, of near-end speech in this block.
 * enabled 0: the gain returns to 0 dB without a click, the level is still tracked. */
void agc_process(agc_t *agc, float *const *x, int channels, int count, float speech_probability, int enabled);

/* What is worth keeping over a restart: the talker's level and the gain. */
void agc_keep(agc_t *agc, tape_t *tape);

#endif
