/* Kernels for four floats at a time, on x86-64. The compiler vectorises most loops of scalar.c by itself, but
 * not the transform, which is half of the time. */
#ifdef __x86_64__
#include <emmintrin.h>
#include <stdint.h>

#include "kernels/x86_fours.h"
#include "kernels/fft_text.h"

#define SUM(v) sum_of_four(v)
#define STORE_SUMS(p, v)                                                                                     \
    do {                                                                                                     \
        __m128 a_ = (v)[0], b_ = (v)[1], c_ = (v)[2], d_ = (v)[3];                                           \
        _MM_TRANSPOSE4_PS(a_, b_, c_, d_);                                                                   \
        _mm_storeu_ps(p, (a_ + b_) + (c_ + d_));                                                             \
    } while (0)

#define I __m128i
#define BITS(v) _mm_castps_si128(v)
#define FROM_BITS(i) _mm_castsi128_ps(i)
#define FROM_INT(i) _mm_cvtepi32_ps(i)
#define TO_EXPONENT(i) _mm_slli_epi32(i, 23)
#define FROM_EXPONENT(i) _mm_srai_epi32(i, 23)
#define ADD_INT(a, b) _mm_add_epi32(a, b)
#define SUB_INT(a, b) _mm_sub_epi32(a, b)
#define SPLAT_INT(i) _mm_set1_epi32(i)
#define MIN(a, b) _mm_min_ps(a, b)
#define MAX(a, b) _mm_max_ps(a, b)

static inline __m128 chosen(__m128 mask, __m128 x, __m128 y)
{
    return _mm_or_ps(_mm_and_ps(mask, x), _mm_andnot_ps(mask, y));
}
#define IF_LESS(a, b, x, y) chosen(_mm_cmplt_ps(a, b), x, y)

enum { DOT_ROWS = 1 };
static inline void dot_rows(int inputs, const int8_t *const *row, const int8_t *x, int32_t *sum)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i lanes = zero;
    for (int i = 0; i < inputs; i += 16) {
        const __m128i w = _mm_loadu_si128((const __m128i *)(row[0] + i)), w_sign = _mm_cmpgt_epi8(zero, w);
        const __m128i x16 = _mm_loadu_si128((const __m128i *)(x + i)), x_sign = _mm_cmpgt_epi8(zero, x16);
        lanes = _mm_add_epi32(lanes,
                              _mm_madd_epi16(_mm_unpacklo_epi8(w, w_sign), _mm_unpacklo_epi8(x16, x_sign)));
        lanes = _mm_add_epi32(lanes,
                              _mm_madd_epi16(_mm_unpackhi_epi8(w, w_sign), _mm_unpackhi_epi8(x16, x_sign)));
    }
    int32_t each[4];
    _mm_storeu_si128((__m128i *)each, lanes);
    *sum = each[0] + each[1] + each[2] + each[3];
}

#include "kernels/text.h"

const kernels_t kernels_sse2 = KERNELS("sse2");
#endif
