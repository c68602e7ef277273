/* Kernels for one float at a time: the reference of the other variants. */
#define V float
enum { LANES = 1 };

#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define SPLAT(f) (f)
#define SUM(v) (v)
#define REVERSED(v) (v)
#define LOAD_PAIRS(p, re, im) ((re) = (p)[0], (im) = (p)[1])
#define STORE_PAIRS(p, re, im) ((p)[0] = (re), (p)[1] = (im))
#define STORE_FOURS(p, a, b, c, d) ((p)[0] = (a), (p)[1] = (b), (p)[2] = (c), (p)[3] = (d))

#include "kernels/text.h"

const kernels_t kernels_scalar = KERNELS("scalar");
