/* High-pass: 2nd-order Butterworth, in place, no delay; takes DC, hum and rumble away before anything else
 * listens. State-variable form with trapezoidal integrators (V. Zavalishin, The Art of VA Filter Design, ch.
 * 4; A. Simper, "Linear trapezoidal integrated SVF"): the bilinear transform's response, and registers that
 * hold the signal's own low-pass and band-pass, so that single precision will do for 20 Hz at 48 kHz and a
 * new cut-off makes no click. */
#ifndef APMPI_HPF_H
#define APMPI_HPF_H

typedef struct {
    float g, damping, scale;
    float band, low; /* the integrators */
} hpf_t;

/* cutoff_hz: 20..300, -3 dB; rate_hz: 8000..48000. */
void hpf_init(hpf_t *hpf, int rate_hz, float cutoff_hz);
/* New coefficients; the registers stay, so a retune does not click. */
void hpf_configure(hpf_t *hpf, int rate_hz, float cutoff_hz);
void hpf_reset(hpf_t *hpf);
void hpf_process(hpf_t *hpf, float *x, int count);

#endif
