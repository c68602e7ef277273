/* Units of time, and the time base of the cards: CLOCK_MONOTONIC, or a multiple of it with a simulated card.
 */
#ifndef APMPI_CARDS_TIME_H
#define APMPI_CARDS_TIME_H

#include <stdint.h>

enum { FRAMES_PER_S = 100, NS_PER_S = 1000000000, FRAME_NS = NS_PER_S / FRAMES_PER_S };

/* Rounded towards minus infinity; |time| and the count below 10^9 s and 2^33 samples. */
static inline int64_t samples_of_ns(int64_t ns, int rate_hz)
{
    const int64_t product = ns * rate_hz, whole = product / NS_PER_S;
    return whole - (product % NS_PER_S < 0);
}

static inline int64_t ns_of_samples(int64_t samples, int rate_hz) { return samples * NS_PER_S / rate_hz; }

#endif
