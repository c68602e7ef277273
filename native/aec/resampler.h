/* Reads the far end onto the microphone's clock, block by block.
 *
 * Until resampler_start() blocks go through as they are. From then on they are read at a position that slides
 * against them, between the samples by a windowed sinc (T. Laakso et al., "Splitting the unit delay", IEEE
 * Signal Processing Magazine 13 (1996), ch. 3). Where the slide has come to a whole block, a block more or
 * less comes out than went in.
 */
#ifndef APMPI_AEC_RESAMPLER_H
#define APMPI_AEC_RESAMPLER_H

#include "base/arena.h"
#include "base/tape.h"

enum { RESAMPLER_TAPS = 32, RESAMPLER_BLOCKS = 4 };

typedef struct {
    int hop;
    float *far;  /* RESAMPLER_BLOCKS * hop: the newest blocks as they came */
    float *late; /* hop, scratch */
    int started;
    int unread;     /* the next block begins this many samples before the end of `far`, */
    float fraction; /* and 0..1 behind that */
    /* samples by which the next block falls back against the far end; less than 1 either way */
    float slide;
} resampler_t;

void resampler_init(resampler_t *resampler, int hop, arena_t *arena);
void resampler_reset(resampler_t *resampler);

/* to: of the same hop; goes on where `from` is, with its own slide. */
void resampler_copy(const resampler_t *from, resampler_t *to);

/* a_block_late: the next push gives no block, so every later one comes a block later, and no sample is lost
 * or doubled. Otherwise as little later as the interpolation needs, 17 samples, which are read twice. */
void resampler_start(resampler_t *resampler, int a_block_late);

/* far: hop samples; out: room for 2*hop. Returns how many blocks are in `out`: 1, or, once started, now
 * and then 0 or 2. */
int resampler_push(resampler_t *resampler, const float *far, float *out);

/* What is worth keeping over a restart: how late blocks come. */
void resampler_keep(resampler_t *resampler, tape_t *tape);

#endif
