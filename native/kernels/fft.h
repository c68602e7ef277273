/* Real FFT of the frame sizes used here: 160, 320, 640, 960 (20 ms at 8, 16, 32, 48 kHz).
 *
 * Spectra are split: re[0..bins-1], im[0..bins-1], bins = size/2 + 1, unscaled forward, 1/size backward, so that
 * fft_inverse(fft_forward(x)) == x. Complex FFT of half the size by Stockham's self-sorting passes (radix 4, 2, 3, 5;
 * Van Loan 1992, ch. 1.7), then the usual split of the even and odd samples' spectra.
 */
#ifndef APMPI_KERNELS_FFT_H
#define APMPI_KERNELS_FFT_H

#include "kernels/arena.h"

enum { FFT_MAX_PASSES = 8 };

typedef struct {
    int size;                  /* real samples: 2^a 3^b 5^c, a >= 3 */
    int passes;                /* of the complex FFT of size/2 points */
    int radix[FFT_MAX_PASSES]; /* each 4, 2, 3 or 5 */
    float *twiddle_re, *twiddle_im; /* per pass, per butterfly group p: (radix-1) factors */
    float *split_re, *split_im;     /* exp(-2 pi i k/size), k = 0..size/2 */
    float *scratch;                 /* 4 * size/2 floats: two split complex buffers */
} fft_t;

/* Lays out tables and scratch in `arena` and, unless it only measures, fills the tables. One thread per fft_t. */
void fft_init(fft_t *fft, int size, arena_t *arena);

/* x: size samples; re, im: size/2+1 each, not overlapping x. */
void fft_forward(const fft_t *fft, const float *x, float *re, float *im);

/* The other way round; im[0] and im[size/2] are taken as 0. */
void fft_inverse(const fft_t *fft, const float *re, const float *im, float *x);

#endif
