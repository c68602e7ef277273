#include "kernels/dense.h"

#include <string.h>

#include "base/branchless.h"
#include "kernels/kernels.h"

static const float LARGEST = 127.0f;

/* Writes x in steps of its largest magnitude over LARGEST. Returns the size of a step; 0 if all x are 0. */
static float quantise(int count, const float *restrict x, int8_t *restrict out)
{
    int32_t most = 0; /* the bits of floats without the sign are ordered as their magnitudes */
    for (int i = 0; i < count; i++) {
        const int32_t bits = bits_of_float(x[i]) & INT32_MAX;
        most = bits > most ? bits : most;
    }
    float loudest;
    memcpy(&loudest, &most, sizeof loudest);
    if (!(loudest > 1e-30f)) /* the inverse must be finite */
        return 0.0f;
    const float scale = LARGEST / loudest;
    for (int i = 0; i < count; i++)
        out[i] = (int8_t)nearest_int16(scale * x[i]);
    return loudest / LARGEST;
}

void dense_add(int outputs, int inputs, const int8_t *weight, const float *scale, const float *x,
               int8_t *scratch, float *y)
{
    const int stride = dense_stride(inputs);
    memset(scratch + inputs, 0, (size_t)(stride - inputs));
    const float step = quantise(inputs, x, scratch);
    if (step > 0.0f)
        kernels()->dense(outputs, stride, weight, scale, scratch, step, y);
}
