#include "aec/jump.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/kernels.h"
#include "kernels/spectrum.h"

/* of the microphone's energy, 10 dB: what was left of an echo that went */
static const float WENT = 0.1f;
static const float STAYS = 0.25f;      /* 6 dB: what is left where it no longer does */
static const float ESTIMATED = 0.25f;  /* of the error: a talker over a weaker echo hides whether it goes */
static const float AUDIBLE = 10.0f;    /* over the usual error, 10 dB: bins that tell */
static const float UNUSUAL = 4.0f;     /* 6 dB over the usual error */
static const float USUAL_RATE = 0.02f; /* half a second */
static const float FAINT = 0.01f;      /* of the usual energy, 20 dB below: blocks count alike down to it */
static const float TINY = 1e-20f;
static const float LEAST_BINS = 20.0f; /* 1 kHz */
/* 65 ms: what was played before the jump fades from the room, and from here */
static const float KEEP = 0.85f;
/* deviations of a sum of bins and blocks without a common phase: 1 in 10^6 */
static const float CHANCE = 5.0f;
/* so high a peak is no echo that fades from the room: it has 2 dB over all else */
static const float SAME = 0.8f;
static const float LEAD = 1.5f; /* over the next best peak */
enum {
    FIRST_BLOCKS = 4, /* fewer are coherent by chance */
    /* So long a player may be silent, and what is heard is what it played before; and after sound was lost at
     * both ends, that lies elsewhere. */
    DRY_BLOCKS = 10,
    MOST_BLOCKS = 20, /* 0.2 s without learning */
    REST_BLOCKS = 50, /* 0.5 s to learn in, whatever it was */
    WIDTH_MS = 1,     /* of a peak */
    SOON_BLOCKS = 4,  /* where the echo stays and something is heard beside it, or where it may move back */
};

static void take_side(jump_side_t *side, size_t bins, arena_t *arena)
{
    side->re = arena_floats(arena, JUMP_BLOCKS * bins);
    side->im = arena_floats(arena, JUMP_BLOCKS * bins);
    side->power = arena_floats(arena, JUMP_BLOCKS * bins);
}

void jump_init(jump_t *jump, int hop, arena_t *arena)
{
    jump->hop = hop;
    jump->stride = spectrum_stride(hop);
    jump->bins = hop < JUMP_BINS ? hop : JUMP_BINS;
    const size_t history = (JUMP_BLOCKS + 1) * (size_t)hop;
    const size_t stride = (size_t)jump->stride, bins = (size_t)jump->bins;
    jump->echo = arena_floats(arena, history);
    jump->mic = arena_floats(arena, history);
    take_side(&jump->later, bins, arena);
    take_side(&jump->earlier, bins, arena);
    jump->echo_power = arena_floats(arena, bins);
    jump->mic_power = arena_floats(arena, bins);
    jump->usual_power = arena_floats(arena, bins);
    jump->re = arena_floats(arena, stride);
    jump->im = arena_floats(arena, stride);
    jump->past_re = arena_floats(arena, stride);
    jump->past_im = arena_floats(arena, stride);
    jump->frame = arena_floats(arena, 2 * (size_t)hop);
    if (arena->base)
        jump_reset(jump);
}

static void clear_side(jump_side_t *side, size_t bytes)
{
    memset(side->re, 0, JUMP_BLOCKS * bytes);
    memset(side->im, 0, JUMP_BLOCKS * bytes);
    memset(side->power, 0, JUMP_BLOCKS * bytes);
}

static void end_search(jump_t *jump, int rest_blocks)
{
    const size_t bins = sizeof(float) * (size_t)jump->bins;
    clear_side(&jump->later, bins);
    clear_side(&jump->earlier, bins);
    memset(jump->echo_power, 0, bins);
    memset(jump->mic_power, 0, bins);
    jump->searched_blocks = 0;
    jump->rest_blocks = rest_blocks;
    jump->weight = jump->blocks = jump->evidence = 0.0f;
}

void jump_reset(jump_t *jump)
{
    const size_t history = sizeof(float) * (JUMP_BLOCKS + 1) * (size_t)jump->hop;
    memset(jump->echo, 0, history);
    memset(jump->mic, 0, history);
    jump->usual_mic = jump->usual_error = 0.0f;
    end_search(jump, REST_BLOCKS);
}

static void append(const jump_t *jump, float *history, const float *block)
{
    const size_t hop = (size_t)jump->hop;
    memmove(history, history + hop, sizeof(float) * JUMP_BLOCKS * hop);
    memcpy(history + JUMP_BLOCKS * hop, block, sizeof(float) * hop);
}

/* newest: of one signal, whose power is added to `power`; past: of the other. weight: of this block. */
static void compare(jump_t *jump, const fft_t *fft, const float *newest, const float *past, float weight,
                    float *power, jump_side_t *side)
{
    const int hop = jump->hop, bins = jump->bins;
    const size_t block = sizeof(float) * (size_t)hop;
    memset(jump->frame, 0, block);
    memcpy(jump->frame + hop, newest + JUMP_BLOCKS * hop, block);
    fft_forward(fft, jump->frame, jump->re, jump->im);
    for (int k = 0; k < bins; k++)
        power[k] = KEEP * power[k] + weight * (jump->re[k] * jump->re[k] + jump->im[k] * jump->im[k]);
    for (int lag = 0; lag < JUMP_BLOCKS; lag++) {
        const int at = lag * bins;
        float *re = side->re + at, *im = side->im + at, *past_power = side->power + at;
        memcpy(jump->frame, past + (JUMP_BLOCKS - 1 - lag) * hop, 2 * block);
        fft_forward(fft, jump->frame, jump->past_re, jump->past_im);
        for (int k = 0; k < bins; k++) {
            const float past_re = jump->past_re[k], past_im = jump->past_im[k];
            re[k] = KEEP * re[k] + weight * (jump->re[k] * past_re + jump->im[k] * past_im);
            im[k] = KEEP * im[k] + weight * (jump->im[k] * past_re - jump->re[k] * past_im);
            /* of twice as many samples */
            const float energy = 0.5f * (past_re * past_re + past_im * past_im);
            past_power[k] = KEEP * past_power[k] + weight * energy;
        }
    }
}

typedef struct {
    float height;
    int lag; /* samples */
} peak_t;

/* Keeps the two highest that are `apart` from each other, the higher first. */
static void take_peak(peak_t peaks[2], peak_t now, int apart)
{
    const int elsewhere = abs(now.lag - peaks[0].lag) > apart;
    if (now.height > peaks[0].height) {
        if (elsewhere)
            peaks[1] = peaks[0];
        peaks[0] = now;
    } else if (elsewhere && now.height > peaks[1].height) {
        peaks[1] = now;
    }
}

/* sign: 1 where a positive lag is a later echo. power: of the newest blocks. told: 1 for each bin that
 * counts, in all `count`. */
static void find_peaks(jump_t *jump, const fft_t *fft, const jump_side_t *side, const float *power,
                       const float *told, float count, int sign, peak_t peaks[2])
{
    const int apart = jump->hop * WIDTH_MS / 10;
    memset(jump->re, 0, sizeof(float) * (size_t)jump->stride);
    memset(jump->im, 0, sizeof(float) * (size_t)jump->stride);
    for (int block = 0; block < JUMP_BLOCKS; block++) {
        const int at = block * jump->bins;
        for (int k = 1; k < jump->bins; k++) {
            const float weight = told[k] / sqrtf(power[k] * side->power[at + k] + TINY);
            jump->re[k] = weight * side->re[at + k];
            jump->im[k] = weight * side->im[at + k];
        }
        fft_inverse(fft, jump->re, jump->im, jump->frame);
        for (int i = 0; i < jump->hop; i++) {
            const float height = (float)jump->hop / count * jump->frame[i];
            take_peak(peaks, (peak_t){height, sign * (block * jump->hop + i)}, apart);
        }
    }
}

/* Height 0 if none is clear. */
static peak_t clear_peak(jump_t *jump, const fft_t *fft)
{
    peak_t peaks[2] = {{0.0f, 0}, {0.0f, 0}};
    float *told = jump->past_re, count = 0.0f;
    for (int k = 1; k < jump->bins; k++) {
        told[k] = jump->echo_power[k] > AUDIBLE * jump->weight * jump->usual_power[k] ? 1.0f : 0.0f;
        count += told[k];
    }
    if (count < LEAST_BINS)
        return peaks[0];
    find_peaks(jump, fft, &jump->later, jump->mic_power, told, count, 1, peaks);
    find_peaks(jump, fft, &jump->earlier, jump->echo_power, told, count, -1, peaks);
    const float chance = CHANCE / sqrtf(jump->blocks * count);
    const float best = peaks[0].height, next = peaks[1].height;
    const int elsewhere = abs(peaks[0].lag) > jump->hop * WIDTH_MS / 10;
    jump->evidence = elsewhere ? ramp(best, chance, 2.0f * chance) * ramp(best, next, LEAD * next + TINY)
                               : 0.0f;
    return best > chance && best > LEAD * next ? peaks[0] : (peak_t){0.0f, 0};
}

/* Whether an echo that used to go stays, or nothing comes of what was estimated. */
static int suspects(const jump_t *jump, float mic, float echo, float error)
{
    const int went = jump->usual_error < WENT * jump->usual_mic;
    const int stays = error > UNUSUAL * jump->usual_error && error > STAYS * greater(mic, echo);
    return went && stays && echo > ESTIMATED * error;
}

int jump_process(jump_t *jump, const fft_t *fft, const float *mic, const float *echo,
                 const float *error_power)
{
    const int hop = jump->hop;
    const float heard = kernels()->dot(hop, mic, mic), estimated = kernels()->dot(hop, echo, echo);
    append(jump, jump->mic, mic);
    append(jump, jump->echo, echo);
    if (jump->searched_blocks == 0) {
        float error = 0.0f;
        for (int i = 0; i < hop; i++)
            error += (mic[i] - echo[i]) * (mic[i] - echo[i]);
        const int suspected = jump->rest_blocks == 0 && suspects(jump, heard, estimated, error);
        jump->rest_blocks -= jump->rest_blocks > 0;
        if (!suspected) {
            jump->usual_mic += USUAL_RATE * (heard - jump->usual_mic);
            jump->usual_error += USUAL_RATE * (error - jump->usual_error);
            return 0;
        }
        memcpy(jump->usual_power, error_power, sizeof(float) * (size_t)jump->bins);
    }
    jump->searched_blocks++;
    const float weight = 1.0f / (heard + estimated + FAINT * jump->usual_mic);
    jump->weight = KEEP * jump->weight + weight;
    jump->blocks = KEEP * jump->blocks + 1.0f;
    compare(jump, fft, jump->mic, jump->echo, weight, jump->mic_power, &jump->later);
    compare(jump, fft, jump->echo, jump->mic, weight, jump->echo_power, &jump->earlier);
    if (jump->searched_blocks < FIRST_BLOCKS)
        return 0;
    const peak_t peak = clear_peak(jump, fft);
    const int elsewhere = abs(peak.lag) > hop * WIDTH_MS / 10, early = jump->searched_blocks < DRY_BLOCKS;
    const int moved = elsewhere && !early;
    const int stays = !elsewhere && peak.height > (early ? SAME : 0.0f);
    if (stays || moved || jump->searched_blocks == MOST_BLOCKS)
        end_search(jump, stays || moved ? SOON_BLOCKS : REST_BLOCKS);
    return moved ? peak.lag : 0;
}
