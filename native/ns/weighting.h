/* Weighting of the statistical gain by what is known of near-end speech, and by a mask.
 *
 * Residual echo is attenuated to the least gain while there is no near-end speech, by the vote or by a mask.
 * A mask attenuates echo, but noise only where near-end speech is not clear. While there is no speech, bins
 * that exceed the noise by chance are attenuated. No bin is attenuated below the least gain, except by its
 * share of residual echo.
 */
#ifndef APMPI_NS_WEIGHTING_H
#define APMPI_NS_WEIGHTING_H

#include "ns/gain.h"
#include "ns/near_end.h"

/* Weights gains->statistical and determines gains->echo_free. presence: probability of near-end speech by
 * vote and mask. */
void weighting_echo(ns_gains_t *gains, const ns_block_t *block, const near_end_t *near_end, float presence);
/* Determines gains->total; the mask also lowers gains->echo_free. vote: probability of near-end speech by the
 * vote alone. */
void weighting_combine(ns_gains_t *gains, const ns_block_t *block, const near_end_t *near_end, float vote);

#endif
