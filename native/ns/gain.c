#include "ns/gain.h"

#include <math.h>

#include "base/branchless.h"
#include "kernels/kernels.h"
#include "kernels/spectrum.h"

/* Weight of the last block in the a-priori SNR. 0.98 at hops of 8 ms in the paper; less for hops of 10 ms and
 * shorter tails of speech. */
static const float DECISION_DIRECTED = 0.95f;
/* The same for noise under a mask, which attenuates what flickers in pauses. */
static const float MASKED_DECISION_DIRECTED = 0.9f;
/* Reduction of the latter in a quiet room, where no random peak of the noise is audible and what is weak is
 * speech. */
static const float QUIET_ROOM_LESS_DIRECTED = 0.08f;
/* Least disturbance over QUANTISATION_POWER, against division by 0. */
static const float TINY = 1e-3f;

/* Around clear speech in noise the gains of the bins, each with a random error of its own, lose weak sounds
 * and the ends of words; a band's power has a smaller error. Share of the way from the
 * bins' gains to the band's: two thirds. */
static const float BAND_SHARE = 0.65f;
/* Factor on noise and echo that are subtracted, at good SNR (M. Berouti, R. Schwartz, J. Makhoul, ICASSP
 * 1979). */
static const float OVERSUBTRACTION = 1.5f;
/* Largest correction of the amplitude, 6 dB. */
static const float BAND_CHANGE = 2.0f;

void gain_init(ns_gains_t *gains, int stride, arena_t *arena)
{
    gains->statistical = arena_floats(arena, (size_t)stride);
    gains->speech_power = arena_floats(arena, (size_t)stride);
    gains->echo_free = arena_floats(arena, (size_t)stride);
    gains->total = arena_floats(arena, (size_t)stride);
    if (arena->base)
        gain_reset(gains, stride);
}

void gain_reset(ns_gains_t *gains, int stride)
{
    for (int k = 0; k < stride; k++) {
        gains->speech_power[k] = 0.0f;
        gains->total[k] = 1.0f;
    }
}

void gain_process(ns_gains_t *gains, const ns_block_t *block, const near_end_t *near_end)
{
    const float noise_directed = block->in.mask ? MASKED_DECISION_DIRECTED -
                                                      QUIET_ROOM_LESS_DIRECTED * near_end->quiet_room
                                                : DECISION_DIRECTED;
    const float noise_share = block->gain_min < 1.0f ? 1.0f : 0.0f,
                echo_margin = near_end_echo_margin(near_end), tiny = quiet_bin(block) * TINY;
    const float *restrict input = block->in.power, *restrict noise = block->noise,
                          *restrict echo = block->in.echo;
    float *restrict speech_power = gains->speech_power, *restrict posterior = block->scratch[0],
                    *restrict wiener = gains->statistical;
    for (int k = 0; k < block->stride; k++) {
        const float expected_echo = echo_margin * echo[k],
                    inverse = 1.0f / (noise_share * noise[k] + expected_echo + tiny);
        const float directed = noise_directed +
                               (DECISION_DIRECTED - noise_directed) * expected_echo * inverse;
        posterior[k] = input[k] * inverse;
        const float prior = directed * speech_power[k] * inverse +
                            (1.0f - directed) * greater(posterior[k] - 1.0f, 0.0f);
        wiener[k] = prior / (1.0f + prior);
    }
    kernels()->log_spectral_gain(block->stride, wiener, posterior, gains->statistical);
    for (int k = 0; k < block->bins; k++)
        speech_power[k] = wiener[k] * wiener[k] * input[k];
}

void gain_correct_bands(ns_gains_t *gains, const ns_block_t *block, const near_end_t *near_end)
{
    const ns_bands_t *bands = block->bands;
    const float in_noise = near_end->clear_speech * (1.0f - near_end->quiet_room) *
                           (1.0f - near_end->foreground);
    const float share = BAND_SHARE * (1.0f - near_end->protection) * in_noise, tiny = quiet_bin(block) * TINY;
    const float *restrict input = block->in.power;
    float *restrict gain = gains->statistical, *restrict output = block->scratch[0];
    for (int k = BANDS_FIRST_BIN; k < bands->edge[bands->count]; k++)
        output[k] = gain[k] * gain[k] * input[k];
    for (int band = 0; band < bands->count; band++) {
        const int first = bands->edge[band], end = bands->edge[band + 1];
        const float power = bands->smooth_input[band];
        const float wanted = greater(power - OVERSUBTRACTION * (bands->noise[band] + bands->echo[band]),
                                     block->gain_min * block->gain_min * power);
        const float ratio = sqrtf((wanted + tiny) / (spectrum_sum(output, first, end) + tiny));
        const float change = 1.0f + share * (lesser(BAND_CHANGE, greater(1.0f / BAND_CHANGE, ratio)) - 1.0f);
        for (int k = first; k < end; k++)
            gain[k] = lesser(1.0f, change * gain[k]);
    }
}
