/* Detector of a jump: an echo that comes some milliseconds later or earlier from one moment on, because a
 * player ran out of data or skipped some.
 *
 * The learned path is then right except for its lag. Where an echo that was reduced no longer is, a search
 * begins: nothing is learned for at most 0.2 s, and the microphone is compared with earlier estimates, the
 * estimate with earlier microphone blocks. Their cross-correlation is whitened by the powers of both in the
 * same blocks (the smoothed coherence transform of G. Carter, A. Nuttall, P. Cable, Proc. IEEE 61 (1973)).
 * One clear peak is the new lag. Near-end speech leaves the peak at lag 0 and ends the search; another path
 * gives no clear peak, and the search ends by its time limit.
 */
#ifndef APMPI_AEC_JUMP_H
#define APMPI_AEC_JUMP_H

#include "base/arena.h"
#include "kernels/fft.h"

enum {
    JUMP_BLOCKS = 8, /* range, 80 ms either way: more than two periods of a player's buffer */
    JUMP_BINS = 160, /* up to 8 kHz: the band of speech */
};

/* Averages over a search for lags of one sign, JUMP_BLOCKS * bins each: cross-spectra of the newest block of
 * one signal with two blocks of the other, the later of which ends 0 .. JUMP_BLOCKS - 1 blocks before the
 * newest; and the power of those. newest_power: of the newest block, bins. */
typedef struct {
    float *re, *im, *power, *newest_power;
} jump_side_t;

typedef struct {
    int hop, stride, bins; /* stride: floats of a spectrum; bins: those compared */
    int searched_blocks;   /* of the current search; 0: none */
    int rest_blocks;       /* until the next search may begin */
    /* Averages over 0.5 s without a search: energies of a block of the microphone and of the error. */
    float usual_mic, usual_error;
    float evidence;             /* 0..1: how far a peak away from lag 0 stands out; 0 without a search */
    float *echo, *mic;          /* (JUMP_BLOCKS + 1) * hop: the newest blocks */
    jump_side_t later, earlier; /* microphone with earlier estimates; estimate with earlier microphone */
    float *usual_power;         /* bins: power of the error before the search */
    float weight, blocks;       /* sum of the blocks' weights, and their number, both with decay */
    /* Scratch: stride each, and 2*hop. */
    float *re, *im, *past_re, *past_im;
    float *frame;
} jump_t;

typedef struct {
    const float *mic, *echo;  /* hop each: microphone and echo estimate */
    const float *error_power; /* hop + 1: smoothed power of the canceller's error per bin */
} jump_input_t;

void jump_init(jump_t *jump, int hop, arena_t *arena);
void jump_reset(jump_t *jump);

/* fft: of 2*hop samples. The canceller must not learn while searched_blocks is above 0. Returns the samples
 * by which the echo is later than estimated, within -JUMP_BLOCKS*hop .. JUMP_BLOCKS*hop, in the block that
 * ends a search with a jump; otherwise 0. */
int jump_process(jump_t *jump, const fft_t *fft, const jump_input_t *input);

#endif
