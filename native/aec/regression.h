/* Regression through the origin with exponentially weighted sums: the share of a source in a target.
 *
 *   share = sum(target * source) / sum(source^2), each term weighted by the caller
 *
 * Three uses: leakage (the error's power on the echo estimate's) and coupling (the error's power on the far
 * end's) in residual.h, and the coherence of microphone and echo estimate in aec.h and residual.h. For the
 * coherence both spectra are whitened; the share is 1 for a true estimate, more while the path is still being
 * learned, and near 0 for an estimate that is no echo.
 */
#ifndef APMPI_AEC_REGRESSION_H
#define APMPI_AEC_REGRESSION_H

/* Weight of the prior, of a source's whitened power: 30 dB below one block of a source as strong as what
 * disturbs it, so that any audible source outweighs it at once. */
static const float PRIOR_WEIGHT = 1e-3f;

typedef struct {
    float cross, square; /* averages of target times source, and of the source squared */
} regression_t;

/* Adds a block; rate: 1 over the time constant in blocks. */
static inline void regression_update(regression_t *sums, float rate, float cross, float square)
{
    sums->cross += rate * (cross - sums->cross);
    sums->square += rate * (square - sums->square);
}

/* Adds a block to the coherence of microphone and echo estimate. error_cross: product of error and estimate;
 * since microphone = error + estimate, the estimate's own power makes it the product of the two. */
static inline void coherence_update(regression_t *sums, float rate, float error_cross, float power)
{
    regression_update(sums, rate, error_cross + power, power);
}

/* The share by all blocks up to now; `prior` before there were any. */
static inline float regression_share(const regression_t *sums, float prior)
{
    return (sums->cross + prior * PRIOR_WEIGHT) / (sums->square + PRIOR_WEIGHT);
}

#endif
