/* Low-delay STFT: frames of 2*hop samples every hop, which overlap by only hop/2 in the output.
 *
 * The analysis window rises over 3/4 of the frame and falls over the last quarter. The synthesis window is 0
 * in the first quarter, so that the output is hop/2 (5 ms) late instead of hop. Their product is a
 * raised-cosine crossfade of hop/2 on both sides of a constant hop/2: unmodified spectra give the input
 * exactly, delayed by hop/2. Asymmetric window pairs for this purpose: D. Mauler, R. Martin, "A low delay,
 * variable resolution, perfect reconstruction spectral analysis-synthesis system for speech enhancement",
 * EUSIPCO 2007.
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

/* Spectrum of the last 2*hop samples (history, oldest first); re, im: hop + 1 each. */
void stft_analyse(const stft_t *stft, const fft_t *fft, const float *history, float *re, float *im);

/* Writes hop finished samples to out. overlap: hop/2 samples of the frame before, 0 at the start; replaced by
 * this frame's. */
void stft_synthesise(const stft_t *stft, const fft_t *fft, const float *re, const float *im, float *overlap,
                     float *out);

static inline int stft_latency_samples(int hop) { return hop / 2; }

#endif
