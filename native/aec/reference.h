/* Far end of the echo cancellers: a ring of block spectra, shared by all channels.
 *
 * One reference, or two: the middle and the side of two loudspeakers, (L + R) / 2 and (L - R) / 2. With them
 * the echo of two loudspeakers that play the same is that of the middle alone. The spectrum of a 10 ms block
 * is that of its samples and of the block before (overlap-save: a frame of 2*hop samples without a window).
 * Lag 0 is the newest block.
 */
#ifndef APMPI_AEC_REFERENCE_H
#define APMPI_AEC_REFERENCE_H

#include "kernels/fft.h"

typedef struct {
    int hop, stride, blocks; /* stride: floats of a spectrum, see spectrum_stride() */
    int references;          /* 1: the middle; 2: the side, too */
    int side;                /* floats from a spectrum of the middle to that of the side */
    int newest;              /* ring position of lag 0 */
    float *re, *im;          /* references * blocks * stride each; 0 in the padding */
    float *samples;          /* references * 2*hop: the last two blocks */
} reference_t;

/* references: 1 or 2; blocks: lags that are kept. */
void reference_init(reference_t *ref, int hop, int references, int blocks, arena_t *arena);
void reference_reset(reference_t *ref);
/* middle, side: hop samples each, [-1, 1); become lag 0. side: NULL for silence, or where it is not kept. */
void reference_push(reference_t *ref, const fft_t *fft, const float *middle, const float *side);
/* Undoes the last `blocks` pushes; samples: a copy of ref->samples from before them. The same number of
 * oldest lags then hold the undone blocks, until as many pushes have followed. */
void reference_rewind(reference_t *ref, int blocks, const float *samples);

/* Floats of ref->samples. */
static inline size_t reference_samples(const reference_t *ref)
{
    return 2 * (size_t)ref->hop * (size_t)ref->references;
}

/* Offset into re and im of the middle's spectrum of a lag, 0 <= lag < blocks. */
static inline int reference_at(const reference_t *ref, int lag)
{
    const int at = ref->newest - lag;
    return (at < 0 ? at + ref->blocks : at) * ref->stride;
}

/* Number of spectra from `lag` on, at most `count`, that are contiguous in memory: the spectrum of the next
 * lag lies `stride` floats before. */
static inline int reference_run(const reference_t *ref, int lag, int count)
{
    const int run = reference_at(ref, lag) / ref->stride + 1;
    return run < count ? run : count;
}

#endif
