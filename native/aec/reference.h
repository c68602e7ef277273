/* The far end as the echo canceller sees it: spectra of the last second and a bit, one per 10 ms block,
 * shared by all channels.
 *
 * A block's spectrum is that of its own samples and the block before (overlap-save frame of 2*hop samples, no
 * window).
 */
#ifndef APMPI_AEC_REFERENCE_H
#define APMPI_AEC_REFERENCE_H

#include "kernels/fft.h"

typedef struct {
    int hop, stride, blocks; /* stride: floats per spectrum, see spectrum_stride() */
    int newest;              /* ring position of lag 0 */
    float *re, *im;          /* blocks * stride each; 0 in the padding */
    float *samples;          /* 2*hop: the last two blocks */
} reference_t;

void reference_init(reference_t *ref, int hop, int blocks, arena_t *arena);
void reference_reset(reference_t *ref);
/* far: hop samples, [-1, 1). */
void reference_push(reference_t *ref, const fft_t *fft, const float *far);
/* Back to where it was `blocks` pushes ago; samples: ref->samples of then. As many of the oldest lags hold
 * what was taken back, until as many pushes have followed. */
void reference_rewind(reference_t *ref, int blocks, const float *samples);

/* Offset into re and im of the spectrum `lag` blocks ago, 0 <= lag < blocks. */
static inline int reference_at(const reference_t *ref, int lag)
{
    const int at = ref->newest - lag;
    return (at < 0 ? at + ref->blocks : at) * ref->stride;
}

/* How many spectra from `lag` on, at most `count`, lie one below the other: `stride` floats nearer to the
 * ring's start with each lag. */
static inline int reference_run(const reference_t *ref, int lag, int count)
{
    const int run = reference_at(ref, lag) / ref->stride + 1;
    return run < count ? run : count;
}

#endif
