/* Kernels for four floats at a time, on x86-64: the compiler makes vectors of most scalar loops, but not of the transform, which is half
 * of the time. */
#ifdef __SSE2__
#include <emmintrin.h>
#include <stdint.h>

#define V __m128
enum { LANES = 4 };

#define LOAD(p) _mm_loadu_ps(p)
#define STORE(p, v) _mm_storeu_ps(p, v)
#define SPLAT(f) _mm_set1_ps(f)
#define REVERSED(v) _mm_shuffle_ps(v, v, _MM_SHUFFLE(0, 1, 2, 3))

static inline float sum_of(__m128 v)
{
    const __m128 pairs = v + _mm_movehl_ps(v, v);
    return _mm_cvtss_f32(pairs) + _mm_cvtss_f32(_mm_shuffle_ps(pairs, pairs, 1));
}
#define SUM(v) sum_of(v)

#define LOAD_PAIRS(p, re, im)                                         \
    do {                                                              \
        const __m128 a_ = _mm_loadu_ps(p), b_ = _mm_loadu_ps((p) + 4); \
        (re) = _mm_shuffle_ps(a_, b_, _MM_SHUFFLE(2, 0, 2, 0));       \
        (im) = _mm_shuffle_ps(a_, b_, _MM_SHUFFLE(3, 1, 3, 1));       \
    } while (0)
#define STORE_PAIRS(p, re, im) (_mm_storeu_ps(p, _mm_unpacklo_ps(re, im)), _mm_storeu_ps((p) + 4, _mm_unpackhi_ps(re, im)))
#define STORE_FOURS(p, a, b, c, d)                       \
    do {                                                 \
        __m128 a_ = (a), b_ = (b), c_ = (c), d_ = (d);   \
        _MM_TRANSPOSE4_PS(a_, b_, c_, d_);               \
        _mm_storeu_ps(p, a_);                            \
        _mm_storeu_ps((p) + 4, b_);                      \
        _mm_storeu_ps((p) + 8, c_);                      \
        _mm_storeu_ps((p) + 12, d_);                     \
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

static inline __m128 chosen(__m128 mask, __m128 x, __m128 y) { return _mm_or_ps(_mm_and_ps(mask, x), _mm_andnot_ps(mask, y)); }
#define IF_LESS(a, b, x, y) chosen(_mm_cmplt_ps(a, b), x, y)

enum { DOT_ROWS = 1 };
static inline void dot(int inputs, const int8_t *const *row, const int16_t *x, int32_t *sum)
{
    __m128i lanes = _mm_setzero_si128();
    for (int i = 0; i < inputs; i += 16) {
        const __m128i w = _mm_loadu_si128((const __m128i *)(row[0] + i)), sign = _mm_cmpgt_epi8(_mm_setzero_si128(), w);
        lanes = _mm_add_epi32(lanes, _mm_madd_epi16(_mm_unpacklo_epi8(w, sign), _mm_loadu_si128((const __m128i *)(x + i))));
        lanes = _mm_add_epi32(lanes, _mm_madd_epi16(_mm_unpackhi_epi8(w, sign), _mm_loadu_si128((const __m128i *)(x + i + 8))));
    }
    int32_t each[4];
    _mm_storeu_si128((__m128i *)each, lanes);
    *sum = each[0] + each[1] + each[2] + each[3];
}

#include "kernels/text.h"

const kernels_t kernels_sse2 = KERNELS("sse2");
#endif
