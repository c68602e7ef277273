/* Low-delay STFT: frames of 2*hop samples every hop, which overlap by only `fade` samples in the output.
 *
 * The analysis window rises over 2*hop - fade samples and falls over the last `fade`. The synthesis window is
 * 0 in the first hop - fade, so that the output is `fade` late instead of hop. Their product is a
 * raised-cosine crossfade of `fade` on both sides of a constant: unmodified spectra give the input exactly,
 * delayed by `fade`. Asymmetric window pairs for this purpose: D. Mauler, R. Martin, "A low delay, variable
 * resolution, perfect reconstruction spectral analysis-synthesis system for speech enhancement", EUSIPCO
 * 2007.
 */
#ifndef APMPI_KERNELS_STFT_H
#define APMPI_KERNELS_STFT_H

#include "kernels/fft.h"

typedef struct {
    int hop;
    int fade;
    float *analysis;  /* 2*hop */
    float *synthesis; /* 2*hop, zero in the first hop - fade */
    float *frame;     /* 2*hop, scratch */
} stft_t;

/* fade: 1..hop/2 */
void stft_init(stft_t *stft, int hop, int fade, arena_t *arena);

/* Spectrum of the last 2*hop samples (history, oldest first); re, im: hop + 1 each. */
void stft_analyse(const stft_t *stft, const fft_t *fft, const float *history, float *re, float *im);

/* Writes hop finished samples to out, `fade` late. overlap: `fade` samples of the frame before, 0 at the
 * start; replaced by this frame's. */
void stft_synthesise(const stft_t *stft, const fft_t *fft, const float *re, const float *im, float *overlap,
                     float *out);

#endif
