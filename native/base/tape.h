/* What a stage has learned, put down in bytes and taken up again.
 *
 * A stage lists its learned values once, in X_keep(), and the same list measures, records, checks and plays
 * back, as with the arena:
 *
 *   void X_keep(x_t *x, tape_t *tape) { tape_floats(tape, x->noise, bins, 0.0f, TAPE_ANY); tape_int(tape,
 * &x->best, -1, lags - 1); }
 *
 * Arrays are rounded to the upper 16 bits of their floats: all of the range, errors of 2^-9 at most, so that
 * an echo path is kept to 59 dB (uniform error, RMS 2^-9 / sqrt 3), in half the bytes. The list's kinds and
 * counts make a number, `layout`: a record of another list is told by it.
 *
 * Each value has a range, that of what can be learned. A number beyond it is recorded as the nearest end of
 * the range, so that no record of numbers is odd; an infinity or a NaN is recorded as it is, and odd.
 */
#ifndef APMPI_BASE_TAPE_H
#define APMPI_BASE_TAPE_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    TAPE_MEASURE, /* only `used` and `layout`: no value is read, so other threads may change them */
    TAPE_RECORD,  /* values -> bytes */
    TAPE_CHECK,   /* `odd` counts values out of their range; nothing is changed */
    TAPE_PLAY,    /* bytes -> values */
} tape_mode_t;

typedef struct {
    tape_mode_t mode;
    /* as many as a measuring tape has used; any alignment; only read by TAPE_CHECK and TAPE_PLAY */
    unsigned char *bytes;
    size_t used;
    uint32_t layout;
    int odd;
} tape_t;

/* values: `count` floats, each meant to be from low to high; these are rounded as the values are. */
void tape_floats(tape_t *tape, float *values, size_t count, float low, float high);
/* One float, not rounded. */
void tape_float(tape_t *tape, float *value, float low, float high);
void tape_int(tape_t *tape, int *value, int low, int high);

/* CRC-32 of IEEE 802.3 (zlib's crc32). */
uint32_t tape_crc(const unsigned char *bytes, size_t count);

#endif
