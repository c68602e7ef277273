#include "ns/near_end.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"

/* Smoothing of the activity per block when it rises, 100 ms: less than a word, more than a short burst of the
 * loudspeaker. */
static const float ACTIVITY_ATTACK_RATE = 0.1f;
/* The same when it falls, 1.4 s: the length of pauses between words. */
static const float ACTIVITY_RELEASE_RATE = 0.007f;
/* Activity from which near-end speech is protected: a value that is seldom reached by chance. */
static const float PROTECTED_LOW = 0.2f;
/* Activity from which it is protected fully. */
static const float PROTECTED_HIGH = 0.6f;
/* Share of the expected echo, whose margins are 8 dB in all, that speech has to exceed clearly, and so mask,
 * to be protected. */
static const float MASKED_ECHO = 0.33f;
/* ECHO_MARGIN under full protection, -10 dB: suppressing more echo would attenuate the voice. */
static const float PROTECTED_ECHO_MARGIN = 0.1f;

/* Decimal logarithm of 1 + input / expected power from which speech counts as clear: 7 dB. */
static const float CLEAR_LOW = 0.7f;
/* The same from which it is fully clear: 18 dB. */
static const float CLEAR_HIGH = 1.8f;
/* A mask's speech probability up to which a sound is no clear speech: dishes reach 0.8. */
static const float MASK_SPEECH_LOW = 0.8f;
/* Decay of clear speech per block, 0.5 s: the weak sounds between clear ones belong to words, too. */
static const float CLEAR_DECAY = 0.98f;
/* As CLEAR_LOW, for a quiet room: 26 dB. From 22 dB on, kitchens and offices at an SNR of 15 dB would count
 * as quiet between their sounds. */
static const float QUIET_LOW = 2.6f;
/* The same for a room that is fully quiet: 32 dB. */
static const float QUIET_HIGH = 3.2f;
/* Smoothing of the quiet room per block when it rises, 0.1 s: longer than the onset of a noise, which a
 * network may take for speech. */
static const float QUIET_ATTACK_RATE = 0.1f;
/* The same when it falls, 2 s: the length of pauses between words. */
static const float QUIET_RELEASE_RATE = 0.005f;

void near_end_reset(near_end_t *near_end) { memset(near_end, 0, sizeof *near_end); }

/* Decimal logarithm of 1 + input / expected power. */
static float excess(const ns_block_t *block, float expected)
{
    const float known = expected + quiet_bin(block);
    return log10f((block->bands->input_power + known) / known);
}

void near_end_protect(near_end_t *near_end, const ns_block_t *block, float presence)
{
    const ns_bands_t *bands = block->bands;
    const float over = excess(block, bands->noise_power + MASKED_ECHO * bands->echo_power);
    near_end->activity = follow(near_end->activity, presence * ramp(over, CLEAR_LOW, CLEAR_HIGH),
                                ACTIVITY_ATTACK_RATE, ACTIVITY_RELEASE_RATE);
    near_end->protection = block->in.canceller_confidence *
                           ramp(near_end->activity, PROTECTED_LOW, PROTECTED_HIGH);
}

void near_end_process(near_end_t *near_end, const ns_block_t *block)
{
    const float speech = block->mask_valid ? ramp(block->in.mask->speech_probability, MASK_SPEECH_LOW, 1.0f)
                                           : 0.0f;
    const float over = excess(block, block->bands->noise_power + block->bands->echo_power);
    near_end->clear_speech = greater(speech * ramp(over, CLEAR_LOW, CLEAR_HIGH),
                                     CLEAR_DECAY * near_end->clear_speech);
    near_end->quiet_room = follow(near_end->quiet_room, speech * ramp(over, QUIET_LOW, QUIET_HIGH),
                                  QUIET_ATTACK_RATE, QUIET_RELEASE_RATE);
}

float near_end_echo_margin(const near_end_t *near_end)
{
    return ECHO_MARGIN + near_end->protection * (PROTECTED_ECHO_MARGIN - ECHO_MARGIN);
}
