#include "ns/steady.h"

#include <math.h>

#include "base/branchless.h"

/* Part of a window, 0.1 s; a window of TONALITY_PARTS ends with each. */
enum { PART_BLOCKS = 10 };
/* Mean of a steady noise over the minimum of its smoothed power. */
static const float STEADY_BIAS = 2.0f;
/* Largest (mean power / minimum of the smoothed power)^2, as geometric mean over the bands, times tonality:
 * the combination of the two that separates noise from music best (logistic regression; fluctuation and
 * roughness of the spectrum added little to it). Measured medians: 0.16 for recordings of steady noise, 0.3
 * of motors, 6 of music, above 10000 of speech; 98.5 % of the windows of music are above the limit. */
static const float NOISE_LIKE = 0.37f;
/* Least mean over the bands of ln(new noise / noise floor): ln 2. The tracker follows a smaller rise. */
static const float RISEN = 0.7f;
/* Most that counts of it in one band: RISEN times 3, so that a noise has to fill a third of the bands. A
 * gliding tone fills fewer. */
static const float MOST_RISEN = 2.1f;
/* Least power of a band that counts, over the strongest: through the window a gliding tone leaks into other
 * bands, 30 dB and more below. */
static const float LEAKAGE = 1e-3f;

static void begin_part(steady_t *steady)
{
    steady_part_t *part = &steady->parts[steady->part];
    for (int band = 0; band < NS_BANDS; band++) {
        part->lowest[band] = NO_MINIMUM;
        part->sum[band] = 0.0f;
    }
    tonality_clear(&steady->sums, steady->part);
    steady->blocks = 0;
}

static void begin_window(steady_t *steady)
{
    steady->tonality = 0.0f;
    steady->complete = 0;
    begin_part(steady);
}

void steady_init(steady_t *steady, arena_t *arena)
{
    tonality_init(&steady->sums, arena);
    if (arena->base)
        steady_reset(steady);
}

void steady_reset(steady_t *steady)
{
    for (int band = 0; band < NS_BANDS; band++)
        steady->smooth[band] = 0.0f;
    steady->part = 0;
    tonality_reset(&steady->sums);
    begin_window(steady);
}

/* Minima and sums of the whole window. */
static steady_part_t whole_window(const steady_t *steady, int bands)
{
    steady_part_t whole = steady->parts[0];
    for (int part = 1; part < TONALITY_PARTS; part++)
        for (int band = 0; band < bands; band++) {
            whole.lowest[band] = lesser(whole.lowest[band], steady->parts[part].lowest[band]);
            whole.sum[band] += steady->parts[part].sum[band];
        }
    return whole;
}

/* Raises the bins of each band to the band's noise, and those outside of the bands to what they hold. */
static void raise_noise(const steady_part_t *window, const ns_bands_t *bands, noise_floor_t *floor)
{
    for (int k = 0; k < floor->bins; k++)
        if (k < BANDS_FIRST_BIN || k >= bands->edge[bands->count]) {
            const float minimum = floor->smooth[k] / (STEADY_BIAS * STEADY_BIAS);
            noise_floor_raise(floor, k, STEADY_BIAS * STEADY_BIAS * minimum, minimum);
        }
    for (int band = 0; band < bands->count; band++) {
        const int first = bands->edge[band], end = bands->edge[band + 1];
        const float minimum = window->lowest[band] / (float)(end - first);
        for (int k = first; k < end; k++)
            noise_floor_raise(floor, k, STEADY_BIAS * STEADY_BIAS * minimum, minimum);
    }
}

/* Returns 1 if the window held a noise that is steady, new and not tonal. */
static int is_new_noise(const steady_part_t *window, const ns_bands_t *bands, float tonality, float quiet)
{
    float moved = 0.0f, risen = 0.0f, strongest = 0.0f;
    for (int band = 0; band < bands->count; band++)
        strongest = greater(strongest, window->sum[band]);
    for (int band = 0; band < bands->count; band++) {
        moved += logf(window->sum[band] / (TONALITY_PARTS * PART_BLOCKS * window->lowest[band]));
        const float over = STEADY_BIAS * window->lowest[band] / (bands->noise[band] + quiet);
        if (window->sum[band] > LEAKAGE * strongest)
            risen += lesser(MOST_RISEN, logf(over));
    }
    const float count = (float)bands->count;
    return expf(2.0f * moved / count) * tonality < NOISE_LIKE && risen > RISEN * count;
}

/* Returns 1 if a window ends here that held new steady noise. */
static int end_part(steady_t *steady, const ns_block_t *block, noise_floor_t *floor)
{
    const ns_bands_t *bands = block->bands;
    int new_noise = 0;
    steady->complete += steady->complete < TONALITY_PARTS;
    if (steady->complete == TONALITY_PARTS) {
        const steady_part_t window = whole_window(steady, bands->count);
        steady->tonality = tonality_mean(&steady->sums, block);
        new_noise = is_new_noise(&window, bands, steady->tonality, quiet_bin(block));
        if (new_noise)
            raise_noise(&window, bands, floor);
    }
    steady->part = (steady->part + 1) % TONALITY_PARTS;
    begin_part(steady);
    return new_noise;
}

int steady_process(steady_t *steady, const ns_block_t *block, noise_floor_t *floor)
{
    const ns_bands_t *bands = block->bands;
    steady_part_t *part = &steady->parts[steady->part];
    for (int band = 0; band < bands->count; band++) {
        const float input = bands->input[band] + quiet_bin(block);
        steady->smooth[band] = follow(steady->smooth[band], input, SMOOTH_RISE_RATE, SMOOTH_FALL_RATE);
        part->lowest[band] = lesser(part->lowest[band], steady->smooth[band]);
        part->sum[band] += input;
    }
    tonality_add(&steady->sums, steady->part, block);
    if (bands->echo_power > MOST_ECHO * bands->input_power) {
        begin_window(steady);
        return 0;
    }
    return ++steady->blocks < PART_BLOCKS ? 0 : end_part(steady, block, floor);
}
