#include "aec/residual.h"

#include <math.h>
#include <string.h>

float res_rate = 0.02f, res_decay = 0.7f, res_over = 1.5f, res_far = 0.0005f, res_sm=0.4f;

void residual_init(residual_t *residual, int rate_hz, int bins, int stride, arena_t *arena)
{
    (void)rate_hz;
    residual->bins = bins;
    residual->stride = stride;
    /* bands of 200 Hz that widen above 1 kHz, about the ear's */
    int bands = 0, at = 1;
    while (at < bins && bands < RESIDUAL_MAX_BANDS) {
        residual->edge[bands++] = at;
        at += at < 20 ? 4 : at / 5;
    }
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
}

void residual_process(residual_t *residual, const float *error, const float *echo, const float *noise, const float *far)
{
    for (int k = 0; k < residual->bins; k++) {
        residual->error[k] += res_sm * (error[k] - residual->error[k]);
        residual->echo[k] += res_sm * (echo[k] - residual->echo[k]);
    }
    for (int b = 0; b < residual->bands; b++) {
        float cross = 0.0f, square = 0.0f;
        for (int k = residual->edge[b]; k < residual->edge[b + 1]; k++) {
            const float e = fmaxf(residual->error[k] - noise[k], 0.0f), y = residual->echo[k];
            const float weight = y / (residual->error[k] + y * 0.001f + noise[k] + 1e-20f);
            const float w2 = weight * weight / (y * y + 1e-20f);
            if (y > noise[k] * 0.1f) {
                cross += w2 * e * y;
                square += w2 * y * y;
            }
        }
        residual->cross[b] += res_rate * (cross - residual->cross[b]) * (square > 0.0f);
        residual->square[b] += res_rate * (square - residual->square[b]) * (square > 0.0f);
        residual->leak[b] = fminf(1.0f, (residual->cross[b] + 1e-3f) / (residual->square[b] + 1e-3f));
        for (int k = residual->edge[b]; k < residual->edge[b + 1]; k++) {
            const float now = res_over * residual->leak[b] * fmaxf(echo[k], residual->echo[k]) + res_far * far[k];
            residual->power[k] = fmaxf(now, res_decay * residual->power[k]);
        }
    }
}
