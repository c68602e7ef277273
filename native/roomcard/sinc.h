/* A signal between its samples: windowed-sinc interpolation, for clocks that differ by some ppm.
 *
 * 32 taps, Kaiser window (beta 9), cut-off at the Nyquist frequency, 1024 phases with linear interpolation
 * between them. Worst error for sines up to 0.8 of the Nyquist frequency, checked by test_room.c: below
 * -84 dB. Above 0.8 lies the window's transition band.
 */
#ifndef APMPI_ROOMCARD_SINC_H
#define APMPI_ROOMCARD_SINC_H

/* Samples needed on either side. */
#define SINC_HALF 16
#define SINC_TAPS (2 * SINC_HALF)

/* Fills the table that sinc_at() reads, once in a process; several threads may call it at once. */
void sinc_init(void);

/* The signal at `fraction` (0 <= fraction < 1) after x[SINC_HALF - 1]; reads x[0..SINC_TAPS-1]. */
float sinc_at(const float *x, double fraction);

#endif
