#include "hpf/hpf.h"

#include <math.h>

void hpf_init(hpf_t *hpf, int rate_hz, float cutoff_hz)
{
    hpf_configure(hpf, rate_hz, cutoff_hz);
    hpf_reset(hpf);
}

void hpf_configure(hpf_t *hpf, int rate_hz, float cutoff_hz)
{
    const double w = 2.0 * M_PI * (double)cutoff_hz / rate_hz, alpha = sin(w) * M_SQRT1_2; /* sin(w) / 2Q */
    const double a0 = 1.0 + alpha;
    hpf->b0 = hpf->b2 = (float)((1.0 + cos(w)) / 2.0 / a0);
    hpf->b1 = -2.0f * hpf->b0; /* exactly: the zeros stay at DC */
    hpf->a1 = (float)(-2.0 * cos(w) / a0);
    hpf->a2 = (float)((1.0 - alpha) / a0);
}

void hpf_reset(hpf_t *hpf) { hpf->s1 = hpf->s2 = 0.0f; }

void hpf_process(hpf_t *hpf, float *x, int count)
{
    float s1 = hpf->s1, s2 = hpf->s2;
    for (int i = 0; i < count; i++) {
        const float in = x[i], out = hpf->b0 * in + s1;
        s1 = hpf->b1 * in - hpf->a1 * out + s2;
        s2 = hpf->b2 * in - hpf->a2 * out;
        x[i] = out;
    }
    hpf->s1 = s1;
    hpf->s2 = s2;
}
