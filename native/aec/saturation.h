/* Overdriven loudspeaker: its saturation, applied to the far end ahead of the canceller (a Hammerstein model:
 * a curve without memory, then a linear path).
 *
 * The curve is tanh(g x) / g: the identity for small x, never more than 1 / g. Its one parameter is the drive
 * g. Where the loudspeaker saturates more than the model, the microphone holds a smaller share of the
 * canceller's estimate in loud blocks than in quiet ones: for a Gaussian input of power l the least-squares
 * gain of x - g^2 x^3 / 3 is 1 - g^2 l. So the regression line of the share over the loudness, over seconds
 * and with each block weighted as the canceller weights its error, has the slope -d(g^2). A step along it
 * closes the loop: the drive is right when the line is level. Double talk and a path that is not learned yet
 * do not depend on the loudness and average out.
 *
 * Learning a curve ahead of the filter beside it: A. Stenger, W. Kellermann, "Adaptation of a memoryless
 * preprocessor for nonlinear acoustic echo cancelling", Signal Processing 80 (2000). Their gradient costs
 * another convolution with the path; this regression costs next to nothing. Left out: curves that are not
 * odd, and memory of the loudspeaker; their echo is left to the residual stage.
 */
#ifndef APMPI_AEC_SATURATION_H
#define APMPI_AEC_SATURATION_H

#include "base/tape.h"

typedef struct {
    int overdriven;     /* the drive is significant: the curve is applied */
    float drive_square; /* g^2, for samples of full scale 1; 0: linear */
    int far_blocks;     /* learned from, up to FIRST_BLOCKS */
    /* Averages: of the estimate's power, times the loudness, times its square; of cross, times the loudness.
     */
    float power, loudness, loudness_square, cross, cross_loudness;
} saturation_t;

void saturation_reset(saturation_t *saturation);

/* Applies the curve to the far end in place while overdriven. count: a multiple of 8. */
void saturation_process(const saturation_t *saturation, float *x, int count);

/* Learns from a block with far-end sound. loudness: mean square of the far end at the echo's delay. power,
 * cross: of the canceller's estimate, and of it times the error, both whitened (aec.h: block_power,
 * block_cross). */
void saturation_learn(saturation_t *saturation, float loudness, float power, float cross);

/* Keeps the drive, since the echo path was learned with it. */
void saturation_keep(saturation_t *saturation, tape_t *tape);

#endif
