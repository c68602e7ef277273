#include "aec/residual.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/spectrum.h"

/* Per block: time constant of 25 ms, since errors of single bins scatter but syllables must not blur. */
static const float SMOOTH_RATE = 0.4f;
/* Per block: time constant of leakage and coupling, 0.5 s of far-end sound. */
static const float LEAK_RATE = 0.02f;
/* Least power of a source over the noise's, -10 dB, from which it counts: what is left of it is measured. */
static const float AUDIBLE = 0.1f;
/* Least error over echo estimate that is distinguished, -30 dB: limits a block's weight. */
static const float LEAST_LEAKAGE = 1e-3f;
/* Least error over far end that is distinguished, -50 dB: limits a block's weight. */
static const float LEAST_COUPLING = 1e-5f;
/* Leakage before any data: the estimate is all residual. */
static const float PRIOR_LEAKAGE = 1.0f;
/* Coupling before any data. */
static const float PRIOR_COUPLING = 0.0f;
/* The weighted regression gives about the lower quartile of the leakage, 5 dB below what is to be expected
 * (measured with loudspeakers with distortion and in rooms of 0.3 to 1 s). */
static const float MARGIN = 3.0f;
/* Mean natural logarithm of the leakage at convergence 0: -18 dB times ln(10) / 10. Measured: distorting
 * loudspeakers settle at -13 to -20 dB, devices with processing of their own at -20 to 0. */
static const float NOT_CONVERGED = -4.145f;
/* At convergence 1: -24 dB. Measured: linear loudspeakers in simulated rooms settle at -24 to -34 dB. */
static const float CONVERGED = -5.526f;
/* Per block: time constant of the coherence, 1 s of far-end sound. */
static const float COHERENCE_RATE = 0.01f;
/* Coherence before any data: the estimate is an echo. */
static const float PRIOR_COHERENCE = 1.0f;
/* Coherence of confidence 0: unrelated signals stay below it. */
static const float CHANCE_SHARE = 0.05f;
/* Coherence of confidence 1: nonlinear and drifting loudspeakers still reach it. */
static const float TRUE_SHARE = 0.2f;
/* Decay of power per block: 15 dB in 100 ms, a room of RT60 0.4 s. */
static const float DECAY = 0.7f;

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
    residual->block_square = arena_floats(arena, (size_t)stride);
    residual->block_cross = arena_floats(arena, (size_t)stride);
    if (arena->base)
        residual_reset(residual);
}

void residual_reset(residual_t *residual)
{
    memset(residual->error, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->echo, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->far, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->power, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->block_square, 0, sizeof(float) * (size_t)residual->stride); /* padding too */
    for (int b = 0; b < residual->bands; b++)
        residual->leakage[b] = residual->coupling[b] = (regression_t){0.0f, 0.0f};
    residual->coherence = (regression_t){0.0f, 0.0f};
    residual->confidence = 1.0f;
    residual->convergence = 0.0f;
}

static void smooth(int count, const float *restrict now, float *restrict average)
{
    for (int k = 0; k < count; k++)
        average[k] += SMOOTH_RATE * (now[k] - average[k]);
}

/* ---- Confidence */

/* The whitening is by the smoothed error of the blocks before: this block's own error would be small just
 * where chance makes the product large. */
static void update_confidence(residual_t *residual, const float *restrict echo, const float *restrict cross,
                              const float *restrict noise)
{
    const float *restrict error_before = residual->error, *restrict smooth_echo = residual->echo;
    float *restrict weight = residual->block_square; /* scratch until regress() */
    for (int k = 0; k < residual->bins; k++)
        weight[k] = 1.0f / (error_before[k] + smooth_echo[k] + noise[k]);
    const float power = kernels()->dot(residual->stride, weight, echo);
    coherence_update(&residual->coherence, COHERENCE_RATE, kernels()->dot(residual->stride, weight, cross),
                     power);
    const float share = clamp(regression_share(&residual->coherence, PRIOR_COHERENCE), 0.0f, 1.0f);
    residual->confidence = ramp(share, CHANCE_SHARE, TRUE_SHARE);
}

/* ---- Leakage and coupling */

/* Terms by bin of the regression of the error, less the noise, on a source, each with the weight 1/error^2.
 * Written with the ratio source/error, so that nothing over- or underflows. */
static void regress(residual_t *residual, const float *restrict source, const float *restrict noise,
                    float least_share)
{
    const float *restrict error = residual->error;
    float *restrict cross = residual->block_cross, *restrict square = residual->block_square;
    for (int k = 0; k < residual->bins; k++) {
        const float inverse = 1.0f / (error[k] + least_share * source[k] + noise[k]);
        const float ratio = source[k] > AUDIBLE * noise[k] ? source[k] * inverse : 0.0f;
        square[k] = ratio * ratio;
        cross[k] = ratio * (inverse * greater(error[k] - noise[k], 0.0f));
    }
}

/* The share of a band up to now, after the block's terms are added to its sums. */
static float update_band(const residual_t *residual, int band, regression_t *sums, float prior)
{
    const int from = residual->edge[band], to = residual->edge[band + 1];
    const float cross = spectrum_sum(residual->block_cross, from, to),
                square = spectrum_sum(residual->block_square, from, to);
    if (square > 0.0f)
        regression_update(sums, LEAK_RATE, cross, square);
    return regression_share(sums, prior);
}

static void decay(int count, const float *restrict now, float *restrict far, float *restrict power)
{
    for (int k = 0; k < count; k++) {
        far[k] = greater(now[k], DECAY * far[k]);
        power[k] *= DECAY;
    }
}

/* Writes one value to all bins of a band. */
static void fill_band(const residual_t *residual, int band, float value, float *out)
{
    for (int k = residual->edge[band]; k < residual->edge[band + 1]; k++)
        out[k] = value;
}

/* The residual's power is at least that share of a source. */
static void raise_power(int count, const float *restrict share, const float *restrict source,
                        float *restrict power)
{
    for (int k = 0; k < count; k++)
        power[k] = greater(share[k] * source[k], power[k]);
}

/* Convergence from the mean logarithm of the leakage over the bands with data; 0 without any. leakage: by
 * band, RESIDUAL_MAX_BANDS (whole vectors) above 0; becomes its logarithm. */
static float convergence_of(const residual_t *residual, float leakage[RESIDUAL_MAX_BANDS])
{
    float sum = 0.0f, bands = 0.0f;
    kernels()->log(RESIDUAL_MAX_BANDS, leakage, leakage);
    for (int b = 0; b < residual->bands; b++)
        if (residual->leakage[b].square > PRIOR_WEIGHT) {
            sum += leakage[b];
            bands += 1.0f;
        }
    return bands > 0.0f ? ramp(sum / bands, NOT_CONVERGED, CONVERGED) : 0.0f;
}

static void expect_leakage(residual_t *residual, const residual_input_t *input)
{
    float *share = residual->block_cross, leakage[RESIDUAL_MAX_BANDS];
    regress(residual, residual->echo, input->noise, LEAST_LEAKAGE);
    for (int b = 0; b < RESIDUAL_MAX_BANDS; b++)
        leakage[b] = 1.0f;
    for (int b = 0; b < residual->bands; b++) {
        leakage[b] = lesser(1.0f, update_band(residual, b, &residual->leakage[b], PRIOR_LEAKAGE));
        fill_band(residual, b, MARGIN * residual->confidence * greater(input->moved, leakage[b]), share);
    }
    raise_power(residual->bins, share, input->echo, residual->power);
    raise_power(residual->bins, share, residual->echo, residual->power);
    residual->convergence = lesser(1.0f - input->moved, convergence_of(residual, leakage));
}

static void expect_coupling(residual_t *residual, const float *noise)
{
    float *share = residual->block_cross;
    regress(residual, residual->far, noise, LEAST_COUPLING);
    for (int b = 0; b < residual->bands; b++)
        fill_band(residual, b, MARGIN * update_band(residual, b, &residual->coupling[b], PRIOR_COUPLING),
                  share);
    raise_power(residual->bins, share, residual->far, residual->power);
}

void residual_process(residual_t *residual, const residual_input_t *input)
{
    smooth(residual->bins, input->echo, residual->echo);
    update_confidence(residual, input->echo, input->cross, input->noise);
    smooth(residual->bins, input->error, residual->error);
    decay(residual->bins, input->far, residual->far, residual->power);
    expect_leakage(residual, input);
    expect_coupling(residual, input->noise);
}
