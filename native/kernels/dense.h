/* A dense layer of a small neural network: weights and inputs of 8 bits, sums of 32.
 *
 * On a Cortex-A53, which has no dot-product instructions, this costs a third of an instruction for each
 * weight; inputs of 15 bits would cost twice as much. The sums are integers, so a network behaves the same on
 * every processor. */
#ifndef APMPI_KERNELS_DENSE_H
#define APMPI_KERNELS_DENSE_H

#include <stdint.h>

/* More inputs could overflow a sum: 127 * 127 * 2^17 < 2^31. */
enum { DENSE_MAX_INPUTS = 1 << 17 };

/* Weights of a row: its inputs, then zeros up to whole vectors. */
static inline int dense_stride(int inputs) { return (inputs + 15) & ~15; }

/* y[o] += scale[o] * sum_i weight[o * dense_stride(inputs) + i] * x[i] for o < outputs.
 * |weight| <= 127. x: finite; quantised to 7 bits and sign of the loudest of them, error 0.004 of it. y: the
 * bias, or a sum so far. scratch: dense_stride(inputs). */
void dense_add(int outputs, int inputs, const int8_t *weight, const float *scale, const float *x,
               int8_t *scratch, float *y);

#endif
