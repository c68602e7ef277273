#include "aec/aec.h"

#include <math.h>
#include <string.h>

#include "kernels/spectrum.h"

/* tuning hooks while prototyping */
float fast_p0=1.0f, fast_rate=0.1f, fast_win=0.5f, fast_lose=0.5f, fast_var=1.0f, fast_psi=0.9f; int aec_shadow=1, aec_took=0; float aec_A = 0.9997f, aec_psi = 0.9f, aec_p0 = 5.0f, aec_eps = 0.01f; int aec_ncon = 2;

static const float FLOOR_POWER = 1e-10f; /* of a sample: quantisation noise of 16 bit, (2^-15)^2/12 */

void aec_init(aec_t *aec, int hop, int partitions, arena_t *arena)
{
    aec->hop = hop;
    aec->stride = spectrum_stride(hop);
    aec->partitions = partitions;
    const size_t bins = (size_t)aec->stride, cells = bins * (size_t)partitions;
    aec->w_re = arena_floats(arena, cells);
    aec->w_im = arena_floats(arena, cells);
    aec->variance = arena_floats(arena, cells);
    aec->fast_re = arena_floats(arena, cells);
    aec->fast_im = arena_floats(arena, cells);
    aec->fast_near_power = arena_floats(arena, bins);
    aec->near_power = arena_floats(arena, bins);
    aec->echo_re = arena_floats(arena, bins);
    aec->echo_im = arena_floats(arena, bins);
    aec->error_re = arena_floats(arena, bins);
    aec->error_im = arena_floats(arena, bins);
    aec->gain_re = arena_floats(arena, bins);
    aec->gain_im = arena_floats(arena, bins);
    aec->weight = arena_floats(arena, bins);
    aec->frame = arena_floats(arena, 2 * (size_t)hop);
    if (arena->base)
        aec_reset(aec);
}

static void forget(aec_t *aec, int partition)
{
    const size_t at = (size_t)partition * (size_t)aec->stride, bytes = sizeof(float) * (size_t)aec->stride;
    memset(aec->w_re + at, 0, bytes);
    memset(aec->w_im + at, 0, bytes);
    memset(aec->fast_re + at, 0, bytes);
    memset(aec->fast_im + at, 0, bytes);
    const float prior = aec_p0 * powf(10.0f, -0.1f * (float)partition) / (float)5;
    for (int k = 0; k <= aec->hop; k++)
        aec->variance[at + (size_t)k] = prior;
}

void aec_reset(aec_t *aec)
{
    memset(aec->variance, 0, sizeof(float) * (size_t)aec->stride * (size_t)aec->partitions);
    for (int p = 0; p < aec->partitions; p++)
        forget(aec, p);
    memset(aec->near_power, 0, sizeof(float) * (size_t)aec->stride);
    memset(aec->fast_near_power, 0, sizeof(float) * (size_t)aec->stride);
    aec->main_error = aec->fast_error = aec->mic_power = 0.0f;
    aec->delay_blocks = 0;
    aec->next_constraint = 0;
}

void aec_set_delay(aec_t *aec, int blocks)
{
    const int shift = blocks - aec->delay_blocks;
    if (shift == 0) return;
    aec->delay_blocks = blocks;
    const int kept = aec->partitions - (shift < 0 ? -shift : shift);
    const size_t row = (size_t)aec->stride;
    if (kept > 0) {
        const size_t from = row * (size_t)(shift > 0 ? shift : 0), to = row * (size_t)(shift > 0 ? 0 : -shift);
        memmove(aec->w_re + to, aec->w_re + from, sizeof(float) * row * (size_t)kept);
        memmove(aec->w_im + to, aec->w_im + from, sizeof(float) * row * (size_t)kept);
        memmove(aec->fast_re + to, aec->fast_re + from, sizeof(float) * row * (size_t)kept);
        memmove(aec->fast_im + to, aec->fast_im + from, sizeof(float) * row * (size_t)kept);
        memmove(aec->variance + to, aec->variance + from, sizeof(float) * row * (size_t)kept);
    }
    for (int p = 0; p < aec->partitions; p++) {
        const int old = p + shift;
        if (old < 0 || old >= aec->partitions)
            forget(aec, p);
    }
}

void aec_follow_delay(aec_t *aec, int blocks) { aec->delay_blocks = blocks; }

int aec_peak_blocks(const aec_t *aec)
{
    int peak = 0;
    float most = 0.0f;
    for (int p = 0; p < aec->partitions; p++) {
        const size_t cell = (size_t)p * (size_t)aec->stride;
        float energy = 0.0f;
        for (int k = 0; k <= aec->hop; k++)
            energy += aec->w_re[cell + (size_t)k] * aec->w_re[cell + (size_t)k] + aec->w_im[cell + (size_t)k] * aec->w_im[cell + (size_t)k];
        if (energy > most) {
            most = energy;
            peak = p;
        }
    }
    return aec->delay_blocks + peak;
}

void aec_advance(aec_t *aec, int most_blocks)
{
    if (aec->delay_blocks < most_blocks)
        aec->delay_blocks++;
}

/* Keeps the partition's impulse response within its hop: what circular convolution wrote behind it is cut. */
static void constrain(aec_t *aec, const fft_t *fft, float *re, float *im)
{
    fft_inverse(fft, re, im, aec->frame);
    memset(aec->frame + aec->hop, 0, sizeof(float) * (size_t)aec->hop);
    fft_forward(fft, aec->frame, re, im);
}

static void run_fast(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *mic, const float *error)
{
    const int n = aec->stride, hop = aec->hop;
    memset(aec->echo_re, 0, sizeof(float) * (size_t)n);
    memset(aec->echo_im, 0, sizeof(float) * (size_t)n);
    memset(aec->weight, 0, sizeof(float) * (size_t)n);
    for (int p = 0; p < aec->partitions; p++) {
        const int at = reference_at(ref, aec->delay_blocks + p);
        const size_t cell = (size_t)p * (size_t)n;
        const float prior = fast_p0 * powf(10.0f, -0.1f * (float)p) / 5.0f;
        spectrum_mac(n, ref->re + at, ref->im + at, aec->fast_re + cell, aec->fast_im + cell, aec->echo_re, aec->echo_im);
        for (int k = 0; k < n; k++) aec->weight[k] += prior * ref->power[at + k];
    }
    fft_inverse(fft, aec->echo_re, aec->echo_im, aec->frame);
    float me = 0, fe = 0, mp = 0;
    for (int i = 0; i < hop; i++) {
        aec->frame[i] = 0.0f;
        aec->frame[hop + i] = mic[i] - aec->frame[hop + i];
        me += error[i] * error[i]; fe += aec->frame[hop + i] * aec->frame[hop + i]; mp += mic[i] * mic[i];
    }
    fft_forward(fft, aec->frame, aec->error_re, aec->error_im);
    const float floor_power = FLOOR_POWER * (float)hop;
    for (int k = 0; k < n; k++) {
        const float e2 = aec->error_re[k] * aec->error_re[k] + aec->error_im[k] * aec->error_im[k];
        aec->fast_near_power[k] = fast_psi * aec->fast_near_power[k] + (1.0f - fast_psi) * e2;
        const float inv = 1.0f / (aec->weight[k] + 2.0f * aec->fast_near_power[k] + floor_power);
        aec->gain_re[k] = aec->error_re[k] * inv;
        aec->gain_im[k] = aec->error_im[k] * inv;
    }
    for (int p = 0; p < aec->partitions; p++) {
        const int at = reference_at(ref, aec->delay_blocks + p);
        const size_t cell = (size_t)p * (size_t)n;
        const float prior = fast_p0 * powf(10.0f, -0.1f * (float)p) / 5.0f;
        const float *xr = ref->re + at, *xi = ref->im + at;
        float *wr = aec->fast_re + cell, *wi = aec->fast_im + cell;
        for (int k = 0; k < n; k++) {
            wr[k] += prior * (xr[k] * aec->gain_re[k] + xi[k] * aec->gain_im[k]);
            wi[k] += prior * (xr[k] * aec->gain_im[k] - xi[k] * aec->gain_re[k]);
        }
    }
    aec->main_error += fast_rate * (me - aec->main_error);
    aec->fast_error += fast_rate * (fe - aec->fast_error);
    aec->mic_power += fast_rate * (mp - aec->mic_power);
    const size_t bytes = sizeof(float) * (size_t)n * (size_t)aec->partitions;
    if (aec->fast_error < fast_win * aec->main_error) {
        memcpy(aec->w_re, aec->fast_re, bytes);
        memcpy(aec->w_im, aec->fast_im, bytes);
        const float doubt = fast_var * fminf(1.0f, aec->fast_error / (aec->mic_power + 1e-9f));
        for (int p = 0; p < aec->partitions; p++)
            for (int k = 0; k <= hop; k++) {
                float q = doubt * powf(10.0f, -0.1f * (float)p) / 5.0f, *v = &aec->variance[(size_t)p * (size_t)n + (size_t)k];
                *v = fmaxf(*v, q);
            }
        aec->main_error = aec->fast_error; aec_took++;
    } else if (aec->main_error < fast_lose * aec->fast_error) {
        memcpy(aec->fast_re, aec->w_re, bytes);
        memcpy(aec->fast_im, aec->w_im, bytes);
        aec->fast_error = aec->main_error;
    }
}

void aec_process(aec_t *aec, const reference_t *ref, const fft_t *fft, const float *mic, float *echo, float *error)
{
    const int n = aec->stride, hop = aec->hop;
    memset(aec->echo_re, 0, sizeof(float) * (size_t)n);
    memset(aec->echo_im, 0, sizeof(float) * (size_t)n);
    memset(aec->weight, 0, sizeof(float) * (size_t)n);
    for (int p = 0; p < aec->partitions; p++) {
        const int at = reference_at(ref, aec->delay_blocks + p);
        const size_t cell = (size_t)p * (size_t)n;
        spectrum_mac(n, ref->re + at, ref->im + at, aec->w_re + cell, aec->w_im + cell, aec->echo_re, aec->echo_im);
        spectrum_mac_real(n, ref->power + at, aec->variance + cell, aec->weight);
    }
    fft_inverse(fft, aec->echo_re, aec->echo_im, aec->frame);
    memcpy(echo, aec->frame + hop, sizeof(float) * (size_t)hop);
    for (int i = 0; i < hop; i++)
        error[i] = mic[i] - echo[i];
    memset(aec->frame, 0, sizeof(float) * (size_t)hop);
    memcpy(aec->frame + hop, error, sizeof(float) * (size_t)hop);
    fft_forward(fft, aec->frame, aec->error_re, aec->error_im);

    const float floor_power = FLOOR_POWER * (float)hop;
    for (int k = 0; k < n; k++) {
        const float e2 = aec->error_re[k] * aec->error_re[k] + aec->error_im[k] * aec->error_im[k];
        aec->near_power[k] = aec_psi * aec->near_power[k] + (1.0f - aec_psi) * e2;
        /* the error frame is half zeros: its power is half that of the far end's full frames */
        const float inv = 1.0f / (aec->weight[k] + 2.0f * aec->near_power[k] + floor_power);
        aec->weight[k] = inv;
        aec->gain_re[k] = aec->error_re[k] * inv;
        aec->gain_im[k] = aec->error_im[k] * inv;
    }
    const float keep = aec_A * aec_A, wander = 1.0f - keep;
    for (int p = 0; p < aec->partitions; p++) {
        const int at = reference_at(ref, aec->delay_blocks + p);
        const size_t cell = (size_t)p * (size_t)n;
        const float *xr = ref->re + at, *xi = ref->im + at, *x2 = ref->power + at;
        float *wr = aec->w_re + cell, *wi = aec->w_im + cell, *v = aec->variance + cell;
        for (int k = 0; k < n; k++) {
            wr[k] += v[k] * (xr[k] * aec->gain_re[k] + xi[k] * aec->gain_im[k]);
            wi[k] += v[k] * (xr[k] * aec->gain_im[k] - xi[k] * aec->gain_re[k]);
            const float left = v[k] * (1.0f - 0.5f * v[k] * x2[k] * aec->weight[k]);
            v[k] = keep * left + wander * (wr[k] * wr[k] + wi[k] * wi[k]);
        }
    }
    for (int i = 0; i < aec_ncon; i++) {
        const size_t cell = (size_t)aec->next_constraint * (size_t)n;
        constrain(aec, fft, aec->w_re + cell, aec->w_im + cell);
        if (aec_shadow) constrain(aec, fft, aec->fast_re + cell, aec->fast_im + cell);
        aec->next_constraint = aec->next_constraint + 1 == aec->partitions ? 0 : aec->next_constraint + 1;
    }
    if (aec_shadow) run_fast(aec, ref, fft, mic, error);
}
