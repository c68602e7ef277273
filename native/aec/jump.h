/* An echo that comes some milliseconds later or earlier from one moment on: a player ran dry, or skipped
 * something.
 *
 * What the canceller has learned is then right but for its place. So where an echo that used to go no longer
 * does, nothing is learned for a moment and the microphone is compared with what was estimated for it before
 * and after: where the cross-correlation of the two, whitened by the powers of both in the same blocks (the
 * smoothed coherence transform of G. Carter, A. Nuttall, P. Cable, Proc. IEEE 61 (1973)), has one clear peak,
 * there the echo is. A talker leaves the peak where it was and ends the search; another path gives none, and
 * the search ends by itself.
 */
#ifndef APMPI_AEC_JUMP_H
#define APMPI_AEC_JUMP_H

#include "base/arena.h"
#include "kernels/fft.h"

enum {
    JUMP_BLOCKS = 8, /* 80 ms either way: two periods of a player's buffer and more */
    JUMP_BINS = 160, /* up to 8 kHz: where speech is */
};

/* What the blocks of a search say of lags to one side, JUMP_BLOCKS * bins each: cross-spectra of the newest
 * block of one signal with two of the other that begin one block and more before it, and the power of those.
 */
typedef struct {
    float *re, *im, *power;
} jump_side_t;

typedef struct {
    int hop, stride, bins;
    int searched_blocks;           /* 0: nothing is suspected */
    int rest_blocks;               /* until something may be */
    float usual_mic, usual_error;  /* energies of a block, and of what was left of it: averages of 0.5 s */
    float evidence;                /* 0..1: how far a peak elsewhere stands out; 0 without a search */
    float *echo, *mic;             /* (JUMP_BLOCKS + 1) * hop: the newest blocks */
    jump_side_t later, earlier;    /* microphone with earlier estimates, estimate with earlier microphone */
    float *echo_power, *mic_power; /* bins: of the newest blocks */
    float *usual_power;            /* bins: of the error, as it was before the search */
    float weight, blocks;          /* sum of the blocks' weights, and how many they are */
    float *re, *im, *past_re, *past_im; /* stride each, scratch */
    float *frame;                       /* 2*hop, scratch */
} jump_t;

void jump_init(jump_t *jump, int hop, arena_t *arena);
void jump_reset(jump_t *jump);

/* mic, echo: hop samples, and what was estimated for them, by a path that stays as it is while
 * `searched_blocks` is not 0. error_power: of the error, per bin, smoothed. Returns by how many samples the
 * echo came to be later than estimated, in -JUMP_BLOCKS*hop .. JUMP_BLOCKS*hop; 0 as long as that isn't
 * clear. */
int jump_process(jump_t *jump, const fft_t *fft, const float *mic, const float *echo,
                 const float *error_power);

#endif
