/* Automatic gain control: brings the active speech level of the near end to a target.
 *
 * The level is the mean power of the last AGC_WINDOW blocks of speech (after ITU-T P.56, whose active speech
 * level leaves pauses out), without those more than 15 dB above their median: a cough or a door does not
 * raise it until it fills half the window. Noise and echo, for which the caller gives a low speech
 * probability, neither raise nor lower the gain. After 2 s without speech the gain is reduced, so that the
 * noise of a room without a talker is not amplified. What is far too loud before the level is known is
 * reduced at once, and restored at once. All channels share the gain.
 */
#ifndef APMPI_AGC_H
#define APMPI_AGC_H

#include <stdint.h>

#include "base/tape.h"

enum {
    AGC_WINDOW = 150,        /* blocks of speech of which the level is the mean: 1.5 s */
    AGC_LEVELS = 76,         /* of the histogram: whole dB from AGC_QUIETEST_DBFS to 0 */
    AGC_QUIETEST_DBFS = -75, /* below it is noise, even of the quietest rooms and microphones */
};

typedef struct {
    float target_dbfs; /* active speech level wanted */
    float max_gain_db;
    uint8_t level[AGC_WINDOW]; /* ring: levels of the last blocks of speech in dB over AGC_QUIETEST_DBFS */
    uint8_t count[AGC_LEVELS]; /* histogram of the ring */
    int counted, at;           /* blocks in the ring; place of the next */
    float level_dbfs;          /* active speech level */
    float gain_db;             /* gain for that level; the applied one is lower by the next two */
    float rest_db;             /* reduction in a long pause */
    float duck_db;             /* reduction while the output is far too loud */
    int pause_blocks;          /* since the last block of speech, saturating */
    float loudness;            /* input power, smoothed over about a syllable */
    float last_gain;           /* linear, at the end of the last block */
} agc_t;

/* target_dbfs: -40..-6; max_gain_db: 0..50. The gain moves to them at its usual speed. */
void agc_configure(agc_t *agc, float target_dbfs, float max_gain_db);
/* Gain 0 dB, level unknown. */
void agc_reset(agc_t *agc);

/* x[c]: count samples (10 ms) of channel c, in place; power: their mean square without DC and rumble;
 * speech_probability: 0..1, of near-end speech in this block. enabled 0: the gain returns to 0 dB without a
 * click, and the level is still tracked. */
void agc_process(agc_t *agc, float *const *x, int channels, int count, float power, float speech_probability,
                 int enabled);

/* The applied gain. */
float agc_gain_db(const agc_t *agc);
/* 1 if the level is known, and more than 3 dB too low for the largest gain to bring it to the target. */
int agc_out_of_reach(const agc_t *agc);

/* Learned values, for a saved state: level and gain. */
void agc_keep(agc_t *agc, tape_t *tape);

#endif
