/* Kernels for one float at a time: the reference of the other variants, and the fallback of any processor. */
#include <stdint.h>
#include <string.h>

#define V float
#define LANES 1

#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define SPLAT(f) (f)
#define SUM(v) (v)
#define STORE_SUMS(p, v) ((p)[0] = (v)[0], (p)[1] = (v)[1], (p)[2] = (v)[2], (p)[3] = (v)[3])
#define REVERSED(v) (v)
#define LOAD_PAIRS(p, re, im) ((re) = (p)[0], (im) = (p)[1])
#define STORE_PAIRS(p, re, im) ((p)[0] = (re), (p)[1] = (im))
#define STORE_FOURS(p, a, b, c, d) ((p)[0] = (a), (p)[1] = (b), (p)[2] = (c), (p)[3] = (d))

#define I int32_t
#define ADD_INT(a, b) ((a) + (b))
#define SUB_INT(a, b) ((a) - (b))
#define SPLAT_INT(i) (i)
#define TO_EXPONENT(i) ((int32_t)((uint32_t)(i) << 23))
#define FROM_EXPONENT(i) ((i) >> 23)
#define FROM_INT(i) ((float)(i))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define IF_LESS(a, b, x, y) ((a) < (b) ? (x) : (y))

static inline int32_t bits_of(float v)
{
    int32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}
#define BITS(v) bits_of(v)

static inline float from_bits(int32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
#define FROM_BITS(i) from_bits(i)

enum { DOT_ROWS = 1 };
static inline void dot_rows(int inputs, const int8_t *const *row, const int8_t *x, int32_t *sum)
{
    *sum = 0;
    for (int i = 0; i < inputs; i++)
        *sum += row[0][i] * x[i];
}

#include "kernels/fft_text.h"
#include "kernels/text.h"

const kernels_t kernels_scalar = KERNELS("scalar");
