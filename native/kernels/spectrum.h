/* Layout of split spectra of 20 ms frames, 50 Hz per bin, and their bands. */
#ifndef APMPI_KERNELS_SPECTRUM_H
#define APMPI_KERNELS_SPECTRUM_H

#include "kernels/kernels.h"

/* Floats of a spectrum: the hop + 1 bins of a frame of 2*hop samples, rounded up to whole vectors; the
 * padding holds zeros. */
static inline int spectrum_stride(int hop) { return WHOLE_VECTORS(hop + 1); }

/* End of the band that begins at bin `first`: 200 Hz wide up to 1 kHz, then a fifth of the frequency, about
 * the ear's critical bands. */
static inline int spectrum_band_end(int first) { return first + (first < 20 ? 4 : first / 5); }

/* x[from] + ... + x[to - 1], in four partial sums, which become a vector's lanes where bands are wide. */
static inline float spectrum_sum(const float *x, int from, int to)
{
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f}, rest = 0.0f;
    for (; from + 4 <= to; from += 4)
        for (int j = 0; j < 4; j++)
            sum[j] += x[from + j];
    for (; from < to; from++)
        rest += x[from];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]) + rest;
}

#endif
