/* Steady noise: detection of a noise that begins at once and stays, such as a fan.
 *
 * The noise floor's tracker takes it for speech. It is noise if for 0.5 s the bands' powers hardly fluctuate,
 * as those of speech always do, and if it is not tonal (tonality.h). Tones, chords and most music are left to
 * the noise floor's minimum. A window begins anew where residual echo may hold more than half of the power.
 */
#ifndef APMPI_NS_STEADY_H
#define APMPI_NS_STEADY_H

#include "ns/bands.h"
#include "ns/noise_floor.h"
#include "ns/tonality.h"

/* Powers by band within a part of the window. */
typedef struct {
    float lowest[NS_BANDS]; /* minimum of the smoothed power */
    float sum[NS_BANDS];    /* of the power over the blocks */
} steady_part_t;

typedef struct {
    float tonality;         /* result: that of the last complete window, 0 if there is none */
    float smooth[NS_BANDS]; /* smoothed power */
    steady_part_t parts[TONALITY_PARTS];
    int part;     /* that is being summed */
    int blocks;   /* of that part */
    int complete; /* parts in a row before it, up to TONALITY_PARTS */
    tonality_t sums;
} steady_t;

void steady_init(steady_t *steady, arena_t *arena);
void steady_reset(steady_t *steady);
/* Raises the noise floor where a window of new steady noise ends, and then returns 1, else 0. To be called
 * after bands and noise floor have processed the block. */
int steady_process(steady_t *steady, const ns_block_t *block, noise_floor_t *floor);

#endif
