/* High-pass: 2nd-order Butterworth, in place, without delay. Removes DC, hum and rumble before all other
 * stages.
 *
 * State-variable form with trapezoidal integrators (V. Zavalishin, The Art of VA Filter Design, ch. 4; A.
 * Simper, "Linear trapezoidal integrated SVF"). It has the bilinear transform's response, and its registers
 * are the signal's own low-pass and band-pass: so single precision suffices for 20 Hz at 48 kHz, and a new
 * cut-off makes no click.
 */
#ifndef APMPI_HPF_H
#define APMPI_HPF_H

typedef struct {
    float g;         /* tan(pi cutoff / rate): prewarped integrator gain */
    float damping;   /* g + 1/Q */
    float scale;     /* 1 / (1 + g (g + 1/Q)) */
    float band, low; /* registers of the integrators */
} hpf_t;

/* cutoff_hz: 20..300, -3 dB; rate_hz: 8000..48000. */
void hpf_init(hpf_t *hpf, int rate_hz, float cutoff_hz);
/* New coefficients; the registers stay, so a retune does not click. */
void hpf_configure(hpf_t *hpf, int rate_hz, float cutoff_hz);
/* Registers 0. */
void hpf_reset(hpf_t *hpf);
/* x: count samples, in place. */
void hpf_process(hpf_t *hpf, float *x, int count);

#endif
