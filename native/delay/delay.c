#include "delay/delay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/kernels.h"

/* The telephone band: speech is there on any loudspeaker. */
enum { BIN_HZ = 50, BAND_LOW_HZ = 300, BAND_HIGH_HZ = 3400 };

/* Per block: time constant of the cross-spectra, 0.5 s: a syllable or two, not a single vowel. */
static const float CROSS_RATE = 1.0f / 50.0f;
/* Per block: time constant of the whitening, 1 s: it follows the voice, not the syllable. */
static const float LEVEL_RATE = 1.0f / 100.0f;
/* Least product of the mean powers: a microphone 90 dB below its own average holds no echo. */
static const float LEAST_POWERS = 1e-9f;
/* Least whitened power of an active far end: 10 dB below its own average. */
static const float ACTIVE = 0.1f;
/* Power per bin added for the whitening: -90 dBFS in a 20 ms frame at 8 kHz, -98 dBFS at 48 kHz. */
static const float SILENCE_POWER = 160.0f * 1e-9f;
/* Contrast, the highest score over the mean of all, of confidence 0. */
static const float CHANCE_CONTRAST = 4.0f;
/* Contrast of a candidate: unrelated speech seldom reaches it and not for long; an echo gives 15 to 40. */
static const float CANDIDATE_CONTRAST = 10.0f;
/* Contrast of confidence 1. */
static const float SURE_CONTRAST = 20.0f;
/* Averaged contrast from which a lag is accepted. Both this and LEAD hold: 113 pairs of unrelated recordings
 * reach 4.8 and 2.0 times the next best lag after LEAST_CONTRAST_BLOCKS of far-end sound, but not both, and 3
 * after 4 s; echoes, those in double talk included, reach 4 to 15. */
static const float LONG_CONTRAST = 4.0f;
/* Averaged contrast over that of the next best lag. */
static const float LEAD = 2.0f;
/* Blocks in that average before a lag is accepted by it: 1.5 s of far-end sound. */
static const float LEAST_CONTRAST_BLOCKS = 150.0f;
/* Longest time constant of that average: 3 s. */
static const float CONTRAST_BLOCKS = 300.0f;
enum {
    /* Far-end blocks before any decision: 0.3 s. */
    LEAST_ACTIVE_BLOCKS = 30,
    /* Blocks that a candidate must lead to become the first accepted lag. At the start, in double talk and in
     * pauses chance leads for some blocks. */
    FIRST_BLOCKS = 10,
    /* The same to replace an accepted lag. */
    CHANGE_BLOCKS = 25,
    /* Lags to each side that the same echo reaches. */
    NEIGHBOURS = 2,
};

void delay_init(delay_t *delay, int lags, arena_t *arena)
{
    delay->lags = lags;
    delay->first_bin = BAND_LOW_HZ / BIN_HZ;
    delay->bins = (BAND_HIGH_HZ - BAND_LOW_HZ) / BIN_HZ + 2; /* 64: whole vectors */
    const size_t bins = (size_t)delay->bins, cells = bins * (size_t)lags, before = arena->used;
    delay->far_re = arena_floats(arena, cells);
    delay->far_im = arena_floats(arena, cells);
    delay->cross_re = arena_floats(arena, cells);
    delay->cross_im = arena_floats(arena, cells);
    delay->far_power = arena_floats(arena, bins);
    delay->mic_power = arena_floats(arena, bins);
    delay->mic_re = arena_floats(arena, bins);
    delay->mic_im = arena_floats(arena, bins);
    delay->far_mean = arena_floats(arena, (size_t)lags);
    delay->mic_mean = arena_floats(arena, (size_t)lags);
    delay->fill = arena_floats(arena, (size_t)lags);
    delay->score = arena_floats(arena, (size_t)lags);
    delay->contrast = arena_floats(arena, (size_t)lags);
    delay->activity = arena_floats(arena, (size_t)lags);
    delay->array_bytes = arena->used - before;
    if (arena->base)
        delay_reset(delay);
}

void delay_reset(delay_t *delay)
{
    memset(delay->far_re, 0, delay->array_bytes);
    delay->active_blocks = delay->contrast_blocks = 0.0f;
    delay->newest = 0;
    delay->best = delay->candidate = DELAY_UNKNOWN;
    delay->persistence = 0;
    delay->confidence = 0.0f;
}

/* ---- Whitening */

/* out = x / sqrt(average of |x|^2), `bins` from the band's first on; power: the average, updated. Returns the
 * mean whitened power. */
static float whiten(const delay_t *delay, const float *re, const float *im, float *power, float *out_re,
                    float *out_im)
{
    /* the first blocks count alike, until the average covers its time constant */
    const float rate = fmaxf(LEVEL_RATE, 1.0f / (1.0f + delay->active_blocks));
    float sum = 0.0f;
    re += delay->first_bin;
    im += delay->first_bin;
    for (int b = 0; b < delay->bins; b++) {
        const float now = re[b] * re[b] + im[b] * im[b];
        power[b] += rate * (now - power[b]);
        const float scale = 1.0f / sqrtf(power[b] + SILENCE_POWER);
        out_re[b] = re[b] * scale;
        out_im[b] = im[b] * scale;
        sum += now * scale * scale;
    }
    return sum / (float)delay->bins;
}

void delay_push(delay_t *delay, const float *far_re, const float *far_im)
{
    delay->newest = delay->newest + 1 == delay->lags ? 0 : delay->newest + 1;
    const size_t newest = (size_t)delay->newest * (size_t)delay->bins;
    const float power = whiten(delay, far_re, far_im, delay->far_power, delay->far_re + newest,
                               delay->far_im + newest);
    delay->activity[delay->newest] = power;
    if (power > ACTIVE)
        delay->active_blocks = fminf(delay->active_blocks + 1.0f, 1.0f / LEVEL_RATE);
}

/* ---- Changes of the lags' meaning */

void delay_rewind(delay_t *delay, int blocks)
{
    delay->newest = (delay->newest + delay->lags - blocks % delay->lags) % delay->lags;
}

/* Moves `count` rows of `row` floats by one, towards higher places for blocks = 1; the row that is free
 * becomes 0. */
static void move_rows(float *rows, int count, size_t row, int blocks)
{
    const size_t kept = row * (size_t)(count - 1), first = blocks > 0 ? 0 : kept;
    memmove(rows + (blocks > 0 ? row : 0), rows + (blocks > 0 ? 0 : row), sizeof(float) * kept);
    memset(rows + first, 0, sizeof(float) * row);
}

/* lag + blocks; an unknown lag, or one that would leave the range, stays. */
static int moved(int lag, int blocks, int lags)
{
    return lag == DELAY_UNKNOWN || lag + blocks < 0 || lag + blocks >= lags ? lag : lag + blocks;
}

void delay_slip(delay_t *delay, int blocks)
{
    move_rows(delay->cross_re, delay->lags, (size_t)delay->bins, blocks);
    move_rows(delay->cross_im, delay->lags, (size_t)delay->bins, blocks);
    move_rows(delay->far_mean, delay->lags, 1, blocks);
    move_rows(delay->mic_mean, delay->lags, 1, blocks);
    move_rows(delay->fill, delay->lags, 1, blocks);
    move_rows(delay->score, delay->lags, 1, blocks);
    move_rows(delay->contrast, delay->lags, 1, blocks);
    delay->best = moved(delay->best, blocks, delay->lags);
    delay->candidate = moved(delay->candidate, blocks, delay->lags);
}

/* ---- Scores */

static void average(float *state, float now) { *state += CROSS_RATE * (now - *state); }

/* Updates the averages and the score of a lag of which the far end at ring position `ring` is active.
 * mic_now: mean whitened power of the microphone. */
static void update_score(delay_t *delay, int lag, int ring, float mic_now)
{
    const int bins = delay->bins;
    const size_t far = (size_t)ring * (size_t)bins, cell = (size_t)lag * (size_t)bins;
    const float sum = kernels()->coherence(bins, 1.0f - CROSS_RATE, delay->far_re + far, delay->far_im + far,
                                           delay->mic_re, delay->mic_im, delay->cross_re + cell,
                                           delay->cross_im + cell);
    average(&delay->far_mean[lag], delay->activity[ring]);
    average(&delay->mic_mean[lag], mic_now);
    average(&delay->fill[lag], 1.0f);
    const float powers = (float)bins * fmaxf(delay->far_mean[lag] * delay->mic_mean[lag], LEAST_POWERS);
    delay->score[lag] = sum / powers * delay->fill[lag] * delay->fill[lag];
}

/* ---- Decisions */

/* Updates the averaged contrasts; mean: of all scores. Returns the lag that leads by them, DELAY_UNKNOWN if
 * none does clearly. */
static int long_term_lag(delay_t *delay, float mean)
{
    delay->contrast_blocks = fminf(delay->contrast_blocks + 1.0f, CONTRAST_BLOCKS);
    const float rate = 1.0f / delay->contrast_blocks, over = 1.0f / mean, *restrict score = delay->score;
    float *restrict contrast = delay->contrast;
    for (int lag = 0; lag < delay->lags; lag++)
        contrast[lag] += rate * (lesser(score[lag] * over, SURE_CONTRAST) - contrast[lag]);
    int lead = 0;
    for (int lag = 1; lag < delay->lags; lag++)
        lead = contrast[lag] > contrast[lead] ? lag : lead;
    float next = 0.0f;
    for (int lag = 0; lag < delay->lags; lag++)
        next = greater(next, abs(lag - lead) > NEIGHBOURS ? contrast[lag] : 0.0f);
    const int leads = contrast[lead] > fmaxf(LONG_CONTRAST, LEAD * next);
    return leads && delay->contrast_blocks >= LEAST_CONTRAST_BLOCKS ? lead : DELAY_UNKNOWN;
}

/* Updates best and confidence. leading: the lag of the highest score; mean: of all scores. */
static void decide(delay_t *delay, int leading, float mean)
{
    const float contrast = delay->score[leading] / mean;
    delay->confidence = ramp(contrast, CHANCE_CONTRAST, SURE_CONTRAST);
    const int enough = delay->active_blocks >= (float)LEAST_ACTIVE_BLOCKS,
              stands_out = contrast > CANDIDATE_CONTRAST && enough;
    delay->persistence = leading == delay->candidate && stands_out ? delay->persistence + 1 : 0;
    delay->candidate = leading;
    const int long_term = enough ? long_term_lag(delay, mean) : DELAY_UNKNOWN;
    if (delay->persistence >= (delay->best == DELAY_UNKNOWN ? FIRST_BLOCKS : CHANGE_BLOCKS)) {
        if (abs(leading - delay->best) > NEIGHBOURS)
            delay->contrast_blocks = 0.0f; /* the echo moved: averages from before it are void */
        delay->best = leading;
    } else if (long_term != DELAY_UNKNOWN && delay->persistence == 0 &&
               abs(long_term - delay->best) > NEIGHBOURS) {
        delay->best = long_term;
    }
}

void delay_process(delay_t *delay, const float *mic_re, const float *mic_im)
{
    const float mic_now = whiten(delay, mic_re, mic_im, delay->mic_power, delay->mic_re, delay->mic_im);
    float most_active = 0.0f;
    for (int lag = 0; lag < delay->lags; lag++)
        most_active = fmaxf(most_active, delay->activity[lag]);
    if (most_active < ACTIVE)
        return;
    for (int b = 0; b < delay->bins; b++) {
        delay->mic_re[b] *= CROSS_RATE;
        delay->mic_im[b] *= CROSS_RATE;
    }
    int leading = 0;
    float total = 0.0f;
    for (int lag = 0; lag < delay->lags; lag++) {
        const int at = delay->newest - lag;
        const int ring = at < 0 ? at + delay->lags : at;
        if (delay->activity[ring] > ACTIVE) /* a pause of the far end carries no information on its lag */
            update_score(delay, lag, ring, mic_now);
        total += delay->score[lag];
        if (delay->score[lag] > delay->score[leading])
            leading = lag;
    }
    decide(delay, leading, (total + 1e-6f) / (float)delay->lags); /* above 0 for scores of 0 */
}

void delay_keep(delay_t *delay, tape_t *tape)
{
    tape_int(tape, &delay->best, DELAY_UNKNOWN, delay->lags - 1);
}
