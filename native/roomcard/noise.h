/* Repeatable white noise. */
#ifndef APMPI_ROOMCARD_NOISE_H
#define APMPI_ROOMCARD_NOISE_H

#include <stdint.h>

/* Sample `index` of stream `stream`: white, approximately normal, RMS 1, the same in every run. */
float noise_at(uint32_t stream, int64_t index);

#endif
