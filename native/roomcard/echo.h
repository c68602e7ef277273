/* The acoustic path: convolution with an impulse response of any length, in blocks of any length, without
 * delay.
 *
 * Uniformly partitioned overlap-save after Gardner, "Efficient convolution without input-output delay",
 * JAES 43(3), 1995: the first ECHO_BLOCK taps run in the time domain, so that an output sample needs no later
 * input; the rest runs by FFT, one block behind. Left out: partitions that grow, as Gardner's do, and a real
 * FFT; with 1 s at 48 kHz this costs about 1200 multiply-adds a sample, which a test rig can afford. The FFT
 * is the room's own, so that the simulated room and the filters under test share no fault.
 */
#ifndef APMPI_ROOMCARD_ECHO_H
#define APMPI_ROOMCARD_ECHO_H

#define ECHO_BLOCK 256

typedef struct echo echo_t;

/* `taps` >= 1 coefficients, copied. NULL when there is no memory. */
echo_t *echo_create(const float *impulse_response, int taps);
void echo_free(echo_t *echo);

/* Clears all input. */
void echo_reset(echo_t *echo);

/* Filters `count` >= 0 samples; `out` may be `in`. Allocates nothing. */
void echo_process(echo_t *echo, const float *in, float *out, int count);

#endif
