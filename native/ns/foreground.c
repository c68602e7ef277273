#include "ns/foreground.h"

#include <math.h>

#include "base/branchless.h"
#include "kernels/spectrum.h"

/* First bin whose power counts: 100 Hz; below are hum and rumble. */
enum { AUDIBLE_FIRST_BIN = 2 };
/* Decimal logarithm of 1 + input / expected power from which a sound counts as foreground: 22 dB. In
 * recorded kitchens, cafes and offices at an SNR of 15 dB nothing but speech exceeds the noise by 20 dB. */
static const float FOREGROUND_LOW = 2.2f;
/* The same from which it is left alone entirely: 26 dB. A sound of 30 dB must lose nothing from its onset on,
 * and the first block that counts may hold less than half of its power. */
static const float FOREGROUND_HIGH = 2.6f;

/* Power from 100 Hz to half the sampling rate. banded: that in the bands. */
static float audible_power(const ns_block_t *block, float banded, const float *power)
{
    const ns_bands_t *bands = block->bands;
    const float low = spectrum_sum(power, AUDIBLE_FIRST_BIN, BANDS_FIRST_BIN);
    return low + banded + spectrum_sum(power, bands->edge[bands->count], block->bins);
}

float foreground_process(clatter_t *clatter, const ns_block_t *block, float band_excess)
{
    const ns_bands_t *bands = block->bands;
    const ns_mask_t *mask = block->in.mask;
    const float quiet = quiet_bin(block);
    /* without a mask no click counts: the vote takes clicks for speech and does not attenuate them */
    const float no_speech = mask ? 1.0f - mask->speech_probability : 0.0f;
    clatter_process(clatter, band_excess, logf(bands->input_power + bands->noise_power + quiet), no_speech);
    const float power = audible_power(block, bands->input_power, block->in.power);
    const float noise = audible_power(block, bands->noise_power, block->noise);
    const float expected = noise + bands->echo_power +
                           ECHO_MARGIN * audible_power(block, 0.0f, block->in.echo) + quiet;
    const float clear = ramp(log10f(1.0f + power / expected), FOREGROUND_LOW, FOREGROUND_HIGH);
    return clear * block->in.echo_confidence * (1.0f - clatter_share(clatter));
}
