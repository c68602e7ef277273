#include "limiter/limiter.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"

/* -0.002 dB: from here the release ends at once, for steps of float precision would stop just short of 1 */
static const float NEARLY_ONE = 0.9998f;
/* longer than a voice's pitch period, which it would modulate; short enough not to pump */
static const float RELEASE_S = 0.05f;
/* Kaiser's beta: with 12 taps it has the smallest error for full-band noise (0.5 dB at 0.9 of the Nyquist
 * frequency) */
static const double SHARPNESS = 4.0;
/* 0.25 dB: at 0.6 of the Nyquist frequency the highest of four points is so far below the maximum */
static const float MISSED = 1.03f;
/* sum of the taps' magnitudes: the curve between samples is at most this times their highest magnitude */
static const float MOST = 2.06f;

/* samples from the newest one to the newest whose curve to the next can be interpolated */
enum { NEWEST_JUDGED = LIMITER_REACH };

/* Modified Bessel function of order 0 by its power series: (x/2)^2k / k!^2 */
static double bessel_i0(double x)
{
    double sum = 1.0, term = 1.0;
    for (int k = 1; k < 20; k++) {
        term *= x * x / (4.0 * k * k);
        sum += term;
    }
    return sum;
}

static void design(limiter_t *limiter)
{
    for (int p = 0; p < 3; p++) {
        double taps[LIMITER_TAPS], sum = 0.0;
        for (int k = 0; k < LIMITER_TAPS; k++) {
            const double t = 0.25 * (p + 1) - (k - LIMITER_REACH + 1), share = t / LIMITER_REACH;
            taps[k] = sin(M_PI * t) / (M_PI * t) * bessel_i0(SHARPNESS * sqrt(1.0 - share * share));
            sum += taps[k];
        }
        for (int k = 0; k < LIMITER_TAPS; k++)
            limiter->taps[p][k] = (float)((double)MISSED * taps[k] / sum);
    }
}

void limiter_init(limiter_t *limiter, int rate_hz, int channels, arena_t *arena)
{
    const int delay = limiter_latency_samples(rate_hz);
    limiter->channels = channels;
    limiter->lookahead = delay - NEWEST_JUDGED;
    limiter->memory = delay > LIMITER_TAPS - 1 ? delay : LIMITER_TAPS - 1;
    limiter->release = 1.0f - expf(-1.0f / (RELEASE_S * (float)rate_hz));
    limiter->input = arena_floats(arena, (size_t)(limiter->memory + LIMITER_CHUNK) * (size_t)channels);
    limiter->needed = arena_floats(arena, (size_t)limiter->lookahead);
    limiter->reached = arena_floats(arena, (size_t)limiter->lookahead);
    if (arena->base) {
        design(limiter);
        limiter_reset(limiter);
    }
}

void limiter_configure(limiter_t *limiter, float headroom_db)
{
    limiter->ceiling = powf(10.0f, -headroom_db / 20.0f);
}

void limiter_reset(limiter_t *limiter)
{
    memset(limiter->input, 0,
           sizeof(float) * (size_t)(limiter->memory + LIMITER_CHUNK) * (size_t)limiter->channels);
    for (int i = 0; i < limiter->lookahead; i++)
        limiter->needed[i] = limiter->reached[i] = 1.0f;
    limiter->at = 0;
    limiter->between = 0.0f;
    limiter->held = limiter->lowest = 1.0f;
    limiter->sum = limiter->lookahead;
    limiter->at_rest = limiter->lookahead;
}

static float highest(int count, const float *x)
{
    float highest = 0.0f;
    for (int i = 0; i < count; i++)
        highest = greater(highest, fabsf(x[i]));
    return highest;
}

/* peak[i] = maximum of itself and of the curve between x[i] and x[i + 1], which reads x[i - LIMITER_REACH +
 * 1] to x[i + LIMITER_REACH]. */
static void find_between(const float taps[3][LIMITER_TAPS], int count, const float *restrict x,
                         float *restrict peak)
{
    x -= LIMITER_REACH - 1;
    for (int i = 0; i < count; i++) {
        float quarter = 0.0f, half = 0.0f, three = 0.0f;
        for (int k = 0; k < LIMITER_TAPS; k++) {
            quarter += taps[0][k] * x[i + k];
            half += taps[1][k] * x[i + k];
            three += taps[2][k] * x[i + k];
        }
        peak[i] = greater(peak[i], greater(fabsf(quarter), greater(fabsf(half), fabsf(three))));
    }
}

/* Minimum of a sliding window with three comparisons a sample (M. van Herk, Pattern Recognition Letters 13
 * (1992)): at the start of each round of the ring the old round becomes its suffix minimum; the minimum of
 * the new round is updated sample by sample. */
static void begin_round(limiter_t *limiter)
{
    for (int k = limiter->lookahead - 2; k >= 0; k--)
        limiter->needed[k] = fminf(limiter->needed[k], limiter->needed[k + 1]);
    limiter->lowest = 1.0f;
}

/* Gain of the sample that leaves now, while one that needs the gain `needed` enters the look-ahead. */
static float next_gain(limiter_t *limiter, float needed)
{
    const int lookahead = limiter->lookahead;
    /* The ring still holds what the sample that leaves now needs: so each of the `lookahead` averaged gains
     * was at most that. */
    if (limiter->at == 0)
        begin_round(limiter);
    limiter->lowest = fminf(limiter->lowest, needed);
    const float lowest = fminf(limiter->lowest, limiter->needed[limiter->at]);
    limiter->needed[limiter->at] = needed;
    limiter->held = fminf(lowest, limiter->held + limiter->release * (1.0f - limiter->held));
    if (limiter->held > NEARLY_ONE)
        limiter->held = lowest;
    limiter->at_rest = limiter->held < 1.0f ? 0 : limiter->at_rest + (limiter->at_rest < lookahead);
    limiter->sum += (double)limiter->held - (double)limiter->reached[limiter->at];
    limiter->reached[limiter->at] = limiter->held;
    limiter->at = limiter->at + 1 == lookahead ? 0 : limiter->at + 1;
    return (float)(limiter->sum / lookahead);
}

/* gain[i] of `count` samples from the peaks behind them. Returns 0, without gains, if all of them are 1. */
static int find_gains(limiter_t *limiter, int count, const float *between, float *gain)
{
    const int needless = highest(count, between) <= limiter->ceiling && limiter->between <= limiter->ceiling;
    if (needless && limiter->at_rest >= limiter->lookahead) {
        limiter->sum = limiter->lookahead; /* rounding errors do not accumulate */
        limiter->between = between[count - 1];
        return 0; /* every gain in the rings is 1 and stays 1 */
    }
    for (int i = 0; i < count; i++) {
        const float peak = fmaxf(limiter->between, between[i]);
        limiter->between = between[i];
        gain[i] = next_gain(limiter, peak > limiter->ceiling ? limiter->ceiling / peak : 1.0f);
    }
    return 1;
}

static void process_chunk(limiter_t *limiter, float *const *x, int at, int count)
{
    float between[LIMITER_CHUNK] = {0}, gain[LIMITER_CHUNK];
    const int memory = limiter->memory, stride = memory + LIMITER_CHUNK;
    /* first sample whose curve to the next can be interpolated now; first one that leaves */
    const int judged = memory - NEWEST_JUDGED;
    const int leaving = memory - (limiter->lookahead + NEWEST_JUDGED);
    for (int c = 0; c < limiter->channels; c++) {
        float *input = limiter->input + c * stride;
        memcpy(input + memory, x[c] + at, sizeof(float) * (size_t)count);
        for (int i = 0; i < count; i++)
            between[i] = greater(between[i], fabsf(input[judged + i]));
        if (highest(count + LIMITER_TAPS - 1, input + judged - (LIMITER_REACH - 1)) * MOST > limiter->ceiling)
            find_between(limiter->taps, count, input + judged, between);
    }
    const int limited = find_gains(limiter, count, between, gain);
    for (int c = 0; c < limiter->channels; c++) {
        float *input = limiter->input + c * stride;
        memcpy(x[c] + at, input + leaving, sizeof(float) * (size_t)count);
        for (int i = 0; i < count && limited; i++)
            x[c][at + i] *= gain[i];
        memmove(input, input + count, sizeof(float) * (size_t)memory);
    }
}

void limiter_process(limiter_t *limiter, float *const *x, int count)
{
    for (int at = 0; at < count; at += LIMITER_CHUNK)
        process_chunk(limiter, x, at, count - at < LIMITER_CHUNK ? count - at : LIMITER_CHUNK);
}
