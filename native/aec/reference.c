#include "aec/reference.h"

#include <string.h>

#include "kernels/spectrum.h"

void reference_init(reference_t *ref, int hop, int blocks, arena_t *arena)
{
    ref->hop = hop;
    ref->stride = spectrum_stride(hop);
    ref->blocks = blocks;
    const size_t floats = (size_t)blocks * (size_t)ref->stride;
    ref->re = arena_floats(arena, floats);
    ref->im = arena_floats(arena, floats);
    ref->samples = arena_floats(arena, 2 * (size_t)hop);
    if (arena->base)
        reference_reset(ref);
}

void reference_reset(reference_t *ref)
{
    const size_t bytes = sizeof(float) * (size_t)ref->blocks * (size_t)ref->stride;
    memset(ref->re, 0, bytes);
    memset(ref->im, 0, bytes);
    memset(ref->samples, 0, sizeof(float) * 2 * (size_t)ref->hop);
    ref->newest = 0;
}

static int is_silent(const float *x, int count)
{
    for (int i = 0; i < count; i++)
        if (x[i] != 0.0f)
            return 0;
    return 1;
}

void reference_push(reference_t *ref, const fft_t *fft, const float *far)
{
    const size_t bytes = sizeof(float) * (size_t)ref->hop;
    memcpy(ref->samples, ref->samples + ref->hop, bytes);
    memcpy(ref->samples + ref->hop, far, bytes);
    ref->newest = ref->newest + 1 == ref->blocks ? 0 : ref->newest + 1;
    const int at = reference_at(ref, 0);
    if (is_silent(ref->samples, 2 * ref->hop)) { /* no transform while the far end is silent */
        memset(ref->re + at, 0, sizeof(float) * (size_t)ref->stride);
        memset(ref->im + at, 0, sizeof(float) * (size_t)ref->stride);
        return;
    }
    fft_forward(fft, ref->samples, ref->re + at, ref->im + at);
}

void reference_rewind(reference_t *ref, int blocks, const float *samples)
{
    ref->newest = (ref->newest + ref->blocks - blocks % ref->blocks) % ref->blocks;
    memcpy(ref->samples, samples, sizeof(float) * 2 * (size_t)ref->hop);
}
