/*
 * The acoustic path: convolution with an impulse response of any length, in blocks of any length, without
 * delay.
 *
 * Uniformly partitioned overlap-save (Gardner, JAES 43(3), 1995): the first ECHO_BLOCK taps run in the time
 * domain, so that an output sample needs no input after its own moment; the rest runs by FFT, one block
 * behind.  Confession: the partitions all have one length (Gardner grows them) and the FFT is complex over
 * real data; with 1 s at 48 kHz this costs about 1200 multiply-adds a sample, and a test rig needs no less.
 * The FFT is the room's own, so that what is measured in the room shares no fault with the filters under
 * test.
 */
#ifndef APMPI_ROOMCARD_ECHO_H
#define APMPI_ROOMCARD_ECHO_H

#define ECHO_BLOCK 256

struct echo;

/* `taps` >= 1 coefficients, copied.  NULL when there is no memory. */
struct echo *echo_create(const float *impulse_response, int taps);
void echo_free(struct echo *echo);

/* Forgets all input. */
void echo_reset(struct echo *echo);

/* Filters `count` >= 0 samples; `out` may be `in`.  Allocates nothing. */
void echo_process(struct echo *echo, const float *in, float *out, int count);

#endif
