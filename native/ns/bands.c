#include "ns/bands.h"

#include "base/branchless.h"
#include "kernels/spectrum.h"

/* Smoothing of the input per block, 15 ms, for the correction of the gain by band (gain.h). */
static const float BAND_RATE = 0.5f;

void bands_init(ns_bands_t *bands, int bins)
{
    const int end = bins < BANDS_LAST_BIN ? bins : BANDS_LAST_BIN;
    bands->count = 0;
    bands->edge[0] = BANDS_FIRST_BIN;
    for (int at = BANDS_FIRST_BIN; at < end; bands->edge[++bands->count] = at) {
        const int next = spectrum_band_end(at);
        at = next < end ? next : end;
    }
    bands_reset(bands);
}

void bands_reset(ns_bands_t *bands)
{
    for (int band = 0; band < NS_BANDS; band++)
        bands->input[band] = bands->smooth_input[band] = bands->noise[band] = bands->echo[band] = 0.0f;
    bands->input_power = bands->noise_power = bands->echo_power = 0.0f;
}

void bands_process(ns_bands_t *bands, const ns_block_t *block)
{
    bands->input_power = bands->noise_power = bands->echo_power = 0.0f;
    for (int band = 0; band < bands->count; band++) {
        float input = 0.0f, noise = 0.0f, echo = 0.0f;
        for (int k = bands->edge[band]; k < bands->edge[band + 1]; k++) {
            input += block->in.power[k];
            noise += block->noise[k];
            echo += block->in.echo[k];
        }
        bands->input_power += bands->input[band] = input;
        bands->noise_power += bands->noise[band] = noise;
        bands->echo_power += bands->echo[band] = ECHO_MARGIN * echo;
        bands->smooth_input[band] += BAND_RATE * (input - bands->smooth_input[band]);
    }
}
