/* Near-end speech over some 100 ms: how clearly it exceeds noise and residual echo, and how far suppression
 * is reduced for it.
 *
 * Protection: where the echo canceller has converged, near-end speech masks the little echo that remains, and
 * residual echo is suppressed less. Clear speech: a mask then attenuates echo but no noise, since it would
 * attenuate more of the voice than of the noise; gains follow the bands' powers (gain.h). Quiet room: the
 * noise is inaudible; the statistical gain suffices, and the noise floor is nearly held.
 */
#ifndef APMPI_NS_NEAR_END_H
#define APMPI_NS_NEAR_END_H

#include "ns/bands.h"

/* All 0..1. */
typedef struct {
    float activity;     /* average of speech presence where it exceeds noise and echo */
    float protection;   /* from suppression of residual echo and from a mask */
    float clear_speech; /* near-end speech is clear of noise and echo, or was within 0.5 s */
    float quiet_room;   /* near-end speech is so clear that the noise is inaudible */
    float foreground;   /* foreground.h, for this block alone */
} near_end_t;

void near_end_reset(near_end_t *near_end);
/* Updates `protection`. presence: probability of near-end speech by vote and mask. */
void near_end_protect(near_end_t *near_end, const ns_block_t *block, float presence);
/* Updates `clear_speech` and `quiet_room`, both of which rise by a valid mask only. */
void near_end_process(near_end_t *near_end, const ns_block_t *block);
/* Factor on the expected residual echo, ECHO_MARGIN or less. */
float near_end_echo_margin(const near_end_t *near_end);

#endif
