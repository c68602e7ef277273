#include "cards/converter.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/branchless.h"
#include "kernels/kernels.h"

enum {
    /* Kaiser's formula, (attenuation - 8) / (2.285 transition width in rad), for 90 dB and the band from 0.8
     * to 1.09 of the Nyquist frequency: 40 */
    TAPS = 40,
    /* Linear interpolation between rows is wrong by (pi / PHASES)^2 / 8 at most, -94 dB at the Nyquist
     * frequency. */
    PHASE_BITS = 8,
    PHASES = 1 << PHASE_BITS,
    /* Bits of a position below the sample and below the phase: a ratio is exact to 2e-10. */
    FRACTION_BITS = 32,
    PART_BITS = FRACTION_BITS - PHASE_BITS,
    /* Output samples of interpolate_four(). At 500 ppm the first and the last are 0.2 rows beyond the two
     * rows of their middle at most, where the interpolation is as exact as between them. */
    FOUR = 4,
};
static const int64_t SAMPLE = (int64_t)1 << FRACTION_BITS; /* unit of a position */
static const double ATTENUATION_DB = 90.0;
static const double CUTOFF = 0.943; /* middle of the transition band, over the Nyquist frequency */

static int taps_of(double ratio)
{
    const int even = 2 * (int)ceil(TAPS / fmin(ratio, 1.0) / 2.0);
    return WHOLE_VECTORS(even);
}

/* The last four outputs may need FOUR samples beyond the history: their results are not used. */
static int stride_of(int taps, int samples_max) { return WHOLE_VECTORS(taps + samples_max + FOUR); }

/* Modified Bessel function of the first kind and order 0, by its power series. */
static double bessel(double x)
{
    double sum = 1.0, term = 1.0;
    for (int k = 1; term > 1e-12 * sum; k++) {
        term *= x * x / (4.0 * k * k);
        sum += term;
    }
    return sum;
}

/* Row `phase`: the filter for an output sample phase/PHASES of a sample after tap half - 1. The sum of its
 * taps is 1, so that a constant passes unchanged. */
static void make_row(int taps, double cutoff, int phase, float *row)
{
    const double beta = 0.1102 * (ATTENUATION_DB - 8.7), half = 0.5 * taps, after = (double)phase / PHASES;
    double sum = 0.0, tap[taps];
    for (int k = 0; k < taps; k++) {
        const double at = k - (half - 1.0) - after, x = M_PI * cutoff * at,
                     inside = fmax(1.0 - at * at / (half * half), 0.0);
        tap[k] = (fabs(x) < 1e-9 ? 1.0 : sin(x) / x) * bessel(beta * sqrt(inside));
        sum += tap[k];
    }
    for (int k = 0; k < taps; k++)
        row[k] = (float)(tap[k] / sum);
}

size_t converter_table_floats(double ratio) { return (size_t)(PHASES + 1) * (size_t)taps_of(ratio); }

void converter_make_table(double ratio, float *table)
{
    const int taps = taps_of(ratio);
    for (int phase = 0; phase <= PHASES; phase++)
        make_row(taps, CUTOFF * fmin(ratio, 1.0), phase, table + phase * taps);
}

static converter_t *place(arena_t *arena, int channels, int samples_max, double ratio)
{
    const int taps = taps_of(ratio), stride = stride_of(taps, samples_max);
    converter_t *converter = arena_take(arena, sizeof *converter);
    float *history = arena_floats(arena, (size_t)channels * (size_t)stride),
          *sound = arena_floats(arena, (size_t)converter_out_max(samples_max, ratio) + FOUR);
    if (converter)
        *converter = (converter_t){channels, taps, ratio == 1.0, stride, 0, 0, NULL, history, sound};
    return converter;
}

size_t converter_size(int channels, int samples_max, double ratio)
{
    arena_t arena = {NULL, 0};
    place(&arena, channels, samples_max, ratio);
    return arena.used;
}

converter_t *converter_init(void *memory, int channels, int samples_max, double ratio, const float *table)
{
    arena_t arena = {memory, 0};
    converter_t *converter = place(&arena, channels, samples_max, ratio);
    converter->table = table;
    memset(converter->history, 0, sizeof(float) * (size_t)channels * (size_t)converter->stride);
    converter->kept = converter->taps / 2; /* silence before the first sample */
    converter->position = (int64_t)converter->kept << FRACTION_BITS;
    return converter;
}

int converter_out_max(int samples_max, double ratio) { return (int)ceil(samples_max * ratio * 1.01) + 1; }

static void append(converter_t *converter, const int16_t *in, int count)
{
    const int channels = converter->channels;
    for (int c = 0; c < channels; c++) {
        float *end = converter->history + c * converter->stride + converter->kept;
        if (channels == 1) /* becomes vector instructions */
            for (int i = 0; i < count; i++)
                end[i] = in[i];
        else
            for (int i = 0; i < count; i++)
                end[i] = in[i * channels + c];
    }
    converter->kept += count;
}

/* Drops what lies before the taps of the next output sample and one sample more: the middle of the next four
 * may lie that much before the first, if they are less than a sample apart. */
static void forget(converter_t *converter)
{
    const int before = (int)(converter->position >> FRACTION_BITS) - converter->taps / 2,
              gone = before < converter->kept ? before : converter->kept;
    converter->kept -= gone;
    converter->position -= (int64_t)gone << FRACTION_BITS;
    for (int c = 0; c < converter->channels; c++) {
        float *history = converter->history + c * converter->stride;
        memmove(history, history + gone, sizeof(float) * (size_t)converter->kept);
    }
}

/* Row of the table at a position or last before it. */
static const float *row_at(const converter_t *converter, int64_t position)
{
    return converter->table + ((position >> PART_BITS) & (PHASES - 1)) * converter->taps;
}

/* Distance, in rows, of a position from the row at `row_position`. */
static float rows_after(int64_t position, int64_t row_position)
{
    return (float)(int32_t)(position - (row_position >> PART_BITS << PART_BITS)) * (1.0f / (1 << PART_BITS));
}

/* Writes `count` output samples of a channel. */
static void resample(const converter_t *converter, const float *history, int64_t step, int count)
{
    const kernels_t *k = kernels();
    const int taps = converter->taps;
    int64_t position = converter->position;
    for (int i = 0; i < count; i++, position += step) {
        const float *row = row_at(converter, position),
                    *first = history + (position >> FRACTION_BITS) - (taps / 2 - 1);
        converter->sound[i] = k->interpolate(taps, first, row, row + taps, rows_after(position, position));
    }
}

/* The same for steps of about one sample. */
static void resample_fours(const converter_t *converter, const float *history, int64_t step, int count)
{
    const kernels_t *k = kernels();
    const int taps = converter->taps;
    const int64_t drift = step - SAMPLE;
    const float drift_rows = rows_after(drift, 0);
    int64_t position = converter->position;
    for (int i = 0; i < count; i += FOUR, position += FOUR * step) {
        const int64_t middle = position + drift * (FOUR - 1) / 2; /* less the whole samples */
        const float *row = row_at(converter, middle),
                    *first = history + (middle >> FRACTION_BITS) - (taps / 2 - 1);
        k->interpolate_four(taps, first, row, row + taps, rows_after(position, middle), drift_rows,
                            converter->sound + i);
    }
}

/* Writes the samples of one channel, rounded and limited. */
static void deliver(const converter_t *converter, int samples, int16_t *out)
{
    const float *sound = converter->sound;
    const int channels = converter->channels;
    if (channels == 1) /* becomes vector instructions */
        for (int i = 0; i < samples; i++)
            out[i] = limited_int16(sound[i]);
    else
        for (int i = 0; i < samples; i++)
            out[i * channels] = limited_int16(sound[i]);
}

int converter_process(converter_t *converter, const int16_t *in, int count, double ratio, int16_t *out)
{
    append(converter, in, count);
    const int channels = converter->channels;
    const int64_t step = llrint(ldexp(1.0 / ratio, FRACTION_BITS)),
                  left = (converter->kept - converter->taps / 2) * SAMPLE - converter->position;
    const int samples = left > 0 ? (int)((left + step - 1) / step) : 0;
    for (int c = 0; c < channels; c++) {
        const float *history = converter->history + c * converter->stride;
        (converter->one_rate ? resample_fours : resample)(converter, history, step, samples);
        deliver(converter, samples, out + c);
    }
    converter->position += samples * step;
    forget(converter);
    return samples;
}

double converter_pending(const converter_t *converter)
{
    return converter->kept - ldexp((double)converter->position, -FRACTION_BITS);
}
