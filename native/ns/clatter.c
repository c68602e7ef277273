#include "ns/clatter.h"

#include <string.h>

#include "base/branchless.h"

static const float CLICK = 2.3f;            /* 10 dB */
static const float DECAY = 0.995f;          /* 2 s: longer than most pauses of somebody who types */
static const float FEW = 1.0f, MANY = 2.0f; /* clicks: one alone is an event, no clatter */

void clatter_reset(clatter_t *clatter) { memset(clatter, 0, sizeof *clatter); }

static void append(float *history, float newest)
{
    memmove(history, history + 1, sizeof(float) * (CLATTER_BLOCKS - 1));
    history[CLATTER_BLOCKS - 1] = newest;
}

/* How far the middle stands above both ends. */
static float pulse(const float *history)
{
    return history[CLATTER_BLOCKS / 2] - greater(history[0], history[CLATTER_BLOCKS - 1]);
}

void clatter_process(clatter_t *clatter, float breadth, float loudness, float no_speech)
{
    append(clatter->breadth, breadth);
    append(clatter->loudness, loudness);
    const int was_in_click = clatter->in_click;
    clatter->in_click = lesser(pulse(clatter->breadth), pulse(clatter->loudness)) > CLICK;
    clatter->clicks = DECAY * clatter->clicks + (clatter->in_click && !was_in_click ? no_speech : 0.0f);
}

float clatter_share(const clatter_t *clatter) { return ramp(clatter->clicks, FEW, MANY); }
