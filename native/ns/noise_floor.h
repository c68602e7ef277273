/* Noise floor: power of the background noise by bin.
 *
 * A tracker by speech presence probability after T. Gerkmann, R. Hendriks, "Unbiased MMSE-based noise power
 * estimation with low complexity and low tracking delay", IEEE TASLP 20 (2012). During long speech the
 * tracker stands still; if the noise itself has risen meanwhile, the minimum of the smoothed power over the
 * last 4 to 8 s raises it (R. Martin, IEEE TSAP 9 (2001), without his bias model). For this, Gerkmann and
 * Hendriks's limit on the probability is left out. A window filled by a sound that stands clear of the noise
 * (foreground.h) does so only if its minima are constant, or after 32 s; if that sound was tonal
 * (tonality.h), as most music is, only if they hardly change at all. Bins in which residual echo may hold
 * more than half of the power are no evidence of the noise and keep their state.
 */
#ifndef APMPI_NS_NOISE_FLOOR_H
#define APMPI_NS_NOISE_FLOOR_H

#include "base/arena.h"
#include "base/tape.h"
#include "ns/block.h"
#include "ns/near_end.h"

typedef struct {
    int bins, stride;
    float window_power;  /* as in ns_block_t */
    float *noise;        /* the result */
    float *smooth;       /* smoothed input power */
    float *lowest;       /* minimum of `smooth` over the previous window and this one */
    float *lowest_next;  /* minimum over this window */
    float *clear_blocks; /* blocks of this window without echo */
    int window_block;    /* blocks of this window */
    int blocks;          /* blocks since the reset, saturating */
    /* minimum of ns_bands_t's smooth_input in each half of this window */
    float band_lowest[2][NS_BANDS];
    float foreground; /* sum over this window's blocks */
    float tonality;   /* the same */
    int held_windows; /* in a row, up to the last one; those of a tonal sound do not count */
} noise_floor_t;

void noise_floor_init(noise_floor_t *floor, int bins, int stride, float window_power, arena_t *arena);
void noise_floor_reset(noise_floor_t *floor);
/* speech_probability: presence.h; near_end: near_end.h; tonality: steady.h; all of the block before. */
void noise_floor_process(noise_floor_t *floor, const ns_block_t *block, float speech_probability,
                         const near_end_t *near_end, float tonality);
/* Raises a bin's noise and its minima, though not above the smoothed power. */
void noise_floor_raise(noise_floor_t *floor, int bin, float noise, float minimum);
void noise_floor_keep(noise_floor_t *floor, tape_t *tape);

#endif
