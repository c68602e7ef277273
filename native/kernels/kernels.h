/* The arithmetic under every stage, as a table of functions: loops over the bins of split spectra, the real
 * FFT, dense layers, elementary functions.
 *
 * The text of a kernel is written once (text.h and what it includes), in terms of a vector V and a few
 * operations on it. Each variant compiles that text for another V:
 *
 *   scalar.c   one float: the reference of all tests
 *   neon.c     four floats, on 64-bit ARM
 *   sse2.c     four floats, on x86-64
 *   avx2.c     eight floats, on x86-64 processors that have AVX2 and FMA
 *
 * Intrinsics are in the latter three and in x86_fours.h, nowhere else. Variants differ by rounding at most.
 *
 * Arrays are float, do not overlap unless stated, and need no alignment beyond a float's (64 bytes is the
 * fastest). n is a multiple of KERNEL_LANES, 0 included: owners of spectra pad them with zeros, see
 * spectrum_stride(). A complex array is a pair of arrays, re and im. Kernels take plain arrays, not structs,
 * so that each can be declared `restrict`. */
#ifndef APMPI_KERNELS_KERNELS_H
#define APMPI_KERNELS_KERNELS_H

#include <stdint.h>

#include "kernels/fft.h"

/* Floats in a vector of the widest variant. */
#ifdef __x86_64__
enum { KERNEL_LANES = 8 };
#else
enum { KERNEL_LANES = 4 };
#endif
/* count rounded up to whole vectors */
#define WHOLE_VECTORS(count) (((count) + KERNEL_LANES - 1) / KERNEL_LANES * KERNEL_LANES)

typedef struct {
    const char *name;

    /* power = |x|^2 */
    void (*power)(int n, const float *re, const float *im, float *power);
    /* cross = real part of a * conj(b) */
    void (*cross)(int n, const float *ar, const float *ai, const float *br, const float *bi, float *cross);
    /* out[i] = sum of tap[t] x[i + t], t < taps; x: n + taps - 1 */
    void (*convolve)(int n, int taps, const float *tap, const float *x, float *out);

    /* Partitioned filters: `rows` spectra of n bins each. Row r of the far end x is at r * x_step (negative
     * where a newer row lies higher), all others at r * n. filter_*: echo += sum over rows of x * w, complex;
     * explained += sum of v |x|^2, the part of the error's power that the filter's variance v explains.
     * kalman: v per bin; lms: one v per row. */
    void (*filter_kalman)(int n, int rows, int x_step, const float *xr, const float *xi, const float *wr,
                          const float *wi, const float *v, float *echo_r, float *echo_i, float *explained);
    void (*filter_lms)(int n, int rows, int x_step, const float *xr, const float *xi, const float *wr,
                       const float *wi, const float *v, float *echo_r, float *echo_i, float *explained);
    /* w += v conj(x) g. kalman: then v loses the information of the block and gains the path's process noise,
     * v = keep (v - v^2 |x|^2 weight / 2) + (1 - keep) |w|^2 (Kuech, Mabande, Enzner 2014, eq. 17 to 20; 1/2
     * is hop over frame). */
    void (*adapt_kalman)(int n, int rows, int x_step, const float *xr, const float *xi, const float *gr,
                         const float *gi, const float *weight, float keep, float *wr, float *wi, float *v);
    void (*adapt_lms)(int n, int rows, int x_step, const float *xr, const float *xi, const float *gr,
                      const float *gi, const float *v, float *wr, float *wi);

    /* The Kalman filter of two references, the middle x with the path w and the side, whose spectra lie
     * x_side floats after x and whose paths lie w_side floats after w. v: variances of the errors of w and of
     * the side's path, and their covariance, a real number, of which keep_covariance is kept; each w_side
     * floats after the one before. The gain is (v conj(x)) with the matrix v and both references in x. */
    void (*filter_pair)(int n, int rows, int x_step, int x_side, int w_side, const float *xr, const float *xi,
                        const float *wr, const float *wi, const float *v, float *echo_r, float *echo_i,
                        float *explained);
    void (*adapt_pair)(int n, int rows, int x_step, int x_side, int w_side, const float *xr, const float *xi,
                       const float *gr, const float *gi, const float *weight, float keep,
                       float keep_covariance, float *wr, float *wi, float *v);

    /* Average of a cross-spectrum: c = keep c + conj(x) m. Returns the sum of |c|^2. */
    float (*coherence)(int n, float keep, const float *xr, const float *xi, const float *mr, const float *mi,
                       float *cr, float *ci);

    /* Hermitian matrices by bin, see hermitian.h; 1 <= rows <= HERMITIAN_MAX_ROWS, vectors x of `rows` rows
     * of n floats. average: matrix += rate (x x^H - matrix), with a rate per bin. solve: x becomes the
     * solution y of matrix * y = x; the matrix is positive definite, or all 0, which gives no numbers. */
    void (*hermitian_average)(int n, int rows, const float *xr, const float *xi, const float *rate,
                              float *matrix);
    void (*hermitian_solve)(int n, int rows, const float *matrix, float *xr, float *xi);

    /* out = a * b, real; out may be a or b */
    void (*multiply)(int n, const float *a, const float *b, float *out);
    /* sum of a * b; they may be the same */
    float (*dot)(int n, const float *a, const float *b);
    /* sum of x * (low + part (high - low)): a filter between two rows of a table, 0 <= part < 1 */
    float (*interpolate)(int n, const float *x, const float *low, const float *high, float part);
    /* Four outputs one sample apart, from the same two rows: out[i] is interpolate() at x + i with
     * part + i step, which may leave 0..1; x: n + 3; n > 0 */
    void (*interpolate_four)(int n, const float *x, const float *low, const float *high, float part,
                             float step, float *out);

    /* Elementary functions; out may be in.
     *   exp      in is limited to -87 .. 88; relative error below 2.5e-7
     *   log      natural, of 1.2e-38 and more; absolute error below 4e-6, between 1/2 and 2 below 1e-7
     *   sigmoid  1 / (1 + e^-x); absolute error below 1.5e-7
     *   tanh     absolute error below 3e-7 */
    void (*exp)(int n, const float *in, float *out);
    void (*log)(int n, const float *in, float *out);
    void (*sigmoid)(int n, const float *in, float *out);
    void (*tanh)(int n, const float *in, float *out);

    /* Log-spectral amplitude gain of Y. Ephraim, D. Malah, IEEE Trans. ASSP 33 (1985):
     * w exp(E1(w posterior) / 2), at most 1. wiener: w, 0..1; posterior: power over the noise's, 0 and more.
     * Relative error below 1e-5. out may be an input. */
    void (*log_spectral_gain)(int n, const float *wiener, const float *posterior, float *out);

    /* y[o] += step * scale[o] * sum_i weight[o * inputs + i] * x[i]; inputs: a multiple of 16; see dense.h */
    void (*dense)(int outputs, int inputs, const int8_t *weight, const float *scale, const int8_t *x,
                  float step, float *y);

    /* see fft.h */
    void (*fft_forward)(const fft_t *fft, const float *x, float *re, float *im);
    void (*fft_inverse)(const fft_t *fft, const float *re, const float *im, float *x);
} kernels_t;

extern const kernels_t kernels_scalar;
#ifdef __aarch64__
extern const kernels_t kernels_neon;
#endif
#ifdef __x86_64__
extern const kernels_t kernels_sse2, kernels_avx2;
#endif

/* All variants of this architecture, the most demanding first, the scalar one last, then NULL. */
extern const kernels_t *const kernel_variants[];

/* The variants that this processor can run, the best first, then NULL. 64-bit ARM always has NEON, x86-64
 * always SSE2. */
static inline const kernels_t *const *kernels_here(void)
{
#ifdef __x86_64__
    return kernel_variants + !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#else
    return kernel_variants;
#endif
}

/* The best variant of this processor, used by every stage. */
static inline const kernels_t *kernels(void) { return *kernels_here(); }

#endif
