#include "limiter/limiter.h"

#include <math.h>
#include <string.h>

static const float NEARLY_ONE = 0.9998f; /* -0.002 dB */
static const float RELEASE_S = 0.05f; /* long enough not to buzz on a voice's pitch period, short enough not to pump */

void limiter_init(limiter_t *limiter, int rate_hz, int channels, float ceiling_dbfs, arena_t *arena)
{
    limiter->channels = channels;
    limiter->lookahead = limiter_latency_samples(rate_hz);
    limiter->ceiling = powf(10.0f, ceiling_dbfs / 20.0f);
    limiter->release = 1.0f - expf(-1.0f / (RELEASE_S * (float)rate_hz));
    limiter->delayed = arena_floats(arena, (size_t)limiter->lookahead * (size_t)channels);
    limiter->needed = arena_floats(arena, (size_t)limiter->lookahead);
    limiter->reached = arena_floats(arena, (size_t)limiter->lookahead);
    if (arena->base)
        limiter_reset(limiter);
}

void limiter_reset(limiter_t *limiter)
{
    memset(limiter->delayed, 0, sizeof(float) * (size_t)limiter->lookahead * (size_t)limiter->channels);
    for (int i = 0; i < limiter->lookahead; i++)
        limiter->needed[i] = limiter->reached[i] = 1.0f;
    limiter->at = 0;
    limiter->held = limiter->lowest = 1.0f;
    limiter->sum = limiter->lookahead;
    limiter->at_rest = limiter->lookahead;
}

static int advance(const limiter_t *limiter) { return limiter->at + 1 == limiter->lookahead ? 0 : limiter->at + 1; }

static int stays_below(float ceiling, float *const *x, int channels, int count)
{
    int above = 0; /* no early end: this way it is a loop over vectors */
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < count; i++)
            above |= fabsf(x[c][i]) > ceiling;
    return !above;
}

/* What the loop below does when every gain in its rings is 1 and stays 1. */
static void only_delay(limiter_t *limiter, float *const *x, int count)
{
    for (int i = 0; i < count; i++, limiter->at = advance(limiter)) {
        float *slot = limiter->delayed + limiter->at * limiter->channels;
        for (int c = 0; c < limiter->channels; c++) {
            const float out = slot[c];
            slot[c] = x[c][i];
            x[c][i] = out;
        }
    }
}

/* The lowest of a sliding window at three comparisons a sample (M. van Herk, Pattern Recognition Letters 13 (1992)): with each round of the
 * ring, every old need becomes the lowest of it and those behind it; the new ones are compared as they come. */
static void begin_round(limiter_t *limiter)
{
    for (int k = limiter->lookahead - 2; k >= 0; k--)
        limiter->needed[k] = fminf(limiter->needed[k], limiter->needed[k + 1]);
    limiter->lowest = 1.0f;
}

void limiter_process(limiter_t *limiter, float *const *x, int count)
{
    const int channels = limiter->channels, lookahead = limiter->lookahead;
    if (limiter->at_rest >= lookahead && stays_below(limiter->ceiling, x, channels, count)) {
        only_delay(limiter, x, count);
        limiter->sum = lookahead; /* rounding does not add up over years */
        return;
    }
    for (int i = 0; i < count; i++, limiter->at = advance(limiter)) {
        float peak = 0.0f;
        for (int c = 0; c < channels; c++)
            peak = fmaxf(peak, fabsf(x[c][i]));
        const float needed = peak > limiter->ceiling ? limiter->ceiling / peak : 1.0f;

        /* The ring still holds the need of the frame that leaves now: with it every one of the `lookahead` averaged gains was
         * no higher than that need. */
        if (limiter->at == 0)
            begin_round(limiter);
        limiter->lowest = fminf(limiter->lowest, needed);
        const float lowest = fminf(limiter->lowest, limiter->needed[limiter->at]);
        limiter->needed[limiter->at] = needed;
        limiter->held = fminf(lowest, limiter->held + limiter->release * (1.0f - limiter->held));
        if (limiter->held > NEARLY_ONE)
            limiter->held = lowest; /* float steps would stop just short of 1 */
        limiter->at_rest = limiter->held < 1.0f ? 0 : limiter->at_rest + (limiter->at_rest < lookahead);
        limiter->sum += (double)limiter->held - (double)limiter->reached[limiter->at];
        limiter->reached[limiter->at] = limiter->held;
        const float gain = (float)(limiter->sum / lookahead);

        float *slot = limiter->delayed + limiter->at * channels;
        for (int c = 0; c < channels; c++) {
            const float out = slot[c] * gain;
            slot[c] = x[c][i];
            x[c][i] = out;
        }
    }
}
