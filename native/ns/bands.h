/* Powers of a block by band: 200 Hz wide up to 1 kHz, then a fifth of the frequency (kernels/spectrum.h). */
#ifndef APMPI_NS_BANDS_H
#define APMPI_NS_BANDS_H

#include "ns/block.h"

enum {
    NS_BANDS = 16,        /* fewer at 8 kHz */
    BANDS_FIRST_BIN = 4,  /* 200 Hz */
    BANDS_LAST_BIN = 140, /* 7 kHz */
};

typedef struct ns_bands {
    int count;
    int edge[NS_BANDS + 1]; /* band b holds the bins edge[b] to edge[b + 1] - 1 */
    float input[NS_BANDS];  /* after the echo canceller */
    float smooth_input[NS_BANDS];
    float noise[NS_BANDS];                      /* noise floor */
    float echo[NS_BANDS];                       /* expected residual echo, times ECHO_MARGIN */
    float input_power, noise_power, echo_power; /* sums of the above over all bands */
} ns_bands_t;

void bands_init(ns_bands_t *bands, int bins);
void bands_reset(ns_bands_t *bands);
void bands_process(ns_bands_t *bands, const ns_block_t *block);

#endif
