#include "ns/comfort.h"

#include <math.h>

#include "base/branchless.h"

/* Square of the amplitude over the power: real and imaginary part are uniform in -1..1 times the amplitude,
 * which gives 1/3 of its square each. */
static const float SPREAD = 1.5f;
/* Power of a sample of the noise everywhere: -80 dBFS, less than any microphone's own noise. It is steady and
 * masks what is not. */
static const float LEAST_COMFORT = 1e-8f;
/* Largest echo-free amplitude of a bin that is filled, -3 dB: above it the noise that remains sounds
 * complete. */
static const float ECHO_REPLACED = 0.7f;

/* -1..1, uniform: the linear congruential generator of Numerical Recipes, sec. 7.1. */
static float uniform(uint32_t *random)
{
    *random = *random * 1664525u + 1013904223u;
    return (float)(int32_t)*random * (1.0f / 2147483648.0f);
}

/* level = amplitude by bin, 0 for none. */
static void find_level(const ns_block_t *block, const ns_gains_t *gains, float *restrict level)
{
    const float noise_gain = block->gain_min * block->gain_min, least = LEAST_COMFORT * block->window_power;
    const float *restrict power = block->in.power, *restrict noise = block->noise;
    const float *restrict gain = gains->total, *restrict echo_free = gains->echo_free;
    for (int k = 0; k < block->bins; k++) {
        const float least_here = lesser(least, power[k]),
                    wanted = echo_free[k] < ECHO_REPLACED ? noise_gain * noise[k] : 0.0f;
        level[k] = sqrtf(SPREAD * greater(greater(wanted, least_here) - gain[k] * gain[k] * power[k], 0.0f));
    }
}

void comfort_process(uint32_t *random, const ns_block_t *block, const ns_gains_t *gains)
{
    float *level = block->scratch[0];
    find_level(block, gains, level);
    float *re = block->in.re, *im = block->in.im;
    for (int k = 0; k < block->bins; k++)
        if (level[k] > 0.0f) {
            re[k] += level[k] * uniform(random);
            im[k] += level[k] * uniform(random);
        }
}
