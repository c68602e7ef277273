/* Kernels for four floats at a time, on 64-bit ARM. */
#ifdef __aarch64__
#include <arm_neon.h>

#define V float32x4_t
#define LANES 4

#define LOAD(p) vld1q_f32(p)
#define STORE(p, v) vst1q_f32(p, v)
#define SPLAT(f) vdupq_n_f32(f)
#define SUM(v) vaddvq_f32(v)
#define STORE_SUMS(p, v) vst1q_f32(p, vpaddq_f32(vpaddq_f32((v)[0], (v)[1]), vpaddq_f32((v)[2], (v)[3])))

static inline float32x4_t reversed(float32x4_t v)
{
    const float32x4_t pairs = vrev64q_f32(v); /* 1 0 3 2 */
    return vextq_f32(pairs, pairs, 2);
}
#define REVERSED(v) reversed(v)

#define LOAD_PAIRS(p, real, imaginary)                                                                       \
    do {                                                                                                     \
        const float32x4x2_t pairs_ = vld2q_f32(p);                                                           \
        (real) = pairs_.val[0];                                                                              \
        (imaginary) = pairs_.val[1];                                                                         \
    } while (0)
#define STORE_PAIRS(p, re, im) vst2q_f32(p, ((float32x4x2_t){{re, im}}))
#define STORE_FOURS(p, a, b, c, d) vst4q_f32(p, ((float32x4x4_t){{a, b, c, d}}))

#define I int32x4_t
#define BITS(v) vreinterpretq_s32_f32(v)
#define FROM_BITS(i) vreinterpretq_f32_s32(i)
#define ADD_INT(a, b) vaddq_s32(a, b)
#define SUB_INT(a, b) vsubq_s32(a, b)
#define SPLAT_INT(i) vdupq_n_s32(i)
#define TO_EXPONENT(i) vshlq_n_s32(i, 23)
#define FROM_EXPONENT(i) vshrq_n_s32(i, 23)
#define FROM_INT(i) vcvtq_f32_s32(i)
#define MIN(a, b) vminq_f32(a, b)
#define MAX(a, b) vmaxq_f32(a, b)
#define IF_LESS(a, b, x, y) vbslq_f32(vcltq_f32(a, b), x, y)

/* Four rows share the inputs; a sum's lanes are added at the end. */
enum { DOT_ROWS = 4 };
static inline void dot_rows(int inputs, const int8_t *const *row, const int8_t *x, int32_t *sum)
{
    int32x4_t lanes[DOT_ROWS] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int i = 0; i < inputs; i += 16) {
        const int8x16_t x16 = vld1q_s8(x + i);
        for (int r = 0; r < DOT_ROWS; r++) {
            const int8x16_t w = vld1q_s8(row[r] + i);
            const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x16));
            /* two products of 127 * 127 fit in 16 bits */
            lanes[r] = vpadalq_s16(lanes[r], vmlal_high_s8(low, w, x16));
        }
    }
    vst1q_s32(sum, vpaddq_s32(vpaddq_s32(lanes[0], lanes[1]), vpaddq_s32(lanes[2], lanes[3])));
}

#include "kernels/fft_text.h"
#include "kernels/text.h"

const kernels_t kernels_neon = KERNELS("neon");
#endif
