/* Linear echo canceller: a partitioned-block frequency-domain Kalman filter, one microphone channel.
 *
 * G. Enzner, P. Vary, "Frequency-domain adaptive Kalman filter for acoustic echo control in hands-free
 * telephones", Signal Processing 86 (2006); partitioned as in F. Kuech, E. Mabande, G. Enzner, "State-space
 * architecture of the partitioned-block-based acoustic echo controller", ICASSP 2014, with a diagonal
 * covariance over partitions and bins. Each bin of each 10 ms partition of the echo path is a state with a
 * mean (the filter) and a variance (how wrong it may be). The near end's power is part of the model, so the
 * filter holds still by itself while the near end talks; who knows that it does may say so, and the model
 * expects more of it.
 *
 * Beside it runs a fast filter that never grows sure (the same update with the variance held at its prior: a
 * normalised LMS), over the first AEC_FAST_PARTITIONS only. It is worse than the Kalman filter except after
 * the echo path has changed; then it takes the Kalman filter along (the two-path idea of K. Ochiai et al.,
 * IEEE Trans. COM-25, 1977). By then a longer one would be no better: the head of a room's response is what
 * is learned within half a second.
 *
 * Left out: the off-diagonal covariance; a constraint of every partition in every block (they take turns).
 * Tried and left out, no better on recorded speech: pre-emphasis of both signals; near_power without what the
 * filter's uncertainty explains (the expectation step of S. Malik, G. Enzner, IEEE Trans. ASLP 20 (2012)).
 */
#ifndef APMPI_AEC_H
#define APMPI_AEC_H

#include <stddef.h>

#include "aec/reference.h"
#include "base/tape.h"

enum { AEC_FAST_PARTITIONS = 10 };

typedef struct {
    int partitions;
    int next_constraint; /* partition whose tail is cut next */
    float *re, *im;      /* echo path by partition and bin, partitions * stride */
    float *near_power;   /* what is not echo, per bin, smoothed */
    float error;         /* energy of a block's error, smoothed */
} aec_filter_t;

typedef struct {
    int hop, stride, partitions;
    int delay_blocks; /* partition 0 hears the far end of this many blocks ago */
    aec_filter_t kalman, fast;
    float *variance; /* of the Kalman filter's error, partitions * stride */
    /* expected power of the echo path by partition, sums to 1 (0 dB from far end to echo) */
    float *prior;
    float mic;                      /* energy of a block of the microphone, smoothed */
    int diverged, divergences;      /* the estimate adds power now; how often that began */
    float lag_sum, lag_information; /* of the last block, for drift.h; 0 where less than 3 dB of it go */
    /* of the last block, for saturation.h: of estimate times error, and of the estimate, whitened */
    float block_cross, block_power;
    float shared, claimed; /* whitened, averaged: estimate times microphone, and the estimate's power */
    float *echo_re, *echo_im, *sum_re, *sum_im, *weight; /* per bin, scratch */
    float *frame, *fast_echo, *fast_error;               /* 2*hop, hop and hop, scratch */
} aec_t;

void aec_init(aec_t *aec, int hop, int partitions, arena_t *arena);
void aec_reset(aec_t *aec);

/* Moves the filter's window on the far end, 0 <= blocks, blocks + partitions <= ref->blocks. The echo stayed
 * where it is and the window was wrong: what was learned keeps its lags. */
void aec_set_delay(aec_t *aec, int blocks);
/* The echo itself moved by as much as the window: what was learned goes with it. */
void aec_follow_delay(aec_t *aec, int blocks);
/* The far end moved on by a block without the microphone (1), or the microphone without the far end (-1):
 * what lay at a lag lies one further or nearer now. The window goes along within 0 .. most_blocks. */
void aec_slip(aec_t *aec, int blocks, int most_blocks);
/* Lag in blocks at which the learned echo path is strongest. */
int aec_peak_blocks(const aec_t *aec);

/* The echo came to be later, with respect to the window, by so many samples, 0 .. hop - 1. */
void aec_delay_path(aec_t *aec, const fft_t *fft, int samples);

/* mic: hop samples. echo: the estimate of the echo in them; error = mic - echo. None overlap. Nothing is
 * learned. */
void aec_predict(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *mic, float *echo,
                 float *error);
/* What the block for which aec_predict() gave this error says of the loudspeaker and of what is no echo; the
 * path stays as it is. */
void aec_observe(aec_t *aec, const fft_t *fft, const float *error);
/* What can be learned of the block for which aec_predict() gave this error: not to be called where something
 * of its far end is missing. near_speaks: 0..1, how sure it is that somebody speaks here; 0 where that is not
 * known. */
void aec_learn(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *mic, float near_speaks,
               const float *error);

/* 0..1: whether what was estimated is in the microphone at all. The share of a true estimate is 1 or, while
 * it is learned, more; an estimate of an echo that isn't there has little in common with what the microphone
 * hears. */
float aec_trust(const aec_t *aec);

/* What is worth keeping over a restart: echo path, how sure it is, the near end's power, and the window, at
 * most most_blocks late. The fast filter begins with the Kalman filter's path. */
void aec_keep(aec_t *aec, int most_blocks, tape_t *tape);

#endif
