/* Comfort noise: where residual echo is attenuated, noise at the level of the suppressed noise fills what is
 * missing. In all bins a hardly audible level is kept, but no more than the input had, so that the output
 * never alternates between noise and digital silence.
 */
#ifndef APMPI_NS_COMFORT_H
#define APMPI_NS_COMFORT_H

#include <stdint.h>

#include "ns/gain.h"

/* Adds it to the spectrum after its gains were applied. random: state of the generator, any number. */
void comfort_process(uint32_t *random, const ns_block_t *block, const ns_gains_t *gains);

#endif
