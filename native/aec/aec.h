/* Linear echo canceller of one microphone: a partitioned-block frequency-domain Kalman filter.
 *
 * G. Enzner, P. Vary, "Frequency-domain adaptive Kalman filter for acoustic echo control in hands-free
 * telephones", Signal Processing 86 (2006); partitioned as in F. Kuech, E. Mabande, G. Enzner, "State-space
 * architecture of the partitioned-block-based acoustic echo controller", ICASSP 2014, with a covariance that
 * is diagonal over partitions and bins. For each block, in each bin, with partitions p of 10 ms:
 *
 *   y    = sum_p x_p w_p                                             echo estimate from the far end x
 *   e    = d - y                                                     error: microphone less estimate
 *   D    = sum_p v_p |x_p|^2 + s N + floor                           expected power of the error
 *   w_p += v_p conj(x_p) e / D                                       echo path
 *   v_p  = A^2 (v_p - v_p^2 |x_p|^2 / (2 D)) + (1 - A^2) |w_p|^2     variance of the path's error
 *
 * N, the smoothed |e|^2, makes the near end's power part of the model: the step size v / D falls by itself in
 * double talk. The caller may give the probability of near-end speech, which raises s. aec_predict() computes
 * y and e, aec_learn() the rest.
 *
 * A shadow filter of the first AEC_SHADOW_PARTITIONS runs beside it: the same update with v held at its
 * prior, which makes it a normalised LMS filter. It is worse than the Kalman filter except after a change of
 * the echo path; then its path is copied to the Kalman filter (the two-path method of K. Ochiai et al., IEEE
 * Trans. COM-25, 1977). A longer one would be no better by then: what is learned within half a second is the
 * head of a room's response.
 *
 * Two loudspeakers: x, w and v are vectors and matrices of two references, the middle and the side of their
 * signals (S. Malik, G. Enzner, "Recursive Bayesian control of multichannel acoustic echo cancellation", IEEE
 * Signal Processing Letters 18 (2011)). Where the two are coherent, as with one talker at one place, only a
 * combination of their paths can be learned; the covariance of their errors holds which, so the rest stays
 * unknown, and is learned fast when the talker moves. Of the covariance the real part is kept: with the
 * imaginary part, too, the error is at most 0.2 dB smaller (talkers before two microphones). A side that is
 * silent costs nothing: the middle is then the only reference.
 *
 * Left out: the off-diagonal covariance of partitions and bins; a constraint of every partition in every
 * block (they take turns). Tried and left out, no better on recorded speech: pre-emphasis of both signals; N
 * without what the filter's uncertainty explains (the expectation step of S. Malik, G. Enzner, IEEE Trans.
 * ASLP 20 (2012)).
 */
#ifndef APMPI_AEC_H
#define APMPI_AEC_H

#include <stddef.h>

#include "aec/reference.h"
#include "aec/regression.h"
#include "base/tape.h"

enum { AEC_SHADOW_PARTITIONS = 10 }; /* 100 ms */

typedef struct {
    int partitions;
    int next_constraint; /* the partition to be constrained next */
    float *re, *im;      /* w: echo path, references * partitions * stride */
    float *near_power;   /* N: smoothed power of the error, stride */
    float error_energy;  /* of a block, smoothed */
} aec_filter_t;

typedef struct {
    int hop, stride;  /* samples of a block; floats of a spectrum, see spectrum_stride() */
    int references;   /* 1, or 2: middle and side */
    int paired;       /* 1 while both are in use */
    int partitions;   /* of the Kalman filter */
    int delay_blocks; /* lag of partition 0: the start of the window on the far end */
    aec_filter_t kalman, shadow;
    /* v, partitions * stride; of two references: variance of the middle's path, of the side's, covariance */
    float *variance;
    /* Prior of v: expected power of the echo path by partition; sums to 1, 0 dB from far end to echo. */
    float *prior;
    float mic_energy; /* of a block of the microphone, smoothed */
    int diverged;     /* 1 while the echo estimate adds power */
    int divergences;  /* how often that began */
    /* Of the last block, for drift.h; 0 unless it was learned and its error is 3 dB below the microphone. */
    float lag_sum, lag_information;
    /* Of the last block, whitened, for saturation.h: estimate times error, and the estimate's power. */
    float block_cross, block_power;
    regression_t coherence; /* of microphone and echo estimate, whitened */
    /* Scratch: y, e / D and 1 / D, stride each; 2*hop, hop and hop. */
    float *echo_re, *echo_im, *error_re, *error_im, *weight;
    float *frame, *shadow_echo, *shadow_error;
} aec_t;

/* What the calls for one block share. The arrays have hop samples each and do not overlap. */
typedef struct {
    const reference_t *reference; /* with the block's far end as lag 0 */
    int paired;                   /* 1: middle and side of the reference; 0: the side counts as silent */
    const fft_t *fft;             /* of 2*hop samples */
    const float *mic;             /* d, [-1, 1) */
    float *echo, *error;          /* y and e: written by aec_predict() and read by the others */
} aec_block_t;

/* arena: places the arrays, or measures. references: 1 or 2, as many as the reference_t has; partitions: 1
 * and more. */
void aec_init(aec_t *aec, int hop, int references, int partitions, arena_t *arena);
void aec_reset(aec_t *aec);

/* Sets the window's start, blocks >= 0, blocks + partitions <= reference->blocks, where the echo has stayed
 * where it was: the learned path keeps its lags, partitions that come into the window are unknown. */
void aec_set_delay(aec_t *aec, int blocks);
/* Sets the window's start where the echo has moved by as much: the learned path moves with the window. */
void aec_follow_delay(aec_t *aec, int blocks);
/* Moves every lag by a block: 1 where the far end advanced by a block without the microphone, -1 where the
 * microphone did without the far end. The window moves along within 0 .. most_blocks. */
void aec_slip(aec_t *aec, int blocks, int most_blocks);
/* Delays the path within the window by 0 .. hop - 1 samples, where the echo has come to be later. */
void aec_delay_path(aec_t *aec, const fft_t *fft, int samples);
/* Lag in blocks of the strongest partition of the learned path; delay_blocks before anything was learned. */
int aec_peak_blocks(const aec_t *aec);

/* Writes block->echo and block->error; learns nothing. */
void aec_predict(aec_t *aec, const aec_block_t *block);
/* After aec_predict(): updates near_power, coherence, block_cross and block_power; the path stays. */
void aec_observe(aec_t *aec, const aec_block_t *block);
/* After aec_predict(): updates all state. Not for blocks of which a part of the far end is missing.
 * near_speech: probability of near-end speech; 0 where it is unknown. */
void aec_learn(aec_t *aec, const aec_block_t *block, float near_speech);

/* Confidence that the echo estimate is an echo, 0..1, from its coherence with the microphone. */
float aec_confidence(const aec_t *aec);

/* Keeps the echo path, its variance, the near end's power and the window's start, at most most_blocks. The
 * shadow filter starts with the Kalman filter's path. Of two references, the middle. */
void aec_keep(aec_t *aec, int most_blocks, tape_t *tape);
/* Keeps the path of the side and its variance. The covariance, which rounded might exceed the variances, is
 * reset by aec_keep(). */
void aec_keep_side(aec_t *aec, tape_t *tape);

#endif
