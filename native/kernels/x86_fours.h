/* Four floats on x86-64: the definitions that fft_text.h needs, and the sum of a vector. */
#ifndef APMPI_KERNELS_X86_FOURS_H
#define APMPI_KERNELS_X86_FOURS_H

#include <emmintrin.h>

#define V __m128
#define LANES 4

#define LOAD(p) _mm_loadu_ps(p)
#define STORE(p, v) _mm_storeu_ps(p, v)
#define SPLAT(f) _mm_set1_ps(f)
#define REVERSED(v) _mm_shuffle_ps(v, v, _MM_SHUFFLE(0, 1, 2, 3))

#define LOAD_PAIRS(p, re, im)                                                                                \
    do {                                                                                                     \
        const __m128 a_ = _mm_loadu_ps(p), b_ = _mm_loadu_ps((p) + 4);                                       \
        (re) = _mm_shuffle_ps(a_, b_, _MM_SHUFFLE(2, 0, 2, 0));                                              \
        (im) = _mm_shuffle_ps(a_, b_, _MM_SHUFFLE(3, 1, 3, 1));                                              \
    } while (0)
#define STORE_PAIRS(p, re, im)                                                                               \
    (_mm_storeu_ps(p, _mm_unpacklo_ps(re, im)), _mm_storeu_ps((p) + 4, _mm_unpackhi_ps(re, im)))
#define STORE_FOURS(p, a, b, c, d)                                                                           \
    do {                                                                                                     \
        __m128 a_ = (a), b_ = (b), c_ = (c), d_ = (d);                                                       \
        _MM_TRANSPOSE4_PS(a_, b_, c_, d_);                                                                   \
        _mm_storeu_ps(p, a_);                                                                                \
        _mm_storeu_ps((p) + 4, b_);                                                                          \
        _mm_storeu_ps((p) + 8, c_);                                                                          \
        _mm_storeu_ps((p) + 12, d_);                                                                         \
    } while (0)

static inline float sum_of_four(__m128 v)
{
    const __m128 pairs = v + _mm_movehl_ps(v, v);
    return _mm_cvtss_f32(pairs) + _mm_cvtss_f32(_mm_shuffle_ps(pairs, pairs, 1));
}

#endif
