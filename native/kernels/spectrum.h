/* Loops over the bins of split spectra: the hot arithmetic of every stage. Arrays have `n` entries, are not aliased unless said, and
 * may be padded by their owners so that n is a multiple of 4. */
#ifndef APMPI_KERNELS_SPECTRUM_H
#define APMPI_KERNELS_SPECTRUM_H

/* Bins of a frame of 2*hop samples, rounded up to whole vectors of 4; the padding holds zeros. */
static inline int spectrum_stride(int hop) { return (hop + 1 + 3) & ~3; }

/* power = |x|^2 */
void spectrum_power(int n, const float *re, const float *im, float *power);
/* acc += x * w, complex */
void spectrum_mac(int n, const float *xr, const float *xi, const float *wr, const float *wi, float *acc_r, float *acc_i);
/* acc += a * b, real */
void spectrum_mac_real(int n, const float *a, const float *b, float *acc);
/* state += rate * (x - state) */
void spectrum_smooth(int n, float rate, const float *x, float *state);

#endif
