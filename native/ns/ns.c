#include "ns/ns.h"

#include <math.h>
#include <string.h>

#include "kernels/spectrum.h"

/* Noise tracker */
static const float PRIOR_SNR = 31.6f;      /* 15 dB: speech where it is present (Gerkmann & Hendriks 2012, sec. III) */
static const float NOISE_RATE = 0.1f;      /* 100 ms; their 0.2 at 16 ms hops would be 0.13 */
static const float OUTLIER = 3.0f;         /* noise blocks above 3 times the mean are 5 %: more is speech that the tracker missed */
static const float FALL_RATE = 0.5f, RISE_RATE = 0.2f; /* smoothing for the minimum: a pause of 50 ms shows, a click does not */
static const float MINIMUM_BIAS = 2.5f;    /* mean of a stationary noise over the minimum of its smoothed power in MINIMUM_BLOCKS to twice that */
enum { MINIMUM_BLOCKS = 150, FIRST_MINIMUM_BLOCKS = 20 };
static const float CLEAR_BLOCKS = 50.0f;   /* the minimum of fewer is that of a word, not of the pauses */
static const float QUIET_POWER = 1e-10f;   /* of a sample: quantisation noise of 16 bit, (2^-15)^2 / 12 */
static const float NEVER = 1e9f;

/* Gain */
static const float DECISION_DIRECTED = 0.95f; /* 0.98 at 8 ms hops in the paper, less for hops of 10 ms and shorter tails of speech */
static const float LOWEST_PRIOR = 0.003f;     /* -25 dB */
static const float COMFORT_SPREAD = 1.5f;     /* two uniform numbers in -1..1 have a power of 2/3 */

/* Near-end speech: mean over bands of log(1 + heard/explained), in which noise and echo alone give 0.3 to 0.5 and speech 1.5 and more */
enum { VOTE_FIRST_BIN = 4, VOTE_LAST_BIN = 140 }; /* 200 Hz to 7 kHz */
static const float NOISE_MARGIN = 2.0f;
static const float NO_SPEECH_VOTE = 0.5f, SPEECH_VOTE = 1.5f;
static const float ATTACK_RATE = 0.7f, RELEASE_RATE = 0.2f; /* 10 ms, 50 ms: the end of a word is part of it */

void ns_init(ns_t *ns, int bins, int stride, float window_power, arena_t *arena)
{
    ns->bins = bins;
    ns->stride = stride;
    ns->window_power = window_power;
    const size_t n = (size_t)stride;
    ns->noise = arena_floats(arena, n);
    ns->smooth = arena_floats(arena, n);
    ns->lowest = arena_floats(arena, n);
    ns->lowest_next = arena_floats(arena, n);
    ns->clear_blocks = arena_floats(arena, n);
    ns->speech = arena_floats(arena, n);
    ns->gain = arena_floats(arena, n);
    if (arena->base)
        ns_reset(ns);
}

void ns_reset(ns_t *ns)
{
    for (int k = 0; k < ns->stride; k++) {
        ns->noise[k] = QUIET_POWER * ns->window_power;
        ns->smooth[k] = ns->speech[k] = ns->clear_blocks[k] = 0.0f;
        ns->lowest[k] = ns->lowest_next[k] = NEVER;
        ns->gain[k] = 1.0f;
    }
    ns->window_block = ns->heard_blocks = 0;
    ns->random = 1;
    ns->speech_probability = 0.0f;
}

void ns_configure(ns_t *ns, float attenuation_db) { ns->floor_gain = powf(10.0f, -attenuation_db / 20.0f); }

static float follow(float state, float now, float rise, float fall) { return state + (now > state ? rise : fall) * (now - state); }

static void track_noise(ns_t *ns, const float *power, const float *echo)
{
    const int bins = ns->bins, settled = ns->heard_blocks >= FIRST_MINIMUM_BLOCKS;
    const float rate = NOISE_RATE * (1.0f - ns->speech_probability);
    float *posterior = ns->gain;
    for (int k = 0; k < bins; k++)
        posterior[k] = power[k] / ns->noise[k];
    for (int k = 0; k < bins; k++) {
        ns->smooth[k] = ns->heard_blocks ? follow(ns->smooth[k], power[k], RISE_RATE, FALL_RATE) : power[k];
        if (echo[k] > 0.5f * ns->smooth[k])
            continue; /* nothing can be told of the noise under an echo */
        ns->lowest[k] = fminf(ns->lowest[k], ns->smooth[k]);
        ns->lowest_next[k] = fminf(ns->lowest_next[k], ns->smooth[k]);
        ns->clear_blocks[k] += 1.0f;
        /* speech is seldom in one bin alone */
        const float below = posterior[k ? k - 1 : k], above = posterior[k + 1 < bins ? k + 1 : k];
        const float mean = (below + posterior[k] + above) * (1.0f / 3.0f);
        const float presence = 1.0f / (1.0f + (1.0f + PRIOR_SNR) * expf(-mean * PRIOR_SNR / (1.0f + PRIOR_SNR)));
        const float noise = ns->noise[k] + rate * (1.0f - presence) * (fminf(power[k], OUTLIER * ns->noise[k]) - ns->noise[k]);
        const float least = settled && ns->lowest[k] < NEVER ? MINIMUM_BIAS * ns->lowest[k] : 0.0f;
        ns->noise[k] = fmaxf(fmaxf(noise, least), QUIET_POWER * ns->window_power);
    }
    if (++ns->window_block == MINIMUM_BLOCKS) {
        ns->window_block = 0;
        for (int k = 0; k < bins; k++) {
            if (ns->clear_blocks[k] >= CLEAR_BLOCKS)
                ns->lowest[k] = ns->lowest_next[k];
            ns->lowest_next[k] = NEVER;
            ns->clear_blocks[k] = 0.0f;
        }
    }
    if (!settled)
        ns->heard_blocks++;
}

static void vote_on_speech(ns_t *ns, const float *power, const float *echo)
{
    const int end = ns->bins < VOTE_LAST_BIN ? ns->bins : VOTE_LAST_BIN;
    float votes = 0.0f;
    int bands = 0;
    for (int at = VOTE_FIRST_BIN; at < end; bands++) {
        const int next = spectrum_band_end(at);
        float heard = 0.0f, explained = 0.0f;
        for (; at < next && at < end; at++) {
            heard += power[at];
            explained += NOISE_MARGIN * ns->noise[at] + echo[at];
        }
        votes += log1pf(heard / explained);
    }
    const float share = (votes / (float)bands - NO_SPEECH_VOTE) / (SPEECH_VOTE - NO_SPEECH_VOTE);
    ns->speech_probability = follow(ns->speech_probability, fminf(1.0f, fmaxf(0.0f, share)), ATTACK_RATE, RELEASE_RATE);
}

/* exp(E1(v)/2): the log-spectral amplitude gain over the Wiener gain. E1 by Abramowitz & Stegun 5.1.53 (v <= 1, absolute error 2e-7; here to
 * v^5) and 5.1.54 (v > 1, relative error 5e-5). */
static float lsa_factor(float v)
{
    v = fmaxf(v, 1e-6f);
    const float e1 = v <= 1.0f
        ? -logf(v) - 0.57721566f + v * (0.99999193f + v * (-0.24991055f + v * (0.05519968f + v * (-0.00976004f + v * 0.00107857f))))
        : expf(-v) / v * (v * v + 2.334733f * v + 0.250621f) / (v * v + 3.330657f * v + 1.681534f);
    return expf(0.5f * e1);
}

/* -1..1, uniform: the linear congruence of Numerical Recipes, sec. 7.1 */
static float noise_sample(ns_t *ns)
{
    ns->random = ns->random * 1664525u + 1013904223u;
    return (float)(int32_t)ns->random * (1.0f / 2147483648.0f);
}

void ns_process(ns_t *ns, float *re, float *im, const float *power, const float *echo)
{
    track_noise(ns, power, echo);
    vote_on_speech(ns, power, echo);
    const float floor_power = ns->floor_gain * ns->floor_gain;
    const float tiny = QUIET_POWER * ns->window_power * 1e-3f;
    for (int k = 0; k < ns->bins; k++) {
        const float noise = ns->noise[k], disturbance = (ns->floor_gain < 1.0f ? noise : 0.0f) + echo[k] + tiny;
        const float posterior = power[k] / disturbance;
        const float prior = DECISION_DIRECTED * ns->speech[k] / disturbance + (1.0f - DECISION_DIRECTED) * fmaxf(posterior - 1.0f, 0.0f);
        const float wiener = fmaxf(prior, LOWEST_PRIOR) / (1.0f + fmaxf(prior, LOWEST_PRIOR));
        float gain = fminf(1.0f, wiener * lsa_factor(wiener * posterior));
        const float echo_share = echo[k] / (echo[k] + noise);
        gain *= 1.0f - echo_share * (1.0f - ns->speech_probability);
        gain = fmaxf(gain, sqrtf(floor_power * (1.0f - echo_share)));
        ns->gain[k] = gain;
        ns->speech[k] = gain * gain * power[k];
        re[k] *= gain;
        im[k] *= gain;
        const float comfort = floor_power * noise - ns->speech[k];
        if (echo[k] > noise && comfort > 0.0f) {
            const float level = sqrtf(COMFORT_SPREAD * comfort);
            re[k] += level * noise_sample(ns);
            im[k] += level * noise_sample(ns);
        }
    }
}

void ns_keep(ns_t *ns, tape_t *tape)
{
    tape_floats(tape, ns->noise, (size_t)ns->bins, 0.99f * QUIET_POWER * ns->window_power, TAPE_ANY);
}
