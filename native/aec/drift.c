#include "aec/drift.h"

#include <math.h>

static const float MOST_PPM = 500.0f;        /* crystals keep 100 each; five times that is no clock */
static const float FIRST_GUESS_PPM = 150.0f; /* standard deviation */
/* Blocks overlap in what they say: the canceller's own error lasts. */
static const float ALIKE_BLOCKS = 3.0f;
static const float WATCH_KEEP = 0.995f; /* 2 s */
/* Square of the lag over its variance: 3.5 sigma, by chance once in 2000 times 2 s, where ALIKE_BLOCKS say
 * the same and N counts the near end's power twice: 3.5^2 * 3 / 2. */
static const float BEYOND_CHANCE = 18.4f;
static const float MORE_PROOF = 4.0f; /* twice as many deviations after each that was given back */
/* The canceller makes up for what it had trailed; then 3 s of far-end sound. */
enum { SETTLE_BLOCKS = 100, TRIAL_BLOCKS = 400 };
static const float CLEARLY_WORSE = 0.25f; /* 6 dB: the best of 3 s of speech scatters by less */
/* Of 10 ms, squared; per block. The lag wanders by 200 ns (someone moves in the room), the rate by 0.3 ppm
 * (what the model leaves out). */
static const float LAG_WANDERS = 4e-10f, RATE_WANDERS = 8e-14f;
static const float FIRST_LAG = 4e-5f; /* the canceller may trail by 60 us when the loop closes */
/* samples a block that a lag is made up for: no audible jump of the estimate */
static const float MOST_STEP = 0.5f;

void drift_init(drift_t *drift, int hop)
{
    drift->hop = hop;
    drift_reset(drift);
}

static float square(float x) { return x * x; }

static void forget(drift_t *drift)
{
    drift->lag_variance = FIRST_LAG * square((float)drift->hop);
    drift->covariance = 0.0f;
    drift->rate_variance = square(1e-6f * FIRST_GUESS_PPM * (float)drift->hop);
}

void drift_reset(drift_t *drift)
{
    drift->steering = 0;
    drift->rate = drift->lag_sum = drift->information = 0.0f;
    drift->proof = BEYOND_CHANCE;
    drift->best_before = drift->best_since = 0.0f;
    drift->trial_blocks = 0;
    forget(drift);
}

static void give_back(drift_t *drift)
{
    const float proof = MORE_PROOF * drift->proof;
    drift_reset(drift);
    drift->proof = proof;
}

/* Whether the trial is over and lost. */
static int is_worse(drift_t *drift, float reduction)
{
    if (drift->trial_blocks == TRIAL_BLOCKS)
        return 0;
    if (++drift->trial_blocks > SETTLE_BLOCKS)
        drift->best_since = fmaxf(drift->best_since, reduction);
    return drift->trial_blocks == TRIAL_BLOCKS && drift->best_since < CLEARLY_WORSE * drift->best_before;
}

static void watch(drift_t *drift, float lag_sum, float information)
{
    drift->lag_sum = WATCH_KEEP * drift->lag_sum + lag_sum;
    drift->information = WATCH_KEEP * drift->information + information;
    drift->steering = square(drift->lag_sum) > drift->proof * drift->information;
}

static float limited(float x, float most) { return fmaxf(-most, fminf(most, x)); }

static float steer(drift_t *drift, float lag_sum, float information)
{
    const float blocks = square((float)drift->hop);
    drift->lag_variance += 2.0f * drift->covariance + drift->rate_variance + LAG_WANDERS * blocks;
    drift->covariance += drift->rate_variance;
    drift->rate_variance += RATE_WANDERS * blocks;

    /* innovation: lag_sum / information, of variance ALIKE_BLOCKS / information */
    const float to_innovation = 1.0f / (ALIKE_BLOCKS + information * drift->lag_variance);
    const float lag = drift->lag_variance * lag_sum * to_innovation,
                rate = drift->covariance * lag_sum * to_innovation;
    drift->rate_variance -= information * to_innovation * square(drift->covariance);
    drift->covariance *= ALIKE_BLOCKS * to_innovation;
    drift->lag_variance *= ALIKE_BLOCKS * to_innovation;
    drift->rate = limited(drift->rate + rate, 1e-6f * MOST_PPM * (float)drift->hop);
    /* nothing heard for hours */
    if (drift->rate_variance > square(1e-6f * FIRST_GUESS_PPM * (float)drift->hop))
        forget(drift);
    return drift->rate + limited(lag, MOST_STEP);
}

float drift_process(drift_t *drift, float lag_sum, float information, float reduction)
{
    const int says_something = information > 0.0f;
    if (drift->steering && says_something && is_worse(drift, reduction))
        give_back(drift);
    if (drift->steering)
        return steer(drift, lag_sum, information);
    if (says_something)
        drift->best_before = fmaxf(WATCH_KEEP * drift->best_before, reduction);
    watch(drift, lag_sum, information);
    return 0.0f;
}

float drift_ppm(const drift_t *drift) { return 1e6f * drift->rate / (float)drift->hop; }

void drift_keep(drift_t *drift, tape_t *tape)
{
    const float most = 1e-6f * MOST_PPM * (float)drift->hop;
    tape_int(tape, &drift->steering, 0, 1);
    tape_float(tape, &drift->rate, -most, most);
    /* never surer of the rate than it wanders in a block */
    tape_float(tape, &drift->rate_variance, RATE_WANDERS * square((float)drift->hop), square(most));
}
