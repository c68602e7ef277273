/* Suppression of noise and residual echo of one channel by a single gain per bin.
 *
 * Per block of 10 ms: ns_track follows the noise floor (noise_floor.h, steady.h) and votes on near-end speech
 * (presence.h). ns_suppress determines the statistical gain (gain.h), weights it by near-end speech and by
 * the mask of a network (near_end.h, foreground.h, weighting.h), applies it, and adds comfort noise
 * (comfort.h). Noise is attenuated as it is down to the least gain, so that it keeps its character; residual
 * echo is replaced by noise of that level.
 */
#ifndef APMPI_NS_H
#define APMPI_NS_H

#include <stdint.h>

#include "base/arena.h"
#include "base/tape.h"
#include "ns/bands.h"
#include "ns/clatter.h"
#include "ns/gain.h"
#include "ns/near_end.h"
#include "ns/noise_floor.h"
#include "ns/steady.h"

typedef struct {
    /* results, to be read by the chain */
    float *noise;             /* noise floor: power by bin */
    float speech_probability; /* of near-end speech by the bands' vote, 0..1 */
    ns_bands_t bands;         /* powers of the last block, 200 Hz to 7 kHz */
    ns_gains_t gains;         /* of the last block */

    int bins, stride;
    float window_power;    /* ns_block_t */
    float *scratch[2];     /* ns_block_t */
    float gain_min;        /* least gain of noise now */
    float gain_min_target; /* the one configured */
    float band_excess;     /* presence.h */
    int blocks;            /* since the reset, saturating at FIRST_MASK_BLOCKS */
    noise_floor_t floor;
    steady_t steady;
    near_end_t near_end;
    clatter_t clatter;
    uint32_t random; /* comfort.h */
} ns_t;

/* window_power: sum of the squared analysis window. */
void ns_init(ns_t *ns, int bins, int stride, float window_power, arena_t *arena);
void ns_reset(ns_t *ns);
/* Largest attenuation of noise in dB, 0..40; 0 leaves noise alone. Reached within some 100 ms, or at once
 * before the first block. */
void ns_configure(ns_t *ns, float attenuation_db);

/* Updates noise and speech_probability by the spectrum, its power and its echo; the rest of the input is not
 * used. */
void ns_track(ns_t *ns, const ns_input_t *input);
void ns_suppress(ns_t *ns, const ns_input_t *input);

/* Records or restores the noise floor, the only state worth keeping over a restart. */
void ns_keep(ns_t *ns, tape_t *tape);

#endif
