#include "cards/follower.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cards/time.h"

/* Lateness from which samples are dropped or silence is inserted, half a frame. Clock drift is corrected far
 * below this limit; it serves a card that has lost time without an xrun. */
static const int64_t SLIP_NS = FRAME_NS / 2;

void follower_begin(follower_t *follower, double ppm)
{
    follower->converts = follower->converter != NULL;
    follower->ratio = 1.0;
    drift_init(&follower->drift, 1.0 / FRAMES_PER_S, ppm);
    settling_placed(&follower->settling);
}

void follower_placed(follower_t *follower, int one_card)
{
    follower->converts = follower->converter && (follower->in_rate_hz != follower->out_rate_hz || !one_card);
    settling_placed(&follower->settling);
    drift_placed(&follower->drift);
}

int follower_correction_samples(follower_t *follower, int64_t late_ns)
{
    if (follower->converts) {
        follower->ratio = drift_ratio(&follower->drift, (double)late_ns / NS_PER_S);
        return 0;
    }
    return settling_late_samples(&follower->settling, (double)late_ns * follower->out_rate_hz / NS_PER_S);
}

static double nominal(const follower_t *follower)
{
    return (double)follower->out_rate_hz / follower->in_rate_hz;
}

int follower_out_max(const follower_t *follower)
{
    return converter_out_max(follower->in_rate_hz / FRAMES_PER_S, nominal(follower));
}

int follower_scratch_samples(const follower_t *follower)
{
    const int in = follower->in_rate_hz / FRAMES_PER_S, out = follower_out_max(follower);
    return in > out ? in : out;
}

int follower_convert(follower_t *follower, const int16_t *in, int count, int16_t *out)
{
    if (follower->converts)
        return converter_process(follower->converter, in, count, nominal(follower) * follower->ratio, out);
    memcpy(out, in, sizeof *in * (size_t)count * (size_t)follower->channels);
    return count;
}

int64_t follower_pending_ns(const follower_t *follower)
{
    if (!follower->converts)
        return 0;
    return (int64_t)(converter_pending(follower->converter) * NS_PER_S / follower->in_rate_hz);
}

void place_check(place_t *place, int64_t late_ns)
{
    if (!place->held)
        return;
    place->held = llabs(late_ns) <= SLIP_NS;
    place->slips += !place->held && !place->slip_continues;
    place->slip_continues = !place->held;
}
