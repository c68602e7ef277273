/* Levels that several stages share; powers of samples, 1 being the square of full scale. */
#ifndef APMPI_KERNELS_LEVELS_H
#define APMPI_KERNELS_LEVELS_H

/* Mean square of the quantisation noise of 16-bit samples, -100 dBFS: (2^-15)^2 / 12 = 0.8e-10, rounded up.
 * Keeps quotients finite and is the least noise floor: no lower power differs from silence. */
static const float QUANTISATION_POWER = 1e-10f;

#endif
