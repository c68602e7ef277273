/* Downmix of several channels to mono: what is done for every sample. The treatment of the channels is
 * decided from its figures, at most ten times a second, in apmpi/cards/downmix.py. */
#ifndef APMPI_CARDS_DOWNMIX_H
#define APMPI_CARDS_DOWNMIX_H

#include <stdint.h>

enum { DOWNMIX_CHANNELS_MAX = 8 };

typedef struct {
    int channels;
    int step;   /* samples that are averaged before channels are compared */
    int frames; /* measured since downmix_forget() */
    /* Covariances of the first differences of the averaged samples, [channels][channels]: of the last frame,
     * and summed since downmix_forget(). The spectrum of the differences is about white for speech. */
    double last[DOWNMIX_CHANNELS_MAX * DOWNMIX_CHANNELS_MAX];
    double sum[DOWNMIX_CHANNELS_MAX * DOWNMIX_CHANNELS_MAX];
    int clipped[DOWNMIX_CHANNELS_MAX];       /* 1: full scale was reached since downmix_forget() */
    float weights[DOWNMIX_CHANNELS_MAX];     /* of the frame before */
    float new_weights[DOWNMIX_CHANNELS_MAX]; /* of the next frame, which fades to them */
} downmix_t;

/* Prepares a downmix of which channels, step and the weights have been set. */
void downmix_forget(downmix_t *downmix);

/* Takes a frame, `samples` per channel, as it was before processing: notes the channels at full scale. */
void downmix_note_clipping(downmix_t *downmix, const int16_t *frame, int samples);

/* Takes a frame and adds its covariance. */
void downmix_measure(downmix_t *downmix, const int16_t *frame, int samples);

/* Writes the weighted sum of the channels, mono. */
void downmix_mix(downmix_t *downmix, const int16_t *frame, int samples, int16_t *mono);

#endif
