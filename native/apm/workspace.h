/* Transforms and scratch memory that the far end and all channels share.
 *
 * Whatever writes a scratch array reads it within the same call of far.h or channel.h; only `silence` lasts.
 * The spectra stay those of the channel that was processed last: the training's probe reads them.
 */
#ifndef APMPI_APM_WORKSPACE_H
#define APMPI_APM_WORKSPACE_H

#include "kernels/fft.h"
#include "kernels/stft.h"

typedef struct {
    int rate_hz;
    int hop;    /* samples of a block */
    int stride; /* floats of a spectrum, see spectrum_stride() */
    fft_t fft;  /* of 2*hop samples */
    stft_t stft;
    float *block; /* 2*hop samples */
    /* spectra, stride each; 0 in the padding */
    float *re, *im, *error_power; /* the canceller's error; suppressed in place, its power before that */
    float *echo_re, *echo_im, *echo_power; /* the canceller's echo estimate */
    float *cross;                          /* real part of error * conj(echo) */
    float *far_power;                      /* far end at the echo's delay */
    float *silence;                        /* zeros */
} workspace_t;

#endif
