/* Samples of one block of 10 ms: the unit in which the chain counts time, and conversions. */
#ifndef APMPI_APM_BLOCK_H
#define APMPI_APM_BLOCK_H

#include <stdint.h>

#include "base/branchless.h"
#include "kernels/kernels.h"
#include "kernels/levels.h"

enum { BLOCKS_PER_S = 100 };

static inline float mean_square(const float *x, int count)
{
    return kernels()->dot(count, x, x) / (float)count;
}

/* Weight of sample i of `count` while a stage's share in the signal goes from `from` to `to` over one block,
 * so that switching the stage does not click. */
static inline float fade(float from, float to, int i, int count)
{
    return from + (to - from) * (float)(i + 1) / (float)count;
}

/* One channel of interleaved frames to and from floats in [-1, 1). With a constant `step` these are loops
 * over vectors, hence the two calls for mono below. */
static inline void from_frames(int count, const int16_t *restrict frames, int step, float *restrict out)
{
    for (int i = 0; i < count; i++)
        out[i] = (float)frames[i * step] * (1.0f / 32768.0f);
}

static inline void to_frames(int count, const float *restrict x, int16_t *restrict frames, int step)
{
    for (int i = 0; i < count; i++)
        frames[i * step] = nearest_int16(lesser(greater(x[i] * 32768.0f, -32768.0f), 32767.0f));
}

static inline void read_channel(int count, const int16_t *frames, int channels, float *out)
{
    if (channels == 1)
        from_frames(count, frames, 1, out);
    else
        from_frames(count, frames, channels, out);
}

static inline void write_channel(int count, const float *x, int16_t *frames, int channels)
{
    if (channels == 1)
        to_frames(count, x, frames, 1);
    else
        to_frames(count, x, frames, channels);
}

#endif
