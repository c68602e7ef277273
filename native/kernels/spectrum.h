/* Loops over the bins of split spectra: the hot arithmetic of every stage. Arrays have `n` entries, are not aliased unless said, and
 * may be padded by their owners so that n is a multiple of 4. */
#ifndef APMPI_KERNELS_SPECTRUM_H
#define APMPI_KERNELS_SPECTRUM_H

/* Bins of a frame of 2*hop samples, rounded up to whole vectors of 4; the padding holds zeros. */
static inline int spectrum_stride(int hop) { return (hop + 1 + 3) & ~3; }

/* End of the band that begins at bin `first` of a 20 ms frame (50 Hz a bin): 200 Hz up to 1 kHz, then a fifth of the frequency, about
 * the ear's. */
static inline int spectrum_band_end(int first) { return first + (first < 20 ? 4 : first / 5); }

/* power = |x|^2 */
void spectrum_power(int n, const float *re, const float *im, float *power);
/* cross = real part of a * conj(b) */
void spectrum_cross(int n, const float *ar, const float *ai, const float *br, const float *bi, float *cross);
/* acc += x * w, complex */
void spectrum_mac(int n, const float *xr, const float *xi, const float *wr, const float *wi, float *acc_r, float *acc_i);
/* acc += a * b, real */
void spectrum_mac_real(int n, const float *a, const float *b, float *acc);
/* acc += scale * a, real */
void spectrum_add_scaled(int n, float scale, const float *a, float *acc);
/* w += step * conj(x) * g, complex; step the same for all bins */
void spectrum_lms(int n, const float *xr, const float *xi, const float *gr, const float *gi, float step, float *wr, float *wi);
/* The diagonal Kalman update of one partition: w += v conj(x) g, then the variance loses what the block told and gains what the path wanders:
 * v = keep (v - v^2 |x|^2 weight / 2) + (1 - keep) |w|^2 (Kuech, Mabande, Enzner 2014, eq. 17 to 20; 1/2 = hop over frame). */
void spectrum_kalman(int n, const float *xr, const float *xi, const float *x2, const float *gr, const float *gi, const float *weight,
                     float keep, float *wr, float *wi, float *v);

#endif
