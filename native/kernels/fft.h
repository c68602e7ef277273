/* Real FFT of frames of 20 ms: 160, 320, 640 and 960 samples at 8, 16, 32 and 48 kHz.
 *
 * Spectra are split: re[0..bins-1], im[0..bins-1], bins = size/2 + 1. The forward transform is unscaled, the
 * inverse has the factor 1/size, so that the two in turn give the input. A complex FFT of half the size by
 * Stockham's self-sorting passes (C. Van Loan, "Computational frameworks for the fast Fourier transform",
 * 1992, ch. 1.7): radix 4 first, then 4, 8 and 3 as the size needs, 5 last; then the usual split of the
 * spectra of even and odd samples. The transforms themselves are kernels, see kernels.h.
 */
#ifndef APMPI_KERNELS_FFT_H
#define APMPI_KERNELS_FFT_H

#include "base/arena.h"

enum { FFT_MAX_MIDDLE_PASSES = 6 };

typedef struct {
    float *re, *im;
} fft_split_t;

typedef struct {
    int size; /* real samples: 160 times 2^a 3^b, a = 0 or 2 or more */
    /* of the passes between the first and the last: 3, 4 or 8; 0 ends them */
    int radix[FFT_MAX_MIDDLE_PASSES + 1];
    /* per pass but the last: radix - 1 factors for each of its butterfly groups */
    float *twiddle_re, *twiddle_im;
    float *split_re, *split_im; /* exp(-2 pi i k/size), k = 0..size/4 */
    fft_split_t work[2];        /* size/2 each */
} fft_t;

/* Places tables and work space in `arena` and, unless it only measures, fills the tables. A fft_t serves one
 * thread at a time, since the transforms write its work space. */
void fft_init(fft_t *fft, int size, arena_t *arena);

/* x: size samples; re, im: size/2 + 1 each, not overlapping x. */
void fft_forward(const fft_t *fft, const float *x, float *re, float *im);
/* The inverse; im[0] and im[size/2] are taken as 0. */
void fft_inverse(const fft_t *fft, const float *re, const float *im, float *x);

#endif
