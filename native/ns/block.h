/* One block of 10 ms as the files of ns/ receive it, and the assumptions that several of them share. */
#ifndef APMPI_NS_BLOCK_H
#define APMPI_NS_BLOCK_H

#include "kernels/levels.h"

/* Margin on the expected residual echo, whose peaks lie about 3 dB above it (measured on loudspeakers with
 * distortion and in rooms with reverberation times of 0.3 to 1 s). */
static const float ECHO_MARGIN = 2.0f;
/* Largest share of residual echo, with its margin, in a power from which the noise is estimated. */
static const float MOST_ECHO = 0.5f;
/* Minimum of a power over no blocks; above any power of a block. */
static const float NO_MINIMUM = 1e9f;
/* Smoothing per block of powers whose minimum is taken, when they fall: a pause of 50 ms lowers the minimum.
 */
static const float SMOOTH_FALL_RATE = 0.5f;
/* The same when they rise: a click hardly changes the smoothed power. */
static const float SMOOTH_RISE_RATE = 0.2f;

/* Gains by bin of a network, 0..1, on top of the statistical one. */
typedef struct {
    const float *speech;      /* keeps near-end speech */
    const float *rest;        /* keeps near-end speech and noise */
    float speech_probability; /* of near-end speech in the block, 0..1 */
} ns_mask_t;

/* A block's spectrum after the echo canceller; arrays by bin, `stride` values of which `bins` are used. */
typedef struct {
    float *re, *im;             /* suppressed in place */
    const float *power;         /* of that spectrum */
    const float *echo;          /* expected power of the residual echo in it */
    const ns_mask_t *mask;      /* NULL: none */
    float canceller_confidence; /* 0..1: the echo canceller has converged */
    float echo_confidence;      /* 0..1: the residual echo hardly exceeds `echo`; 1 where there can be none */
} ns_input_t;

/* The input with the state of the stage that all files need. */
typedef struct {
    ns_input_t in;
    int bins, stride;
    float window_power;           /* sum of the squared analysis window: white noise's |X|^2 over its power */
    const float *noise;           /* noise floor: power by bin */
    const struct ns_bands *bands; /* powers by band */
    float gain_min;               /* least gain of noise; 1: residual echo alone is suppressed */
    int mask_valid;               /* 1: there is a mask, and it may attenuate noise, too */
    float *scratch[2];            /* by bin; valid within one function only */
} ns_block_t;

/* QUANTISATION_POWER as the power of a bin. */
static inline float quiet_bin(const ns_block_t *block) { return QUANTISATION_POWER * block->window_power; }

/* First-order recursive average with one rate for rising and one for falling values, 0..1 per block. */
static inline float follow(float average, float value, float rise_rate, float fall_rate)
{
    return average + (value > average ? rise_rate : fall_rate) * (value - average);
}

#endif
