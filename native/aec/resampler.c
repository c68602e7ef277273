#include "aec/resampler.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

enum {
    HALF = RESAMPLER_TAPS / 2,
    AHEAD = HALF + 1, /* samples that the taps reach beyond the last one read */
};

void resampler_init(resampler_t *resampler, int hop, arena_t *arena)
{
    resampler->hop = hop;
    resampler->far = arena_floats(arena, RESAMPLER_BLOCKS * (size_t)hop);
    resampler->late = arena_floats(arena, (size_t)hop);
    if (arena->base)
        resampler_reset(resampler);
}

void resampler_reset(resampler_t *resampler)
{
    memset(resampler->far, 0, sizeof(float) * RESAMPLER_BLOCKS * (size_t)resampler->hop);
    resampler->started = resampler->unread = 0;
    resampler->fraction = resampler->slide = 0.0f;
}

void resampler_copy(const resampler_t *from, resampler_t *to)
{
    memcpy(to->far, from->far, sizeof(float) * RESAMPLER_BLOCKS * (size_t)from->hop);
    to->started = from->started;
    to->unread = from->unread;
    to->fraction = from->fraction;
}

void resampler_follow(const resampler_t *from, resampler_t *to)
{
    to->started = from->started;
    to->unread = from->unread;
    to->fraction = from->fraction;
    to->slide = from->slide;
}

void resampler_start(resampler_t *resampler, int a_block_late)
{
    resampler->started = 1;
    resampler->unread = a_block_late ? 0 : AHEAD;
}

/* The kernel for the value `fraction` of a sample after tap HALF - 1, -1 < fraction < 2. The Hann window is
 * one sample longer than the taps on both sides, so that it covers every fraction. Errors are below -55 dB up
 * to 0.7 of the Nyquist frequency. */
static void make_kernel(float fraction, float *kernel)
{
    const float pi = (float)M_PI, nearest = rintf(fraction), rest = fraction - nearest,
                sine = sinf(pi * rest) / pi;
    for (int tap = 0; tap < RESAMPLER_TAPS; tap++) {
        const int whole = tap - (HALF - 1) - (int)nearest;
        const float t = (float)whole - rest, window = cosf(pi / (float)(RESAMPLER_TAPS + 2) * t);
        /* sin(pi t) = -(-1)^whole sin(pi rest); at t = 0 the sinc is 1 */
        kernel[tap] = t == 0.0f ? 1.0f : window * window * (whole % 2 ? sine : -sine) / t;
    }
}

/* Reads a block of which the fraction changes from sample to sample: by linear interpolation between the
 * results of its first and its last kernel. */
static void read_block(resampler_t *resampler, float *out)
{
    const int hop = resampler->hop;
    const float *first = resampler->far + RESAMPLER_BLOCKS * hop - resampler->unread - (HALF - 1);
    float from[RESAMPLER_TAPS], to[RESAMPLER_TAPS];
    make_kernel(resampler->fraction, from);
    resampler->fraction -= resampler->slide;
    make_kernel(resampler->fraction, to);
    kernels()->convolve(hop, RESAMPLER_TAPS, from, first, out);
    kernels()->convolve(hop, RESAMPLER_TAPS, to, first, resampler->late);
    for (int i = 0; i < hop; i++)
        out[i] += (resampler->late[i] - out[i]) * (float)i / (float)hop;
    const float whole = floorf(resampler->fraction);
    resampler->fraction -= whole;
    resampler->unread -= hop + (int)whole;
}

int resampler_process(resampler_t *resampler, const float *far, float *out)
{
    const int hop = resampler->hop;
    const size_t kept = (RESAMPLER_BLOCKS - 1) * (size_t)hop;
    memmove(resampler->far, resampler->far + hop, sizeof(float) * kept);
    memcpy(resampler->far + kept, far, sizeof(float) * (size_t)hop);
    if (!resampler->started) {
        memcpy(out, far, sizeof(float) * (size_t)hop);
        return 1;
    }
    resampler->unread += hop;
    int blocks = 0;
    if (resampler->unread >= hop + AHEAD)
        read_block(resampler, out + hop * blocks++);
    /* not as soon as a second block is complete, so that a slide near 0 doesn't alternate between 0 and 2 */
    if (resampler->unread > 2 * hop)
        read_block(resampler, out + hop * blocks++);
    return blocks;
}

void resampler_keep(resampler_t *resampler, tape_t *tape)
{
    tape_int(tape, &resampler->started, 0, 1);
    tape_int(tape, &resampler->unread, 0, 2 * resampler->hop);
    if (tape->mode == TAPE_PLAY && !resampler->started) /* forged: there is no delay before the start */
        resampler->unread = 0;
}
