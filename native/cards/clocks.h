/* The clock of a card against the microphone's: two estimators on the lateness of its sound, which is given
 * to them once in a frame. Lateness is positive if sound comes too late, that is, if the card's queue is too
 * long. */
#ifndef APMPI_CARDS_CLOCKS_H
#define APMPI_CARDS_CLOCKS_H

/* For a card on another clock: PI controller of the resampling ratio.
 *
 * It is critically damped with the bandwidth w (rad/s): proportional gain 2 w, integral gain w^2. The
 * bandwidth starts wide and narrows as 4 / (t + 1 s), about as fast as that of a regression over all
 * readings, so that 1000 ppm are found to 20 ppm in 5 s and to 1 ppm in 20 s. It ends at 0.1 rad/s: there
 * positions rounded to whole samples move the sound by some hundredths of a sample, and positions rounded to
 * 1 ms, as USB reports them, by half a sample. After a placement, which is as exact as one reading of the
 * positions, the proportional gain alone is that of a running mean (1 / t), which restores the place of the
 * sound within about 0.1 s. */
enum { DRIFT_PPM_MAX = 1200 }; /* two crystals off by 500 ppm each, with a margin of a fifth */
typedef struct {
    double frame_s;
    double integral; /* card clock over microphone clock, less 1 */
    double since_start_s, since_placed_s;
} drift_t;

/* ppm: the clock difference that an earlier run has found */
void drift_init(drift_t *drift, double frame_s, double ppm);

/* Restarts the proportional gain: the sound has been placed. */
void drift_placed(drift_t *drift);

/* The card's samples per sample of the microphone for the next frame. */
double drift_ratio(drift_t *drift, double late_s);

/* For a card on the microphone's clock: exact placement, to the sample.
 *
 * A placement is only as exact as one reading of two positions, each rounded to a whole sample or more. The
 * mean of SETTLING_READINGS later ones is its error, without the smallest and the largest: the thread may
 * have been interrupted between time and position. */
enum { SETTLING_READINGS = 10 };
typedef struct {
    int readings;
    double late_samples[SETTLING_READINGS]; /* in ascending order */
} settling_t;

/* Restarts the readings: the sound has been placed. */
void settling_placed(settling_t *settling);

/* By how many samples to correct now: 0 unless the mean is above half a sample and three times its standard
 * error. */
int settling_late_samples(settling_t *settling, double late_samples);

#endif
