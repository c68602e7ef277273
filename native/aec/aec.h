/* Linear echo canceller: a partitioned-block frequency-domain Kalman filter, one microphone channel.
 *
 * G. Enzner, P. Vary, "Frequency-domain adaptive Kalman filter for acoustic echo control in hands-free telephones", Signal
 * Processing 86 (2006); partitioned as in F. Kuech, E. Mabande, G. Enzner, "State-space architecture of the partitioned-block-based acoustic
 * echo controller", ICASSP 2014 (diagonal covariance over partitions and bins).
 * Each bin of each 10 ms partition of the echo path is a state with a mean (the filter) and a variance (how wrong it may be). The
 * near end's power is part of the model, so the filter holds still by itself while the near end talks; there is no double-talk detector.
 */
#ifndef APMPI_AEC_H
#define APMPI_AEC_H

#include <stddef.h>

#include "aec/reference.h"

typedef struct {
    int hop, stride, partitions;
    int delay_blocks;       /* partition 0 hears the far end of this many blocks ago */
    int next_constraint;    /* partition whose tail is cut next */
    float *w_re, *w_im;     /* echo path, partitions * stride */
    float *variance;        /* of its error, partitions * stride */
    float *fast_re, *fast_im; /* the fast filter's echo path, partitions * stride */
    float *fast_near_power;
    float main_error, fast_error, mic_power; /* smoothed block powers */
    float *near_power;      /* near end and noise per bin, smoothed */
    float *echo_re, *echo_im, *error_re, *error_im, *gain_re, *gain_im, *weight; /* per bin, of the last frame */
    float *frame;           /* 2*hop scratch */
} aec_t;

void aec_init(aec_t *aec, int hop, int partitions, arena_t *arena);
void aec_reset(aec_t *aec);

/* Moves the filter's window on the far end, 0 <= blocks, blocks + partitions <= ref->blocks. The echo stayed where it is and the window was
 * wrong: what was learned keeps its lags. */
void aec_set_delay(aec_t *aec, int blocks);
/* The echo itself moved by as much as the window: what was learned goes with it. */
void aec_follow_delay(aec_t *aec, int blocks);

/* Lag in blocks at which the learned echo path is strongest. */
int aec_peak_blocks(const aec_t *aec);

/* The far end moved on by a block without the microphone: the same blocks now lie one lag later. */
void aec_advance(aec_t *aec, int most_blocks);

/* mic: hop samples. echo: the estimate of the echo in them; error = mic - echo. Not overlapping. */
void aec_process(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *mic, float *echo, float *error);

#endif
