#include "ns/tonality.h"

#include <string.h>

void tonality_reset(tonality_t *tonality) { memset(tonality, 0, sizeof *tonality); }

void tonality_clear(tonality_t *tonality, int part)
{
    memset(&tonality->parts[part], 0, sizeof tonality->parts[part]);
}

void tonality_add(tonality_t *tonality, int part, const ns_block_t *block)
{
    const int count = block->bands->edge[block->bands->count] - BANDS_FIRST_BIN;
    tonality_part_t *sums = &tonality->parts[part];
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
