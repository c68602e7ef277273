#include "ns/ns.h"

#include <math.h>

#include "kernels/kernels.h"
#include "ns/comfort.h"
#include "ns/foreground.h"
#include "ns/presence.h"
#include "ns/weighting.h"

/* Approach of the least gain to its target per block, 100 ms: a change of level is heard as a fade. */
static const float GAIN_MIN_RATE = 0.1f;
/* Distance from which it is at its target, 0.01 dB. */
static const float GAIN_MIN_REACHED = 1e-3f;
/* Blocks until a mask may attenuate noise, 1 s. To a network that had received less, talkers who began after
 * 0.5 s lost 3.5 dB of their first half second, some 18 dB. */
enum { FIRST_MASK_BLOCKS = 100 };

void ns_init(ns_t *ns, int bins, int stride, float window_power, arena_t *arena)
{
    ns->bins = bins;
    ns->stride = stride;
    ns->window_power = window_power;
    noise_floor_init(&ns->floor, bins, stride, window_power, arena);
    ns->noise = ns->floor.noise;
    steady_init(&ns->steady, arena);
    gain_init(&ns->gains, stride, arena);
    for (int i = 0; i < 2; i++)
        ns->scratch[i] = arena_floats(arena, (size_t)stride);
    bands_init(&ns->bands, bins);
    if (arena->base)
        ns_reset(ns);
}

void ns_reset(ns_t *ns)
{
    ns->speech_probability = ns->band_excess = 0.0f;
    ns->gain_min = ns->gain_min_target;
    ns->blocks = 0;
    noise_floor_reset(&ns->floor);
    gain_reset(&ns->gains, ns->stride);
    bands_reset(&ns->bands);
    steady_reset(&ns->steady);
    near_end_reset(&ns->near_end);
    clatter_reset(&ns->clatter);
    ns->random = 1;
}

void ns_configure(ns_t *ns, float attenuation_db)
{
    ns->gain_min_target = powf(10.0f, -attenuation_db / 20.0f);
    if (!ns->blocks)
        ns->gain_min = ns->gain_min_target;
}

static ns_block_t block_of(const ns_t *ns, const ns_input_t *input)
{
    return (ns_block_t){
        .in = *input,
        .bins = ns->bins,
        .stride = ns->stride,
        .window_power = ns->window_power,
        .noise = ns->noise,
        .bands = &ns->bands,
        .gain_min = ns->gain_min,
        .mask_valid = input->mask && ns->blocks >= FIRST_MASK_BLOCKS,
        .scratch = {ns->scratch[0], ns->scratch[1]},
    };
}

void ns_track(ns_t *ns, const ns_input_t *input)
{
    const ns_block_t block = block_of(ns, input);
    noise_floor_process(&ns->floor, &block, ns->speech_probability, &ns->near_end, ns->steady.tonality);
    bands_process(&ns->bands, &block);
    if (steady_process(&ns->steady, &block, &ns->floor))
        ns->near_end.quiet_room = 0.0f;
    ns->band_excess = presence_band_excess(&ns->bands);
    ns->speech_probability = presence_process(ns->speech_probability, ns->band_excess);
    ns->blocks += ns->blocks < FIRST_MASK_BLOCKS;
}

static void follow_gain_min(ns_t *ns)
{
    ns->gain_min += GAIN_MIN_RATE * (ns->gain_min_target - ns->gain_min);
    if (fabsf(ns->gain_min - ns->gain_min_target) < GAIN_MIN_REACHED)
        ns->gain_min = ns->gain_min_target;
}

void ns_suppress(ns_t *ns, const ns_input_t *input)
{
    follow_gain_min(ns);
    const ns_block_t block = block_of(ns, input);
    const ns_mask_t *mask = input->mask;
    const float vote = ns->speech_probability, presence = vote * (mask ? mask->speech_probability : 1.0f);
    near_end_t *near_end = &ns->near_end;

    near_end_protect(near_end, &block, presence);
    gain_process(&ns->gains, &block, near_end);
    near_end_process(near_end, &block);
    near_end->foreground = foreground_process(&ns->clatter, &block, ns->band_excess);

    weighting_echo(&ns->gains, &block, near_end, presence);
    if (mask && ns->gain_min < 1.0f)
        gain_correct_bands(&ns->gains, &block, near_end);
    weighting_combine(&ns->gains, &block, near_end, vote);

    kernels()->multiply(ns->stride, input->re, ns->gains.total, input->re);
    kernels()->multiply(ns->stride, input->im, ns->gains.total, input->im);
    comfort_process(&ns->random, &block, &ns->gains);
}

void ns_keep(ns_t *ns, tape_t *tape) { noise_floor_keep(&ns->floor, tape); }
