#include "aec/aec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/levels.h"
#include "kernels/spectrum.h"

enum {
    /* Partitions constrained per block, in turn: 32 of the Kalman filter every 160 ms, the shadow filter's 10
     * every 100 ms. Constraining more of them gains 0.2 dB. */
    KALMAN_CONSTRAINED = 2,
    SHADOW_CONSTRAINED = 1,
    /* Bins of the lag, up to 4 kHz: half a period there is 125 us, more than the path ever trails. */
    LAG_BINS = 80,
    /* Bins of the coherence, up to 8 kHz: the band of speech. */
    COMPARED_BINS = 160,
};

/* Decay of an echo path's power per partition: 10^(-6 * 0.01 s / RT60), RT60 = 0.6 s, a living room. */
static const float DECAY = 0.794328235f;
/* Initial variance over the prior: a loudspeaker may be 7 dB louder at the microphone than the far end. */
static const float FIRST_VARIANCE = 5.0f;
/* A^2 of the state equation: a path is forgotten with a time constant of 17 s, 1 / (1 - A^2) blocks. */
static const float KEEP = 0.9994f;
/* The same for the covariance of two paths: 1e-5 less, so that it stays below the variances. Rounding adds
 * 1e-7 per block; without this a talker at one place, beside a weak echo, made the matrix indefinite within
 * 200 s, and the estimate 28 dB louder than the echo. */
static const float KEEP_COVARIANCE = 0.99939f;
/* Per block: N follows the error with a time constant of 100 ms, about a phoneme. */
static const float NEAR_RATE = 0.1f;
/* s, the near end's expected power over N: as measured without near-end speech, where the error may be what
 * the filter has yet to learn. */
static const float NEAR_SILENT = 1.0f;
/* s during near-end speech, whose phonemes begin faster than N follows (measured: 2 dB less echo in double
 * talk). */
static const float NEAR_SPEECH = 5.0f;
/* Per block: energies by which the two filters are compared have a time constant of 100 ms. */
static const float ENERGY_RATE = 0.1f;
/* Ratio of error energies from which one filter is better: 3 dB. */
static const float CLEARLY_BETTER = 0.5f;
/* Error over microphone from which the filter counts as diverged: 1 dB, which double talk doesn't reach by
 * chance. */
static const float WORSE_THAN_NONE = 1.25f;
/* Per block: the coherence has a time constant of 0.5 s of far-end sound. */
static const float COHERENCE_RATE = 0.02f;
/* Whitened power of an estimate from which a block counts for the coherence: 30 dB below the near end. */
static const float LEAST_ESTIMATE = 1e-3f;
/* Start value of the coherence's sums, a share of 1: a wrong estimate takes a second to lose confidence. */
static const float FIRST_COHERENCE = 30.0f;
/* Coherence of confidence 0: unrelated speech stays below it for 95 % of the time. */
static const float CHANCE_SHARE = 0.7f;
/* Coherence of confidence 1: a path half learned is above 0.8 for 95 % of the time. */
static const float TRUE_SHARE = 0.95f;
/* Largest path that can be learned: 60 dB from far end to microphone. The echo of a louder one clips while
 * its far end is below -60 dBFS and counts as silence. */
static const float MOST_PATH = 1000.0f;
/* Largest sample of an error: microphone and estimate at full scale. */
static const float MOST_ERROR = 2.0f;
/* Least variance over the prior after a move by whole samples: 15 dB, since half a sample may be missing. */
static const float MOVED_VARIANCE = 0.03f;

static void init_filter(aec_filter_t *filter, int references, int partitions, size_t bins, arena_t *arena)
{
    const size_t cells = bins * (size_t)partitions * (size_t)references;
    filter->partitions = partitions;
    filter->re = arena_floats(arena, cells);
    filter->im = arena_floats(arena, cells);
    filter->near_power = arena_floats(arena, bins);
}

void aec_init(aec_t *aec, int hop, int references, int partitions, arena_t *arena)
{
    aec->hop = hop;
    aec->stride = spectrum_stride(hop);
    aec->references = references;
    aec->partitions = partitions;
    const size_t bins = (size_t)aec->stride, cells = bins * (size_t)partitions;
    init_filter(&aec->kalman, references, partitions, bins, arena);
    init_filter(&aec->shadow, references,
                partitions < AEC_SHADOW_PARTITIONS ? partitions : AEC_SHADOW_PARTITIONS, bins, arena);
    aec->variance = arena_floats(arena, references > 1 ? 3 * cells : cells);
    aec->prior = arena_floats(arena, (size_t)partitions);
    aec->echo_re = arena_floats(arena, bins);
    aec->echo_im = arena_floats(arena, bins);
    aec->error_re = arena_floats(arena, bins);
    aec->error_im = arena_floats(arena, bins);
    aec->weight = arena_floats(arena, bins);
    aec->frame = arena_floats(arena, 2 * (size_t)hop);
    aec->shadow_echo = arena_floats(arena, (size_t)hop);
    aec->shadow_error = arena_floats(arena, (size_t)hop);
    if (!arena->base)
        return;
    for (int p = 0; p < partitions; p++)
        aec->prior[p] = (1.0f - DECAY) * powf(DECAY, (float)p);
    aec_reset(aec);
}

static size_t cell_of(const aec_t *aec, int partition) { return (size_t)partition * (size_t)aec->stride; }

/* Where the paths of reference 0, the middle, or 1, the side, begin. */
static size_t path_of(const aec_t *aec, const aec_filter_t *filter, int reference)
{
    return cell_of(aec, filter->partitions) * (size_t)reference;
}

static void reset_filter(const aec_t *aec, aec_filter_t *filter)
{
    memset(filter->re, 0, sizeof(float) * path_of(aec, filter, aec->references));
    memset(filter->im, 0, sizeof(float) * path_of(aec, filter, aec->references));
    memset(filter->near_power, 0, sizeof(float) * (size_t)aec->stride);
    filter->error_energy = 0.0f;
    filter->next_constraint = 0;
}

/* The variances of a reference's path. */
static float *variance_of(const aec_t *aec, int reference)
{
    return aec->variance + path_of(aec, &aec->kalman, reference);
}

/* The covariance of the two paths' errors. */
static float *covariance_of(const aec_t *aec) { return variance_of(aec, 2); }

/* The variance of a partition of which nothing is known. */
static void reset_variance(aec_t *aec, int partition)
{
    for (int r = 0; r < aec->references; r++) {
        float *variance = variance_of(aec, r) + cell_of(aec, partition);
        for (int k = 0; k < aec->stride; k++)
            variance[k] = FIRST_VARIANCE * aec->prior[partition];
    }
}

static void reset_covariance(aec_t *aec)
{
    if (aec->references > 1)
        memset(covariance_of(aec), 0, sizeof(float) * cell_of(aec, aec->partitions));
}

void aec_reset(aec_t *aec)
{
    reset_filter(aec, &aec->kalman);
    reset_filter(aec, &aec->shadow);
    for (int p = 0; p < aec->partitions; p++)
        reset_variance(aec, p);
    reset_covariance(aec);
    aec->paired = 0;
    aec->mic_energy = aec->lag_sum = aec->lag_information = aec->block_cross = aec->block_power = 0.0f;
    aec->coherence = (regression_t){FIRST_COHERENCE, FIRST_COHERENCE};
    aec->diverged = aec->divergences = 0;
    aec->delay_blocks = 0;
}

/* ---- The path and its window on the far end */

/* Partition p becomes what p + shift was; 0 where that is outside. */
static void shift_partitions(const aec_t *aec, float *cells, int partitions, int shift)
{
    const int moved = abs(shift) < partitions ? abs(shift) : partitions;
    const size_t kept = cell_of(aec, partitions - moved), out = cell_of(aec, moved);
    memmove(cells + (shift > 0 ? 0 : out), cells + (shift > 0 ? out : 0), sizeof(float) * kept);
    memset(cells + (shift > 0 ? kept : 0), 0, sizeof(float) * out);
}

void aec_set_delay(aec_t *aec, int blocks)
{
    const int shift = blocks - aec->delay_blocks;
    aec->delay_blocks = blocks;
    for (int r = 0; r < aec->references; r++) {
        const size_t kalman = path_of(aec, &aec->kalman, r), shadow = path_of(aec, &aec->shadow, r);
        shift_partitions(aec, aec->kalman.re + kalman, aec->partitions, shift);
        shift_partitions(aec, aec->kalman.im + kalman, aec->partitions, shift);
        shift_partitions(aec, variance_of(aec, r), aec->partitions, shift);
        shift_partitions(aec, aec->shadow.re + shadow, aec->shadow.partitions, shift);
        shift_partitions(aec, aec->shadow.im + shadow, aec->shadow.partitions, shift);
    }
    if (aec->references > 1)
        shift_partitions(aec, covariance_of(aec), aec->partitions, shift);
    for (int p = 0; p < aec->partitions; p++)
        if (p + shift < 0 || p + shift >= aec->partitions)
            reset_variance(aec, p);
}

void aec_follow_delay(aec_t *aec, int blocks) { aec->delay_blocks = blocks; }

void aec_slip(aec_t *aec, int blocks, int most_blocks)
{
    if (aec->delay_blocks + blocks < 0)
        aec_set_delay(aec, -blocks); /* the path moves within the window, which can't move below 0 */
    aec->delay_blocks += aec->delay_blocks + blocks > most_blocks ? 0 : blocks;
}

int aec_peak_blocks(const aec_t *aec)
{
    int peak = 0;
    float most = 0.0f;
    for (int p = 0; p < aec->partitions; p++) {
        float energy = 0.0f;
        for (int r = 0; r < aec->references; r++) {
            const size_t at = path_of(aec, &aec->kalman, r) + cell_of(aec, p);
            const float *re = aec->kalman.re + at, *im = aec->kalman.im + at;
            for (int k = 0; k <= aec->hop; k++)
                energy += re[k] * re[k] + im[k] * im[k];
        }
        if (energy > most) {
            most = energy;
            peak = p;
        }
    }
    return aec->delay_blocks + peak;
}

/* The variances become at least this share of the prior. */
static void raise_variance(aec_t *aec, float share)
{
    for (int r = 0; r < aec->references; r++)
        for (int p = 0; p < aec->partitions; p++) {
            float *variance = variance_of(aec, r) + cell_of(aec, p);
            for (int k = 0; k < aec->stride; k++)
                variance[k] = greater(variance[k], share * aec->prior[p]);
        }
}

/* Copies a reference's partitions that both filters have; others of `to` become 0. */
static void copy_reference(const aec_t *aec, const aec_filter_t *from, aec_filter_t *to, int reference)
{
    const size_t both = cell_of(aec, from->partitions < to->partitions ? from->partitions : to->partitions);
    const size_t rest = cell_of(aec, to->partitions) - both;
    const size_t source = path_of(aec, from, reference), target = path_of(aec, to, reference);
    memcpy(to->re + target, from->re + source, sizeof(float) * both);
    memcpy(to->im + target, from->im + source, sizeof(float) * both);
    memset(to->re + target + both, 0, sizeof(float) * rest);
    memset(to->im + target + both, 0, sizeof(float) * rest);
}

/* Copies the path of the references in use: while the side is silent, what both know of it stays. */
static void copy_path(const aec_t *aec, const aec_filter_t *from, aec_filter_t *to)
{
    copy_reference(aec, from, to, 0);
    if (aec->paired)
        copy_reference(aec, from, to, 1);
    to->error_energy = from->error_energy;
}

/* Delays the Kalman filter's path of one reference. */
static void delay_reference(aec_t *aec, const fft_t *fft, int samples, int reference)
{
    const int hop = aec->hop, kept = hop - samples;
    const size_t path = path_of(aec, &aec->kalman, reference);
    float *carried = aec->shadow_echo; /* the last `samples` of the partition before */
    memset(carried, 0, sizeof(float) * (size_t)hop);
    for (int p = 0; p < aec->partitions && samples > 0; p++) {
        float *re = aec->kalman.re + path + cell_of(aec, p), *im = aec->kalman.im + path + cell_of(aec, p);
        fft_inverse(fft, re, im, aec->frame);
        memcpy(aec->shadow_error, aec->frame + kept, sizeof(float) * (size_t)samples);
        memmove(aec->frame + samples, aec->frame, sizeof(float) * (size_t)kept);
        memcpy(aec->frame, carried, sizeof(float) * (size_t)samples);
        memcpy(carried, aec->shadow_error, sizeof(float) * (size_t)samples);
        memset(aec->frame + hop, 0, sizeof(float) * (size_t)hop);
        fft_forward(fft, aec->frame, re, im);
    }
}

void aec_delay_path(aec_t *aec, const fft_t *fft, int samples)
{
    for (int r = 0; r < aec->references; r++) {
        delay_reference(aec, fft, samples, r);
        copy_reference(aec, &aec->kalman, &aec->shadow, r);
    }
    aec->shadow.error_energy = aec->kalman.error_energy;
    raise_variance(aec, MOVED_VARIANCE);
}

/* ---- Prediction */

/* Writes a filter's echo estimate and error, hop each, and the estimate's spectrum to aec->echo
 * (overlap-save: the second half of the frame is the linear convolution). aec->weight becomes sum_p v_p
 * |x_p|^2, the power that the filter's uncertainty explains; v is the prior for the shadow filter. With two
 * references both are summed over them, and the Kalman filter's v is a matrix. */
static void filter_block(aec_t *aec, const aec_filter_t *filter, const aec_block_t *block, float *echo,
                         float *error)
{
    const int n = aec->stride, hop = aec->hop;
    const reference_t *ref = block->reference;
    memset(aec->echo_re, 0, sizeof(float) * (size_t)n);
    memset(aec->echo_im, 0, sizeof(float) * (size_t)n);
    memset(aec->weight, 0, sizeof(float) * (size_t)n);
    for (int p = 0, rows; p < filter->partitions; p += rows) {
        rows = reference_run(ref, aec->delay_blocks + p, filter->partitions - p);
        const float *xr = ref->re + reference_at(ref, aec->delay_blocks + p), *xi = ref->im + (xr - ref->re);
        const float *wr = filter->re + cell_of(aec, p), *wi = filter->im + cell_of(aec, p);
        const int x_side = ref->side, w_side = (int)path_of(aec, filter, 1);
        const float *variance = aec->variance + cell_of(aec, p);
        if (filter == &aec->kalman && aec->paired)
            kernels()->filter_pair(n, rows, -n, x_side, w_side, xr, xi, wr, wi, variance, aec->echo_re,
                                   aec->echo_im, aec->weight);
        else if (filter == &aec->kalman)
            kernels()->filter_kalman(n, rows, -n, xr, xi, wr, wi, variance, aec->echo_re, aec->echo_im,
                                     aec->weight);
        else
            for (int r = 0; r <= aec->paired; r++)
                kernels()->filter_lms(n, rows, -n, xr + r * x_side, xi + r * x_side, wr + r * w_side,
                                      wi + r * w_side, aec->prior + p, aec->echo_re, aec->echo_im,
                                      aec->weight);
    }
    fft_inverse(block->fft, aec->echo_re, aec->echo_im, aec->frame);
    memcpy(echo, aec->frame + hop, sizeof(float) * (size_t)hop);
    for (int i = 0; i < hop; i++)
        error[i] = block->mic[i] - echo[i];
}

void aec_predict(aec_t *aec, const aec_block_t *block)
{
    /* While the side is silent the middle's error is learned alone, and its covariance with the side's is
     * not followed. */
    if (aec->paired && !block->paired)
        reset_covariance(aec);
    aec->paired = block->paired;
    filter_block(aec, &aec->kalman, block, block->echo, block->error);
    aec->lag_sum = aec->lag_information = aec->block_cross = aec->block_power = 0.0f;
}

/* ---- Observation: near-end power, lag and coherence */

/* Updates N with the spectrum of [zeros, error]. aec->weight, from filter_block(), becomes 1 / D with s given
 * by near_share; aec->error becomes e / D. */
static void normalise_error(aec_t *aec, aec_filter_t *filter, const fft_t *fft, const float *error,
                            float near_share)
{
    const int hop = aec->hop;
    memset(aec->frame, 0, sizeof(float) * (size_t)hop);
    memcpy(aec->frame + hop, error, sizeof(float) * (size_t)hop);
    fft_forward(fft, aec->frame, aec->error_re, aec->error_im);
    const float floor_power = QUANTISATION_POWER * (float)hop;
    float *near_power = filter->near_power;
    for (int k = 0; k < aec->stride; k++) {
        const float now = aec->error_re[k] * aec->error_re[k] + aec->error_im[k] * aec->error_im[k];
        near_power[k] += NEAR_RATE * (now - near_power[k]);
        const float inverse = 1.0f / (aec->weight[k] + near_share * near_power[k] + floor_power);
        aec->weight[k] = inverse;
        aec->error_re[k] *= inverse;
        aec->error_im[k] *= inverse;
    }
}

/* Correlates e / D with y, of which aec->weight is 1 / D and whose power is halved, since its frame is twice
 * as long as the error. Lag: see drift.h; it is 0 where the error is less than 3 dB below the microphone,
 * since making up for it would gain nothing. */
static void correlate_error(aec_t *aec)
{
    const float turn = (float)M_PI / (float)aec->hop;
    float lag = 0.0f, information = 0.0f, cross = 0.0f, power = 0.0f;
    for (int k = 1; k < COMPARED_BINS && k < aec->hop; k++) {
        const float w = k < LAG_BINS ? turn * (float)k : 0.0f, yr = aec->echo_re[k], yi = aec->echo_im[k];
        const float white = 0.5f * (yr * yr + yi * yi) * aec->weight[k];
        lag += w * (aec->error_re[k] * yi - aec->error_im[k] * yr);
        information += w * w * white;
        cross += aec->error_re[k] * yr + aec->error_im[k] * yi;
        power += white;
    }
    const int reduces_echo = aec->kalman.error_energy < CLEARLY_BETTER * aec->mic_energy;
    aec->lag_sum = reduces_echo ? lag : 0.0f;
    aec->lag_information = reduces_echo ? information : 0.0f;
    aec->block_cross = cross;
    aec->block_power = power;
    if (power > LEAST_ESTIMATE)
        coherence_update(&aec->coherence, COHERENCE_RATE, cross, power);
}

float aec_confidence(const aec_t *aec)
{
    return ramp(regression_share(&aec->coherence, 0.0f), CHANCE_SHARE, TRUE_SHARE);
}

void aec_observe(aec_t *aec, const aec_block_t *block)
{
    normalise_error(aec, &aec->kalman, block->fft, block->error, 2.0f * NEAR_SILENT);
    memcpy(aec->shadow.near_power, aec->kalman.near_power, sizeof(float) * (size_t)aec->stride);
    correlate_error(aec);
    aec->lag_sum = aec->lag_information = 0.0f;
}

/* ---- Update of the paths */

static void smooth_energy(const aec_t *aec, const float *x, float *energy)
{
    *energy += ENERGY_RATE * (kernels()->dot(aec->hop, x, x) - *energy);
}

/* Updates a filter's path by aec->error, and the Kalman filter's variance by aec->weight. */
static void adapt(aec_t *aec, const aec_filter_t *filter, const reference_t *ref)
{
    const int n = aec->stride;
    for (int p = 0, rows; p < filter->partitions; p += rows) {
        rows = reference_run(ref, aec->delay_blocks + p, filter->partitions - p);
        const float *xr = ref->re + reference_at(ref, aec->delay_blocks + p), *xi = ref->im + (xr - ref->re);
        float *wr = filter->re + cell_of(aec, p), *wi = filter->im + cell_of(aec, p);
        const int x_side = ref->side, w_side = (int)path_of(aec, filter, 1);
        float *variance = aec->variance + cell_of(aec, p);
        if (filter == &aec->kalman && aec->paired)
            kernels()->adapt_pair(n, rows, -n, x_side, w_side, xr, xi, aec->error_re, aec->error_im,
                                  aec->weight, KEEP, KEEP_COVARIANCE, wr, wi, variance);
        else if (filter == &aec->kalman)
            kernels()->adapt_kalman(n, rows, -n, xr, xi, aec->error_re, aec->error_im, aec->weight, KEEP, wr,
                                    wi, variance);
        else
            for (int r = 0; r <= aec->paired; r++)
                kernels()->adapt_lms(n, rows, -n, xr + r * x_side, xi + r * x_side, aec->error_re,
                                     aec->error_im, aec->prior + p, wr + r * w_side, wi + r * w_side);
    }
}

/* Limits the impulse responses of the next partitions to a hop: what circular convolution wrote behind it
 * becomes 0. */
static void constrain(aec_t *aec, const fft_t *fft, aec_filter_t *filter, int partitions)
{
    for (; partitions > 0; partitions--) {
        for (int r = 0; r <= aec->paired; r++) {
            const size_t at = path_of(aec, filter, r) + cell_of(aec, filter->next_constraint);
            fft_inverse(fft, filter->re + at, filter->im + at, aec->frame);
            memset(aec->frame + aec->hop, 0, sizeof(float) * (size_t)aec->hop);
            fft_forward(fft, aec->frame, filter->re + at, filter->im + at);
        }
        filter->next_constraint = filter->next_constraint + 1 == filter->partitions
                                      ? 0
                                      : filter->next_constraint + 1;
    }
}

/* Copies the path of the clearly better filter to the other, and detects divergence. A path from the shadow
 * filter is wrong by as much as it leaves of the microphone: the variance is raised to that share. */
static void copy_better_path(aec_t *aec)
{
    const int diverged = aec->kalman.error_energy > WORSE_THAN_NONE * aec->mic_energy;
    aec->divergences += diverged && !aec->diverged;
    aec->diverged = diverged;
    if (aec->shadow.error_energy < CLEARLY_BETTER * aec->kalman.error_energy) {
        copy_path(aec, &aec->shadow, &aec->kalman);
        raise_variance(aec, fminf(1.0f, aec->shadow.error_energy / (aec->mic_energy + QUANTISATION_POWER)));
    } else if (aec->kalman.error_energy < CLEARLY_BETTER * aec->shadow.error_energy) {
        copy_path(aec, &aec->kalman, &aec->shadow);
    }
}

void aec_learn(aec_t *aec, const aec_block_t *block, float near_speech)
{
    /* s, twice because N is the power of the error in half of its frame */
    const float near_share = 2.0f * (NEAR_SILENT + near_speech * (NEAR_SPEECH - NEAR_SILENT));
    smooth_energy(aec, block->error, &aec->kalman.error_energy);
    normalise_error(aec, &aec->kalman, block->fft, block->error, near_share);
    correlate_error(aec);
    adapt(aec, &aec->kalman, block->reference);

    filter_block(aec, &aec->shadow, block, aec->shadow_echo, aec->shadow_error);
    smooth_energy(aec, aec->shadow_error, &aec->shadow.error_energy);
    normalise_error(aec, &aec->shadow, block->fft, aec->shadow_error, near_share);
    adapt(aec, &aec->shadow, block->reference);

    smooth_energy(aec, block->mic, &aec->mic_energy);
    copy_better_path(aec);
    /* an infinity or a NaN would last; 16-bit input can't produce one */
    if (!isfinite(aec->kalman.error_energy) || !isfinite(aec->shadow.error_energy))
        aec_reset(aec);
    constrain(aec, block->fft, &aec->kalman, KALMAN_CONSTRAINED);
    constrain(aec, block->fft, &aec->shadow, SHADOW_CONSTRAINED);
}

/* ---- State */

void aec_keep(aec_t *aec, int most_blocks, tape_t *tape)
{
    const size_t bins = (size_t)aec->stride, cells = cell_of(aec, aec->partitions);
    tape_int(tape, &aec->delay_blocks, 0, most_blocks);
    const float most_spectrum = MOST_ERROR * (float)aec->hop; /* of [zeros, error] */
    tape_floats(tape, aec->kalman.re, cells, -MOST_PATH, MOST_PATH);
    tape_floats(tape, aec->kalman.im, cells, -MOST_PATH, MOST_PATH);
    tape_floats(tape, aec->variance, cells, 0.0f, MOST_PATH * MOST_PATH);
    tape_floats(tape, aec->kalman.near_power, bins, 0.0f, most_spectrum * most_spectrum);
    if (tape->mode == TAPE_PLAY) {
        copy_reference(aec, &aec->kalman, &aec->shadow, 0);
        aec->shadow.error_energy = aec->kalman.error_energy;
        reset_covariance(aec);
        memcpy(aec->shadow.near_power, aec->kalman.near_power, sizeof(float) * bins);
    }
}

void aec_keep_side(aec_t *aec, tape_t *tape)
{
    const size_t cells = cell_of(aec, aec->partitions), path = path_of(aec, &aec->kalman, 1);
    float *side_re = aec->kalman.re + path, *side_im = aec->kalman.im + path;
    tape_floats(tape, side_re, cells, -MOST_PATH, MOST_PATH);
    tape_floats(tape, side_im, cells, -MOST_PATH, MOST_PATH);
    tape_floats(tape, variance_of(aec, 1), cells, 0.0f, MOST_PATH * MOST_PATH);
    if (tape->mode == TAPE_PLAY)
        copy_reference(aec, &aec->kalman, &aec->shadow, 1);
}
