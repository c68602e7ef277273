/* Learned values as bytes, so that a later run can continue with them.
 *
 * A stage lists its learned values once, in X_keep(). As with the arena, the same list measures, records,
 * checks and restores:
 *
 *   void X_keep(x_t *x, tape_t *tape)
 *   {
 *       tape_floats(tape, x->noise, bins, 0.0f, most_power);
 *       tape_int(tape, &x->best, -1, lags - 1);
 *   }
 *
 * Arrays are rounded to the upper 16 bits of their floats: the full range with a relative error of 2^-9 at
 * most, in half the bytes. An echo path is kept to 59 dB (uniform error, RMS 2^-9 / sqrt 3). A hash of the
 * list's kinds and counts, `layout`, identifies the list: a record of another list is recognised by it.
 *
 * Each value has a range: what can be learned. A number outside is recorded as the nearest end of the range,
 * so a record made from numbers passes the check. An infinity or a NaN is recorded unchanged and fails it.
 */
#ifndef APMPI_BASE_TAPE_H
#define APMPI_BASE_TAPE_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    TAPE_MEASURE, /* only `used` and `layout`: no value is read, so other threads may change them */
    TAPE_RECORD,  /* values -> bytes */
    TAPE_CHECK,   /* `odd` counts values outside of their range; nothing is changed */
    TAPE_PLAY,    /* bytes -> values, after TAPE_CHECK found none odd */
} tape_mode_t;

typedef struct {
    tape_mode_t mode;
    /* as many as TAPE_MEASURE gives in `used`; any alignment; TAPE_CHECK and TAPE_PLAY only read them; NULL
     * for TAPE_MEASURE */
    unsigned char *bytes;
    size_t used;     /* bytes up to now */
    uint32_t layout; /* hash of the list up to now; its start value is the caller's */
    int odd;         /* TAPE_CHECK: values outside of their range */
} tape_t;

/* `count` floats, each from low to high; the two are rounded as the values are. */
void tape_floats(tape_t *tape, float *values, size_t count, float low, float high);
/* One float from low to high, not rounded. */
void tape_float(tape_t *tape, float *value, float low, float high);
/* One integer from low to high, 32 bits. */
void tape_int(tape_t *tape, int *value, int low, int high);

/* CRC-32 of IEEE 802.3, as zlib's crc32. */
uint32_t tape_crc(const unsigned char *bytes, size_t count);

#endif
