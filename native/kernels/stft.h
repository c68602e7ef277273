/* Low-delay analysis and synthesis: frames of 2*hop samples every hop, overlap of only hop/2.
 *
 * The analysis window rises over 3/4 of the frame and falls over the last quarter; the synthesis window
 * touches only the last 3/4 of the frame, so that a sample leaves hop/2 after it came (5 ms) instead of hop.
 * Their product is a raised-cosine crossfade of hop/2 around a flat hop/2: unmodified spectra give the input
 * back exactly, delayed by hop/2. (Mauler & Martin 2007 use the same freedom.)
 */
#ifndef APMPI_KERNELS_STFT_H
#define APMPI_KERNELS_STFT_H

#include "kernels/fft.h"

typedef struct {
    int hop;
    float *analysis;  /* 2*hop */
    float *synthesis; /* 2*hop, zero in the first half hop */
    float *frame;     /* 2*hop, scratch */
} stft_t;

void stft_init(stft_t *stft, int hop, arena_t *arena);

/* Spectrum of the last 2*hop samples (history: oldest first). */
void stft_analyse(const stft_t *stft, const fft_t *fft, const float *history, float *re, float *im);

/* Adds the frame to overlap (hop/2 samples, kept between calls, zero at start) and gives hop finished
 * samples. */
void stft_synthesise(const stft_t *stft, const fft_t *fft, const float *re, const float *im, float *overlap,
                     float *out);

static inline int stft_latency_samples(int hop) { return hop / 2; }

#endif
