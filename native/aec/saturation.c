#include "aec/saturation.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/kernels.h"

/* Per block: time constant of the averages, 2 s of far-end sound. */
static const float AVERAGE_RATE = 0.005f;
/* Per block: share of the way to the regression's drive; time constant 1 s. */
static const float STEP = 0.01f;
/* Largest change of g per block: the echo path, which grows as the curve's gain falls, must keep up. */
static const float MOST_CHANGE = 0.02f;
/* Largest g: the curve ends 26 dB below full scale, where speech at -26 dBFS is a square wave. */
static const float MOST_DRIVE = 20.0f;
/* Blocks before the first change, 3 s: while the path is learned, its share grows with time, and the far end
 * happens to be loud early or late. */
enum { FIRST_BLOCKS = 300 };
/* Drive from which the curve is applied. Chance reached 2.7 with speech and 3.5 with music in 124 linear
 * scenes; overdriven ones (6 and 12 dB, g = 8 and 16) reached 6.4 and more. */
static const float OVERDRIVEN = 4.0f;
/* Drive below which it no longer is: hysteresis. */
static const float NO_LONGER = 2.0f;
/* Keeps the slope finite without a spread of loudness. */
static const float TINY = 1e-20f;

void saturation_reset(saturation_t *saturation) { memset(saturation, 0, sizeof *saturation); }

void saturation_process(const saturation_t *saturation, float *x, int count)
{
    if (!saturation->overdriven)
        return;
    const float drive = sqrtf(saturation->drive_square), inverse = 1.0f / drive;
    for (int i = 0; i < count; i++)
        x[i] *= drive;
    kernels()->tanh(count, x, x);
    for (int i = 0; i < count; i++)
        x[i] *= inverse;
}

static void average(float *state, float now) { *state += AVERAGE_RATE * (now - *state); }

void saturation_learn(saturation_t *saturation, float loudness, float power, float cross)
{
    average(&saturation->power, power);
    average(&saturation->loudness, power * loudness);
    average(&saturation->loudness_square, power * loudness * loudness);
    average(&saturation->cross, cross);
    average(&saturation->cross_loudness, cross * loudness);
    if (saturation->far_blocks < FIRST_BLOCKS) {
        saturation->far_blocks++;
        return;
    }
    /* the regression line of cross / power over loudness, each block weighted by its power */
    const float spread = saturation->power * saturation->loudness_square -
                         saturation->loudness * saturation->loudness;
    const float slope = (saturation->power * saturation->cross_loudness -
                         saturation->loudness * saturation->cross) /
                        (spread + TINY);
    const float drive = sqrtf(saturation->drive_square), least = fmaxf(0.0f, drive - MOST_CHANGE),
                most = fminf(MOST_DRIVE, drive + MOST_CHANGE);
    saturation->drive_square = clamp(saturation->drive_square - STEP * slope, least * least, most * most);
    const float edge = saturation->overdriven ? NO_LONGER : OVERDRIVEN;
    saturation->overdriven = saturation->drive_square > edge * edge;
}

void saturation_keep(saturation_t *saturation, tape_t *tape)
{
    tape_float(tape, &saturation->drive_square, 0.0f, MOST_DRIVE * MOST_DRIVE);
    tape_int(tape, &saturation->overdriven, 0, 1);
    /* a combination that only a forged state has */
    if (tape->mode == TAPE_PLAY && saturation->drive_square < NO_LONGER * NO_LONGER)
        saturation->overdriven = 0;
}
