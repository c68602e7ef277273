#include "agc/agc.h"

#include <math.h>

static const float BLOCK_S = 0.01f;
static const float SYLLABLE_S = 0.1f;       /* smoothing of the power: between a phoneme and a word */
static const float LEVEL_S = 0.7f;          /* of speech: a step of 30 dB is within 2 dB after 1.9 s of it */
static const float RISE_DB_PER_S = 15.0f, FALL_DB_PER_S = 60.0f; /* too loud hurts at once, too quiet can wait */
static const float SPEECH = 0.6f;           /* probability from which a block counts */
static const float QUIETEST_DBFS = -65.0f;  /* below it lives the noise of the quietest rooms and microphones */

void agc_init(agc_t *agc, float target_dbfs)
{
    agc->target_dbfs = target_dbfs;
    agc->max_gain_db = 32.0f;
    agc->min_gain_db = -20.0f;
    agc_reset(agc);
}

void agc_reset(agc_t *agc)
{
    agc->block_power = 0.0f;
    agc->level_dbfs = agc->target_dbfs;
    agc->heard_s = 0.0f;
    agc->gain_db = 0.0f;
    agc->last_gain = 1.0f;
}

static float clamp(float x, float low, float high) { return fminf(fmaxf(x, low), high); }

void agc_process(agc_t *agc, float *const *x, int channels, int count, float speech_probability, int enabled)
{
    float power = 0.0f;
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < count; i++)
            power += x[c][i] * x[c][i];
    power /= (float)(channels * count);

    if (speech_probability <= SPEECH) {
        agc->block_power = 0.0f; /* what was noise or echo is not the beginning of a word */
    } else {
        agc->block_power += (BLOCK_S / SYLLABLE_S) * (power - agc->block_power);
    }
    const float dbfs = 10.0f * log10f(fmaxf(power, agc->block_power) + 1e-12f);
    if (speech_probability > SPEECH && dbfs > QUIETEST_DBFS) {
        agc->heard_s += BLOCK_S;
        /* the first words are averaged evenly: the gain is right after a second, not after three */
        const float rate = fmaxf(BLOCK_S / LEVEL_S, BLOCK_S / agc->heard_s);
        agc->level_dbfs += speech_probability * rate * (dbfs - agc->level_dbfs);
        const float wanted = clamp(agc->target_dbfs - agc->level_dbfs, agc->min_gain_db, agc->max_gain_db);
        if (enabled)
            agc->gain_db += clamp(wanted - agc->gain_db, -FALL_DB_PER_S * BLOCK_S, RISE_DB_PER_S * BLOCK_S);
    }
    if (!enabled)
        agc->gain_db -= clamp(agc->gain_db, -FALL_DB_PER_S * BLOCK_S, FALL_DB_PER_S * BLOCK_S);

    const float gain = powf(10.0f, agc->gain_db / 20.0f), step = (gain - agc->last_gain) / (float)count;
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < count; i++)
            x[c][i] *= agc->last_gain + step * (float)(i + 1);
    agc->last_gain = gain;
}

void agc_keep(agc_t *agc, tape_t *tape)
{
    tape_float(tape, &agc->level_dbfs, -200.0f, 20.0f);
    tape_float(tape, &agc->heard_s, 0.0f, TAPE_ANY);
    tape_float(tape, &agc->gain_db, agc->min_gain_db, agc->max_gain_db);
    if (tape->mode == TAPE_PLAY)
        agc->last_gain = powf(10.0f, agc->gain_db / 20.0f);
}
