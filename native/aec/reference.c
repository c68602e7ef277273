#include "aec/reference.h"

#include <string.h>

#include "kernels/spectrum.h"

void reference_init(reference_t *ref, int hop, int references, int blocks, arena_t *arena)
{
    ref->hop = hop;
    ref->stride = spectrum_stride(hop);
    ref->blocks = blocks;
    ref->references = references;
    ref->side = blocks * ref->stride;
    const size_t floats = (size_t)references * (size_t)ref->side;
    ref->re = arena_floats(arena, floats);
    ref->im = arena_floats(arena, floats);
    ref->samples = arena_floats(arena, reference_samples(ref));
    if (arena->base)
        reference_reset(ref);
}

void reference_reset(reference_t *ref)
{
    const size_t bytes = sizeof(float) * (size_t)ref->references * (size_t)ref->side;
    memset(ref->re, 0, bytes);
    memset(ref->im, 0, bytes);
    memset(ref->samples, 0, sizeof(float) * reference_samples(ref));
    ref->newest = 0;
}

static int is_silent(const float *x, int count)
{
    for (int i = 0; i < count; i++)
        if (x[i] != 0.0f)
            return 0;
    return 1;
}

/* samples: the last two blocks of one reference; block: the next, NULL for silence; at: place of its
 * spectrum. */
static void push(const reference_t *ref, const fft_t *fft, float *samples, const float *block, int at)
{
    const size_t bytes = sizeof(float) * (size_t)ref->hop;
    memcpy(samples, samples + ref->hop, bytes);
    if (block)
        memcpy(samples + ref->hop, block, bytes);
    else
        memset(samples + ref->hop, 0, bytes);
    if (is_silent(samples, 2 * ref->hop)) { /* no transform while the far end is silent */
        memset(ref->re + at, 0, sizeof(float) * (size_t)ref->stride);
        memset(ref->im + at, 0, sizeof(float) * (size_t)ref->stride);
        return;
    }
    fft_forward(fft, samples, ref->re + at, ref->im + at);
}

void reference_push(reference_t *ref, const fft_t *fft, const float *middle, const float *side)
{
    ref->newest = ref->newest + 1 == ref->blocks ? 0 : ref->newest + 1;
    const int at = reference_at(ref, 0);
    push(ref, fft, ref->samples, middle, at);
    if (ref->references > 1)
        push(ref, fft, ref->samples + 2 * ref->hop, side, at + ref->side);
}

void reference_rewind(reference_t *ref, int blocks, const float *samples)
{
    ref->newest = (ref->newest + ref->blocks - blocks % ref->blocks) % ref->blocks;
    memcpy(ref->samples, samples, sizeof(float) * reference_samples(ref));
}
