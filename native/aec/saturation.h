/* A loudspeaker that is overdriven: how far it bends what it is given, so that the canceller hears the far
 * end bent alike (a Hammerstein model: a curve without memory, then a linear path).
 *
 * The curve is tanh(g x) / g: as the input while that is small, never more than 1 / g. Its one parameter, the
 * drive g, is told by the share of the canceller's estimate in the microphone: where the loudspeaker bends
 * more than the estimate knows, loud blocks hold less of it than quiet ones. The line of the share over the
 * loudness, regressed over seconds and weighed as the canceller weighs its error, has the slope -d(g^2): for
 * a Gaussian input of power l the least-squares gain of x - g^2 x^3 / 3 is 1 - g^2 l. A step along it closes
 * the loop: the drive is right when the line is level. Double talk and a path not learned yet have nothing to
 * do with the loudness and average out. That a curve before the filter is learned beside it is A. Stenger's
 * and W. Kellermann's ("Adaptation of a memoryless preprocessor for nonlinear acoustic echo cancelling",
 * Signal Processing 80 (2000)); their gradient needs the path's convolution once more, this line next to
 * nothing. Left out: curves that are not odd, and any memory of the loudspeaker; what they leave is the
 * residual stage's.
 */
#ifndef APMPI_AEC_SATURATION_H
#define APMPI_AEC_SATURATION_H

#include "base/tape.h"

typedef struct {
    int overdriven;     /* beyond chance: the far end is bent */
    float drive_square; /* g^2, full scale being 1; 0: linear */
    int heard_blocks;   /* saturating */
    /* averages of the last seconds: of power, of it times the loudness and its square; of cross, and of it
     * times the loudness */
    float power, loudness, loudness_square, cross, cross_loudness;
} saturation_t;

void saturation_reset(saturation_t *saturation);

/* Bends the far end in place; count: whole vectors of eight. */
void saturation_process(const saturation_t *saturation, float *x, int count);

/* Of a block in which the far end was heard. loudness: its mean square where the echo comes from; power and
 * cross: of the canceller's estimate, and of it times the error, whitened by the error. */
void saturation_learn(saturation_t *saturation, float loudness, float power, float cross);

/* What is worth keeping over a restart: the drive, since the echo path was learned with it. */
void saturation_keep(saturation_t *saturation, tape_t *tape);

#endif
