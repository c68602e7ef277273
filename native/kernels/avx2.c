/* Kernels for eight floats at a time, on x86-64 processors that have AVX2 and FMA (checked at run time). The
 * transform takes four at a time here, too, with FMA: its passes are too short for eight. */
#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include <immintrin.h>
#include <stdint.h>

#include "kernels/x86_fours.h"
#include "kernels/fft_text.h"

#undef V
#undef LANES
#undef LOAD
#undef STORE
#undef SPLAT

#define V __m256
#define LANES 8

#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define SPLAT(f) _mm256_set1_ps(f)
#define SUM(v) sum_of_four(_mm256_castps256_ps128(v) + _mm256_extractf128_ps(v, 1))
#define STORE_SUMS(p, v)                                                                                     \
    do {                                                                                                     \
        const __m256 halves_ = _mm256_hadd_ps(_mm256_hadd_ps((v)[0], (v)[1]),                                \
                                              _mm256_hadd_ps((v)[2], (v)[3]));                               \
        _mm_storeu_ps(p, _mm256_castps256_ps128(halves_) + _mm256_extractf128_ps(halves_, 1));               \
    } while (0)

#define I __m256i
#define BITS(v) _mm256_castps_si256(v)
#define FROM_BITS(i) _mm256_castsi256_ps(i)
#define FROM_INT(i) _mm256_cvtepi32_ps(i)
#define TO_EXPONENT(i) _mm256_slli_epi32(i, 23)
#define FROM_EXPONENT(i) _mm256_srai_epi32(i, 23)
#define ADD_INT(a, b) _mm256_add_epi32(a, b)
#define SUB_INT(a, b) _mm256_sub_epi32(a, b)
#define SPLAT_INT(i) _mm256_set1_epi32(i)
#define MIN(a, b) _mm256_min_ps(a, b)
#define MAX(a, b) _mm256_max_ps(a, b)
#define IF_LESS(a, b, x, y) _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ))

/* Four rows share the inputs. */
enum { DOT_ROWS = 4 };
static inline void dot_rows(int inputs, const int8_t *const *row, const int8_t *x, int32_t *sum)
{
    __m256i lanes[DOT_ROWS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                               _mm256_setzero_si256()};
    for (int i = 0; i < inputs; i += 16) {
        const __m256i x16 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(x + i)));
        for (int r = 0; r < DOT_ROWS; r++) {
            const __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(row[r] + i)));
            lanes[r] = _mm256_add_epi32(lanes[r], _mm256_madd_epi16(w, x16));
        }
    }
    /* sums of neighbours, twice: one sum a row in each half */
    const __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(lanes[0], lanes[1]),
                                            _mm256_hadd_epi32(lanes[2], lanes[3]));
    _mm_storeu_si128((__m128i *)sum,
                     _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
}

#include "kernels/text.h"

const kernels_t kernels_avx2 = KERNELS("avx2");
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
