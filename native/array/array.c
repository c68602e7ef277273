#include "array/array.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/hermitian.h"
#include "kernels/kernels.h"
#include "kernels/levels.h"
#include "kernels/spectrum.h"

/* Blocks of near-end speech over which Y averages, 0.7 s: a talker who walks is followed within half a
 * second. With 2 s the gain in ESTOI was the same within 0.002. */
static const float SPEECH_MEMORY = 70.0f;
/* Blocks of noise over which N averages, 1.5 s; with 4 s no better. */
static const float NOISE_MEMORY = 150.0f;
/* k: share of N that is subtracted from Y. With all of it S is not positive where the noise has become
 * weaker. With 0.9 and 3 instead of this and NOISE_WEIGHT the gain in ESTOI is larger by 0.002, and the worst
 * SI-SDR of six rooms is 2 dB lower. */
static const float NOISE_SHARE = 0.7f;
/* v: weight of noise, against distortion of speech. */
static const float NOISE_WEIGHT = 1.7f;
/* Loading over Y, -25 dB, for each microphone by its own power. It bounds the condition of the equations to
 * rows / LOADING. From 0.0005 to 0.01 the gain in ESTOI is the same within 0.004. */
static const float LOADING = 0.003f;
/* The same over N, -40 dB: where a microphone has noise alone, N has to be positive definite by more than its
 * rounding errors. */
static const float NOISE_LOADING = 1e-4f;
/* g down to which the beam restores the level of speech by a factor. Below, where there is more noise than
 * speech and w is uncertain, what is missing is taken from the reference. */
static const float LEAST_SPEECH = 0.5f;
/* g for the probability of speech: bounds x, which is at most 100. */
static const float MOST_SPEECH = 0.97f;
/* s_ref over the reference's Y, at least: in noise alone S is small by chance, or negative. */
static const float LEAST_SHARE = 0.1f;
/* Range of x for the probability of speech: what is expected of speech in a bin before it is seen, 0 to 15
 * dB. */
static const float LEAST_RATIO = 1.0f;
static const float MOST_RATIO = 30.0f;
/* Range of q: the beam's direction may contradict the suppressor. */
static const float LEAST_PRESENCE = 0.02f;
static const float MOST_PRESENCE = 0.98f;
/* q from which p is not lowered: below, what is loud from the talker's direction is noise. */
static const float SPOKEN = 0.25f;
/* Largest b; e^80 is a float. */
static const float MOST_EVIDENCE = 80.0f;
/* Sum of a bin's probabilities from which its averages are used, and before the first block: any positive
 * number, with which the first block is the average. */
static const float ENOUGH_BLOCKS = 1.0f;
static const float NO_BLOCKS = 1e-3f;
/* Factor in quality from which another microphone becomes the reference: 6 dB, since each change is heard. In
 * the first blocks, when loudness stands for quality, 3 dB. */
static const float BETTER = 4.0f;
static const float LOUDER = 2.0f;
/* Rate per block of the powers behind array_gain_db(), 1 s. */
static const float GAIN_RATE = 0.01f;

enum {
    BETTER_BLOCKS = 100,  /* for which another microphone has to be better: 1 s */
    LOUDNESS_BLOCKS = 30, /* blocks in which the reference is the loudest microphone: 0.3 s */
    /* bins by which microphones are compared: 200 Hz to 7 kHz, speech */
    FIRST_BIN = 4,
    LAST_BIN = 140,
};

static void take_spectra(array_spectra_t *spectra, size_t floats, arena_t *arena)
{
    spectra->re = arena_floats(arena, floats);
    spectra->im = arena_floats(arena, floats);
}

void array_init(array_t *array, int channels, int bins, int stride, float window_power, arena_t *arena)
{
    const int rows = ARRAY_BLOCKS * channels;
    const size_t row = (size_t)stride, floats = row * (size_t)rows,
                 matrix = row * (size_t)hermitian_planes(rows);
    float **const matrices[] = {&array->speech, &array->noise, &array->matrix};
    float **const spectra[] = {&array->speech_blocks, &array->noise_blocks, &array->evidence,
                               &array->prior,         &array->probability,  &array->left};
    array->channels = channels;
    array->rows = rows;
    array->bins = bins;
    array->stride = stride;
    array->quiet_power = QUANTISATION_POWER * window_power;
    take_spectra(&array->error, floats, arena);
    take_spectra(&array->echo, floats, arena);
    take_spectra(&array->weight, floats, arena);
    take_spectra(&array->column, floats, arena);
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        *matrices[i] = arena_floats(arena, matrix);
    for (size_t i = 0; i < sizeof spectra / sizeof *spectra; i++)
        *spectra[i] = arena_floats(arena, row);
    if (arena->base)
        array_reset(array);
}

/* Row i of the weights selects the reference alone. */
static void select_reference(array_t *array, int i, float *restrict re, float *restrict im)
{
    const float one = i == array->reference ? 1.0f : 0.0f;
    for (int k = 0; k < array->stride; k++) {
        re[k] = one;
        im[k] = 0.0f;
    }
}

void array_reset(array_t *array)
{
    const size_t row = sizeof(float) * (size_t)array->stride, rows = row * (size_t)array->rows,
                 matrix = row * (size_t)hermitian_planes(array->rows);
    array->reference = array->blocks = array->better_blocks = 0;
    array->reference_noise = array->beam_noise = 0.0f;
    memset(array->error.re, 0, rows);
    memset(array->error.im, 0, rows);
    memset(array->echo.re, 0, rows);
    memset(array->echo.im, 0, rows);
    memset(array->speech, 0, matrix);
    memset(array->noise, 0, matrix);
    memset(array->evidence, 0, row);
    memset(array->prior, 0, row);
    for (int k = 0; k < array->stride; k++)
        array->speech_blocks[k] = array->noise_blocks[k] = NO_BLOCKS;
    for (int i = 0; i < array->rows; i++)
        select_reference(array, i, array->weight.re + i * array->stride,
                         array->weight.im + i * array->stride);
}

/* ---- Spectra and the beam */

static void advance(const array_t *array, float *spectra)
{
    const size_t floats = (size_t)array->channels * (size_t)array->stride;
    memcpy(spectra + floats, spectra, sizeof(float) * floats);
}

void array_advance(array_t *array)
{
    advance(array, array->error.re);
    advance(array, array->error.im);
    advance(array, array->echo.re);
    advance(array, array->echo.im);
}

static void put(const array_t *array, int channel, array_spectra_t *spectra, const float *re, const float *im)
{
    const size_t bytes = sizeof(float) * (size_t)array->stride;
    memcpy(spectra->re + channel * array->stride, re, bytes);
    memcpy(spectra->im + channel * array->stride, im, bytes);
}

void array_put_error(array_t *array, int channel, const float *re, const float *im)
{
    put(array, channel, &array->error, re, im);
}

void array_put_echo(array_t *array, int channel, const float *re, const float *im)
{
    put(array, channel, &array->echo, re, im);
}

static void add_row(int count, const float *restrict xr, const float *restrict xi, const float *restrict wr,
                    const float *restrict wi, float *restrict re, float *restrict im)
{
    for (int k = 0; k < count; k++) {
        re[k] += xr[k] * wr[k] - xi[k] * wi[k];
        im[k] += xr[k] * wi[k] + xi[k] * wr[k];
    }
}

static void beam_of(const array_t *array, const array_spectra_t *spectra, float *re, float *im)
{
    memset(re, 0, sizeof(float) * (size_t)array->stride);
    memset(im, 0, sizeof(float) * (size_t)array->stride);
    for (int i = 0; i < array->rows; i++) {
        const int at = i * array->stride;
        add_row(array->stride, spectra->re + at, spectra->im + at, array->weight.re + at,
                array->weight.im + at, re, im);
    }
}

void array_beam_error(const array_t *array, float *re, float *im) { beam_of(array, &array->error, re, im); }

void array_beam_echo(const array_t *array, float *re, float *im) { beam_of(array, &array->echo, re, im); }

/* ---- Averages */

static void estimate_presence(array_t *array, const array_input_t *input)
{
    const float presence = clamp(input->speech_probability, LEAST_PRESENCE, MOST_PRESENCE),
                odds = logf(presence / (1.0f - presence));
    const float *restrict power = input->power, *restrict evidence = array->evidence,
                          *restrict prior = array->prior;
    float *restrict probability = array->probability;
    for (int k = 0; k < array->stride; k++)
        probability[k] = lesser(power[k] * evidence[k], MOST_EVIDENCE) + prior[k] + odds;
    kernels()->sigmoid(array->stride, probability, probability);
    const float spoken = lesser(1.0f, input->speech_probability / SPOKEN);
    for (int k = 0; k < array->stride; k++)
        probability[k] *= spoken;
}

/* Writes to `total` the power of all microphones in this block by bin. */
static void sum_powers(const array_t *array, float *restrict total)
{
    memset(total, 0, sizeof(float) * (size_t)array->stride);
    for (int c = 0; c < array->channels; c++) {
        const float *restrict re = array->error.re + c * array->stride, *restrict im = array->error.im +
                                                                                       c * array->stride;
        for (int k = 0; k < array->stride; k++)
            total[k] += re[k] * re[k] + im[k] * im[k];
    }
}

/* A source's share in one block, 0..1 by bin, becomes the rate of its average: that over the blocks up to
 * now, then over `memory` of them. */
static void share_to_rate(int count, float memory, float *restrict blocks, float *restrict share)
{
    for (int k = 0; k < count; k++) {
        blocks[k] = lesser(blocks[k] + share[k], memory);
        share[k] /= blocks[k];
    }
}

/* Averages x x^H. A silent bin is left as it is, too: its average would decay to denormals. */
static void average_sources(array_t *array, const array_input_t *input)
{
    const int count = array->stride;
    const float quiet = array->quiet_power;
    const float *restrict power = input->power, *restrict echo = input->echo;
    float *restrict total = array->left, *restrict near = array->evidence, *restrict rest = array->prior;
    const float *restrict probability = array->probability;
    sum_powers(array, total);
    for (int k = 0; k < count; k++) {
        const float learned = total[k] > quiet && echo[k] <= ARRAY_MOST_ECHO * power[k] ? 1.0f : 0.0f;
        near[k] = learned * probability[k];
        rest[k] = learned * (1.0f - probability[k]);
    }
    share_to_rate(count, SPEECH_MEMORY, array->speech_blocks, near);
    share_to_rate(count, NOISE_MEMORY, array->noise_blocks, rest);
    kernels()->hermitian_average(count, array->rows, array->error.re, array->error.im, near, array->speech);
    kernels()->hermitian_average(count, array->rows, array->error.re, array->error.im, rest, array->noise);
}

/* ---- Reference microphone */

/* Quality of a microphone: its power of speech times its ratio of speech to noise, so that of those which
 * receive the same the loudest is taken, and none that hums; 0 without clear speech. Before speech is known,
 * its power. */
static float quality(const array_t *array, int channel)
{
    const int at = hermitian_plane(channel, channel) * array->stride,
              last = array->bins < LAST_BIN ? array->bins : LAST_BIN;
    const float with_speech = spectrum_sum(array->speech + at, FIRST_BIN, last),
                noise = spectrum_sum(array->noise + at, FIRST_BIN, last);
    if (array->blocks < LOUDNESS_BLOCKS)
        return with_speech + noise;
    const float speech = with_speech - noise;
    return speech > noise ? speech * speech / (noise + array->quiet_power) : 0.0f;
}

static void choose_reference(array_t *array)
{
    const int first = array->blocks < LOUDNESS_BLOCKS;
    int candidate = array->reference;
    float best = (first ? LOUDER : BETTER) * quality(array, candidate);
    for (int c = 0; c < array->channels; c++) {
        const float now = quality(array, c);
        if (now > best) {
            best = now;
            candidate = c;
        }
    }
    array->blocks += first;
    array->better_blocks = candidate != array->reference ? array->better_blocks + 1 : 0;
    if (array->better_blocks > (first ? 0 : BETTER_BLOCKS)) {
        array->reference = candidate;
        array->better_blocks = 0;
        array->reference_noise = array->beam_noise = 0.0f;
    }
}

/* ---- Weights */

/* S + v N with the loading, and s with it. */
static void form_equations(array_t *array)
{
    const int stride = array->stride, reference = array->reference;
    const int floats = stride * hermitian_planes(array->rows);
    const float *restrict speech = array->speech, *restrict noise = array->noise;
    float *restrict matrix = array->matrix, *restrict re = array->column.re, *restrict im = array->column.im;
    for (int e = 0; e < floats; e++)
        matrix[e] = speech[e] + (NOISE_WEIGHT - NOISE_SHARE) * noise[e];
    for (int i = 0; i < array->rows; i++) {
        const int diagonal = hermitian_plane(i, i) * stride, below = i >= reference;
        const int at = stride * (below ? hermitian_plane(i, reference) : hermitian_plane(reference, i));
        const float sign = below ? 1.0f : -1.0f, own = i == reference ? 1.0f : 0.0f;
        for (int k = 0; k < stride; k++) {
            const float loading = LOADING * speech[diagonal + k] + NOISE_LOADING * noise[diagonal + k] +
                                  array->quiet_power;
            matrix[diagonal + k] += NOISE_WEIGHT * loading;
            re[i * stride + k] = speech[at + k] - NOISE_SHARE * noise[at + k] + own * loading;
            im[i * stride + k] = sign * (speech[at + stride + k] - NOISE_SHARE * noise[at + stride + k]);
        }
    }
}

/* Writes g. */
static void measure_speech(array_t *array)
{
    const int stride = array->stride, row = array->reference * stride;
    const float *restrict with_speech = array->speech +
                                        hermitian_plane(array->reference, array->reference) * stride;
    float *restrict left = array->left;
    memset(left, 0, sizeof(float) * (size_t)stride);
    for (int i = 0; i < array->rows; i++) {
        const float *restrict wr = array->weight.re + i * stride,
                              *restrict wi = array->weight.im + i * stride,
                              *restrict sr = array->column.re + i * stride,
                              *restrict si = array->column.im + i * stride;
        for (int k = 0; k < stride; k++)
            left[k] += wr[k] * sr[k] + wi[k] * si[k];
    }
    float *restrict power = array->column.re + row; /* becomes s_ref */
    for (int k = 0; k < stride; k++) {
        power[k] = greater(power[k], LEAST_SHARE * with_speech[k] + array->quiet_power);
        left[k] /= power[k];
    }
}

/* Writes what the probability of speech in the next block follows from. */
static void expect_speech(array_t *array)
{
    const float *restrict power = array->column.re + array->reference * array->stride, *restrict left =
                                                                                           array->left;
    float *restrict evidence = array->evidence, *restrict prior = array->prior;
    for (int k = 0; k < array->stride; k++) {
        const float part = clamp(left[k], 0.0f, MOST_SPEECH), scale = NOISE_WEIGHT / (1.0f - part),
                    ratio = 1.0f + clamp(part * scale, LEAST_RATIO, MOST_RATIO),
                    whole = scale * clamp(left[k], LEAST_SPEECH, 1.0f);
        const int known = array->speech_blocks[k] > ENOUGH_BLOCKS && array->noise_blocks[k] > ENOUGH_BLOCKS;
        evidence[k] = known ? whole * whole / (power[k] * ratio) : 0.0f;
        prior[k] = known ? ratio : 1.0f;
    }
    kernels()->log(array->stride, prior, prior);
    for (int k = 0; k < array->stride; k++)
        prior[k] = -prior[k];
}

/* Conjugates and scales the solutions; bins of which too little is known stay at the reference. */
static void finish_weights(array_t *array)
{
    const float *restrict left = array->left, *restrict speech_blocks = array->speech_blocks,
                          *restrict noise_blocks = array->noise_blocks;
    for (int i = 0; i < array->rows; i++) {
        const float own = i == array->reference ? 1.0f : 0.0f;
        float *restrict re = array->weight.re + i * array->stride, *restrict im = array->weight.im +
                                                                                  i * array->stride;
        for (int k = 0; k < array->stride; k++) {
            const float scale = 1.0f / clamp(left[k], LEAST_SPEECH, 1.0f),
                        missing = clamp(1.0f - scale * left[k], 0.0f, 1.0f);
            const int known = (speech_blocks[k] > ENOUGH_BLOCKS) & (noise_blocks[k] > ENOUGH_BLOCKS);
            re[k] = known ? scale * re[k] + missing * own : own;
            im[k] = known ? -scale * im[k] : 0.0f;
        }
    }
}

static void solve(array_t *array)
{
    const size_t bytes = sizeof(float) * (size_t)array->rows * (size_t)array->stride;
    form_equations(array);
    memcpy(array->weight.re, array->column.re, bytes);
    memcpy(array->weight.im, array->column.im, bytes);
    kernels()->hermitian_solve(array->stride, array->rows, array->matrix, array->weight.re, array->weight.im);
    measure_speech(array);
    expect_speech(array);
    finish_weights(array);
}

/* ---- A block */

/* Powers of what is no speech, before and behind the beam. */
static void follow_gain(array_t *array, const array_input_t *input)
{
    const int at = array->reference * array->stride;
    const float *restrict re = array->error.re + at, *restrict im = array->error.im + at,
                          *restrict power = input->power, *restrict probability = array->probability;
    float *restrict before = array->evidence, *restrict behind = array->prior;
    for (int k = 0; k < array->stride; k++) {
        const float rest = input->echo[k] <= ARRAY_MOST_ECHO * power[k] ? 1.0f - probability[k] : 0.0f;
        before[k] = rest * (re[k] * re[k] + im[k] * im[k]);
        behind[k] = rest * power[k];
    }
    array->reference_noise += GAIN_RATE * (spectrum_sum(before, 0, array->bins) - array->reference_noise);
    array->beam_noise += GAIN_RATE * (spectrum_sum(behind, 0, array->bins) - array->beam_noise);
}

void array_learn(array_t *array, const array_input_t *input)
{
    estimate_presence(array, input);
    follow_gain(array, input);
    average_sources(array, input);
    choose_reference(array);
    solve(array);
}

float array_gain_db(const array_t *array)
{
    const float ratio = (array->reference_noise + array->quiet_power) /
                        (array->beam_noise + array->quiet_power);
    return 10.0f * log10f(greater(ratio, 1.0f));
}
