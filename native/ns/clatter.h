/* Clatter: short broadband sounds that recur (keys, dishes, steps). A room with clatter is not quiet, however
 * low its noise floor.
 *
 * A click stands 10 dB above the blocks 30 ms before and 30 ms after it, in its power and on average over the
 * bands. The bands distinguish it from a short tone, the power from the edge of a long one, and the 60 ms
 * from a fricative. A click counts by the probability that it is no speech. Measured: 0.6 to 3.5 clicks a
 * second for typing and hoofs, 0.1 and less for speech, none for music, tones and bursts of noise of 50 ms
 * and more.
 */
#ifndef APMPI_NS_CLATTER_H
#define APMPI_NS_CLATTER_H

enum { CLATTER_BLOCKS = 7 }; /* a click between 30 ms before and after it */

typedef struct {
    float band_excess[CLATTER_BLOCKS], log_power[CLATTER_BLOCKS]; /* of the last blocks, the newest last */
    int in_click;
    float clicks; /* in about the last 2 s */
} clatter_t;

void clatter_reset(clatter_t *clatter);
/* band_excess: presence.h; log_power: natural logarithm of the block's power; no_speech: probability that it
 * holds no speech. */
void clatter_process(clatter_t *clatter, float band_excess, float log_power, float no_speech);
/* Degree of clatter, 0..1. */
float clatter_share(const clatter_t *clatter);

#endif
