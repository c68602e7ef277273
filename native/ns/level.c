#include "ns/level.h"

#include <math.h>

static const float SPEAKS = 0.5f;        /* probability from which a block is the talker's */
static const float CLEAR_OF_ECHO = 4.0f; /* 6 dB */
static const float SPEECH_RATE = 0.005f; /* 2 s of speech: a sentence */
static const float NOISE_RATE = 0.02f;   /* 0.5 s */
enum { ENOUGH_BLOCKS = 50 };             /* half a second of speech */
static const float LEAST_POWER = 1e-9f;  /* sum of a silent spectrum */
static const float EDGE_DB[NS_LEVELS - 1] = {30.0f, 20.0f, 10.0f}; /* below it the next level */
static const float HOLD_DB = 2.0f;

void ns_level_reset(ns_level_t *level) { *level = (ns_level_t){.level = NS_LEVEL_DEFAULT}; }

void ns_level_process(ns_level_t *level, float heard, float noise, float echo, float speech_probability)
{
    level->noise_power += NOISE_RATE * (noise - level->noise_power);
    if (speech_probability > SPEAKS && heard > CLEAR_OF_ECHO * echo) {
        level->heard_blocks += level->heard_blocks < 10 * ENOUGH_BLOCKS;
        /* the first words count alike */
        const float rate = fmaxf(SPEECH_RATE, 1.0f / (float)level->heard_blocks);
        level->speech_power += rate * (fmaxf(0.0f, heard - noise) - level->speech_power);
    }
    if (level->heard_blocks < ENOUGH_BLOCKS)
        return;
    level->snr_db = 10.0f * log10f((level->speech_power + LEAST_POWER) / (level->noise_power + LEAST_POWER));
    if (level->level < NS_LEVELS - 1 && level->snr_db < EDGE_DB[level->level] - HOLD_DB)
        level->level++;
    else if (level->level > 0 && level->snr_db > EDGE_DB[level->level - 1] + HOLD_DB)
        level->level--;
}
