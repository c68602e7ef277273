#include "ns/level.h"

#include <math.h>

/* Probability from which a block is near-end speech. */
static const float SPEECH = 0.5f;
/* Least ratio of such a block's power to the expected echo, 6 dB. */
static const float CLEAR_OF_ECHO = 4.0f;
/* Smoothing of the speech's power per block of speech, 2 s: the length of a sentence. */
static const float SPEECH_RATE = 0.005f;
/* Smoothing of the noise's power per block: 0.5 s. */
static const float NOISE_RATE = 0.02f;
/* Blocks of speech until the ratio is known: half a second. */
enum { ENOUGH_BLOCKS = 50 };
/* Limit of speech_blocks, above the 1 / SPEECH_RATE up to which the rate depends on it. */
enum { MOST_BLOCKS = 10 * ENOUGH_BLOCKS };
/* Sum of the powers of a silent spectrum. */
static const float LEAST_POWER = 1e-9f;
/* Ratio in dB below which the level goes from low to moderate (level.h). */
static const float MODERATE_BELOW_DB = 30.0f;
/* The same from moderate to high. */
static const float HIGH_BELOW_DB = 20.0f;
/* The same from high to very high. */
static const float VERY_HIGH_BELOW_DB = 10.0f;
/* Half of the hysteresis between two levels. */
static const float HYSTERESIS_DB = 2.0f;

void ns_level_reset(ns_level_t *level) { *level = (ns_level_t){.level = NS_LEVEL_DEFAULT}; }

void ns_level_process(ns_level_t *level, float input, float noise, float echo, float speech_probability)
{
    const float below_db[NS_LEVELS - 1] = {MODERATE_BELOW_DB, HIGH_BELOW_DB, VERY_HIGH_BELOW_DB};
    level->noise_power += NOISE_RATE * (noise - level->noise_power);
    if (speech_probability > SPEECH && input > CLEAR_OF_ECHO * echo) {
        level->speech_blocks += level->speech_blocks < MOST_BLOCKS;
        /* a plain mean of the first 2 s */
        const float rate = fmaxf(SPEECH_RATE, 1.0f / (float)level->speech_blocks);
        level->speech_power += rate * (fmaxf(0.0f, input - noise) - level->speech_power);
    }
    if (level->speech_blocks < ENOUGH_BLOCKS)
        return;
    level->snr_db = 10.0f * log10f((level->speech_power + LEAST_POWER) / (level->noise_power + LEAST_POWER));
    if (level->level < NS_LEVELS - 1 && level->snr_db < below_db[level->level] - HYSTERESIS_DB)
        level->level++;
    else if (level->level > 0 && level->snr_db > below_db[level->level - 1] + HYSTERESIS_DB)
        level->level--;
}
