/* Resampler of the far end to the microphone's clock, block by block.
 *
 * Until resampler_start() blocks pass unchanged. From then on they are read at a position that slides against
 * them, between samples by a windowed sinc (T. Laakso et al., "Splitting the unit delay", IEEE Signal
 * Processing Magazine 13 (1996), ch. 3). Where the slide has added up to a whole block, one block more or
 * less comes out than went in.
 */
#ifndef APMPI_AEC_RESAMPLER_H
#define APMPI_AEC_RESAMPLER_H

#include "base/arena.h"
#include "base/tape.h"

enum {
    RESAMPLER_TAPS = 32,
    RESAMPLER_BLOCKS = 4, /* of history: what two output blocks and the taps reach */
};

typedef struct {
    int hop;
    float *far;  /* RESAMPLER_BLOCKS * hop: the newest input blocks */
    float *late; /* hop, scratch */
    int started;
    int unread;     /* the next output block begins this many samples before the end of `far`, */
    float fraction; /* and 0..1 behind that */
    float slide;    /* samples by which the next block is read later, -1 < slide < 1; set by the caller */
} resampler_t;

void resampler_init(resampler_t *resampler, int hop, arena_t *arena);
void resampler_reset(resampler_t *resampler);

/* Copies the position and the history, not the slide; to: of the same hop. */
void resampler_copy(const resampler_t *from, resampler_t *to);

/* Copies the position and the slide, not the history: both then read at the same place. */
void resampler_follow(const resampler_t *from, resampler_t *to);

/* a_block_late: 1: the next call gives no block and later ones are a block later; no sample is lost or
 * repeated. 0: the delay is what the interpolation needs, 17 samples, which are repeated. */
void resampler_start(resampler_t *resampler, int a_block_late);

/* far: hop samples; out: room for 2*hop. Returns the number of blocks in `out`: 1 before the start;
 * afterwards 0, 1 or 2. */
int resampler_process(resampler_t *resampler, const float *far, float *out);

/* Keeps the delay of the output, in whole samples. */
void resampler_keep(resampler_t *resampler, tape_t *tape);

#endif
