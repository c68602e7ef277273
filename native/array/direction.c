#include "array/direction.h"

#include <math.h>
#include <string.h>

#include "array/array.h"
#include "base/branchless.h"
#include "kernels/kernels.h"
#include "kernels/levels.h"

static const float SOUND_MM_PER_S = 343e3f; /* at 20 degrees Celsius */
static const float TURN = 6.28318531f;      /* 2 pi */
static const float BIN_HZ = 50.0f;          /* spectrum.h */

enum {
    FIRST_BIN = 6,                  /* 300 Hz: below, the phases of microphones 10 cm apart hardly differ */
    MOST_BINS = 96,                 /* up to 5 kHz, speech */
    HALF_GRID = DIRECTION_GRID / 2, /* opposite directions have conjugate steering vectors */
    STEPS = 4,                      /* of the half grid in each block, so that P takes 9 blocks */
    WARM_UP_BLOCKS = 30,            /* after a reset, until the suppressor knows the noise: 0.3 s */
    HOLD_BLOCKS = 300,              /* for which a direction is valid after it was found: 3 s */
};

/* Rate of the averages per block of speech, 0.2 s: a talker at another side is found within 0.5 s. */
static const float RATE = 0.05f;
/* Largest share of noise in the power of a bin that is averaged, -6 dB. */
static const float MOST_NOISE = 0.25f;
/* Probability of speech from which a block is averaged. */
static const float SPOKEN = 0.5f;
/* Least sum of speech probabilities over the 9 blocks in which P is computed, from which it is searched. */
static const float LEAST_SPEECH_BLOCKS = 2.0f;
/* Largest P less the mean of all, per pair and bin, from which it is a direction; at most 1. With a fan 5 dB
 * below the talker the direction was known for 82 to 91 % of 12 scenes and never the fan's. */
static const float LEAST_PROMINENCE = 0.015f;
/* Distance of microphones from a line over their extent on it, up to which they are in that line: 5 mm of
 * 100, which noise of the phases hides. */
static const float LINE_SHARE = 0.05f;
/* Sine of the angle between a line and a direction up to which that is on the line: rounding. */
static const float ON_LINE = 1e-3f;
/* w of a bin that is left out. With 0 its average would decay to denormals. */
static const float LEFT_OUT = 1e-6f;

void direction_init(direction_t *direction, int channels, int bins, int stride, float window_power,
                    arena_t *arena)
{
    const int most = bins - FIRST_BIN < MOST_BINS ? bins - FIRST_BIN : MOST_BINS;
    direction->channels = channels;
    direction->pairs = channels * (channels - 1) / 2;
    direction->stride = stride;
    direction->count = most / KERNEL_LANES * KERNEL_LANES;
    direction->quiet_power = QUANTISATION_POWER * window_power;
    const size_t count = (size_t)direction->count, rows = 2 * (size_t)direction->pairs;
    direction->unit_re = arena_floats(arena, count * (size_t)channels);
    direction->unit_im = arena_floats(arena, count * (size_t)channels);
    direction->weight = arena_floats(arena, count);
    direction->average = arena_floats(arena, count * rows);
    direction->steering = arena_floats(arena, count * rows * HALF_GRID);
    direction->placed = 0;
    if (arena->base)
        direction_reset(direction);
}

static void forget(direction_t *direction)
{
    memset(direction->average, 0, sizeof(float) * 2 * (size_t)(direction->pairs * direction->count));
    direction->degrees = DIRECTION_UNKNOWN;
}

void direction_reset(direction_t *direction)
{
    forget(direction);
    memset(direction->power, 0, sizeof direction->power);
    direction->next = direction->blocks = direction->age_blocks = 0;
    direction->speech_blocks = 0.0f;
}

/* ---- Places */

/* The unit vector towards a direction of the grid. */
static void look(int at, float *x, float *y)
{
    const float angle = TURN * (float)at / (float)DIRECTION_GRID;
    *x = sinf(angle);
    *y = cosf(angle);
}

/* The unit vector along the longest distance of two microphones, or (0, 0) if they are not all in that line.
 */
static void find_line(const direction_t *direction, const float (*positions_mm)[2], float along[2])
{
    float extent_mm = 0.0f, off_mm = 0.0f;
    for (int i = 1; i < direction->channels; i++)
        for (int j = 0; j < i; j++) {
            const float x = positions_mm[i][0] - positions_mm[j][0],
                        y = positions_mm[i][1] - positions_mm[j][1], distance_mm = sqrtf(x * x + y * y);
            if (distance_mm > extent_mm) {
                extent_mm = distance_mm;
                along[0] = x / distance_mm;
                along[1] = y / distance_mm;
            }
        }
    for (int i = 1; i < direction->channels; i++) {
        const float x = positions_mm[i][0] - positions_mm[0][0], y = positions_mm[i][1] - positions_mm[0][1];
        off_mm = greater(off_mm, fabsf(x * along[1] - y * along[0]));
    }
    if (off_mm > LINE_SHARE * extent_mm)
        along[0] = along[1] = 0.0f;
}

/* The front of a line is where y is larger; of a line that points forward, where x is larger. */
static void find_behind(direction_t *direction, const float (*positions_mm)[2])
{
    float along[2] = {0.0f, 0.0f};
    find_line(direction, positions_mm, along);
    const float sign = along[0] < 0.0f || (along[0] == 0.0f && along[1] > 0.0f) ? -1.0f : 1.0f;
    for (int at = 0; at < DIRECTION_GRID; at++) {
        float x, y;
        look(at, &x, &y);
        direction->behind[at] = sign * (y * along[0] - x * along[1]) < -ON_LINE;
    }
}

void direction_place(direction_t *direction, const float (*positions_mm)[2])
{
    const int count = direction->count, half = direction->pairs * count;
    float *at = direction->steering;
    for (int step = 0; step < HALF_GRID; step++, at += half) {
        float x, y;
        look(step, &x, &y);
        for (int i = 1; i < direction->channels; i++)
            for (int j = 0; j < i; j++, at += count) {
                const float path_mm = x * (positions_mm[i][0] - positions_mm[j][0]) +
                                      y * (positions_mm[i][1] - positions_mm[j][1]),
                            step_phase = TURN * BIN_HZ * path_mm / SOUND_MM_PER_S;
                for (int k = 0; k < count; k++) {
                    const float phase = step_phase * (float)(FIRST_BIN + k);
                    at[k] = cosf(phase);
                    at[half + k] = sinf(phase);
                }
            }
    }
    find_behind(direction, positions_mm);
    direction->placed = 1;
    direction_reset(direction);
}

/* ---- Cross-spectra */

/* Writes w. */
static void weigh(direction_t *direction, const direction_input_t *input)
{
    const float *restrict power = input->power + FIRST_BIN, *restrict echo = input->echo + FIRST_BIN,
                          *restrict noise = input->noise + FIRST_BIN;
    float *restrict weight = direction->weight;
    for (int k = 0; k < direction->count; k++)
        weight[k] = lesser(ARRAY_MOST_ECHO * power[k] >= echo[k] ? 1.0f : LEFT_OUT,
                           MOST_NOISE * power[k] >= noise[k] ? 1.0f : LEFT_OUT);
}

/* A channel's spectrum with magnitude 1, less where it is quantisation noise. */
static void whiten(direction_t *direction, int channel, const direction_input_t *input)
{
    const int from = channel * direction->stride + FIRST_BIN, to = channel * direction->count;
    const float *restrict re = input->re + from, *restrict im = input->im + from;
    float *restrict unit_re = direction->unit_re + to, *restrict unit_im = direction->unit_im + to;
    const float quiet = direction->quiet_power;
    for (int k = 0; k < direction->count; k++) {
        const float scale = 1.0f / sqrtf(re[k] * re[k] + im[k] * im[k] + quiet);
        unit_re[k] = scale * re[k];
        unit_im[k] = scale * im[k];
    }
}

static void average_pair(const direction_t *direction, int i, int j, float rate, float *restrict re,
                         float *restrict im)
{
    const int count = direction->count;
    const float *restrict ar = direction->unit_re + i * count, *restrict ai = direction->unit_im + i * count,
                          *restrict br = direction->unit_re + j * count,
                          *restrict bi = direction->unit_im + j * count, *restrict weight = direction->weight;
    for (int k = 0; k < count; k++) {
        re[k] += rate * (weight[k] * (ar[k] * br[k] + ai[k] * bi[k]) - re[k]);
        im[k] += rate * (weight[k] * (ai[k] * br[k] - ar[k] * bi[k]) - im[k]);
    }
}

static void average(direction_t *direction, const direction_input_t *input, float rate)
{
    const int half = direction->pairs * direction->count;
    float *at = direction->average;
    weigh(direction, input);
    for (int c = 0; c < direction->channels; c++)
        whiten(direction, c, input);
    for (int i = 1; i < direction->channels; i++)
        for (int j = 0; j < i; j++, at += direction->count)
            average_pair(direction, i, j, rate, at, at + half);
}

/* ---- Direction */

static void steer(direction_t *direction)
{
    const int half = direction->pairs * direction->count;
    for (int step = 0; step < STEPS; step++, direction->next++) {
        const float *steering = direction->steering + 2 * half * direction->next;
        const float even = kernels()->dot(half, direction->average, steering),
                    odd = kernels()->dot(half, direction->average + half, steering + half);
        direction->power[direction->next] = even + odd;
        direction->power[direction->next + HALF_GRID] = even - odd;
    }
}

/* Maximum of the parabola through three values, in steps from the middle one, which is the largest. */
static float peak_offset(float before, float middle, float after)
{
    const float bend = before - 2.0f * middle + after;
    return bend < 0.0f ? clamp(0.5f * (before - after) / bend, -0.5f, 0.5f) : 0.0f;
}

static void find_peak(direction_t *direction)
{
    const float *power = direction->power;
    float mean = 0.0f, highest = -INFINITY;
    int peak = 0;
    for (int at = 0; at < DIRECTION_GRID; at++) {
        mean += power[at] / (float)DIRECTION_GRID;
        if (power[at] > highest && !direction->behind[at]) {
            highest = power[at];
            peak = at;
        }
    }
    if (!isfinite(mean))
        forget(direction);
    if (!(highest - mean > LEAST_PROMINENCE * (float)(direction->pairs * direction->count)))
        return;
    const float steps = (float)peak + peak_offset(power[(peak + DIRECTION_GRID - 1) % DIRECTION_GRID],
                                                  highest, power[(peak + 1) % DIRECTION_GRID]);
    direction->degrees = fmodf(360.0f + steps * 360.0f / (float)DIRECTION_GRID, 360.0f);
    direction->age_blocks = 0;
}

void direction_process(direction_t *direction, const direction_input_t *input)
{
    if (!direction->placed)
        return;
    const int spoken = direction->blocks == WARM_UP_BLOCKS && input->speech_probability > SPOKEN;
    const float speech = spoken ? input->speech_probability : 0.0f;
    average(direction, input, RATE * speech);
    steer(direction);
    direction->speech_blocks += speech;
    direction->blocks += direction->blocks < WARM_UP_BLOCKS;
    direction->age_blocks += direction->age_blocks < HOLD_BLOCKS;
    if (direction->next < HALF_GRID)
        return;
    direction->next = 0;
    if (direction->speech_blocks > LEAST_SPEECH_BLOCKS)
        find_peak(direction);
    direction->speech_blocks = 0.0f;
    if (direction->age_blocks == HOLD_BLOCKS)
        forget(direction);
}
