/* How much noise suppression the signal-to-noise ratio asks for: as little as will do, since all of it costs
 * some of the talker.
 *
 * The ratio is that of the talker's power while speaking over the tracked noise. Each level begins where the
 * one before leaves about the noise of a quiet room (40 dB below the talker), and holds on to its range by
 * some dB, so that it doesn't waver.
 */
#ifndef APMPI_NS_LEVEL_H
#define APMPI_NS_LEVEL_H

enum { NS_LEVELS = 4 };
/* Largest attenuation of each: WebRTC's low, moderate, high, very high. */
static const float NS_LEVEL_DB[NS_LEVELS] = {6.0f, 12.0f, 18.0f, 21.0f};
enum { NS_LEVEL_DEFAULT = 2 };

typedef struct {
    float speech_power, noise_power; /* averages */
    int heard_blocks;                /* with speech, saturating */
    float snr_db;
    int level; /* 0..NS_LEVELS - 1 */
} ns_level_t;

void ns_level_reset(ns_level_t *level);
/* Powers of a block: all that was heard, the noise and the residual echo expected in it; probability of
 * near-end speech. */
void ns_level_process(ns_level_t *level, float heard, float noise, float echo, float speech_probability);

#endif
