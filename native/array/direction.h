/* Direction of near-end speech, from the places of the microphones: a steered response power with phase
 * transform (J. DiBiase, "A high-accuracy, low-latency technique for talker localization in reverberant
 * environments using microphone arrays", Brown University, 2000; phase transform: C. Knapp, G. Carter, IEEE
 * TASSP 24 (1976)).
 *
 * For each pair of microphones i > j with the spectra x_i and x_j behind their cancellers, the cross-spectrum
 * without its magnitude, averaged over blocks with near-end speech:
 *
 *   c_ij = average of w x_i conj(x_j) / |x_i x_j|
 *   P(u) = sum over pairs and bins of the real part of c_ij exp(-j omega (p_i - p_j) u / v)
 *
 * w is 1, or nearly 0 in bins in which noise or residual echo may dominate; u is the unit vector towards a
 * far source in the plane of the microphones, p_i the place of a microphone, v the speed of sound. P is
 * computed every 5 degrees, 8 directions in each block, so that all are known after 90 ms. The largest one,
 * by a parabola through it and its neighbours, is the direction.
 *
 * Microphones in one line receive the same from two directions that mirror each other at the line: the one in
 * front is taken, or on the right of a line that points forward. The height of the talker is not estimated:
 * one above a line seems to be nearer to the front.
 *
 * With 4 microphones at 16 kHz it takes 9 thousand instructions of a frame on arm64, a hundredth of the
 * chain.
 *
 * Tried and left out: w as the beam's probability of speech (array.h), which is near 1 in all bins while the
 * suppressor is certain of speech: with a fan 5 dB below the talker the direction was the fan's.
 */
#ifndef APMPI_DIRECTION_H
#define APMPI_DIRECTION_H

#include <stdint.h>

#include "base/arena.h"

enum { DIRECTION_GRID = 72 }; /* directions at which P is computed, 5 degrees apart */

static const float DIRECTION_UNKNOWN = -1.0f;

typedef struct {
    int channels, pairs;
    int stride;                     /* floats from the spectrum of a channel to that of the next one */
    int count;                      /* bins in use, a multiple of KERNEL_LANES */
    float quiet_power;              /* of a bin: quantisation noise */
    int placed;                     /* 0 or 1: places are given */
    uint8_t behind[DIRECTION_GRID]; /* 1: behind the line that all microphones are in */
    float *unit_re, *unit_im;       /* scratch, a row of `count` for each channel: x / |x| */
    float *weight;                  /* scratch: w */
    float *average;                 /* c: real parts, a row for each pair, then imaginary parts */
    float *steering;                /* exp(j omega (p_i - p_j) u / v), laid out as c, for half of the grid */
    float power[DIRECTION_GRID];    /* P */
    int next;                       /* direction in the first half of the grid that is computed next */
    int blocks;                     /* since the reset, saturating */
    int age_blocks;                 /* since a direction was found, saturating */
    float speech_blocks;            /* sum of speech probabilities since P was searched */
    float degrees;                  /* clockwise from +y seen from above, 0..360, or DIRECTION_UNKNOWN */
} direction_t;

/* One block. */
typedef struct {
    const float *re, *im;              /* spectra of all channels, `stride` floats each */
    const float *power, *echo, *noise; /* of the beam by bin: all, expected residual echo, noise floor */
    float speech_probability;          /* of near-end speech in the block */
} direction_input_t;

/* channels: 2..8; bins and stride: of a spectrum; window_power: sum of the squared analysis window. */
void direction_init(direction_t *direction, int channels, int bins, int stride, float window_power,
                    arena_t *arena);
/* The direction is unknown; the places stay. */
void direction_reset(direction_t *direction);
/* positions_mm: x to the right and y forward, for each channel; not all the same. */
void direction_place(direction_t *direction, const float (*positions_mm)[2]);
/* Does nothing without places. */
void direction_process(direction_t *direction, const direction_input_t *input);

#endif
