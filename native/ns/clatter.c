#include "ns/clatter.h"

#include <string.h>

#include "base/branchless.h"

/* Natural logarithm of the ratio by which a click stands out, 10 dB. */
static const float CLICK = 2.3f;
/* Decay of the count per block, 2 s: longer than most pauses in typing. */
static const float CLICK_DECAY = 0.995f;
/* Clicks up to which there is no clatter: one alone is an event. */
static const float CLICKS_LOW = 1.0f;
/* Clicks from which there is. */
static const float CLICKS_HIGH = 2.0f;

void clatter_reset(clatter_t *clatter) { memset(clatter, 0, sizeof *clatter); }

static void append(float *history, float newest)
{
    memmove(history, history + 1, sizeof(float) * (CLATTER_BLOCKS - 1));
    history[CLATTER_BLOCKS - 1] = newest;
}

/* Height of the middle block above the higher of both ends. */
static float pulse(const float *history)
{
    return history[CLATTER_BLOCKS / 2] - greater(history[0], history[CLATTER_BLOCKS - 1]);
}

void clatter_process(clatter_t *clatter, float band_excess, float log_power, float no_speech)
{
    append(clatter->band_excess, band_excess);
    append(clatter->log_power, log_power);
    const int was_in_click = clatter->in_click;
    clatter->in_click = lesser(pulse(clatter->band_excess), pulse(clatter->log_power)) > CLICK;
    clatter->clicks = CLICK_DECAY * clatter->clicks + (clatter->in_click && !was_in_click ? no_speech : 0.0f);
}

float clatter_share(const clatter_t *clatter) { return ramp(clatter->clicks, CLICKS_LOW, CLICKS_HIGH); }
