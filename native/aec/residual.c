#include "aec/residual.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/spectrum.h"

/* 25 ms: errors of single bins scatter, syllables must not blur */
static const float SMOOTH_RATE = 0.4f;
static const float LEAK_RATE = 0.02f; /* 0.5 s of far-end sound */
/* a source from 10 dB under the noise tells about what is left of it */
static const float AUDIBLE = 0.1f;
/* An error 30 dB under the echo, 50 dB under the far end, is as good as it gets: caps a block's weight. */
static const float SURE_ERROR = 1e-3f, UNCOUPLED_ERROR = 1e-5f;
static const float PRIOR_WEIGHT =
    1e-3f; /* of "all leaks" and of "nothing is coupled", before anything was heard */
/* The weighted regression sits near the leakage's lower quartile, 5 dB under what is worth expecting
 * (measured on loudspeakers with distortion and in rooms of 0.3 to 1 s). */
static const float MARGIN = 3.0f;
/* Mean logarithm of the leakage at which the canceller is doubted and at which it is trusted: -18 and -24 dB
 * (times ln 10 / 10). Measured: linear loudspeakers in simulated rooms settle at -24 to -34 dB, distorting
 * ones at -13 to -20, devices with processing of their own at -20 to 0. */
static const float DOUBTED = -4.145f, TRUSTED = -5.526f;
static const float TRUTH_RATE = 0.01f; /* 1 s of far-end sound */
/* Chance gives a share below 0.05; nonlinear and drifting loudspeakers still reach 0.2. */
static const float CHANCE_TRUTH = 0.05f, SURE_TRUTH = 0.2f;
static const float DECAY = 0.7f; /* 15 dB in 100 ms: a room of RT60 0.4 s */

void residual_init(residual_t *residual, int bins, int stride, arena_t *arena)
{
    residual->bins = bins;
    residual->stride = stride;
    int bands = 0;
    for (int at = 0; at < bins && bands < RESIDUAL_MAX_BANDS; at = spectrum_band_end(at))
        residual->edge[bands++] = at;
    residual->bands = bands;
    residual->edge[bands] = bins;
    residual->error = arena_floats(arena, (size_t)stride);
    residual->echo = arena_floats(arena, (size_t)stride);
    residual->far = arena_floats(arena, (size_t)stride);
    residual->power = arena_floats(arena, (size_t)stride);
    residual->told_square = arena_floats(arena, (size_t)stride);
    residual->told_cross = arena_floats(arena, (size_t)stride);
    if (arena->base)
        residual_reset(residual);
}

void residual_reset(residual_t *residual)
{
    memset(residual->error, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->echo, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->far, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->power, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->told_square, 0, sizeof(float) * (size_t)residual->stride); /* padding too */
    for (int b = 0; b < residual->bands; b++)
        residual->leakage[b] = residual->coupling[b] = (regression_t){0.0f, 0.0f};
    residual->shared = residual->claimed = 0.0f;
    residual->truth = residual->believed = 1.0f;
    residual->trust = 0.0f;
}

static void follow(int count, const float *restrict now, float *restrict average)
{
    for (int k = 0; k < count; k++)
        average[k] += SMOOTH_RATE * (now[k] - average[k]);
}

/* What the block tells, by bin, of how much of a source is in the error: told_cross over told_square, with
 * the weight 1/error^2, written with source/error so that nothing over- or underflows. */
static void regress(int count, const float *restrict error, const float *restrict source,
                    const float *restrict noise, float sure_error, float *restrict told_cross,
                    float *restrict told_square)
{
    for (int k = 0; k < count; k++) {
        const float inverse = 1.0f / (error[k] + sure_error * source[k] + noise[k]);
        const float ratio = source[k] > AUDIBLE * noise[k] ? source[k] * inverse : 0.0f;
        told_square[k] = ratio * ratio;
        told_cross[k] = ratio * (inverse * greater(error[k] - noise[k], 0.0f));
    }
}

/* The share of a band by what was told up to now; `prior` before anything was. */
static float learn(const residual_t *residual, int band, regression_t *sums, float prior)
{
    const int from = residual->edge[band], to = residual->edge[band + 1];
    const float cross = spectrum_sum(residual->told_cross, from, to),
                square = spectrum_sum(residual->told_square, from, to);
    if (square > 0.0f) {
        sums->cross += LEAK_RATE * (cross - sums->cross);
        sums->square += LEAK_RATE * (square - sums->square);
    }
    return (sums->cross + prior * PRIOR_WEIGHT) / (sums->square + PRIOR_WEIGHT);
}

/* microphone = error + echo, so its product with the echo estimate is cross + |echo|^2. Whitened by the error
 * of the blocks before, so that every band has a say; this block's own error would be small just where chance
 * makes the product large. */
static void judge_truth(residual_t *residual, const float *restrict echo, const float *restrict cross,
                        const float *restrict noise)
{
    const float *restrict last_error = residual->error, *restrict smooth = residual->echo;
    float *restrict weight = residual->told_square; /* not told yet */
    for (int k = 0; k < residual->bins; k++)
        weight[k] = 1.0f / (last_error[k] + smooth[k] + noise[k]);
    const float claimed = kernels()->dot(residual->stride, weight, echo);
    const float shared = kernels()->dot(residual->stride, weight, cross) + claimed;
    residual->shared += TRUTH_RATE * (shared - residual->shared);
    residual->claimed += TRUTH_RATE * (claimed - residual->claimed);
    residual->truth = ramp((residual->shared + PRIOR_WEIGHT) / (residual->claimed + PRIOR_WEIGHT), 0.0f,
                           1.0f);
    residual->believed = ramp(residual->truth, CHANCE_TRUTH, SURE_TRUTH);
}

static void release(int count, const float *restrict now, float *restrict far, float *restrict power)
{
    for (int k = 0; k < count; k++) {
        far[k] = greater(now[k], DECAY * far[k]);
        power[k] *= DECAY;
    }
}

/* One value for all bins of a band. */
static void spread(const residual_t *residual, int band, float value, float *out)
{
    for (int k = residual->edge[band]; k < residual->edge[band + 1]; k++)
        out[k] = value;
}

static void expect(int count, const float *restrict share, const float *restrict source,
                   float *restrict power)
{
    for (int k = 0; k < count; k++)
        power[k] = greater(share[k] * source[k], power[k]);
}

/* The trust. Bands of which nothing was told have no say. leakage: by band, whole vectors; becomes
 * scratch. */
static float judge_leakage(const residual_t *residual, float leakage[RESIDUAL_MAX_BANDS])
{
    float sum = 0.0f, told = 0.0f;
    kernels()->log(RESIDUAL_MAX_BANDS, leakage, leakage);
    for (int b = 0; b < residual->bands; b++)
        if (residual->leakage[b].square > PRIOR_WEIGHT) {
            sum += leakage[b];
            told += 1.0f;
        }
    return told > 0.0f ? ramp(sum / told, DOUBTED, TRUSTED) : 0.0f;
}

static void expect_leakage(residual_t *residual, const float *echo, const float *noise, float moved)
{
    float *left = residual->told_cross, leakage[RESIDUAL_MAX_BANDS];
    regress(residual->bins, residual->error, residual->echo, noise, SURE_ERROR, residual->told_cross,
            residual->told_square);
    for (int b = 0; b < RESIDUAL_MAX_BANDS; b++)
        leakage[b] = 1.0f;
    for (int b = 0; b < residual->bands; b++) {
        leakage[b] = lesser(1.0f, learn(residual, b, &residual->leakage[b], 1.0f));
        spread(residual, b, MARGIN * residual->believed * greater(moved, leakage[b]), left);
    }
    expect(residual->bins, left, echo, residual->power);
    expect(residual->bins, left, residual->echo, residual->power);
    residual->trust = lesser(1.0f - moved, judge_leakage(residual, leakage));
}

static void expect_coupling(residual_t *residual, const float *noise)
{
    float *coupled = residual->told_cross;
    regress(residual->bins, residual->error, residual->far, noise, UNCOUPLED_ERROR, residual->told_cross,
            residual->told_square);
    for (int b = 0; b < residual->bands; b++)
        spread(residual, b, MARGIN * learn(residual, b, &residual->coupling[b], 0.0f), coupled);
    expect(residual->bins, coupled, residual->far, residual->power);
}

void residual_process(residual_t *residual, const float *error, const float *echo, const float *cross,
                      const float *noise, const float *far, float moved)
{
    follow(residual->bins, echo, residual->echo);
    judge_truth(residual, echo, cross, noise);
    follow(residual->bins, error, residual->error);
    release(residual->bins, far, residual->far, residual->power);
    expect_leakage(residual, echo, noise, moved);
    expect_coupling(residual, noise);
}
