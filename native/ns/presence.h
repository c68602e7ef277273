/* Speech presence: probability of near-end speech in a block, by a vote of the bands on whether their input
 * power exceeds what noise and residual echo explain. */
#ifndef APMPI_NS_PRESENCE_H
#define APMPI_NS_PRESENCE_H

#include "ns/bands.h"

/* Mean over the bands of ln(1 + input / expected power), noise with a margin and echo: 0.3 to 0.5 for noise
 * and echo alone, 1.5 and more for speech. */
float presence_band_excess(const ns_bands_t *bands);
/* Returns the probability of this block, 0..1, given that of the last one. */
float presence_process(float probability, float band_excess);

#endif
