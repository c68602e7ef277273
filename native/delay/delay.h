/* Delay of the echo behind the far end, in 10 ms blocks: where the coherence of microphone and far end peaks.
 *
 * C. Knapp, G. Carter, "The generalized correlation method for estimation of time delay", IEEE Trans. ASSP 24
 * (1976), in its magnitude form. For each lag the cross-spectrum of the whitened far end and microphone is
 * averaged over about half a second of far-end sound at that lag. The lag's score is its squared magnitude,
 * summed over the bins of the speech band, over the powers of both in the same blocks. A lag is a whole
 * block: the phase slope within the block is not needed, the canceller's path covers it. Nothing is learned
 * while the far end is silent.
 *
 * An echo in double talk, or one of wandering phase (a device's own clock or processing), seldom stands out
 * within half a second. But it stands out a little again and again, while the chance maxima are elsewhere
 * each time. So a second decision is by each score over the mean of all, averaged over seconds.
 */
#ifndef APMPI_DELAY_H
#define APMPI_DELAY_H

#include "base/arena.h"
#include "base/tape.h"

enum { DELAY_UNKNOWN = -1 };

typedef struct {
    int lags;                     /* 0 .. lags-1 blocks are searched */
    int first_bin, bins;          /* the speech band of a 20 ms frame's spectrum */
    int newest;                   /* ring position of lag 0 */
    size_t array_bytes;           /* of all arrays, which are contiguous from far_re on */
    float *far_re, *far_im;       /* ring: whitened far end, lags * bins */
    float *activity;              /* ring: mean whitened power of the far end */
    float *cross_re, *cross_im;   /* by lag: averaged cross-spectrum, lags * bins */
    float *far_power, *mic_power; /* averages for the whitening, bins */
    float *mic_re, *mic_im;       /* whitened microphone, bins; scratch */
    /* By lag, averaged over the same blocks as its cross-spectrum: whitened powers, and 1 per block, which is
     * how complete the averages are, 0..1. */
    float *far_mean, *mic_mean, *fill;
    float *score;               /* by lag: coherence times fill^2, 0..1 */
    float *contrast;            /* by lag: score over the mean of all scores, averaged over seconds */
    float contrast_blocks;      /* in that average, up to CONTRAST_BLOCKS */
    float active_blocks;        /* of far-end sound in the averages, up to 1 / LEVEL_RATE */
    int candidate, persistence; /* the lag that leads now, and for how many blocks it has */
    int best;                   /* the accepted lag; DELAY_UNKNOWN before there is one */
    float confidence;           /* 0..1: how far the leading lag stands out now */
} delay_t;

/* lags: the longest delay searched, in blocks of 10 ms, plus one. */
void delay_init(delay_t *delay, int lags, arena_t *arena);
void delay_reset(delay_t *delay);

/* Spectrum of the next far-end block: a 20 ms frame, bins of 50 Hz up to at least 3500 Hz. One belongs to
 * each microphone block; for one more or one less, call delay_slip(). */
void delay_push(delay_t *delay, const float *far_re, const float *far_im);
/* Undoes the pushes of the last `blocks` blocks. Averages and lags stay. */
void delay_rewind(delay_t *delay, int blocks);
/* Moves all that is known of each lag to lag + blocks; blocks: -1 or 1. */
void delay_slip(delay_t *delay, int blocks);
/* Spectrum of the microphone block that belongs to the newest far-end block. Updates best and confidence. */
void delay_process(delay_t *delay, const float *mic_re, const float *mic_im);

/* Keeps the accepted lag; the confidence is measured anew. */
void delay_keep(delay_t *delay, tape_t *tape);

#endif
