#include "kernels/dense.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

static const float LARGEST = 16383.0f;

/* Returns the value of one step; 0 if x is silent. */
static float quantise(int count, const float *x, int16_t *out)
{
    float loudest = 0.0f;
    for (int i = 0; i < count; i++)
        loudest = fmaxf(loudest, fabsf(x[i]));
    if (!(loudest > 1e-30f)) /* its inverse must be a number */
        return 0.0f;
    const float scale = LARGEST / loudest;
    for (int i = 0; i < count; i++)
        out[i] = (int16_t)lrintf(scale * x[i]);
    return loudest / LARGEST;
}

void dense_add(int outputs, int inputs, const int8_t *weight, const float *scale, const float *x, int16_t *scratch, float *y)
{
    const int stride = dense_stride(inputs);
    memset(scratch + inputs, 0, sizeof(int16_t) * (size_t)(stride - inputs));
    const float step = quantise(inputs, x, scratch);
    if (step > 0.0f)
        kernels()->dense(outputs, stride, weight, scale, scratch, step, y);
}
