#include "aec/residual.h"

#include <math.h>
#include <string.h>

#include "kernels/spectrum.h"

static const float SMOOTH_RATE = 0.4f;      /* 25 ms: errors of single bins scatter, syllables must not blur */
static const float LEAK_RATE = 0.02f;       /* 0.5 s of far-end sound */
static const float AUDIBLE = 0.1f;          /* echo estimates from 10 dB under the noise tell about leakage */
static const float SURE_ERROR = 1e-3f;      /* an error 30 dB under the echo is as good as it gets: caps a block's weight */
static const float PRIOR_WEIGHT = 1e-3f;    /* of "all leaks", before anything was heard */
/* The weighted regression sits near the leakage's lower quartile, 5 dB under what is worth expecting (measured on loudspeakers with distortion and in rooms of
 * 0.3 to 1 s). */
static const float MARGIN = 3.0f;
static const float TRUTH_RATE = 0.01f;      /* 1 s of far-end sound */
/* Chance gives a share below 0.05; nonlinear and drifting loudspeakers still reach 0.2. */
static const float CHANCE_TRUTH = 0.05f, SURE_TRUTH = 0.2f;
static const float DECAY = 0.7f;            /* 15 dB in 100 ms: a room of RT60 0.4 s */

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
    residual->power = arena_floats(arena, (size_t)stride);
    if (arena->base)
        residual_reset(residual);
}

void residual_reset(residual_t *residual)
{
    memset(residual->error, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->echo, 0, sizeof(float) * (size_t)residual->stride);
    memset(residual->power, 0, sizeof(float) * (size_t)residual->stride);
    for (int b = 0; b < residual->bands; b++) {
        residual->cross[b] = residual->square[b] = 0.0f;
        residual->leak[b] = 1.0f;
    }
    residual->shared = residual->claimed = 0.0f;
    residual->truth = residual->believed = 1.0f;
}

static void learn_leak(residual_t *residual, int band, const float *noise)
{
    float cross = 0.0f, square = 0.0f;
    for (int k = residual->edge[band]; k < residual->edge[band + 1]; k++) {
        const float echo = residual->echo[k];
        if (echo <= AUDIBLE * noise[k])
            continue;
        /* weight 1/error^2, written with echo/error so that nothing over- or underflows */
        const float ratio = echo / (residual->error[k] + SURE_ERROR * echo + noise[k]);
        cross += ratio * ratio * fmaxf(residual->error[k] - noise[k], 0.0f) / echo;
        square += ratio * ratio;
    }
    if (square > 0.0f) {
        residual->cross[band] += LEAK_RATE * (cross - residual->cross[band]);
        residual->square[band] += LEAK_RATE * (square - residual->square[band]);
    }
    residual->leak[band] = fminf(1.0f, (residual->cross[band] + PRIOR_WEIGHT) / (residual->square[band] + PRIOR_WEIGHT));
}

/* microphone = error + echo, so its product with the echo estimate is cross + |echo|^2. Whitened by the error of the blocks before, so that
 * every band has a say; this block's own error would be small just where chance makes the product large. */
static void judge_truth(residual_t *residual, const float *echo, const float *cross, const float *noise)
{
    float shared = 0.0f, claimed = 0.0f;
    for (int k = 0; k < residual->bins; k++) {
        const float weight = 1.0f / (residual->error[k] + residual->echo[k] + noise[k]);
        shared += weight * (cross[k] + echo[k]);
        claimed += weight * echo[k];
    }
    residual->shared += TRUTH_RATE * (shared - residual->shared);
    residual->claimed += TRUTH_RATE * (claimed - residual->claimed);
    residual->truth = fminf(1.0f, fmaxf(0.0f, (residual->shared + PRIOR_WEIGHT) / (residual->claimed + PRIOR_WEIGHT)));
}

void residual_process(residual_t *residual, const float *error, const float *echo, const float *cross, const float *noise)
{
    for (int k = 0; k < residual->bins; k++)
        residual->echo[k] += SMOOTH_RATE * (echo[k] - residual->echo[k]);
    judge_truth(residual, echo, cross, noise);
    for (int k = 0; k < residual->bins; k++)
        residual->error[k] += SMOOTH_RATE * (error[k] - residual->error[k]);
    residual->believed = fminf(1.0f, fmaxf(0.0f, (residual->truth - CHANCE_TRUTH) / (SURE_TRUTH - CHANCE_TRUTH)));
    const float margin = MARGIN * residual->believed;
    for (int b = 0; b < residual->bands; b++) {
        learn_leak(residual, b, noise);
        for (int k = residual->edge[b]; k < residual->edge[b + 1]; k++) {
            const float now = margin * residual->leak[b] * fmaxf(echo[k], residual->echo[k]);
            residual->power[k] = fmaxf(now, DECAY * residual->power[k]);
        }
    }
}
