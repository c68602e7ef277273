/* Dense layer of a small neural network: weights and inputs of 8 bits, sums of 32 bits.
 *
 * On a Cortex-A53, which has no dot-product instructions, this costs a third of an instruction per weight;
 * inputs of 15 bits would cost twice as much. The sums are integers, so a network gives the same on every
 * processor. */
#ifndef APMPI_KERNELS_DENSE_H
#define APMPI_KERNELS_DENSE_H

#include <stdint.h>

/* With more a sum could overflow: 127 * 127 * 2^17 < 2^31. */
enum { DENSE_MAX_INPUTS = 1 << 17 };

/* Weights in a row: one per input, then zeros up to whole vectors. */
static inline int dense_stride(int inputs) { return (inputs + 15) & ~15; }

/* y[o] += scale[o] * sum_i weight[o * dense_stride(inputs) + i] * x[i] for o < outputs.
 * |weight| <= 127. x: finite; quantised to steps of 1/127 of the largest of them, error 0.004 of that. y: the
 * bias, or a sum so far, outputs floats. scratch: dense_stride(inputs) bytes. */
void dense_add(int outputs, int inputs, const int8_t *weight, const float *scale, const float *x,
               int8_t *scratch, float *y);

#endif
