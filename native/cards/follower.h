/* Keeps one card's sound synchronous with the microphone's: its place in time, and the drift between two
 * clocks. Sound of a card on the microphone's clock is placed to the sample and passes unchanged; that of any
 * other card is converted. Lateness is in ns on the microphone's clock; positive means that sound comes too
 * late. */
#ifndef APMPI_CARDS_FOLLOWER_H
#define APMPI_CARDS_FOLLOWER_H

#include <stdint.h>

#include "cards/clocks.h"
#include "cards/converter.h"

typedef struct {
    int channels, in_rate_hz, out_rate_hz; /* in_rate_hz / 100 samples are given in a call, or fewer */
    converter_t *converter;                /* NULL: never converts */
    int16_t *scratch;                      /* follower_scratch_samples() * channels, for the caller */
    int converts;
    double ratio; /* of the clocks */
    drift_t drift;
    settling_t settling;
} follower_t;

/* Prepares a follower of which the first five members are set; ppm: the clock difference that an earlier run
 * has found. The converter has the ratio of the rates; without one the card is known to be on the
 * microphone's clock, at its rate. */
void follower_begin(follower_t *follower, double ppm);

/* Restarts the estimates: the sound has been placed by one reading of the positions. one_card: whether the
 * card is known to be the microphone's. */
void follower_placed(follower_t *follower, int one_card);

/* Takes the lateness, once in a frame; returns by how many samples to correct at once. */
int follower_correction_samples(follower_t *follower, int64_t late_ns);

/* Largest number of samples per channel that a call of follower_convert() returns; and of those of one frame,
 * at either rate. */
int follower_out_max(const follower_t *follower);
int follower_scratch_samples(const follower_t *follower);

/* Converts `count` samples per channel, at most in_rate_hz / 100. Returns their number in `out`. */
int follower_convert(follower_t *follower, const int16_t *in, int count, int16_t *out);

/* Time from the next sample that follower_convert() returns to the next one that it is given. */
int64_t follower_pending_ns(const follower_t *follower);

/* State of one card's sound in time, relative to the microphone's.
 *
 * held    the sound is where it belongs; else the next frame is to be placed
 * slips   number of times that samples were dropped or silence was inserted without an xrun; a card that
 * stands still for several frames counts one */
typedef struct {
    int held, slips, slip_continues;
} place_t;

/* Takes the lateness, once in a frame. */
void place_check(place_t *place, int64_t late_ns);

#endif
