#include "aec/drift.h"

#include <math.h>

#include "base/branchless.h"

/* Largest rate: crystals keep within 100 ppm each; five times that is no clock. */
static const float MOST_PPM = 500.0f;
/* Standard deviation of the rate before anything is known. */
static const float FIRST_GUESS_PPM = 150.0f;
/* Blocks with about the same lag error, since the canceller's own error lasts: variances are multiplied. */
static const float ALIKE_BLOCKS = 3.0f;
/* Per block: time constant of the detection, 2 s. */
static const float DETECTION_KEEP = 0.995f;
/* First threshold: 3.5 sigma, reached by chance once in 2000 times 2 s. 3.5^2 * ALIKE_BLOCKS / 2, where the 2
 * is because N counts the near end's power twice. */
static const float SIGNIFICANT = 18.4f;
/* Factor of the threshold after a drift was withdrawn: twice as many deviations. */
static const float RAISED = 4.0f;
/* A trial: 1 s in which the canceller makes up for the lag it had, then 3 s of far-end sound. */
enum { SETTLE_BLOCKS = 100, TRIAL_BLOCKS = 400 };
/* Ratio of the best reductions that loses the trial: 6 dB. Between two times 3 s of speech the best differs
 * by less. */
static const float CLEARLY_WORSE = 0.25f;
/* Process noise of the lag per block, in 10 ms squared: 200 ns, as from movement in the room. */
static const float LAG_NOISE = 4e-10f;
/* Process noise of the rate: 0.3 ppm, for what the model leaves out. */
static const float RATE_NOISE = 8e-14f;
/* Variance of the lag when steering begins, in 10 ms squared: the canceller may trail by 60 us. */
static const float FIRST_LAG = 4e-5f;
/* Samples per block by which a lag is made up for, at most: no audible step of the estimate. */
static const float MOST_STEP = 0.5f;

void drift_init(drift_t *drift, int hop)
{
    drift->hop = hop;
    drift_reset(drift);
}

static float square(float x) { return x * x; }

static void reset_variances(drift_t *drift)
{
    drift->lag_variance = FIRST_LAG * square((float)drift->hop);
    drift->covariance = 0.0f;
    drift->rate_variance = square(1e-6f * FIRST_GUESS_PPM * (float)drift->hop);
}

void drift_reset(drift_t *drift)
{
    drift->steering = 0;
    drift->rate = drift->lag_sum = drift->information = 0.0f;
    drift->threshold = SIGNIFICANT;
    drift->best_before = drift->best_since = 0.0f;
    drift->trial_blocks = 0;
    reset_variances(drift);
}

static void withdraw(drift_t *drift)
{
    const float threshold = RAISED * drift->threshold;
    drift_reset(drift);
    drift->threshold = threshold;
}

/* Continues the trial; 1 if it is lost in this block. */
static int loses_trial(drift_t *drift, float reduction)
{
    if (drift->trial_blocks == TRIAL_BLOCKS)
        return 0;
    if (++drift->trial_blocks > SETTLE_BLOCKS)
        drift->best_since = fmaxf(drift->best_since, reduction);
    return drift->trial_blocks == TRIAL_BLOCKS && drift->best_since < CLEARLY_WORSE * drift->best_before;
}

static void detect(drift_t *drift, float lag_sum, float information)
{
    drift->lag_sum = DETECTION_KEEP * drift->lag_sum + lag_sum;
    drift->information = DETECTION_KEEP * drift->information + information;
    drift->steering = square(drift->lag_sum) > drift->threshold * drift->information;
}

/* The Kalman filter of lag and rate. Returns the slide. */
static float steer(drift_t *drift, float lag_sum, float information)
{
    const float blocks = square((float)drift->hop);
    drift->lag_variance += 2.0f * drift->covariance + drift->rate_variance + LAG_NOISE * blocks;
    drift->covariance += drift->rate_variance;
    drift->rate_variance += RATE_NOISE * blocks;

    /* innovation: lag_sum / information, of variance ALIKE_BLOCKS / information */
    const float to_innovation = 1.0f / (ALIKE_BLOCKS + information * drift->lag_variance);
    const float lag = drift->lag_variance * lag_sum * to_innovation,
                rate = drift->covariance * lag_sum * to_innovation;
    drift->rate_variance -= information * to_innovation * square(drift->covariance);
    drift->covariance *= ALIKE_BLOCKS * to_innovation;
    drift->lag_variance *= ALIKE_BLOCKS * to_innovation;
    const float most_rate = 1e-6f * MOST_PPM * (float)drift->hop;
    drift->rate = clamp(drift->rate + rate, -most_rate, most_rate);
    /* after hours without a far end */
    if (drift->rate_variance > square(1e-6f * FIRST_GUESS_PPM * (float)drift->hop))
        reset_variances(drift);
    return drift->rate + clamp(lag, -MOST_STEP, MOST_STEP);
}

float drift_process(drift_t *drift, float lag_sum, float information, float reduction)
{
    const int counts = information > 0.0f;
    if (drift->steering && counts && loses_trial(drift, reduction))
        withdraw(drift);
    if (drift->steering)
        return steer(drift, lag_sum, information);
    if (counts)
        drift->best_before = fmaxf(DETECTION_KEEP * drift->best_before, reduction);
    detect(drift, lag_sum, information);
    return 0.0f;
}

float drift_ppm(const drift_t *drift) { return 1e6f * drift->rate / (float)drift->hop; }

void drift_keep(drift_t *drift, tape_t *tape)
{
    const float most = 1e-6f * MOST_PPM * (float)drift->hop;
    tape_int(tape, &drift->steering, 0, 1);
    tape_float(tape, &drift->rate, -most, most);
    /* the least is what the rate gains in a block */
    tape_float(tape, &drift->rate_variance, RATE_NOISE * square((float)drift->hop), square(most));
}
