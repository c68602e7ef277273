#include "aec/aec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/spectrum.h"

/* partitions per block: all in turn every 160 and 100 ms. More gain 0.2 dB */
enum { KALMAN_CONSTRAINED = 2, FAST_CONSTRAINED = 1 };
enum {
    LAG_BINS = 80,       /* up to 4 kHz: half a period is 125 us, more than the filter ever trails */
    COMPARED_BINS = 160, /* up to 8 kHz: where speech is */
};

/* An echo path's power falls by 60 dB in RT60 = 0.6 s, a living room: 10^(-6 * 0.01 s / 0.6 s) a block. */
static const float DECAY = 0.794328235f;
/* loudspeakers may be 7 dB louder at the microphone than their input */
static const float FIRST_GUESS = 5.0f;
/* A^2 of the state equation: a path is forgotten over 17 s (1 / (1 - A^2) blocks) */
static const float KEEP = 0.9994f;
static const float NEAR_RATE = 0.1f; /* 100 ms: about a phoneme */
/* The near end's power over its average: as it is while it may be what the filter has yet to learn; five
 * times that for a talker, whose phonemes begin faster than the average follows (measured: 2 dB less echo in
 * double talk). */
static const float NEAR_SILENT = 1.0f, NEAR_SPEAKS = 5.0f;
static const float FLOOR_POWER = 1e-10f;    /* of a sample: quantisation noise of 16 bit, (2^-15)^2 / 12 */
static const float ENERGY_RATE = 0.1f;      /* the race of the two filters is judged over 100 ms */
static const float CLEARLY_BETTER = 0.5f;   /* 3 dB */
static const float WORSE_THAN_NONE = 1.25f; /* 1 dB: double talk adds and subtracts by chance */
static const float TRUST_RATE = 0.02f;      /* 0.5 s */
/* Unrelated speech stays below a share of 0.7 for 95 % of the time, an echo path half learned above 0.8
 * for as long. */
static const float CHANCE_SHARE = 0.7f, TRUE_SHARE = 0.95f;
/* What can be learned at most. 60 dB louder at the microphone than the far end: its echo would clip while it
 * is itself too quiet to count (-60 dBFS). */
static const float MOST_PATH = 1000.0f;
static const float MOST_ERROR = 2.0f; /* microphone and estimate, both at full scale */
/* 15 dB: a path moved by whole samples may be off by half of one */
static const float MOVED_DOUBT = 0.03f;
static const float TINY_CLAIM = 1e-3f; /* an estimate 30 dB below the near end tells nothing */
/* whitened power claimed truly before anything was heard: doubt takes a second to grow */
static const float FIRST_TRUST = 30.0f;

static void take_filter(aec_filter_t *filter, int partitions, size_t bins, arena_t *arena)
{
    const size_t cells = bins * (size_t)partitions;
    filter->partitions = partitions;
    filter->re = arena_floats(arena, cells);
    filter->im = arena_floats(arena, cells);
    filter->near_power = arena_floats(arena, bins);
}

void aec_init(aec_t *aec, int hop, int partitions, arena_t *arena)
{
    aec->hop = hop;
    aec->stride = spectrum_stride(hop);
    aec->partitions = partitions;
    const size_t bins = (size_t)aec->stride, cells = bins * (size_t)partitions;
    take_filter(&aec->kalman, partitions, bins, arena);
    take_filter(&aec->fast, partitions < AEC_FAST_PARTITIONS ? partitions : AEC_FAST_PARTITIONS, bins, arena);
    aec->variance = arena_floats(arena, cells);
    aec->prior = arena_floats(arena, (size_t)partitions);
    aec->echo_re = arena_floats(arena, bins);
    aec->echo_im = arena_floats(arena, bins);
    aec->sum_re = arena_floats(arena, bins);
    aec->sum_im = arena_floats(arena, bins);
    aec->weight = arena_floats(arena, bins);
    aec->frame = arena_floats(arena, 2 * (size_t)hop);
    aec->fast_echo = arena_floats(arena, (size_t)hop);
    aec->fast_error = arena_floats(arena, (size_t)hop);
    if (!arena->base)
        return;
    for (int p = 0; p < partitions; p++)
        aec->prior[p] = (1.0f - DECAY) * powf(DECAY, (float)p);
    aec_reset(aec);
}

static size_t cell_of(const aec_t *aec, int partition) { return (size_t)partition * (size_t)aec->stride; }

static void reset_filter(const aec_t *aec, aec_filter_t *filter)
{
    memset(filter->re, 0, sizeof(float) * cell_of(aec, filter->partitions));
    memset(filter->im, 0, sizeof(float) * cell_of(aec, filter->partitions));
    memset(filter->near_power, 0, sizeof(float) * (size_t)aec->stride);
    filter->error = 0.0f;
    filter->next_constraint = 0;
}

/* Nothing is known of a partition. */
static void doubt_partition(aec_t *aec, int partition)
{
    float *variance = aec->variance + cell_of(aec, partition);
    for (int k = 0; k < aec->stride; k++)
        variance[k] = FIRST_GUESS * aec->prior[partition];
}

void aec_reset(aec_t *aec)
{
    reset_filter(aec, &aec->kalman);
    reset_filter(aec, &aec->fast);
    for (int p = 0; p < aec->partitions; p++)
        doubt_partition(aec, p);
    aec->mic = aec->lag_sum = aec->lag_information = aec->block_cross = aec->block_power = 0.0f;
    aec->shared = aec->claimed = FIRST_TRUST;
    aec->diverged = aec->divergences = 0;
    aec->delay_blocks = 0;
}

/* Partition p takes what p + shift held, 0 where there was none. */
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
    shift_partitions(aec, aec->kalman.re, aec->partitions, shift);
    shift_partitions(aec, aec->kalman.im, aec->partitions, shift);
    shift_partitions(aec, aec->variance, aec->partitions, shift);
    shift_partitions(aec, aec->fast.re, aec->fast.partitions, shift);
    shift_partitions(aec, aec->fast.im, aec->fast.partitions, shift);
    for (int p = 0; p < aec->partitions; p++)
        if (p + shift < 0 || p + shift >= aec->partitions)
            doubt_partition(aec, p);
}

void aec_follow_delay(aec_t *aec, int blocks) { aec->delay_blocks = blocks; }

void aec_slip(aec_t *aec, int blocks, int most_blocks)
{
    if (aec->delay_blocks + blocks < 0)
        aec_set_delay(aec, -blocks); /* the window can't go along: its content does */
    aec->delay_blocks += aec->delay_blocks + blocks > most_blocks ? 0 : blocks;
}

int aec_peak_blocks(const aec_t *aec)
{
    int peak = 0;
    float most = 0.0f;
    for (int p = 0; p < aec->partitions; p++) {
        const float *re = aec->kalman.re + cell_of(aec, p), *im = aec->kalman.im + cell_of(aec, p);
        float energy = 0.0f;
        for (int k = 0; k <= aec->hop; k++)
            energy += re[k] * re[k] + im[k] * im[k];
        if (energy > most) {
            most = energy;
            peak = p;
        }
    }
    return aec->delay_blocks + peak;
}

float aec_trust(const aec_t *aec)
{
    return ramp(aec->shared / (aec->claimed + TINY_CLAIM), CHANCE_SHARE, TRUE_SHARE);
}

/* The filter's echo estimate (overlap-save: the last hop of the frame) and its error. aec->weight becomes the
 * power that the filter's uncertainty explains: of the Kalman filter its variance, of the fast one the prior.
 */
static void filter_block(aec_t *aec, aec_filter_t *filter, const reference_t *ref, const fft_t *fft,
                         const float *mic, float *echo, float *error)
{
    const int n = aec->stride, hop = aec->hop;
    memset(aec->echo_re, 0, sizeof(float) * (size_t)n);
    memset(aec->echo_im, 0, sizeof(float) * (size_t)n);
    memset(aec->weight, 0, sizeof(float) * (size_t)n);
    for (int p = 0, rows; p < filter->partitions; p += rows) {
        rows = reference_run(ref, aec->delay_blocks + p, filter->partitions - p);
        const float *xr = ref->re + reference_at(ref, aec->delay_blocks + p), *xi = ref->im + (xr - ref->re);
        const float *wr = filter->re + cell_of(aec, p), *wi = filter->im + cell_of(aec, p);
        if (filter == &aec->kalman)
            kernels()->filter_kalman(n, rows, -n, xr, xi, wr, wi, aec->variance + cell_of(aec, p),
                                     aec->echo_re, aec->echo_im, aec->weight);
        else
            kernels()->filter_lms(n, rows, -n, xr, xi, wr, wi, aec->prior + p, aec->echo_re, aec->echo_im,
                                  aec->weight);
    }
    fft_inverse(fft, aec->echo_re, aec->echo_im, aec->frame);
    memcpy(echo, aec->frame + hop, sizeof(float) * (size_t)hop);
    for (int i = 0; i < hop; i++)
        error[i] = mic[i] - echo[i];
}

static void follow_energy(const aec_t *aec, const float *x, float *energy)
{
    *energy += ENERGY_RATE * (kernels()->dot(aec->hop, x, x) - *energy);
}

/* aec->sum = spectrum of [zeros, error] over the expected power: aec->weight comes in as the power that the
 * filter's uncertainty explains and goes out as 1 / (that + near_share of the near end's average). */
static void normalise_error(aec_t *aec, aec_filter_t *filter, const fft_t *fft, const float *error,
                            float near_share)
{
    const int hop = aec->hop;
    memset(aec->frame, 0, sizeof(float) * (size_t)hop);
    memcpy(aec->frame + hop, error, sizeof(float) * (size_t)hop);
    fft_forward(fft, aec->frame, aec->sum_re, aec->sum_im);
    const float floor_power = FLOOR_POWER * (float)hop;
    float *near_power = filter->near_power;
    for (int k = 0; k < aec->stride; k++) {
        const float now = aec->sum_re[k] * aec->sum_re[k] + aec->sum_im[k] * aec->sum_im[k];
        near_power[k] += NEAR_RATE * (now - near_power[k]);
        const float inverse = 1.0f / (aec->weight[k] + near_share * near_power[k] + floor_power);
        aec->weight[k] = inverse;
        aec->sum_re[k] *= inverse;
        aec->sum_im[k] *= inverse;
    }
}

/* What the estimate (spectrum in aec->echo) and the microphone have in common: by how much the echo came
 * later than estimated, and how true the estimate is. aec->sum is the error's spectrum over its power. The
 * estimate's frame is twice as long as what of it counts. */
static void compare(aec_t *aec)
{
    const float turn = (float)M_PI / (float)aec->hop;
    float lag = 0.0f, information = 0.0f, cross = 0.0f, power = 0.0f;
    for (int k = 1; k < COMPARED_BINS && k < aec->hop; k++) {
        const float w = k < LAG_BINS ? turn * (float)k : 0.0f, yr = aec->echo_re[k], yi = aec->echo_im[k];
        const float white = 0.5f * (yr * yr + yi * yi) * aec->weight[k];
        lag += w * (aec->sum_re[k] * yi - aec->sum_im[k] * yr);
        information += w * w * white;
        cross += aec->sum_re[k] * yr + aec->sum_im[k] * yi;
        power += white;
    }
    /* else no lag that there may be is worth making up for */
    const int takes_echo = aec->kalman.error < CLEARLY_BETTER * aec->mic;
    aec->lag_sum = takes_echo ? lag : 0.0f;
    aec->lag_information = takes_echo ? information : 0.0f;
    aec->block_cross = cross;
    aec->block_power = power;
    if (power > TINY_CLAIM) {
        aec->shared += TRUST_RATE * (cross + power - aec->shared); /* microphone = error + estimate */
        aec->claimed += TRUST_RATE * (power - aec->claimed);
    }
}

static void adapt_kalman(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *error,
                         float near_share)
{
    normalise_error(aec, &aec->kalman, fft, error, near_share);
    compare(aec);
    for (int p = 0, rows; p < aec->partitions; p += rows) {
        rows = reference_run(ref, aec->delay_blocks + p, aec->partitions - p);
        const int at = reference_at(ref, aec->delay_blocks + p);
        const size_t cell = cell_of(aec, p);
        kernels()->adapt_kalman(aec->stride, rows, -aec->stride, ref->re + at, ref->im + at, aec->sum_re,
                                aec->sum_im, aec->weight, KEEP, aec->kalman.re + cell, aec->kalman.im + cell,
                                aec->variance + cell);
    }
}

static void adapt_fast(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *error,
                       float near_share)
{
    normalise_error(aec, &aec->fast, fft, error, near_share);
    for (int p = 0, rows; p < aec->fast.partitions; p += rows) {
        rows = reference_run(ref, aec->delay_blocks + p, aec->fast.partitions - p);
        const int at = reference_at(ref, aec->delay_blocks + p);
        const size_t cell = cell_of(aec, p);
        kernels()->adapt_lms(aec->stride, rows, -aec->stride, ref->re + at, ref->im + at, aec->sum_re,
                             aec->sum_im, aec->prior + p, aec->fast.re + cell, aec->fast.im + cell);
    }
}

/* Keeps the impulse responses of the next partitions within their hop: what circular convolution wrote
 * behind it is cut. */
static void constrain(aec_t *aec, const fft_t *fft, aec_filter_t *filter, int partitions)
{
    for (; partitions > 0; partitions--) {
        float *re = filter->re + cell_of(aec, filter->next_constraint),
              *im = filter->im + cell_of(aec, filter->next_constraint);
        fft_inverse(fft, re, im, aec->frame);
        memset(aec->frame + aec->hop, 0, sizeof(float) * (size_t)aec->hop);
        fft_forward(fft, aec->frame, re, im);
        filter->next_constraint = filter->next_constraint + 1 == filter->partitions
                                      ? 0
                                      : filter->next_constraint + 1;
    }
}

/* The path may be wrong by this share of its power, wherever it was surer. */
static void doubt_path(aec_t *aec, float share)
{
    for (int p = 0; p < aec->partitions; p++) {
        float *variance = aec->variance + cell_of(aec, p);
        for (int k = 0; k < aec->stride; k++)
            variance[k] = greater(variance[k], share * aec->prior[p]);
    }
}

/* The part of a path that both filters have; a longer one forgets the rest. */
static void copy_path(const aec_t *aec, const aec_filter_t *from, aec_filter_t *to)
{
    const size_t both = cell_of(aec, from->partitions < to->partitions ? from->partitions : to->partitions);
    const size_t rest = cell_of(aec, to->partitions) - both;
    memcpy(to->re, from->re, sizeof(float) * both);
    memcpy(to->im, from->im, sizeof(float) * both);
    memset(to->re + both, 0, sizeof(float) * rest);
    memset(to->im + both, 0, sizeof(float) * rest);
    to->error = from->error;
}

void aec_delay_path(aec_t *aec, const fft_t *fft, int samples)
{
    const int hop = aec->hop, kept = hop - samples;
    float *before = aec->fast_echo; /* what the last partition pushes out */
    memset(before, 0, sizeof(float) * (size_t)hop);
    for (int p = 0; p < aec->partitions && samples > 0; p++) {
        float *re = aec->kalman.re + cell_of(aec, p), *im = aec->kalman.im + cell_of(aec, p);
        fft_inverse(fft, re, im, aec->frame);
        memcpy(aec->fast_error, aec->frame + kept, sizeof(float) * (size_t)samples);
        memmove(aec->frame + samples, aec->frame, sizeof(float) * (size_t)kept);
        memcpy(aec->frame, before, sizeof(float) * (size_t)samples);
        memcpy(before, aec->fast_error, sizeof(float) * (size_t)samples);
        memset(aec->frame + hop, 0, sizeof(float) * (size_t)hop);
        fft_forward(fft, aec->frame, re, im);
    }
    copy_path(aec, &aec->kalman, &aec->fast);
    doubt_path(aec, MOVED_DOUBT);
}

/* The better filter takes the other along. What the fast one leaves of the microphone is how wrong the
 * path may still be. */
static void race(aec_t *aec, const float *mic)
{
    follow_energy(aec, mic, &aec->mic);
    const int diverged = aec->kalman.error > WORSE_THAN_NONE * aec->mic;
    aec->divergences += diverged && !aec->diverged;
    aec->diverged = diverged;
    if (aec->fast.error < CLEARLY_BETTER * aec->kalman.error) {
        copy_path(aec, &aec->fast, &aec->kalman);
        doubt_path(aec, fminf(1.0f, aec->fast.error / (aec->mic + FLOOR_POWER)));
    } else if (aec->kalman.error < CLEARLY_BETTER * aec->fast.error) {
        copy_path(aec, &aec->kalman, &aec->fast);
    }
}

void aec_predict(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *mic, float *echo,
                 float *error)
{
    filter_block(aec, &aec->kalman, ref, fft, mic, echo, error);
    aec->lag_sum = aec->lag_information = aec->block_cross = aec->block_power = 0.0f;
}

void aec_observe(aec_t *aec, const fft_t *fft, const float *error)
{
    normalise_error(aec, &aec->kalman, fft, error, 2.0f * NEAR_SILENT);
    memcpy(aec->fast.near_power, aec->kalman.near_power, sizeof(float) * (size_t)aec->stride);
    compare(aec);
    aec->lag_sum = aec->lag_information = 0.0f;
}

void aec_learn(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *mic, float near_speaks,
               const float *error)
{
    /* twice, because the error fills only half of its frame */
    const float near_share = 2.0f * (NEAR_SILENT + near_speaks * (NEAR_SPEAKS - NEAR_SILENT));
    follow_energy(aec, error, &aec->kalman.error);
    adapt_kalman(aec, ref, fft, error, near_share);
    filter_block(aec, &aec->fast, ref, fft, mic, aec->fast_echo, aec->fast_error);
    follow_energy(aec, aec->fast_error, &aec->fast.error);
    adapt_fast(aec, ref, fft, aec->fast_error, near_share);
    race(aec, mic);
    /* no 16-bit input does this; if one did, it would last */
    if (!isfinite(aec->kalman.error) || !isfinite(aec->fast.error))
        aec_reset(aec);
    constrain(aec, fft, &aec->kalman, KALMAN_CONSTRAINED);
    constrain(aec, fft, &aec->fast, FAST_CONSTRAINED);
}

void aec_keep(aec_t *aec, int most_blocks, tape_t *tape)
{
    const size_t bins = (size_t)aec->stride, cells = cell_of(aec, aec->partitions);
    tape_int(tape, &aec->delay_blocks, 0, most_blocks);
    const float most_spectrum = MOST_ERROR * (float)aec->hop; /* of half a frame: the other half is zeros */
    tape_floats(tape, aec->kalman.re, cells, -MOST_PATH, MOST_PATH);
    tape_floats(tape, aec->kalman.im, cells, -MOST_PATH, MOST_PATH);
    tape_floats(tape, aec->variance, cells, 0.0f, MOST_PATH * MOST_PATH);
    tape_floats(tape, aec->kalman.near_power, bins, 0.0f, most_spectrum * most_spectrum);
    if (tape->mode == TAPE_PLAY) {
        copy_path(aec, &aec->kalman, &aec->fast);
        memcpy(aec->fast.near_power, aec->kalman.near_power, sizeof(float) * bins);
    }
}
