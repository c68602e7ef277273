/* Kernels for four floats at a time, on 64-bit ARM. */
#ifdef __aarch64__
#include <arm_neon.h>

#define V float32x4_t
enum { LANES = 4 };

#define LOAD(p) vld1q_f32(p)
#define STORE(p, v) vst1q_f32(p, v)
#define SPLAT(f) vdupq_n_f32(f)
#define SUM(v) vaddvq_f32(v)

static inline float32x4_t reversed(float32x4_t v)
{
    const float32x4_t pairs = vrev64q_f32(v); /* 1 0 3 2 */
    return vextq_f32(pairs, pairs, 2);
}
#define REVERSED(v) reversed(v)

#define LOAD_PAIRS(p, real, imaginary)               \
    do {                                             \
        const float32x4x2_t pairs_ = vld2q_f32(p);   \
        (real) = pairs_.val[0];                      \
        (imaginary) = pairs_.val[1];                 \
    } while (0)
#define STORE_PAIRS(p, re, im) vst2q_f32(p, ((float32x4x2_t){{re, im}}))
#define STORE_FOURS(p, a, b, c, d) vst4q_f32(p, ((float32x4x4_t){{a, b, c, d}}))

#include "kernels/text.h"

const kernels_t kernels_neon = KERNELS("neon");
#endif
