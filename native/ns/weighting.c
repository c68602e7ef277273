#include "ns/weighting.h"

#include <math.h>

#include "base/branchless.h"

/* Speech presence by vote and mask that residual echo alone may reach by chance. */
static const float SPEECH_BY_CHANCE = 0.08f;
/* Ratio of the input to the expected echo, 15 dB, above which a mask's attenuation of echo is limited in
 * proportion. A loud word that the loudspeaker distorts leaks 8 dB more than expected, and has peaks. For
 * some voices a network responds as for echo where hardly any is expected; without the limit they lost 10 dB.
 */
static const float SURPRISING_ECHO = 30.0f;

/* Gain of bins above the noise floor during non-speech, -12 dB; nearly all of them are random peaks of
 * the noise. */
static const float UNSPOKEN = 0.25f;
/* Speech probability by vote from which UNSPOKEN is not applied: weak words in noise reach it. */
static const float PERHAPS_SPOKEN = 0.25f;
/* UNSPOKEN with a mask, which attenuates most of those peaks itself. These 6 dB on top of it raise DNSMOS by
 * 0.2 at an SNR of 0 dB and lower PESQ by 0.01 with the near end alone. */
static const float MASKED_UNSPOKEN = 0.5f;
/* PERHAPS_SPOKEN with a mask. */
static const float MASKED_PERHAPS_SPOKEN = 0.1f;

void weighting_echo(ns_gains_t *gains, const ns_block_t *block, const near_end_t *near_end, float presence)
{
    const float *restrict noise = block->noise, *restrict echo = block->in.echo;
    float *restrict statistical = gains->statistical, *restrict echo_free = gains->echo_free;
    const float echo_only = (1.0f - near_end->protection) * (1.0f - ramp(presence, SPEECH_BY_CHANCE, 1.0f)),
                echo_margin = near_end_echo_margin(near_end);
    for (int k = 0; k < block->bins; k++) {
        const float noise_share = noise[k] / (echo_margin * echo[k] + noise[k]);
        statistical[k] *= 1.0f - (1.0f - noise_share) * echo_only;
        echo_free[k] = sqrtf(noise_share);
    }
}

/* Degree 0..1 to which a mask may attenuate noise, too. Not where near-end speech is protected or clear: it
 * would take more of the voice (0.04 of DNSMOS's SIG at an SNR of 15 dB) than of the noise. */
static float mask_share(const near_end_t *near_end)
{
    return (1.0f - near_end->protection) * (1.0f - near_end->clear_speech) * (1.0f - near_end->quiet_room) *
           (1.0f - near_end->foreground);
}

/* Gain of bins above the noise floor, from UNSPOKEN to 1 with the vote. In a quiet room, and under a
 * foreground sound, no random peak is audible. */
static float non_speech_gain(const near_end_t *near_end, float vote, int masked)
{
    const float unspoken = masked ? MASKED_UNSPOKEN : UNSPOKEN,
                perhaps = masked ? MASKED_PERHAPS_SPOKEN : PERHAPS_SPOKEN;
    const float gain = unspoken + (1.0f - unspoken) * lesser(1.0f, vote / perhaps);
    return gain + greater(near_end->quiet_room, near_end->foreground) * (1.0f - gain);
}

void weighting_combine(ns_gains_t *gains, const ns_block_t *block, const near_end_t *near_end, float vote)
{
    const int suppress_noise = block->gain_min < 1.0f;
    const ns_mask_t *mask = block->in.mask;
    const float *restrict power = block->in.power, *restrict echo = block->in.echo;
    const float *restrict statistical = gains->statistical;
    float *restrict total = gains->total, *restrict echo_free = gains->echo_free;
    const float quiet = quiet_bin(block), gain_min = block->gain_min,
                unprotected = 1.0f - near_end->protection,
                share = suppress_noise && block->mask_valid ? mask_share(near_end) : 0.0f,
                non_speech = suppress_noise ? non_speech_gain(near_end, vote, mask != NULL) : 1.0f;
    for (int k = 0; k < block->bins; k++) {
        const float possible_echo = lesser(1.0f, SURPRISING_ECHO * greater(echo[k] - quiet, 0.0f) /
                                                     (power[k] + quiet));
        const float not_echo = mask ? 1.0f - possible_echo * unprotected * (1.0f - mask->rest[k]) : 1.0f;
        echo_free[k] = lesser(echo_free[k], not_echo);
        total[k] = statistical[k] * non_speech *
                   (mask ? not_echo + share * (mask->speech[k] - not_echo) : 1.0f);
        total[k] = greater(total[k], gain_min * echo_free[k]);
    }
}
