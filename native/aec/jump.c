#include "aec/jump.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/kernels.h"
#include "kernels/spectrum.h"

/* Usual error over usual microphone below which the echo counts as reduced: 10 dB. */
static const float REDUCED = 0.1f;
/* Error over microphone, and over estimate, from which the echo no longer is: 6 dB. */
static const float STAYS = 0.25f;
/* Least estimate over error, -6 dB: near-end speech over a weaker echo hides whether that is reduced. */
static const float ESTIMATED = 0.25f;
/* Least error over usual error: 6 dB. */
static const float UNUSUAL = 4.0f;
/* Per block: time constant of the usual energies, 0.5 s. */
static const float USUAL_RATE = 0.02f;
/* Least power of the estimate over the usual error's from which a bin counts: 10 dB. */
static const float AUDIBLE = 10.0f;
/* Least number of such bins: 1 kHz. */
static const float LEAST_BINS = 20.0f;
/* Blocks have the inverse of their energy as weight, down to this share of the usual energy: -20 dB. */
static const float FAINT = 0.01f;
/* Keeps quotients finite in silence. */
static const float TINY = 1e-20f;
/* Per block: time constant of a search's averages, 65 ms, in which the room's response to what was played
 * before the jump decays. */
static const float KEEP = 0.85f;
/* Least height of a peak, in standard deviations of a sum over bins and blocks of random phase: exceeded by
 * chance once in 10^6. */
static const float CHANCE = 5.0f;
/* Least height over the next highest peak. */
static const float LEAD = 1.5f;
/* Height at lag 0 that ends a search early: 2 dB above all else. An echo that decays in the room has no such
 * peak. */
static const float SAME = 0.8f;
enum {
    /* Blocks before the first decision: fewer are coherent by chance. */
    FIRST_BLOCKS = 4,
    /* Blocks before a jump is accepted. A player may be silent for as long while the room still responds to
     * what it played before; after a loss of sound at both ends that has another lag. */
    DRY_BLOCKS = 10,
    /* Longest search: 0.2 s without learning. */
    MOST_BLOCKS = 20,
    /* Rest after a search without result: 0.5 s in which the canceller learns the new path. */
    REST_BLOCKS = 50,
    /* Rest after a result: the echo may move back, or near-end speech may continue. */
    SHORT_REST_BLOCKS = 4,
    /* Half width of a peak. */
    WIDTH_MS = 1,
};

static void init_side(jump_side_t *side, size_t bins, arena_t *arena)
{
    side->re = arena_floats(arena, JUMP_BLOCKS * bins);
    side->im = arena_floats(arena, JUMP_BLOCKS * bins);
    side->power = arena_floats(arena, JUMP_BLOCKS * bins);
    side->newest_power = arena_floats(arena, bins);
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
    init_side(&jump->later, bins, arena);
    init_side(&jump->earlier, bins, arena);
    jump->usual_power = arena_floats(arena, bins);
    jump->re = arena_floats(arena, stride);
    jump->im = arena_floats(arena, stride);
    jump->past_re = arena_floats(arena, stride);
    jump->past_im = arena_floats(arena, stride);
    jump->frame = arena_floats(arena, 2 * (size_t)hop);
    if (arena->base)
        jump_reset(jump);
}

static void reset_side(jump_side_t *side, size_t bytes)
{
    memset(side->re, 0, JUMP_BLOCKS * bytes);
    memset(side->im, 0, JUMP_BLOCKS * bytes);
    memset(side->power, 0, JUMP_BLOCKS * bytes);
    memset(side->newest_power, 0, bytes);
}

static void end_search(jump_t *jump, int rest_blocks)
{
    const size_t bins = sizeof(float) * (size_t)jump->bins;
    reset_side(&jump->later, bins);
    reset_side(&jump->earlier, bins);
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

/* Adds a block of this weight to a side. newest, past: histories of the two signals. */
static void correlate(jump_t *jump, const fft_t *fft, const float *newest, const float *past, float weight,
                      jump_side_t *side)
{
    const int hop = jump->hop, bins = jump->bins;
    const size_t block = sizeof(float) * (size_t)hop;
    memset(jump->frame, 0, block);
    memcpy(jump->frame + hop, newest + JUMP_BLOCKS * hop, block);
    fft_forward(fft, jump->frame, jump->re, jump->im);
    for (int k = 0; k < bins; k++)
        side->newest_power[k] = KEEP * side->newest_power[k] +
                                weight * (jump->re[k] * jump->re[k] + jump->im[k] * jump->im[k]);
    for (int lag = 0; lag < JUMP_BLOCKS; lag++) {
        const int at = lag * bins;
        float *re = side->re + at, *im = side->im + at, *past_power = side->power + at;
        memcpy(jump->frame, past + (JUMP_BLOCKS - 1 - lag) * hop, 2 * block);
        fft_forward(fft, jump->frame, jump->past_re, jump->past_im);
        for (int k = 0; k < bins; k++) {
            const float past_re = jump->past_re[k], past_im = jump->past_im[k];
            re[k] = KEEP * re[k] + weight * (jump->re[k] * past_re + jump->im[k] * past_im);
            im[k] = KEEP * im[k] + weight * (jump->im[k] * past_re - jump->re[k] * past_im);
            /* halved: the frame has twice as many samples as the newest block */
            const float energy = 0.5f * (past_re * past_re + past_im * past_im);
            past_power[k] = KEEP * past_power[k] + weight * energy;
        }
    }
}

typedef struct {
    float height;
    int lag; /* samples */
} peak_t;

/* Keeps the two highest that are more than `apart` samples from each other, the higher first. */
static void update_peaks(peak_t peaks[2], peak_t now, int apart)
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

/* Updates the peaks with the whitened cross-correlation of a side; the height of identical signals is 1.
 * sign: of the side's lags. counts: 1 for each of the `count` bins that count, else 0. */
static void find_peaks(jump_t *jump, const fft_t *fft, const jump_side_t *side, const float *counts,
                       float count, int sign, peak_t peaks[2])
{
    const int apart = jump->hop * WIDTH_MS / 10;
    memset(jump->re, 0, sizeof(float) * (size_t)jump->stride);
    memset(jump->im, 0, sizeof(float) * (size_t)jump->stride);
    for (int block = 0; block < JUMP_BLOCKS; block++) {
        const int at = block * jump->bins;
        for (int k = 1; k < jump->bins; k++) {
            const float weight = counts[k] / sqrtf(side->newest_power[k] * side->power[at + k] + TINY);
            jump->re[k] = weight * side->re[at + k];
            jump->im[k] = weight * side->im[at + k];
        }
        fft_inverse(fft, jump->re, jump->im, jump->frame);
        for (int i = 0; i < jump->hop; i++) {
            const float height = (float)jump->hop / count * jump->frame[i];
            update_peaks(peaks, (peak_t){height, sign * (block * jump->hop + i)}, apart);
        }
    }
}

/* The highest peak; height 0 if it is not clear. Sets jump->evidence. */
static peak_t clear_peak(jump_t *jump, const fft_t *fft)
{
    peak_t peaks[2] = {{0.0f, 0}, {0.0f, 0}};
    float *counts = jump->past_re, count = 0.0f;
    for (int k = 1; k < jump->bins; k++) {
        counts[k] = jump->earlier.newest_power[k] > AUDIBLE * jump->weight * jump->usual_power[k] ? 1.0f
                                                                                                  : 0.0f;
        count += counts[k];
    }
    if (count < LEAST_BINS)
        return peaks[0];
    find_peaks(jump, fft, &jump->later, counts, count, 1, peaks);
    find_peaks(jump, fft, &jump->earlier, counts, count, -1, peaks);
    const float chance = CHANCE / sqrtf(jump->blocks * count);
    const float best = peaks[0].height, next = peaks[1].height;
    const int elsewhere = abs(peaks[0].lag) > jump->hop * WIDTH_MS / 10;
    jump->evidence = elsewhere ? ramp(best, chance, 2.0f * chance) * ramp(best, next, LEAD * next + TINY)
                               : 0.0f;
    return best > chance && best > LEAD * next ? peaks[0] : (peak_t){0.0f, 0};
}

/* 1 if an echo that was reduced no longer is, or the estimate has nothing in the microphone. Energies of a
 * block. */
static int suspects(const jump_t *jump, float mic, float echo, float error)
{
    const int was_reduced = jump->usual_error < REDUCED * jump->usual_mic;
    const int stays = error > UNUSUAL * jump->usual_error && error > STAYS * greater(mic, echo);
    return was_reduced && stays && echo > ESTIMATED * error;
}

/* Watches for the begin of a search: returns 1 if it begins with this block, else updates the usual energies.
 * mic, echo: energies of the block. */
static int begins_search(jump_t *jump, const jump_input_t *input, float mic, float echo)
{
    float error = 0.0f;
    for (int i = 0; i < jump->hop; i++)
        error += (input->mic[i] - input->echo[i]) * (input->mic[i] - input->echo[i]);
    const int suspected = jump->rest_blocks == 0 && suspects(jump, mic, echo, error);
    jump->rest_blocks -= jump->rest_blocks > 0;
    if (suspected) {
        memcpy(jump->usual_power, input->error_power, sizeof(float) * (size_t)jump->bins);
    } else {
        jump->usual_mic += USUAL_RATE * (mic - jump->usual_mic);
        jump->usual_error += USUAL_RATE * (error - jump->usual_error);
    }
    return suspected;
}

/* Decides on the search so far, and ends it with a result or at its time limit. Returns the jump in samples;
 * 0: none yet. */
static int decide(jump_t *jump, const fft_t *fft)
{
    const peak_t peak = clear_peak(jump, fft);
    const int elsewhere = abs(peak.lag) > jump->hop * WIDTH_MS / 10,
              early = jump->searched_blocks < DRY_BLOCKS;
    const int moved = elsewhere && !early;
    const int stays = !elsewhere && peak.height > (early ? SAME : 0.0f);
    if (stays || moved || jump->searched_blocks == MOST_BLOCKS)
        end_search(jump, stays || moved ? SHORT_REST_BLOCKS : REST_BLOCKS);
    return moved ? peak.lag : 0;
}

int jump_process(jump_t *jump, const fft_t *fft, const jump_input_t *input)
{
    const int hop = jump->hop;
    const float mic = kernels()->dot(hop, input->mic, input->mic),
                echo = kernels()->dot(hop, input->echo, input->echo);
    append(jump, jump->mic, input->mic);
    append(jump, jump->echo, input->echo);
    if (jump->searched_blocks == 0 && !begins_search(jump, input, mic, echo))
        return 0;
    jump->searched_blocks++;
    const float weight = 1.0f / (mic + echo + FAINT * jump->usual_mic);
    jump->weight = KEEP * jump->weight + weight;
    jump->blocks = KEEP * jump->blocks + 1.0f;
    correlate(jump, fft, jump->mic, jump->echo, weight, &jump->later);
    correlate(jump, fft, jump->echo, jump->mic, weight, &jump->earlier);
    return jump->searched_blocks < FIRST_BLOCKS ? 0 : decide(jump, fft);
}
