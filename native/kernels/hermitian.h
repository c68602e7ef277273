/* Layout of Hermitian matrices by bin, whose arithmetic are the kernels hermitian_*.
 *
 * Of each matrix the lower triangle is stored, as planes of n floats: first the real part of (0, 0) for every
 * bin, then its imaginary part, which is 0, then (1, 0), (1, 1), (2, 0) and so on. */
#ifndef APMPI_KERNELS_HERMITIAN_H
#define APMPI_KERNELS_HERMITIAN_H

enum { HERMITIAN_MAX_ROWS = 16 };

/* Planes of a matrix. */
static inline int hermitian_planes(int rows) { return rows * (rows + 1); }

/* Plane of the real part of row i, column j <= i; that of the imaginary part follows. */
static inline int hermitian_plane(int i, int j) { return i * (i + 1) + 2 * j; }

#endif
