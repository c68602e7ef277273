/* For tests and benches: every kernel behind the same call, so that a loop can go over all of them.
 *
 * A case reads `n` floats from each of in[0..CASE_INPUTS-1] and changes out[0..outputs-1]; with all of them in -1..1 it does at most `operations` on
 * numbers no larger than `magnitude`. */
#ifndef APMPI_KERNELS_KERNEL_CASES_H
#define APMPI_KERNELS_KERNEL_CASES_H

#include "kernels/dense.h"
#include "kernels/kernels.h"

enum { CASE_INPUTS = 6, CASE_OUTPUTS = 3 };

typedef struct {
    const char *name;
    int outputs;
    int result;      /* floats of out[0]; 0: n */
    double operations, magnitude;
    void (*run)(const kernels_t *k, int n, const float *const *in, float *const *out);
} kernel_case_t;

#define CASE(name) static void case_##name(const kernels_t *k, int n, const float *const *in, float *const *out)
CASE(power) { k->power(n, in[0], in[1], out[0]); }
CASE(cross) { k->cross(n, in[0], in[1], in[2], in[3], out[0]); }
CASE(mac) { k->mac(n, in[0], in[1], in[2], in[3], out[0], out[1]); }
CASE(mac_real) { k->mac_real(n, in[0], in[1], out[0]); }
CASE(add_scaled) { k->add_scaled(n, 0.7f, in[0], out[0]); }
CASE(lms) { k->lms(n, in[0], in[1], in[2], in[3], 0.7f, out[0], out[1]); }
CASE(kalman) { k->kalman(n, in[0], in[1], in[2], in[3], in[4], in[5], 0.9994f, out[0], out[1], out[2]); }
CASE(multiply) { k->multiply(n, in[0], in[1], out[0]); }
CASE(energy) { out[0][0] = k->energy(n, in[0]); }
CASE(exp) { k->exp(n, in[0], out[0]); }
CASE(log) { k->log(n, in[0], out[0]); }
CASE(sigmoid) { k->sigmoid(n, in[0], out[0]); }
CASE(tanh) { k->tanh(n, in[0], out[0]); }

static const kernel_case_t kernel_cases[] = {
    {"power", 1, 0, 3, 2, case_power},
    {"cross", 1, 0, 3, 2, case_cross},
    {"mac", 2, 0, 4, 3, case_mac},
    {"mac_real", 1, 0, 2, 2, case_mac_real},
    {"add_scaled", 1, 0, 2, 2, case_add_scaled},
    {"lms", 2, 0, 5, 3, case_lms},
    {"kalman", 3, 0, 14, 18, case_kalman},
    {"multiply", 1, 0, 1, 1, case_multiply},
    {"energy", 1, 1, 500, 500, case_energy},
    {"exp", 1, 0, 16, 3, case_exp},
    {"log", 1, 0, 16, 90, case_log},
    {"sigmoid", 1, 0, 18, 4, case_sigmoid},
    {"tanh", 1, 0, 20, 8, case_tanh},
};
enum { KERNEL_CASES = sizeof kernel_cases / sizeof *kernel_cases };

#endif
