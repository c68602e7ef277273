/* Level of noise suppression that the signal-to-noise ratio requires: the least that suffices, since all of
 * it distorts near-end speech.
 *
 * The ratio is that of the near-end speech's power while active to the noise floor. Each level begins where
 * the one before leaves about the noise of a quiet room, 40 dB below the speech, with a hysteresis between
 * levels.
 */
#ifndef APMPI_NS_LEVEL_H
#define APMPI_NS_LEVEL_H

enum {
    NS_LEVEL_LOW,
    NS_LEVEL_MODERATE,
    NS_LEVEL_HIGH,
    NS_LEVEL_VERY_HIGH,
    NS_LEVELS,
    NS_LEVEL_DEFAULT = NS_LEVEL_HIGH,
};
/* Largest attenuation of each level in dB: WebRTC's low, moderate, high, very high. */
static const float NS_LEVEL_DB[NS_LEVELS] = {6.0f, 12.0f, 18.0f, 21.0f};

typedef struct {
    float speech_power, noise_power; /* averages */
    int speech_blocks;               /* blocks with speech, saturating */
    float snr_db;
    int level; /* NS_LEVEL_LOW..NS_LEVEL_VERY_HIGH */
} ns_level_t;

void ns_level_reset(ns_level_t *level);
/* input, noise, echo: powers of a block, of all, of the noise floor, and of the expected residual echo;
 * speech_probability: of near-end speech, 0..1. */
void ns_level_process(ns_level_t *level, float input, float noise, float echo, float speech_probability);

#endif
