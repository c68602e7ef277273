/* Split spectra of 20 ms frames, 50 Hz a bin: how they are laid out and divided into bands. */
#ifndef APMPI_KERNELS_SPECTRUM_H
#define APMPI_KERNELS_SPECTRUM_H

#include "kernels/kernels.h"

/* Bins of a frame of 2*hop samples, rounded up to whole vectors; the padding holds zeros. */
static inline int spectrum_stride(int hop) { return WHOLE_VECTORS(hop + 1); }

/* End of the band that begins at bin `first`: 200 Hz up to 1 kHz, then a fifth of the frequency, about the ear's. */
static inline int spectrum_band_end(int first) { return first + (first < 20 ? 4 : first / 5); }

#endif
