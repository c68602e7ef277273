/* For tests and benchmarks: every kernel behind the same call, so that a loop can go over all of them.
 *
 * A case reads n * CASE_ROWS floats from each of in[] and changes as many of out[]. With inputs in -1 .. 1
 * each result is at most `operations` roundings deep, of numbers no larger than `magnitude`. */
#ifndef APMPI_KERNELS_KERNEL_CASES_H
#define APMPI_KERNELS_KERNEL_CASES_H

#include "kernels/dense.h"
#include "kernels/kernels.h"

enum { CASE_INPUTS = 6, CASE_OUTPUTS = 3, CASE_ROWS = 3 };

typedef struct {
    const char *name;
    double operations, magnitude;
    void (*run)(const kernels_t *k, int n, const float *const *in, float *const *out);
} kernel_case_t;

#define CASE(name)                                                                                           \
    static void case_##name(const kernels_t *k, int n, const float *const *in, float *const *out)
CASE(power) { k->power(n, in[0], in[1], out[0]); }
CASE(cross) { k->cross(n, in[0], in[1], in[2], in[3], out[0]); }
CASE(convolve)
{
    static const float tap[] = {0.4f, -0.3f, 0.2f, 0.1f, 0.0f, 0.2f, -0.1f, 0.3f};
    k->convolve(n, 8, tap, in[0], out[0]); /* in[0] has more than n floats */
}
CASE(filter_kalman)
{
    const int newest = n * (CASE_ROWS - 1); /* as in the far end's ring: the next row lies before */
    k->filter_kalman(n, CASE_ROWS, -n, in[0] + newest, in[1] + newest, in[2], in[3], in[4], out[0], out[1],
                     out[2]);
}
CASE(filter_lms)
{
    static const float step[CASE_ROWS] = {0.5f, 0.3f, 0.2f};
    k->filter_lms(n, CASE_ROWS, n, in[0], in[1], in[2], in[3], step, out[0], out[1], out[2]);
}
CASE(adapt_kalman)
{
    const int newest = n * (CASE_ROWS - 1);
    k->adapt_kalman(n, CASE_ROWS, -n, in[0] + newest, in[1] + newest, in[2], in[3], in[4], 0.9994f, out[0],
                    out[1], out[2]);
}
CASE(adapt_lms)
{
    static const float step[CASE_ROWS] = {0.5f, 0.3f, 0.2f};
    k->adapt_lms(n, CASE_ROWS, n, in[0], in[1], in[2], in[3], step, out[0], out[1]);
}
/* The side's spectra and paths lie behind the middle's, as in the memory of the canceller: with one row less
 * each, both are within the inputs. */
CASE(filter_pair)
{
    k->filter_pair(n, 1, n, n, n, in[0], in[1], in[2], in[3], in[4], out[0], out[1], out[2]);
}
CASE(adapt_pair)
{
    k->adapt_pair(n, 1, n, n, n, in[0], in[1], in[2], in[3], in[4], 0.9994f, 0.99939f, out[0], out[1],
                  out[2]);
}
CASE(coherence)
{
    const float sum = k->coherence(n, 0.98f, in[0], in[1], in[2], in[3], out[0], out[1]);
    if (n)
        out[2][0] = sum;
}
CASE(hermitian_average) { k->hermitian_average(n, 1, in[0], in[1], in[2], out[0]); }
CASE(multiply) { k->multiply(n, in[0], in[1], out[0]); }
CASE(dot)
{
    const float sum = k->dot(n, in[0], in[1]);
    if (n)
        out[0][0] = sum;
}
CASE(interpolate)
{
    const float sum = k->interpolate(n, in[0], in[1], in[2], 0.3f);
    if (n)
        out[0][0] = sum;
}
CASE(interpolate_four)
{
    if (n) /* in[0] has more than n floats */
        k->interpolate_four(n, in[0], in[1], in[2], 0.3f, 0.04f, out[0]);
}
CASE(exp) { k->exp(n, in[0], out[0]); }
CASE(log) { k->log(n, in[0], out[0]); }
CASE(sigmoid) { k->sigmoid(n, in[0], out[0]); }
CASE(tanh) { k->tanh(n, in[0], out[0]); }

CASE(log_spectral_gain) { k->log_spectral_gain(n, in[0], in[1], out[0]); }

static const kernel_case_t kernel_cases[] = {
    {"power", 3, 2, case_power},
    {"cross", 3, 2, case_cross},
    {"convolve", 16, 1.6, case_convolve},
    {"filter_kalman", 4 * CASE_ROWS, 1 + 2 * CASE_ROWS, case_filter_kalman},
    {"filter_lms", 4 * CASE_ROWS, 1 + 2 * CASE_ROWS, case_filter_lms},
    {"adapt_kalman", 14, 18, case_adapt_kalman},
    {"adapt_lms", 5, 3, case_adapt_lms},
    {"filter_pair", 12, 9, case_filter_pair},
    {"adapt_pair", 18, 40, case_adapt_pair},
    {"coherence", 500, 1000, case_coherence},
    {"hermitian_average", 8, 6, case_hermitian_average},
    {"multiply", 1, 1, case_multiply},
    {"dot", 500, 500, case_dot},
    {"interpolate", 500, 500, case_interpolate},
    {"interpolate_four", 500, 500, case_interpolate_four},
    {"exp", 16, 3, case_exp},
    {"log", 16, 90, case_log},
    {"sigmoid", 18, 4, case_sigmoid},
    {"tanh", 20, 8, case_tanh},
    {"log_spectral_gain", 60, 16, case_log_spectral_gain},
};
enum { KERNEL_CASES = sizeof kernel_cases / sizeof *kernel_cases };

#endif
