#include "kernels/spectrum.h"

void spectrum_power(int n, const float *restrict re, const float *restrict im, float *restrict power)
{
    for (int k = 0; k < n; k++)
        power[k] = re[k] * re[k] + im[k] * im[k];
}

void spectrum_mac(int n, const float *restrict xr, const float *restrict xi, const float *restrict wr,
                  const float *restrict wi, float *restrict acc_r, float *restrict acc_i)
{
    for (int k = 0; k < n; k++) {
        acc_r[k] += xr[k] * wr[k] - xi[k] * wi[k];
        acc_i[k] += xr[k] * wi[k] + xi[k] * wr[k];
    }
}

void spectrum_mac_real(int n, const float *restrict a, const float *restrict b, float *restrict acc)
{
    for (int k = 0; k < n; k++)
        acc[k] += a[k] * b[k];
}

void spectrum_smooth(int n, float rate, const float *restrict x, float *restrict state)
{
    for (int k = 0; k < n; k++)
        state[k] += rate * (x[k] - state[k]);
}
