#include "ns/ns.h"

#include <math.h>
#include <string.h>

enum { MINIMUM_BLOCKS = 150 };               /* half a window: the minimum looks back 0.5 to 1 s */
static const float PRIOR_SNR = 31.6f;       /* 15 dB: speech where it is present (Gerkmann & Hendriks 2012, sec. III) */
static const float PRESENCE_RATE = 0.065f;  /* 1 - 0.9^(10/16) */

static const float QUIET_POWER = 1e-10f;    /* of a sample, see aec.c */
int ns_width=1; float ns_fast=1.0f, ns_fix=0.0f, ns_low=2.5f, ns_down=0.5f, ns_up=0.2f, ns_cap=1.0f, ns_clip=3.0f, ns_nr=0.1f, ns_dd = 0.95f, ns_over = 1.0f, ns_xmin = 0.003f;

void ns_init(ns_t *ns, int bins, int stride, float window_power, arena_t *arena)
{
    ns->bins = bins;
    ns->stride = stride;
    ns->window_power = window_power;
    const size_t n = (size_t)stride;
    ns->noise = arena_floats(arena, n);
    ns->presence = arena_floats(arena, n);
    ns->smooth = arena_floats(arena, n);
    ns->lowest = arena_floats(arena, n);
    ns->lowest_next = arena_floats(arena, n);
    ns->prior = arena_floats(arena, n);
    ns->gain = arena_floats(arena, n);
    if (!arena->base)
        return;
    ns_configure(ns, 18.0f);
    ns_reset(ns);
}

void ns_reset(ns_t *ns)
{
    for (int k = 0; k < ns->stride; k++) {
        ns->noise[k] = QUIET_POWER * ns->window_power;
        ns->presence[k] = ns->smooth[k] = ns->prior[k] = 0.0f;
        ns->lowest[k] = ns->lowest_next[k] = 1e9f;
        ns->gain[k] = 1.0f;
    }
    ns->window_block = ns->started = 0;
    ns->random = 1;
    ns->speech_probability = 0.0f;
}

void ns_configure(ns_t *ns, float attenuation_db) { ns->floor_gain = powf(10.0f, -attenuation_db / 20.0f); }

static void track_noise(ns_t *ns, const float *power, const float *echo)
{
    /* the first blocks: the average of what is heard, so that a noisy room is known at once */
    for (int k = 0; k < ns->bins; k++) {
        const float p2 = power[k];
        ns->smooth[k] += (ns->started == 0 ? 1.0f : p2 < ns->smooth[k] ? ns_down : ns_up) * (p2 - ns->smooth[k]);
        const int echoes = echo[k] > 0.5f * ns->noise[k];
        if (!echoes) {
            ns->lowest[k] = fminf(ns->lowest[k], ns->smooth[k]);
            ns->lowest_next[k] = fminf(ns->lowest_next[k], ns->smooth[k]);
        }
        float near = 0.0f; int cnt = 0;
        for (int j = k - ns_width; j <= k + ns_width; j++)
            if (j >= 0 && j < ns->bins) { near += power[j] / ns->noise[j]; cnt++; }
        const float posterior = near / (float)cnt;
        float presence = 1.0f / (1.0f + (1.0f + PRIOR_SNR) * expf(-posterior * PRIOR_SNR / (1.0f + PRIOR_SNR)));
        ns->presence[k] += PRESENCE_RATE * (presence - ns->presence[k]);
        if (ns->presence[k] > 0.99f)
            presence = fminf(presence, ns_cap);
        if (!echoes)
            ns->noise[k] += ns_nr * (1.0f - presence) * (1.0f - ns_fast * ns->speech_probability) * (fminf(p2, ns_clip * ns->noise[k]) - ns->noise[k]);
        /* noise is never less than what the quietest moments of the last second tell */
        if (ns->lowest[k] < 1e8f && ns->started >= 20)
            ns->noise[k] = fmaxf(ns->noise[k], ns->lowest[k] * ns_low);
        ns->noise[k] = fmaxf(ns->noise[k], QUIET_POWER * ns->window_power);
        if (ns_fix > 0.0f) ns->noise[k] = ns_fix * ns->window_power;
    }
    if (++ns->window_block == MINIMUM_BLOCKS) {
        ns->window_block = 0;
        memcpy(ns->lowest, ns->lowest_next, sizeof(float) * (size_t)ns->bins);
        for (int k = 0; k < ns->bins; k++)
            ns->lowest_next[k] = 1e9f;
    }
    if (ns->started < 1000)
        ns->started++;
}

/* exp(E1(v)/2): the log-spectral gain over the Wiener gain. */
static float lsa_factor(float v)
{
    /* E1 by Abramowitz & Stegun 5.1.53 (v <= 1, error 2e-7) and 5.1.54 (v > 1, relative 2e-4 suffices for a gain) */
    if (v < 1e-6f) v = 1e-6f;
    float e1;
    if (v <= 1.0f)
        e1 = -logf(v) - 0.57721566f + v * (0.99999193f + v * (-0.24991055f + v * (0.05519968f + v * (-0.00976004f + v * 0.00107857f))));
    else
        e1 = expf(-v) / v * (v * v + 2.334733f * v + 0.250621f) / (v * v + 3.330657f * v + 1.681534f);
    return expf(0.5f * e1);
}

static float random_sign(ns_t *ns)
{
    ns->random = ns->random * 1664525u + 1013904223u;
    return (float)(int32_t)ns->random * 4.656612873e-10f; /* -1..1 */
}

void ns_process(ns_t *ns, float *re, float *im, const float *power, const float *echo)
{
    track_noise(ns, power, echo);
    const float floor2 = ns->floor_gain * ns->floor_gain;
    float speech = 0.0f, weight = 0.0f;
    for (int k = 0; k < ns->bins; k++) {
        const float noise = ns->floor_gain < 1.0f ? ns->noise[k] : 0.0f;
        const float disturbance = noise + ns_over * echo[k] + 1e-20f;
        const float posterior = power[k] / disturbance;
        float prior = ns_dd * ns->prior[k] / disturbance + (1.0f - ns_dd) * fmaxf(posterior - 1.0f, 0.0f);
        prior = fmaxf(prior, ns_xmin);
        const float wiener = prior / (1.0f + prior);
        float gain = fminf(1.0f, wiener * lsa_factor(wiener * posterior));
        const float lowest = sqrtf(ns->noise[k] * floor2 / (ns->noise[k] + echo[k]));
        gain = fmaxf(gain, lowest);
        ns->prior[k] = gain * gain * power[k];
        ns->gain[k] = gain;
        const float comfort = ns->noise[k] * floor2;
        re[k] *= gain;
        im[k] *= gain;
        if (echo[k] > ns->noise[k] && ns->prior[k] < comfort) {
            const float fill = sqrtf(1.5f * (comfort - ns->prior[k])); /* uniform in -1..1 has a power of 1/3, two of them 2/3 */
            re[k] += fill * random_sign(ns);
            im[k] += fill * random_sign(ns);
        }
        const float w = 1.0f;
        speech += w * prior / (1.0f + prior);
        weight += w;
    }
    ns->speech_probability = speech / weight;
}
