/* Automatic gain: brings the talker's active level to a target by what is speech and nothing else.
 *
 * The level is the mean power of the last blocks that held speech (after ITU-T P.56, whose active speech
 * level leaves the pauses out), less those far above their median: a cough or a door is no louder talker
 * until it lasts for half of them. Noise and echo, told by the speech probability, neither raise nor lower
 * the gain; in a long pause it rests, so that a room without a talker isn't amplified. What is far too loud
 * before the level is known goes down at once and comes back at once. All channels share the gain.
 */
#ifndef APMPI_AGC_H
#define APMPI_AGC_H

#include <stdint.h>

#include "base/tape.h"

enum {
    AGC_WINDOW = 150,        /* blocks of speech that the level is taken from */
    AGC_LEVELS = 76,         /* counted by the dB, from AGC_QUIETEST_DBFS to 0 */
    AGC_QUIETEST_DBFS = -75, /* below it lives the noise of the quietest rooms and microphones */
};

typedef struct {
    float target_dbfs; /* active speech level wanted */
    float max_gain_db;
    uint8_t level[AGC_WINDOW]; /* of the last blocks of speech, dB over AGC_QUIETEST_DBFS; a ring */
    uint8_t count[AGC_LEVELS]; /* how many of them have each */
    int heard, at;             /* blocks in the ring; where the next goes */
    float level_dbfs;          /* tracked active speech level */
    float gain_db;             /* that the talker needs */
    float rest_db;             /* less in a long pause */
    float duck_db;             /* less while it is far too loud */
    int pause_blocks;          /* since the talker was heard, saturating */
    float loudness;            /* power, smoothed over about a syllable */
    float last_gain;           /* linear, at the end of the last block */
} agc_t;

void agc_init(agc_t *agc);
/* target_dbfs: -40..-6; max_gain_db: 0..50. */
void agc_configure(agc_t *agc, float target_dbfs, float max_gain_db);
void agc_reset(agc_t *agc);

/* x[c]: count samples (10 ms) of channel c, in place; power: their mean square where a voice is, without DC
 * and rumble; speech_probability: 0..1, of near-end speech in this block. enabled 0: the gain returns to 0 dB
 * without a click, the level is still tracked. */
void agc_process(agc_t *agc, float *const *x, int channels, int count, float power, float speech_probability,
                 int enabled);

/* The gain that is applied. */
float agc_gain_db(const agc_t *agc);
/* The talker is known, and too quiet for the largest gain to bring near the target. */
int agc_out_of_reach(const agc_t *agc);

/* What is worth keeping over a restart: the talker's level and the gain. */
void agc_keep(agc_t *agc, tape_t *tape);

#endif
