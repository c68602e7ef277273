#include "ns/presence.h"

#include <math.h>

#include "base/branchless.h"
#include "ns/block.h"

/* Margin on the noise: its power in a band fluctuates. */
static const float NOISE_MARGIN = 2.0f;
/* Excess up to which the vote is 0: the most that noise and echo alone give. */
static const float NO_SPEECH_EXCESS = 0.5f;
/* Excess from which the vote is 1: the least that speech gives. */
static const float SPEECH_EXCESS = 1.5f;
/* Smoothing per block when the vote rises, 10 ms: the onset of a word counts at once. */
static const float ATTACK_RATE = 0.7f;
/* The same when it falls, 50 ms: the end of a word belongs to it. */
static const float RELEASE_RATE = 0.2f;

float presence_band_excess(const ns_bands_t *bands)
{
    float sum = 0.0f;
    for (int band = 0; band < bands->count; band++)
        sum += log1pf(bands->input[band] / (NOISE_MARGIN * bands->noise[band] + bands->echo[band]));
    return sum / (float)bands->count;
}

float presence_process(float probability, float band_excess)
{
    const float vote = ramp(band_excess, NO_SPEECH_EXCESS, SPEECH_EXCESS);
    return follow(probability, vote, ATTACK_RATE, RELEASE_RATE);
}
