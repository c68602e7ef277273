#include "delay/delay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/kernels.h"

/* telephone band: speech is there on any loudspeaker */
enum { BIN_HZ = 50, BAND_LOW_HZ = 300, BAND_HIGH_HZ = 3400 };

static const float CROSS_RATE = 1.0f / 50.0f;  /* half a second: a syllable or two, not one vowel */
static const float LEVEL_RATE = 1.0f / 100.0f; /* whitening follows the voice, not the syllable */
static const float LEAST_POWERS = 1e-9f;       /* a microphone 90 dB below its own average hears nothing */
static const float ACTIVE = 0.1f;              /* far end speaks: 10 dB below its own average or more */
/* Highest coherence over mean coherence of all lags. Unrelated speech rarely reaches 10 and not for long,
 * an echo gives 15 to 40. */
static const float CHANCE_CONTRAST = 4.0f, BELIEVE_CONTRAST = 10.0f, SURE_CONTRAST = 20.0f;
enum { BELIEVE_HEARD_BLOCKS = 30, FIRST_BLOCKS = 10, CHANGE_BLOCKS = 25 };
/* Of the average over seconds: 113 pairs of unrelated recordings reach 4.8 and 2.0 times the next best lag
 * after USUAL_LEAST_BLOCKS of far-end sound, but not both, and 3 after 4 s; echoes, those in double talk as
 * well, 4 to 15. */
static const float USUAL_CONTRAST = 4.0f, USUAL_LEAD = 2.0f, USUAL_LEAST_BLOCKS = 150.0f,
                   USUAL_BLOCKS = 300.0f;
enum { NEIGHBOURS = 2 }; /* lags to each side that the same echo reaches */
/* per bin: -90 dBFS in a 20 ms frame at 8 kHz, -98 at 48 kHz */
static const float SILENCE_POWER = 160.0f * 1e-9f;

void delay_init(delay_t *delay, int lags, arena_t *arena)
{
    delay->lags = lags;
    delay->first_bin = BAND_LOW_HZ / BIN_HZ;
    delay->bins = (BAND_HIGH_HZ - BAND_LOW_HZ) / BIN_HZ + 2; /* 64: whole vectors */
    const size_t bins = (size_t)delay->bins, cells = bins * (size_t)lags;
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
    delay->heard_by_lag = arena_floats(arena, (size_t)lags);
    delay->score = arena_floats(arena, (size_t)lags);
    delay->usual = arena_floats(arena, (size_t)lags);
    delay->activity = arena_floats(arena, (size_t)lags);
    if (arena->base)
        delay_reset(delay);
}

void delay_reset(delay_t *delay)
{
    const size_t row = sizeof(float) * (size_t)delay->bins, all = row * (size_t)delay->lags;
    memset(delay->far_re, 0, all);
    memset(delay->far_im, 0, all);
    memset(delay->cross_re, 0, all);
    memset(delay->cross_im, 0, all);
    memset(delay->far_power, 0, row);
    memset(delay->mic_power, 0, row);
    memset(delay->far_mean, 0, sizeof(float) * (size_t)delay->lags);
    memset(delay->mic_mean, 0, sizeof(float) * (size_t)delay->lags);
    memset(delay->heard_by_lag, 0, sizeof(float) * (size_t)delay->lags);
    memset(delay->score, 0, sizeof(float) * (size_t)delay->lags);
    memset(delay->usual, 0, sizeof(float) * (size_t)delay->lags);
    memset(delay->activity, 0, sizeof(float) * (size_t)delay->lags);
    delay->heard = delay->usual_blocks = 0.0f;
    delay->newest = 0;
    delay->best = delay->candidate = -1;
    delay->persistence = 0;
    delay->confidence = 0.0f;
}

/* out = x / sqrt(long average of |x|^2); returns the mean whitened power. */
static float whiten(const float *re, const float *im, int bins, float *power, float rate, float *out_re,
                    float *out_im)
{
    float sum = 0.0f;
    for (int b = 0; b < bins; b++) {
        const float now = re[b] * re[b] + im[b] * im[b];
        power[b] += rate * (now - power[b]);
        const float scale = 1.0f / sqrtf(power[b] + SILENCE_POWER);
        out_re[b] = re[b] * scale;
        out_im[b] = im[b] * scale;
        sum += now * scale * scale;
    }
    return sum / (float)bins;
}

void delay_push(delay_t *delay, const float *far_re, const float *far_im)
{
    delay->newest = delay->newest + 1 == delay->lags ? 0 : delay->newest + 1;
    const size_t newest = (size_t)delay->newest * (size_t)delay->bins;
    /* a quick start: the average weighs all it has heard alike until it has heard enough */
    const float rate = fmaxf(LEVEL_RATE, 1.0f / (1.0f + delay->heard));
    const float power = whiten(far_re + delay->first_bin, far_im + delay->first_bin, delay->bins,
                               delay->far_power, rate, delay->far_re + newest, delay->far_im + newest);
    delay->activity[delay->newest] = power;
    if (power > ACTIVE)
        delay->heard = fminf(delay->heard + 1.0f, 1.0f / LEVEL_RATE);
}

void delay_rewind(delay_t *delay, int blocks)
{
    delay->newest = (delay->newest + delay->lags - blocks % delay->lags) % delay->lags;
}

/* to[i] = from[i - blocks] by rows of `row` floats; what comes in is 0. */
static void move_rows(float *rows, int count, size_t row, int blocks)
{
    const size_t kept = row * (size_t)(count - 1), first = blocks > 0 ? 0 : kept;
    memmove(rows + (blocks > 0 ? row : 0), rows + (blocks > 0 ? 0 : row), sizeof(float) * kept);
    memset(rows + first, 0, sizeof(float) * row);
}

static int moved(int lag, int blocks, int lags)
{
    return lag < 0 || lag + blocks < 0 || lag + blocks >= lags ? lag : lag + blocks;
}

void delay_slip(delay_t *delay, int blocks)
{
    move_rows(delay->cross_re, delay->lags, (size_t)delay->bins, blocks);
    move_rows(delay->cross_im, delay->lags, (size_t)delay->bins, blocks);
    move_rows(delay->far_mean, delay->lags, 1, blocks);
    move_rows(delay->mic_mean, delay->lags, 1, blocks);
    move_rows(delay->heard_by_lag, delay->lags, 1, blocks);
    move_rows(delay->score, delay->lags, 1, blocks);
    move_rows(delay->usual, delay->lags, 1, blocks);
    delay->best = moved(delay->best, blocks, delay->lags);
    delay->candidate = moved(delay->candidate, blocks, delay->lags);
}

/* The lag that has led for seconds, -1 if none has. mean: of all scores now. */
static int usual_lag(delay_t *delay, float mean)
{
    delay->usual_blocks = fminf(delay->usual_blocks + 1.0f, USUAL_BLOCKS);
    const float rate = 1.0f / delay->usual_blocks, over = 1.0f / mean, *restrict score = delay->score;
    float *restrict usual = delay->usual;
    for (int lag = 0; lag < delay->lags; lag++)
        usual[lag] += rate * (lesser(score[lag] * over, SURE_CONTRAST) - usual[lag]);
    int lead = 0;
    for (int lag = 1; lag < delay->lags; lag++)
        lead = usual[lag] > usual[lead] ? lag : lead;
    float next = 0.0f;
    for (int lag = 0; lag < delay->lags; lag++)
        next = greater(next, abs(lag - lead) > NEIGHBOURS ? usual[lag] : 0.0f);
    const int leads = usual[lead] > fmaxf(USUAL_CONTRAST, USUAL_LEAD * next);
    return leads && delay->usual_blocks >= USUAL_LEAST_BLOCKS ? lead : -1;
}

static void follow(float *average, float now) { *average += CROSS_RATE * (now - *average); }

void delay_process(delay_t *delay, const float *mic_re, const float *mic_im)
{
    const int bins = delay->bins;
    const float mic_now = whiten(mic_re + delay->first_bin, mic_im + delay->first_bin, bins, delay->mic_power,
                                 fmaxf(LEVEL_RATE, 1.0f / (1.0f + delay->heard)), delay->mic_re,
                                 delay->mic_im);

    float loudest = 0.0f;
    for (int lag = 0; lag < delay->lags; lag++)
        loudest = fmaxf(loudest, delay->activity[lag]);
    if (loudest < ACTIVE)
        return;

    for (int b = 0; b < bins; b++) {
        delay->mic_re[b] *= CROSS_RATE;
        delay->mic_im[b] *= CROSS_RATE;
    }
    int best = 0;
    float total = 0.0f;
    for (int lag = 0; lag < delay->lags; lag++) {
        const int at = delay->newest - lag;
        const int ring = at < 0 ? at + delay->lags : at;
        const size_t far = (size_t)ring * (size_t)bins, cell = (size_t)lag * (size_t)bins;
        const float *xr = delay->far_re + far, *xi = delay->far_im + far;
        if (delay->activity[ring] > ACTIVE) { /* a pause at this lag tells nothing about it */
            const float sum = kernels()->coherence(bins, 1.0f - CROSS_RATE, xr, xi, delay->mic_re,
                                                   delay->mic_im, delay->cross_re + cell,
                                                   delay->cross_im + cell);
            follow(&delay->far_mean[lag], delay->activity[ring]);
            follow(&delay->mic_mean[lag], mic_now);
            follow(&delay->heard_by_lag[lag], 1.0f);
            const float powers = (float)bins *
                                 fmaxf(delay->far_mean[lag] * delay->mic_mean[lag], LEAST_POWERS);
            delay->score[lag] = sum / powers * delay->heard_by_lag[lag] * delay->heard_by_lag[lag];
        }
        total += delay->score[lag];
        if (delay->score[lag] > delay->score[best])
            best = lag;
    }
    const float mean = (total + 1e-6f) / (float)delay->lags, contrast = delay->score[best] / mean;
    delay->confidence = fminf(1.0f,
                              fmaxf(0.0f, (contrast - CHANCE_CONTRAST) / (SURE_CONTRAST - CHANCE_CONTRAST)));
    /* a lag is believed once it has stood out for a while: at the start, in double talk and in pauses
     * chance wins for some blocks */
    const int heard_enough = delay->heard >= (float)BELIEVE_HEARD_BLOCKS,
              stands_out = contrast > BELIEVE_CONTRAST && heard_enough;
    delay->persistence = best == delay->candidate && stands_out ? delay->persistence + 1 : 0;
    delay->candidate = best;
    const int usual = heard_enough ? usual_lag(delay, mean) : -1;
    if (delay->persistence >= (delay->best < 0 ? FIRST_BLOCKS : CHANGE_BLOCKS)) {
        if (abs(best - delay->best) > NEIGHBOURS)
            delay->usual_blocks = 0.0f; /* what was usual before the echo moved is no more */
        delay->best = best;
    } else if (usual >= 0 && delay->persistence == 0 && abs(usual - delay->best) > NEIGHBOURS) {
        delay->best = usual;
    }
}

void delay_keep(delay_t *delay, tape_t *tape) { tape_int(tape, &delay->best, -1, delay->lags - 1); }
