#include "agc/agc.h"

#include <math.h>
#include <string.h>

static const float BLOCK_S = 0.01f;
static const float TINY_POWER = 1e-12f; /* -120 dBFS: keeps the logarithm finite */

static const float SPEECH = 0.6f; /* speech probability from which a block counts */
/* 0.3 s: a level of less would be that of a syllable, or of noise that is not tracked as such yet */
enum { ENOUGH_BLOCKS = 30 };
/* dB over the median from which blocks do not count: a talker's loudest vowels are 12 dB above it */
enum { OUTLIER_DB = 15 };
/* what the level lacks without the outliers and with weak sounds counted (measured on 12 talkers) */
static const float CUT_DB = 0.8f;
static const float DB_STEP = 1.2589254f;   /* 10^(1/10) */
static const float OUT_OF_REACH_DB = 3.0f; /* beyond the largest gain; less is no cause for a warning */

static const float LOWEST_GAIN_DB = -20.0f;
/* 40 dB, from a shout to a whisper, within 3 s, of which 1.2 s are pauses and low speech probability */
static const float RISE_DB_PER_S = 40.0f;
static const float FALL_DB_PER_S = 60.0f;
/* share of the remaining way; less near the target, for the level of 150 blocks is known to 3 dB */
static const float APPROACH_PER_S = 8.0f;
static const float NEARLY_THERE_DB = 4.0f;

enum { PAUSE_BLOCKS = 200 }; /* 2 s: longer than the pauses between sentences, in which the gain stays */
static const float REST_DB_PER_S = 6.0f;
static const float WAKE_DB_PER_S = 400.0f; /* the gain is restored during the first syllable */
static const float NOISE_RAISED_DB = 6.0f; /* gain that is left for the noise of a room without a talker */

static const float LOUDNESS_S = 0.05f;      /* time constant: about a syllable */
static const float FAR_TOO_LOUD_DB = 10.0f; /* over the target: the loudest syllables are 8 */
static const float DUCK_DB_PER_S = 300.0f;
static const float UNDUCK_DB_PER_S = 150.0f; /* 30 dB are restored in 0.2 s */

void agc_configure(agc_t *agc, float target_dbfs, float max_gain_db)
{
    agc->target_dbfs = target_dbfs;
    agc->max_gain_db = max_gain_db;
}

void agc_reset(agc_t *agc)
{
    memset(agc->count, 0, sizeof agc->count);
    memset(agc->level, 0, sizeof agc->level);
    agc->counted = agc->at = 0;
    agc->level_dbfs = AGC_QUIETEST_DBFS;
    agc->gain_db = agc->rest_db = agc->duck_db = 0.0f;
    agc->pause_blocks = 0;
    agc->loudness = 0.0f;
    agc->last_gain = 1.0f;
}

static float clamp(float x, float low, float high) { return fminf(fmaxf(x, low), high); }

static float decibels(float power) { return 10.0f * log10f(power + TINY_POWER); }

/* A block of speech replaces the oldest in ring and histogram. */
static void count_block(agc_t *agc, float dbfs)
{
    const int level = (int)lrintf(clamp(dbfs - (float)AGC_QUIETEST_DBFS, 0.0f, (float)(AGC_LEVELS - 1)));
    if (agc->counted == AGC_WINDOW)
        agc->count[agc->level[agc->at]]--;
    else
        agc->counted++;
    agc->level[agc->at] = (uint8_t)level;
    agc->count[level]++;
    agc->at = (agc->at + 1) % AGC_WINDOW;
}

/* level_dbfs: mean power of the blocks in the ring without outliers. */
static void find_level(agc_t *agc)
{
    int below = 0, median = 0;
    while (2 * (below += agc->count[median]) < agc->counted)
        median++;
    const int last = median + OUTLIER_DB < AGC_LEVELS ? median + OUTLIER_DB : AGC_LEVELS - 1;
    float power = 1.0f, sum = 0.0f, blocks = 0.0f;
    for (int level = 0; level <= last; level++) {
        sum += power * (float)agc->count[level];
        blocks += (float)agc->count[level];
        power *= DB_STEP;
    }
    agc->level_dbfs = (float)AGC_QUIETEST_DBFS + CUT_DB + decibels(sum / blocks);
}

/* `now` after a step towards `wanted` that is limited to these speeds. */
static float approach(float now, float wanted, float up_db_per_s, float down_db_per_s)
{
    return now + clamp(wanted - now, -down_db_per_s * BLOCK_S, up_db_per_s * BLOCK_S);
}

static void approach_target(agc_t *agc)
{
    const float wanted = clamp(agc->target_dbfs - agc->level_dbfs, LOWEST_GAIN_DB, agc->max_gain_db);
    const float left = wanted - agc->gain_db, share = fminf(1.0f, fabsf(left) / NEARLY_THERE_DB);
    const float step = APPROACH_PER_S * BLOCK_S * share * left;
    agc->gain_db = approach(agc->gain_db, agc->gain_db + step, RISE_DB_PER_S, FALL_DB_PER_S);
}

void agc_process(agc_t *agc, float *const *x, int channels, int count, float power, float speech_probability,
                 int enabled)
{
    agc->loudness += BLOCK_S / LOUDNESS_S * (power - agc->loudness);

    const float dbfs = decibels(power);
    const int speaks = speech_probability > SPEECH && dbfs > (float)AGC_QUIETEST_DBFS;
    if (speaks) {
        count_block(agc, dbfs);
        find_level(agc);
    }
    agc->pause_blocks = speaks ? 0 : agc->pause_blocks + (agc->pause_blocks < PAUSE_BLOCKS);
    if (!enabled)
        agc->gain_db = approach(agc->gain_db, 0.0f, FALL_DB_PER_S, FALL_DB_PER_S);
    else if (speaks && agc->counted >= ENOUGH_BLOCKS)
        approach_target(agc);

    const float most_rest_db = fmaxf(agc->gain_db - NOISE_RAISED_DB, 0.0f);
    agc->rest_db = fminf(approach(agc->rest_db, agc->pause_blocks < PAUSE_BLOCKS ? 0.0f : most_rest_db,
                                  REST_DB_PER_S, WAKE_DB_PER_S),
                         most_rest_db);
    const float over_db = decibels(agc->loudness) + agc->gain_db - agc->rest_db - agc->target_dbfs -
                          FAR_TOO_LOUD_DB;
    agc->duck_db = approach(agc->duck_db, enabled ? fmaxf(over_db, 0.0f) : 0.0f, DUCK_DB_PER_S,
                            UNDUCK_DB_PER_S);

    const float gain = powf(10.0f, agc_gain_db(agc) / 20.0f), step = (gain - agc->last_gain) / (float)count;
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < count; i++)
            x[c][i] *= agc->last_gain + step * (float)(i + 1);
    agc->last_gain = gain;
}

float agc_gain_db(const agc_t *agc) { return agc->gain_db - agc->rest_db - agc->duck_db; }

int agc_out_of_reach(const agc_t *agc)
{
    return agc->counted >= AGC_WINDOW / 2 &&
           agc->target_dbfs - agc->level_dbfs > agc->max_gain_db + OUT_OF_REACH_DB;
}

void agc_keep(agc_t *agc, tape_t *tape)
{
    tape_float(tape, &agc->level_dbfs, AGC_QUIETEST_DBFS, AGC_QUIETEST_DBFS + AGC_LEVELS - 1 + CUT_DB);
    tape_int(tape, &agc->counted, 0, AGC_WINDOW);
    tape_float(tape, &agc->gain_db, LOWEST_GAIN_DB, 50.0f);
    if (tape->mode != TAPE_PLAY)
        return;
    /* as many blocks of that level: new ones have the same weight against it as before */
    const int blocks = agc->counted;
    memset(agc->count, 0, sizeof agc->count);
    agc->counted = agc->at = 0;
    for (int b = 0; b < blocks; b++)
        count_block(agc, agc->level_dbfs);
    agc->last_gain = powf(10.0f, agc_gain_db(agc) / 20.0f);
}
