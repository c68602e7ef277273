/* Steady noise: detection of a noise that begins at once and stays, such as a fan.
 *
 * The noise floor's tracker takes it for speech. It is noise if the bands' powers hardly fluctuate for 0.4 s,
 * as those of speech always do. Tones and chords are steady, too: their bins fluctuate less than those of
 * noise, or less than they differ from each other. They are left to the noise floor's minimum, which takes
 * them for noise after 4 to 8 s, or after 32 s if they change and stand clear of the noise. A window begins
 * anew where residual echo may hold more than half of the power.
 */
#ifndef APMPI_NS_STEADY_H
#define APMPI_NS_STEADY_H

#include "ns/bands.h"
#include "ns/noise_floor.h"

typedef struct {
    float smooth[NS_BANDS]; /* smoothed power */
    /* within a window: */
    float lowest[NS_BANDS]; /* minimum of the smoothed power */
    float sum[NS_BANDS];    /* of the power over the blocks */
    float fluctuation;      /* sum over blocks and bins: difference of power and smoothed power */
    float most_fluctuation; /* the same: their sum, which the difference does not exceed */
    float roughness;        /* the same: difference of smoothed power and that of the bin below */
    int blocks;             /* since the window began */
} steady_t;

void steady_reset(steady_t *steady);
/* Adds up the bins' fluctuation; to be called before the noise floor's smoothed power includes the block. */
void steady_observe(steady_t *steady, const ns_block_t *block, const float *smooth);
/* Raises the noise floor at the end of a window of new steady noise, and then returns 1, else 0. To be called
 * after bands and noise floor have processed the block. */
int steady_process(steady_t *steady, const ns_block_t *block, noise_floor_t *floor);

#endif
