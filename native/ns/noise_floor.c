#include "ns/noise_floor.h"

#include <math.h>

#include "base/branchless.h"
#include "kernels/kernels.h"
#include "kernels/spectrum.h"

/* A-priori SNR of speech where it is present: 15 dB (Gerkmann & Hendriks 2012, sec. III). */
static const float PRIOR_SNR = 31.6f;
/* Smoothing of the noise per block, 100 ms; their 0.2 at hops of 16 ms corresponds to 0.13. */
static const float NOISE_RATE = 0.1f;
/* Largest ratio of a power to the noise that counts in the average. 5 % of the blocks of noise exceed 3 times
 * the mean; what does is mostly speech that the probability missed. */
static const float OUTLIER = 3.0f;
/* Reduction of NOISE_RATE in a quiet room, where the power of speech itself would leak into the noise. */
static const float QUIET_ROOM_HOLD = 0.9f;
/* Window of the minimum, 4 s. */
enum { MINIMUM_BLOCKS = 400 };
/* Windows in a row that are no evidence of the noise because a foreground sound filled them: music in a quiet
 * room counts as its noise after 32 s. */
enum { HELD_WINDOWS_MAX = 8 };
/* Mean degree of foreground from which it filled a window. */
static const float FILLED = 0.5f;
/* Mean over the bands of |ln(minimum of the window's second half / that of the first)| up to which it held a
 * constant noise, alone or behind a voice: 1.1 dB. Measured: 0.12 to 0.23 for steady noise behind speech (9
 * of 10 windows); of recorded music 5 % of the windows are below 0.26. */
static const float CONSTANT = 0.25f;
/* Mean tonality from which a window held a tonal sound. Measured: up to 0.1 for speech without pauses in
 * steady noise at an SNR of 0 to 20 dB, 0.11 and more in 3 of 4 windows of recorded music. */
static const float TONAL = 0.11f;
/* CONSTANT of such a window, 0.65 dB: a tone that stays, such as hum. Of recorded music all are above 0.18.
 */
static const float TONAL_CONSTANT = 0.15f;
/* Least minimum before that window over the quantisation's power: less is a muted microphone and no room. */
static const float UNMUTED = 1.0f;
/* Blocks after a reset until the minimum raises the noise, 0.2 s. */
enum { FIRST_MINIMUM_BLOCKS = 20 };
/* Least noise over the minimum. The mean of a stationary noise is 8 to 9 times the minimum of its smoothed
 * power in MINIMUM_BLOCKS to twice that (measured, white noise). A third of that, so that speech whose pauses
 * are filled by reverberation does not raise the noise; from there on the tracker converges by itself. */
static const float MINIMUM_BIAS = 3.0f;
/* Blocks without echo that a window's minimum needs. Under an echo only words exceed it, and the minimum of
 * fewer blocks is that of words and not of pauses (in double talk, with 200 of 300 blocks, up to 10 dB too
 * high). */
enum { MINIMUM_CLEAR_BLOCKS = 370 };

void noise_floor_init(noise_floor_t *floor, int bins, int stride, float window_power, arena_t *arena)
{
    floor->bins = bins;
    floor->stride = stride;
    floor->window_power = window_power;
    floor->noise = arena_floats(arena, (size_t)stride);
    floor->smooth = arena_floats(arena, (size_t)stride);
    floor->lowest = arena_floats(arena, (size_t)stride);
    floor->lowest_next = arena_floats(arena, (size_t)stride);
    floor->clear_blocks = arena_floats(arena, (size_t)stride);
    if (arena->base)
        noise_floor_reset(floor);
}

static void empty_window(noise_floor_t *floor)
{
    for (int k = 0; k < floor->stride; k++) {
        floor->lowest_next[k] = NO_MINIMUM;
        floor->clear_blocks[k] = 0.0f;
    }
    for (int half = 0; half < 2; half++)
        for (int band = 0; band < NS_BANDS; band++)
            floor->band_lowest[half][band] = NO_MINIMUM;
    floor->foreground = floor->tonality = 0.0f;
    floor->window_block = 0;
}

void noise_floor_reset(noise_floor_t *floor)
{
    for (int k = 0; k < floor->stride; k++) {
        floor->noise[k] = QUANTISATION_POWER * floor->window_power;
        floor->smooth[k] = 0.0f;
        floor->lowest[k] = NO_MINIMUM;
    }
    empty_window(floor);
    floor->held_windows = floor->blocks = 0;
}

/* presence = speech probability of each bin, from the mean a-posteriori SNR of the bin and its neighbours,
 * since speech rarely fills a single bin. */
static void find_presence(const noise_floor_t *floor, const float *restrict input, float *restrict posterior,
                          float *restrict presence)
{
    const float per_bin = -PRIOR_SNR / (1.0f + PRIOR_SNR) / 3.0f;
    const float *restrict noise = floor->noise;
    const int last = floor->bins - 1;
    for (int k = 0; k < floor->stride; k++)
        posterior[k] = input[k] / noise[k];
    for (int k = 1; k < last; k++)
        presence[k] = per_bin * (posterior[k - 1] + posterior[k] + posterior[k + 1]);
    presence[0] = per_bin * (2.0f * posterior[0] + posterior[1]);
    for (int k = last; k < floor->stride; k++)
        presence[k] = per_bin * (posterior[last - 1] + 2.0f * posterior[last]);
    kernels()->exp(floor->stride, presence, presence);
    for (int k = 0; k < floor->stride; k++)
        presence[k] = 1.0f / (1.0f + (1.0f + PRIOR_SNR) * presence[k]);
}

/* clear = the smoothed power in bins without echo, NO_MINIMUM in the others. */
static void find_clear(const noise_floor_t *floor, const float *restrict input, const float *restrict echo,
                       float *restrict clear)
{
    /* the first block sets the average */
    const float rise_rate = floor->blocks ? SMOOTH_RISE_RATE : 1.0f,
                fall_rate = floor->blocks ? SMOOTH_FALL_RATE : 1.0f;
    float *restrict smooth = floor->smooth;
    for (int k = 0; k < floor->bins; k++) {
        smooth[k] = follow(smooth[k], input[k], rise_rate, fall_rate);
        clear[k] = ECHO_MARGIN * echo[k] <= MOST_ECHO * smooth[k] ? smooth[k] : NO_MINIMUM;
    }
}

static void follow_minimum(const noise_floor_t *floor, const float *restrict clear)
{
    float *restrict lowest = floor->lowest, *restrict lowest_next = floor->lowest_next,
                    *restrict clear_blocks = floor->clear_blocks;
    for (int k = 0; k < floor->bins; k++) {
        lowest[k] = lesser(lowest[k], clear[k]);
        lowest_next[k] = lesser(lowest_next[k], clear[k]);
        clear_blocks[k] += clear[k] < NO_MINIMUM ? 1.0f : 0.0f;
    }
}

/* Average in bins without echo as far as they hold no speech; not below the minimum with its bias. */
static void follow_noise(const noise_floor_t *floor, const float *restrict input,
                         const float *restrict presence, const float *restrict clear, float rate)
{
    const float bias = floor->blocks >= FIRST_MINIMUM_BLOCKS ? MINIMUM_BIAS : 0.0f,
                quiet = QUANTISATION_POWER * floor->window_power;
    const float *restrict lowest = floor->lowest;
    float *restrict noise = floor->noise;
    for (int k = 0; k < floor->bins; k++) {
        const float innovation = lesser(input[k], OUTLIER * noise[k]) - noise[k];
        const float tracked = noise[k] + rate * (1.0f - presence[k]) * innovation,
                    least = bias * (lowest[k] < NO_MINIMUM ? lowest[k] : 0.0f);
        const float raised = greater(greater(tracked, least), quiet);
        noise[k] = clear[k] < NO_MINIMUM ? raised : noise[k];
    }
}

static void follow_bands(noise_floor_t *floor, const ns_bands_t *bands)
{
    float *lowest = floor->band_lowest[floor->window_block >= MINIMUM_BLOCKS / 2];
    for (int band = 0; band < bands->count; band++)
        lowest[band] = lesser(lowest[band], bands->smooth_input[band]);
}

/* Returns 1 if the complete window held a sound that stands clear of the noise and is not constant. */
static int held_foreground(const noise_floor_t *floor, const ns_block_t *block, int tonal)
{
    const float quiet = quiet_bin(block), muted = UNMUTED * quiet * (float)floor->bins,
                before = spectrum_sum(floor->lowest, 0, floor->bins);
    float change = 0.0f;
    for (int band = 0; band < block->bands->count; band++)
        change += fabsf(logf((floor->band_lowest[1][band] + quiet) / (floor->band_lowest[0][band] + quiet)));
    return floor->foreground > FILLED * MINIMUM_BLOCKS && before > muted &&
           change > (tonal ? TONAL_CONSTANT : CONSTANT) * (float)block->bands->count;
}

/* Takes the minimum of the complete window unless it is held, and begins the next one. */
static void end_window(noise_floor_t *floor, const ns_block_t *block)
{
    const int tonal = floor->tonality > TONAL * MINIMUM_BLOCKS,
              held = held_foreground(floor, block, tonal) &&
                     (tonal || floor->held_windows < HELD_WINDOWS_MAX);
    floor->held_windows = held && !tonal ? floor->held_windows + 1 : 0;
    for (int k = 0; k < floor->bins; k++) {
        if (floor->clear_blocks[k] >= MINIMUM_CLEAR_BLOCKS && !held)
            floor->lowest[k] = floor->lowest_next[k];
    }
    empty_window(floor);
}

void noise_floor_process(noise_floor_t *floor, const ns_block_t *block, float speech_probability,
                         const near_end_t *near_end, float tonality)
{
    const float rate = NOISE_RATE * (1.0f - speech_probability) *
                       (1.0f - QUIET_ROOM_HOLD * near_end->quiet_room);
    float *posterior = block->scratch[0], *clear = block->scratch[0], *presence = block->scratch[1];
    find_presence(floor, block->in.power, posterior, presence);
    find_clear(floor, block->in.power, block->in.echo, clear);
    follow_minimum(floor, clear);
    follow_noise(floor, block->in.power, presence, clear, rate);
    follow_bands(floor, block->bands);
    floor->foreground += near_end->foreground;
    floor->tonality += tonality;
    if (++floor->window_block == MINIMUM_BLOCKS)
        end_window(floor, block);
    floor->blocks += floor->blocks < FIRST_MINIMUM_BLOCKS;
}

void noise_floor_raise(noise_floor_t *floor, int bin, float noise, float minimum)
{
    const float least = lesser(floor->smooth[bin], minimum);
    floor->noise[bin] = greater(floor->noise[bin], lesser(floor->smooth[bin], noise));
    floor->lowest[bin] = greater(floor->lowest[bin], least);
    floor->lowest_next[bin] = greater(floor->lowest_next[bin], least);
}

void noise_floor_keep(noise_floor_t *floor, tape_t *tape)
{
    /* up to white noise at full scale */
    tape_floats(tape, floor->noise, (size_t)floor->bins, QUANTISATION_POWER * floor->window_power,
                floor->window_power);
}
