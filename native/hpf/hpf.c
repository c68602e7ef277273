#include "hpf/hpf.h"

#include <math.h>

void hpf_init(hpf_t *hpf, int rate_hz, float cutoff_hz)
{
    hpf_configure(hpf, rate_hz, cutoff_hz);
    hpf_reset(hpf);
}

void hpf_configure(hpf_t *hpf, int rate_hz, float cutoff_hz)
{
    const double g = tan(M_PI * (double)cutoff_hz / rate_hz), damping = M_SQRT2; /* 1/Q of Butterworth */
    hpf->g = (float)g;
    hpf->damping = (float)(g + damping);
    hpf->scale = (float)(1.0 / (1.0 + g * (g + damping)));
}

void hpf_reset(hpf_t *hpf) { hpf->band = hpf->low = 0.0f; }

void hpf_process(hpf_t *hpf, float *x, int count)
{
    const float scale = hpf->scale, damping = hpf->damping, g = hpf->g, twice_g = 2.0f * g;
    float band = hpf->band, low = hpf->low;
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
        const float out = scale * (x[i] - low - damping * band);
        low += twice_g * (band + g * out);
        band += twice_g * out;
        x[i] = out;
    }
    hpf->band = band;
    hpf->low = low;
}
