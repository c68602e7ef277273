/* Statistical gain by bin: that of the log-spectral amplitude estimator of Y. Ephraim, D. Malah, IEEE Trans.
 * ASSP 33 (1985), with their decision-directed estimate of the a-priori SNR, for noise and residual echo
 * together.
 *
 * A floor under the a-priori SNR against musical noise (O. Cappe, IEEE Trans. SAP 2 (1994)) is left out: for
 * noise the least gain does that (ns.h), and of an echo it would leave too much.
 */
#ifndef APMPI_NS_GAIN_H
#define APMPI_NS_GAIN_H

#include "base/arena.h"
#include "ns/near_end.h"

/* By bin, in the order in which they are determined in a block. */
typedef struct {
    float *statistical;  /* then weighted by near-end speech (weighting.h) and corrected by band */
    float *speech_power; /* what it leaves of the input, before that: for the next a-priori SNR */
    float *echo_free;    /* amplitude of all that is no residual echo, over that of the input */
    float *total;        /* to be applied to the spectrum */
} ns_gains_t;

void gain_init(ns_gains_t *gains, int stride, arena_t *arena);
void gain_reset(ns_gains_t *gains, int stride);
/* Updates gains->statistical and gains->speech_power. */
void gain_process(ns_gains_t *gains, const ns_block_t *block, const near_end_t *near_end);
/* Moves gains->statistical towards what spectral subtraction leaves in each band, as far as near-end speech
 * is clear of audible noise. */
void gain_correct_bands(ns_gains_t *gains, const ns_block_t *block, const near_end_t *near_end);

#endif
