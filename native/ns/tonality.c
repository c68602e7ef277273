#include "ns/tonality.h"

#include <string.h>

void tonality_init(tonality_t *tonality, arena_t *arena)
{
    for (int i = 0; i < TONALITY_LAG; i++) {
        tonality->re[i] = arena_floats(arena, TONALITY_BINS);
        tonality->im[i] = arena_floats(arena, TONALITY_BINS);
    }
    for (int part = 0; part < TONALITY_PARTS; part++) {
        tonality->parts[part].re = arena_floats(arena, TONALITY_BINS);
        tonality->parts[part].im = arena_floats(arena, TONALITY_BINS);
        tonality->parts[part].power = arena_floats(arena, TONALITY_BINS);
    }
    if (arena->base)
        tonality_reset(tonality);
}

void tonality_reset(tonality_t *tonality)
{
    for (int i = 0; i < TONALITY_LAG; i++) {
        memset(tonality->re[i], 0, sizeof(float) * TONALITY_BINS);
        memset(tonality->im[i], 0, sizeof(float) * TONALITY_BINS);
    }
    tonality->oldest = 0;
    for (int part = 0; part < TONALITY_PARTS; part++)
        tonality_clear(tonality, part);
}

void tonality_clear(tonality_t *tonality, int part)
{
    memset(tonality->parts[part].re, 0, sizeof(float) * TONALITY_BINS);
    memset(tonality->parts[part].im, 0, sizeof(float) * TONALITY_BINS);
    memset(tonality->parts[part].power, 0, sizeof(float) * TONALITY_BINS);
}

void tonality_add(tonality_t *tonality, int part, const ns_block_t *block)
{
    const int count = block->bands->edge[block->bands->count] - BANDS_FIRST_BIN;
    const tonality_part_t *sums = &tonality->parts[part];
    const float *restrict re = block->in.re + BANDS_FIRST_BIN, *restrict im = block->in.im + BANDS_FIRST_BIN,
                          *restrict input = block->in.power + BANDS_FIRST_BIN;
    float *restrict old_re = tonality->re[tonality->oldest], *restrict old_im =
                                                                 tonality->im[tonality->oldest];
    float *restrict sum_re = sums->re, *restrict sum_im = sums->im, *restrict power = sums->power;
    for (int i = 0; i < count; i++) {
        sum_re[i] += re[i] * old_re[i] + im[i] * old_im[i];
        sum_im[i] += im[i] * old_re[i] - re[i] * old_im[i];
        power[i] += input[i];
        old_re[i] = re[i];
        old_im[i] = im[i];
    }
    tonality->oldest = (tonality->oldest + 1) % TONALITY_LAG;
}

/* Coherence of a bin of the bands. quiet: least power, against division by 0. */
static float coherence(const tonality_t *tonality, int i, float quiet)
{
    float re = 0.0f, im = 0.0f, power = quiet;
    for (int part = 0; part < TONALITY_PARTS; part++) {
        re += tonality->parts[part].re[i];
        im += tonality->parts[part].im[i];
        power += tonality->parts[part].power[i];
    }
    return (re * re + im * im) / (power * power);
}

float tonality_mean(const tonality_t *tonality, const ns_block_t *block)
{
    const ns_bands_t *bands = block->bands;
    const float quiet = quiet_bin(block);
    float sum = 0.0f;
    for (int band = 0; band < bands->count; band++) {
        const int first = bands->edge[band], end = bands->edge[band + 1];
        float in_band = 0.0f;
        for (int k = first; k < end; k++)
            in_band += coherence(tonality, k - BANDS_FIRST_BIN, quiet);
        sum += in_band / (float)(end - first);
    }
    return sum / (float)bands->count;
}
