/* Sample formats of cards, to and from the interleaved int16 that apmpi processes; little endian. */
#ifndef APMPI_CARDS_FORMATS_H
#define APMPI_CARDS_FORMATS_H

#include <stdint.h>

typedef enum { FORMAT_S16, FORMAT_S32, FORMAT_S24_3, FORMAT_FLOAT } format_t;

/* Bytes of a sample. */
int format_bytes(format_t format);

/* Rounds and saturates; a NaN becomes 0. raw: count samples, at any address. */
void format_to_int16(format_t format, const unsigned char *raw, int count, int16_t *out);

/* Exact. */
void format_from_int16(format_t format, const int16_t *in, int count, unsigned char *raw);

#endif
