#include "ns/steady.h"

#include <math.h>

#include "base/branchless.h"

/* Window, 0.4 s. */
enum { STEADY_BLOCKS = 40 };
/* Largest mean over the bands of ln(mean power / minimum of the smoothed power). Measured: 0.6 to 1.1 for
 * steady noise (white, fans, streets, rain, an airplane), above 2 for speech. */
static const float STEADY = 1.2f;
/* Mean of a steady noise over that minimum. */
static const float STEADY_BIAS = 2.0f;
/* Least mean over the bands of ln(new noise / noise floor): ln 2. The tracker follows a smaller rise. */
static const float RISEN = 0.7f;
/* Most that counts of it in one band: RISEN times 3, so that a noise has to fill a third of the bands. A
 * gliding tone fills fewer. */
static const float MOST_RISEN = 2.1f;
/* Least power of a band that counts, over the strongest: through the window a gliding tone leaks into other
 * bands, 30 dB and more below. */
static const float LEAKAGE = 1e-3f;
/* Least fluctuation over most_fluctuation: two thirds of the 0.44 of Gaussian noise. Measured: recordings of
 * noise 0.32 and more, tones up to 0.07, sweeps up to 0.22, most chords up to 0.27. */
static const float NOISE_FLUCTUATION = 0.3f;
/* Least fluctuation over roughness. The other chords beat, but their bins differ more from their neighbours
 * than from their past: so do 3 in 4 passages of music that would pass for noise otherwise, and 1 in 13 of
 * recorded noise, most of these tonal (animals, a sonar, a dryer). A tenth more than 1 for chance. */
static const float NOISE_ROUGHNESS = 1.1f;

static void begin_window(steady_t *steady)
{
    for (int band = 0; band < NS_BANDS; band++) {
        steady->lowest[band] = NO_MINIMUM;
        steady->sum[band] = 0.0f;
    }
    steady->fluctuation = steady->roughness = steady->most_fluctuation = 0.0f;
    steady->blocks = 0;
}

void steady_reset(steady_t *steady)
{
    for (int band = 0; band < NS_BANDS; band++)
        steady->smooth[band] = 0.0f;
    begin_window(steady);
}

void steady_observe(steady_t *steady, const ns_block_t *block, const float *smooth)
{
    const float *input = block->in.power;
    const int end = block->bands->edge[block->bands->count];
    float fluctuation = 0.0f, roughness = 0.0f, most = 0.0f;
    for (int k = BANDS_FIRST_BIN; k < end; k++) {
        fluctuation += fabsf(input[k] - smooth[k]);
        roughness += fabsf(smooth[k] - smooth[k - 1]);
        most += input[k] + smooth[k];
    }
    steady->fluctuation += fluctuation;
    steady->roughness += roughness;
    steady->most_fluctuation += most;
}

/* Raises the bins of each band to the band's noise, and those outside of the bands to what they hold. */
static void raise_noise(const steady_t *steady, const ns_bands_t *bands, noise_floor_t *floor)
{
    for (int k = 0; k < floor->bins; k++)
        if (k < BANDS_FIRST_BIN || k >= bands->edge[bands->count]) {
            const float minimum = floor->smooth[k] / (STEADY_BIAS * STEADY_BIAS);
            noise_floor_raise(floor, k, STEADY_BIAS * STEADY_BIAS * minimum, minimum);
        }
    for (int band = 0; band < bands->count; band++) {
        const int first = bands->edge[band], end = bands->edge[band + 1];
        const float minimum = steady->lowest[band] / (float)(end - first);
        for (int k = first; k < end; k++)
            noise_floor_raise(floor, k, STEADY_BIAS * STEADY_BIAS * minimum, minimum);
    }
}

/* Returns 1 if the complete window held a noise that is steady, new, and neither a tone nor a chord. */
static int is_new_noise(const steady_t *steady, const ns_bands_t *bands, float quiet)
{
    float moved = 0.0f, risen = 0.0f, strongest = 0.0f;
    for (int band = 0; band < bands->count; band++)
        strongest = greater(strongest, steady->sum[band]);
    for (int band = 0; band < bands->count; band++) {
        moved += logf(steady->sum[band] / (STEADY_BLOCKS * steady->lowest[band]));
        const float over = STEADY_BIAS * steady->lowest[band] / (bands->noise[band] + quiet);
        if (steady->sum[band] > LEAKAGE * strongest)
            risen += lesser(MOST_RISEN, logf(over));
    }
    const float tonal = greater(NOISE_ROUGHNESS * steady->roughness,
                                NOISE_FLUCTUATION * steady->most_fluctuation);
    return steady->fluctuation > tonal && moved < STEADY * (float)bands->count &&
           risen > RISEN * (float)bands->count;
}

int steady_process(steady_t *steady, const ns_block_t *block, noise_floor_t *floor)
{
    const ns_bands_t *bands = block->bands;
    const float quiet = quiet_bin(block);
    for (int band = 0; band < bands->count; band++) {
        const float input = bands->input[band] + quiet;
        steady->smooth[band] = follow(steady->smooth[band], input, SMOOTH_RISE_RATE, SMOOTH_FALL_RATE);
        steady->lowest[band] = lesser(steady->lowest[band], steady->smooth[band]);
        steady->sum[band] += input;
    }
    if (bands->echo_power > MOST_ECHO * bands->input_power) {
        begin_window(steady);
        return 0;
    }
    if (++steady->blocks < STEADY_BLOCKS)
        return 0;
    const int new_noise = is_new_noise(steady, bands, quiet);
    if (new_noise)
        raise_noise(steady, bands, floor);
    begin_window(steady);
    return new_noise;
}
