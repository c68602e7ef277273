/* High-pass: 2nd-order Butterworth, in place, no delay; takes DC, hum and rumble away before anything else listens.
 * Audio EQ Cookbook (R. Bristow-Johnson), Q = 1/sqrt(2); transposed direct form II. */
#ifndef APMPI_HPF_H
#define APMPI_HPF_H

typedef struct {
    float b0, b1, b2, a1, a2;
    float s1, s2;
} hpf_t;

/* cutoff_hz: 20..300, -3 dB; rate_hz: 8000..48000. */
void hpf_init(hpf_t *hpf, int rate_hz, float cutoff_hz);
/* New coefficients; the registers stay, so a retune does not click. */
void hpf_configure(hpf_t *hpf, int rate_hz, float cutoff_hz);
void hpf_reset(hpf_t *hpf);
void hpf_process(hpf_t *hpf, float *x, int count);

#endif
