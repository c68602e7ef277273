/* How many 10 ms blocks the echo trails the far end: where the coherence between microphone and far end
 * peaks.
 *
 * For every lag, the cross-spectrum of the whitened far end and microphone is averaged over about half a
 * second of far-end speech at that lag; its squared magnitude, summed over the bins of the speech band, over
 * the powers of both in the same blocks is the generalised cross-correlation of C. Knapp, G. Carter, "The
 * generalized correlation method for estimation of time delay", IEEE Trans. ASSP 24 (1976), in its magnitude
 * form: a lag is a whole block, so the phase slope within the block is not needed (the canceller covers it).
 * Nothing is learned while the far end is silent.
 * An echo under double talk, or one whose phases wander (a device's own clock or processing), seldom stands
 * out in half a second. But it stands out a little again and again, where chance is elsewhere each time: how
 * each lag compares with the mean of all is averaged over seconds for a second opinion.
 */
#ifndef APMPI_DELAY_H
#define APMPI_DELAY_H

#include "base/arena.h"
#include "base/tape.h"

typedef struct {
    int lags;                     /* 0 .. lags-1 blocks are searched */
    int first_bin, bins;          /* the speech band, of a 20 ms frame's spectrum */
    int newest;                   /* ring position of lag 0 */
    float *far_re, *far_im;       /* whitened far end, lags * bins */
    float *cross_re, *cross_im;   /* averaged cross-spectrum, lags * bins */
    float *far_power, *mic_power; /* long averages for the whitening, bins */
    float *mic_re, *mic_im;       /* whitened microphone, bins; scratch */
    /* by lag: whitened power per bin, averaged over the same blocks as its cross-spectrum */
    float *far_mean, *mic_mean;
    float *heard_by_lag;        /* 0..1: how full that average is */
    float *score;               /* coherence by lag, 0..1, less where little was heard */
    float *usual;               /* by lag: score over the mean of all scores, averaged over seconds */
    float usual_blocks;         /* in that average, saturating */
    float *activity;            /* ring: whitened far-end power by lag */
    float heard;                /* blocks of far-end activity in the averages, saturating */
    int candidate, persistence; /* the lag that leads now, and for how many blocks */
    int best;                   /* blocks; -1: not known yet */
    float confidence;           /* 0..1: how far the leading lag stands out now */
} delay_t;

/* lags: the longest delay searched, in blocks of 10 ms, plus one. */
void delay_init(delay_t *delay, int lags, arena_t *arena);
void delay_reset(delay_t *delay);

/* Spectrum of the next far-end block (20 ms frame, at least 3500 Hz of bins). One belongs to every microphone
 * block; where one more or one less comes, delay_slip() tells. */
void delay_push(delay_t *delay, const float *far_re, const float *far_im);
/* The newest `blocks` far-end blocks never were. What was learned of levels and lags stays. */
void delay_rewind(delay_t *delay, int blocks);
/* What was `lag` is lag + blocks from now on, -1 or 1. */
void delay_slip(delay_t *delay, int blocks);
/* Spectrum of the microphone block that belongs to the newest far-end block. After it `best` and
 * `confidence` are up to date. */
void delay_process(delay_t *delay, const float *mic_re, const float *mic_im);

/* What is worth keeping over a restart: the believed lag. Its confidence is measured anew. */
void delay_keep(delay_t *delay, tape_t *tape);

#endif
