#include "kernels/spectrum.h"

void spectrum_power(int n, const float *restrict re, const float *restrict im, float *restrict power)
{
    for (int k = 0; k < n; k++)
        power[k] = re[k] * re[k] + im[k] * im[k];
}

void spectrum_cross(int n, const float *restrict ar, const float *restrict ai, const float *restrict br,
                    const float *restrict bi, float *restrict cross)
{
    for (int k = 0; k < n; k++)
        cross[k] = ar[k] * br[k] + ai[k] * bi[k];
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

void spectrum_add_scaled(int n, float scale, const float *restrict a, float *restrict acc)
{
    for (int k = 0; k < n; k++)
        acc[k] += scale * a[k];
}

void spectrum_lms(int n, const float *restrict xr, const float *restrict xi, const float *restrict gr,
                  const float *restrict gi, float step, float *restrict wr, float *restrict wi)
{
    for (int k = 0; k < n; k++) {
        wr[k] += step * (xr[k] * gr[k] + xi[k] * gi[k]);
        wi[k] += step * (xr[k] * gi[k] - xi[k] * gr[k]);
    }
}

void spectrum_kalman(int n, const float *restrict xr, const float *restrict xi, const float *restrict x2,
                     const float *restrict gr, const float *restrict gi, const float *restrict weight, float keep,
                     float *restrict wr, float *restrict wi, float *restrict v)
{
    for (int k = 0; k < n; k++) {
        wr[k] += v[k] * (xr[k] * gr[k] + xi[k] * gi[k]);
        wi[k] += v[k] * (xr[k] * gi[k] - xi[k] * gr[k]);
        const float left = v[k] - 0.5f * v[k] * v[k] * x2[k] * weight[k];
        v[k] = keep * left + (1.0f - keep) * (wr[k] * wr[k] + wi[k] * wi[k]);
    }
}
