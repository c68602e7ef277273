/* The text of the real FFT; its contract is in fft.h. Included for a vector V (see text.h); the variant also
 * defines:
 *
 *   LOAD_PAIRS(p, re, im)      2 * LANES floats re0 im0 re1 im1 ... from memory to two vectors
 *   STORE_PAIRS(p, re, im)     the same to memory
 *   STORE_FOURS(p, a, b, c, d) 4 * LANES floats a0 b0 c0 d0 a1 ... to memory
 *   REVERSED(v)                the lanes in opposite order
 *
 * A pass over `left` points in `stride` interleaved transforms reads a_k = x[q + stride (p + k m)] and writes
 * y[q + stride (r p + j)] = w_p^j sum_k a_k exp(-2 pi i j k / r), p < m = left/r, q < stride. The first pass
 * (radix 4, stride 1) has p in the lanes, all others q; the last one (radix 5, m = 1) has no twiddles. */
#include "kernels/fft.h"

typedef struct {
    V re, im;
} complex_t;

static inline complex_t plus(complex_t a, complex_t b) { return (complex_t){a.re + b.re, a.im + b.im}; }
static inline complex_t minus(complex_t a, complex_t b) { return (complex_t){a.re - b.re, a.im - b.im}; }
static inline complex_t times(complex_t a, complex_t b)
{
    return (complex_t){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
static inline complex_t times_minus_i(complex_t a) { return (complex_t){a.im, -a.re}; }

/* Discrete Fourier transforms of 3, 4, 5 and 8 points, in place. */
static inline void dft3(complex_t *a)
{
    const V c = SPLAT(0.5f), s = SPLAT(0.866025403784438647f); /* cos, sin(pi/3) */
    const complex_t sum = plus(a[1], a[2]), d = minus(a[1], a[2]);
    const complex_t m = {a[0].re - c * sum.re, a[0].im - c * sum.im}, n = {s * d.im, -(s * d.re)};
    a[0] = plus(a[0], sum);
    a[1] = plus(m, n);
    a[2] = minus(m, n);
}

static inline void dft4(complex_t *a)
{
    const complex_t e = plus(a[0], a[2]), o = plus(a[1], a[3]), f = minus(a[0], a[2]),
                    g = times_minus_i(minus(a[1], a[3]));
    a[0] = plus(e, o);
    a[1] = plus(f, g);
    a[2] = minus(e, o);
    a[3] = minus(f, g);
}

static inline void dft5(complex_t *a)
{
    /* cos(2 pi/5), cos(4 pi/5) */
    const V c1 = SPLAT(0.309016994374947424f), c2 = SPLAT(-0.809016994374947424f);
    /* sin(2 pi/5), sin(4 pi/5) */
    const V s1 = SPLAT(0.951056516295153572f), s2 = SPLAT(0.587785252292473129f);
    const complex_t p = plus(a[1], a[4]), q = plus(a[2], a[3]), u = minus(a[1], a[4]), v = minus(a[2], a[3]);
    const complex_t m1 = {a[0].re + c1 * p.re + c2 * q.re, a[0].im + c1 * p.im + c2 * q.im};
    const complex_t m2 = {a[0].re + c2 * p.re + c1 * q.re, a[0].im + c2 * p.im + c1 * q.im};
    const complex_t n1 = {s1 * u.im + s2 * v.im, -(s1 * u.re + s2 * v.re)}; /* -i (s1 u + s2 v) */
    const complex_t n2 = {s2 * u.im - s1 * v.im, s1 * v.re - s2 * u.re};
    a[0] = plus(a[0], plus(p, q));
    a[1] = plus(m1, n1);
    a[2] = plus(m2, n2);
    a[3] = minus(m2, n2);
    a[4] = minus(m1, n1);
}

static inline void dft8(complex_t *a)
{
    const V h = SPLAT(0.707106781186547524f); /* cos(pi/4) */
    complex_t even[4] = {a[0], a[2], a[4], a[6]}, odd[4] = {a[1], a[3], a[5], a[7]};
    dft4(even);
    dft4(odd);
    odd[1] = (complex_t){h * (odd[1].re + odd[1].im), h * (odd[1].im - odd[1].re)};
    odd[2] = times_minus_i(odd[2]);
    odd[3] = (complex_t){h * (odd[3].im - odd[3].re), -(h * (odd[3].re + odd[3].im))};
    for (int j = 0; j < 4; j++) {
        a[j] = plus(even[j], odd[j]);
        a[j + 4] = minus(even[j], odd[j]);
    }
}

static inline void first_butterfly(complex_t *a, int p, int m, const float *twr, const float *twi,
                                   fft_split_t out)
{
    dft4(a);
    for (int j = 1; j < 4; j++)
        a[j] = times(a[j], (complex_t){LOAD(twr + (j - 1) * m + p), LOAD(twi + (j - 1) * m + p)});
    STORE_FOURS(out.re + 4 * p, a[0].re, a[1].re, a[2].re, a[3].re);
    STORE_FOURS(out.im + 4 * p, a[0].im, a[1].im, a[2].im, a[3].im);
}

#define PASS(r)                                                                                              \
    static void pass##r(fft_split_t in, fft_split_t out, int m, int stride, const float *restrict twr,       \
                        const float *restrict twi)                                                           \
    {                                                                                                        \
        for (int p = 0; p < m; p++) {                                                                        \
            complex_t w[r];                                                                                  \
            for (int j = 1; j < r; j++)                                                                      \
                w[j] = (complex_t){SPLAT(twr[p + (j - 1) * m]), SPLAT(twi[p + (j - 1) * m])};                \
            for (int q = 0; q < stride; q += LANES) {                                                        \
                const int i = q + stride * p, o = q + stride * r * p;                                        \
                complex_t a[r];                                                                              \
                for (int k = 0; k < r; k++)                                                                  \
                    a[k] = (complex_t){LOAD(in.re + i + k * stride * m), LOAD(in.im + i + k * stride * m)};  \
                dft##r(a);                                                                                   \
                STORE(out.re + o, a[0].re);                                                                  \
                STORE(out.im + o, a[0].im);                                                                  \
                for (int j = 1; j < r; j++) {                                                                \
                    const complex_t y = times(a[j], w[j]);                                                   \
                    STORE(out.re + o + j * stride, y.re);                                                    \
                    STORE(out.im + o + j * stride, y.im);                                                    \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }
PASS(3)
PASS(4)
PASS(8)

static inline void last_butterfly(fft_split_t in, int q, int stride, complex_t *a)
{
    for (int k = 0; k < 5; k++)
        a[k] = (complex_t){LOAD(in.re + q + k * stride), LOAD(in.im + q + k * stride)};
    dft5(a);
}

/* All passes between the first, which left its result in `in`, and the last; returns what the last one
 * reads. */
static fft_split_t middle_passes(const fft_t *fft, fft_split_t in, fft_split_t out)
{
    int left = fft->size / 8, stride = 4, at = 3 * left;
    for (int pass = 0; fft->radix[pass]; pass++) {
        const int r = fft->radix[pass], m = left / r;
        const float *twr = fft->twiddle_re + at, *twi = fft->twiddle_im + at;
        switch (r) {
        case 3:
            pass3(in, out, m, stride, twr, twi);
            break;
        case 4:
            pass4(in, out, m, stride, twr, twi);
            break;
        case 8:
            pass8(in, out, m, stride, twr, twi);
            break;
        }
        const fft_split_t swap = in;
        in = out;
        out = swap;
        at += (r - 1) * m;
        left = m;
        stride *= r;
    }
    return in;
}

/* Spectra of the even and the odd samples, e and o, make X[k] = e + w^k o and X*[n-k] = e - w^k o; the packed
 * transform Z = e + i o gives 2 e = Z[k] + Z*[n-k], 2 o = -i (Z[k] - Z*[n-k]). */
static inline void split_bins(const fft_t *fft, fft_split_t z, int k, float *restrict re, float *restrict im)
{
    const int n = fft->size / 2, mirror = n - k - (LANES - 1);
    const V half = SPLAT(0.5f);
    const complex_t a = {LOAD(z.re + k), LOAD(z.im + k)},
                    b = {REVERSED(LOAD(z.re + mirror)), REVERSED(LOAD(z.im + mirror))};
    const complex_t e = {half * (a.re + b.re), half * (a.im - b.im)},
                    o = {half * (a.im + b.im), half * (b.re - a.re)};
    const complex_t wo = times(o, (complex_t){LOAD(fft->split_re + k), LOAD(fft->split_im + k)});
    STORE(re + k, e.re + wo.re);
    STORE(im + k, e.im + wo.im);
    STORE(re + mirror, REVERSED(e.re - wo.re));
    STORE(im + mirror, REVERSED(wo.im - e.im));
}

static void forward(const fft_t *fft, const float *restrict x, float *restrict re, float *restrict im)
{
    const int n = fft->size / 2, m = n / 4;
    const fft_split_t work = fft->work[0];
    for (int p = 0; p < m; p += LANES) {
        complex_t a[4];
        for (int k = 0; k < 4; k++)
            LOAD_PAIRS(x + 2 * (p + k * m), a[k].re, a[k].im);
        first_butterfly(a, p, m, fft->twiddle_re, fft->twiddle_im, work);
    }
    const fft_split_t last = middle_passes(fft, work, fft->work[1]);
    const fft_split_t z = last.re == work.re ? fft->work[1] : work;
    const int stride = n / 5;
    for (int q = 0; q < stride; q += LANES) {
        complex_t a[5];
        last_butterfly(last, q, stride, a);
        for (int j = 0; j < 5; j++) {
            STORE(z.re + q + j * stride, a[j].re);
            STORE(z.im + q + j * stride, a[j].im);
        }
    }
    re[0] = z.re[0] + z.im[0];
    re[n] = z.re[0] - z.im[0];
    im[0] = im[n] = 0.0f;
    for (int k = 1; k + LANES <= n / 2; k += LANES)
        split_bins(fft, z, k, re, im);
    split_bins(fft, z, n / 2 - LANES + 1, re, im); /* up to the middle; some of it is done twice */
}

/* Z from X: 2 e = X[k] + X*[n-k], 2 w^k o = X[k] - X*[n-k]. Real and imaginary part change places here and
 * again behind the transform: that makes the forward transform the inverse one. */
static inline void join_bins(const fft_t *fft, const float *restrict re, const float *restrict im, int k,
                             fft_split_t z)
{
    const int n = fft->size / 2, mirror = n - k - (LANES - 1);
    const V scale = SPLAT(1.0f / (float)fft->size);
    const complex_t a = {LOAD(re + k), LOAD(im + k)},
                    b = {REVERSED(LOAD(re + mirror)), REVERSED(LOAD(im + mirror))};
    const complex_t e = {scale * (a.re + b.re), scale * (a.im - b.im)},
                    wo = {scale * (a.re - b.re), scale * (a.im + b.im)};
    const V wr = LOAD(fft->split_re + k), wi = LOAD(fft->split_im + k);
    const complex_t o = {wo.re * wr + wo.im * wi, wo.im * wr - wo.re * wi};
    STORE(z.im + k, e.re - o.im);
    STORE(z.re + k, e.im + o.re);
    STORE(z.im + mirror, REVERSED(e.re + o.im));
    STORE(z.re + mirror, REVERSED(o.re - e.im));
}

static void inverse(const fft_t *fft, const float *restrict re, const float *restrict im, float *restrict x)
{
    const int n = fft->size / 2, m = n / 4;
    const fft_split_t z = fft->work[0], work = fft->work[1];
    const float scale = 1.0f / (float)fft->size;
    z.im[0] = scale * (re[0] + re[n]);
    z.re[0] = scale * (re[0] - re[n]);
    for (int k = 1; k + LANES <= n / 2; k += LANES)
        join_bins(fft, re, im, k, z);
    join_bins(fft, re, im, n / 2 - LANES + 1, z);
    for (int p = 0; p < m; p += LANES) {
        complex_t a[4];
        for (int k = 0; k < 4; k++)
            a[k] = (complex_t){LOAD(z.re + p + k * m), LOAD(z.im + p + k * m)};
        first_butterfly(a, p, m, fft->twiddle_re, fft->twiddle_im, work);
    }
    const fft_split_t last = middle_passes(fft, work, z);
    const int stride = n / 5;
    for (int q = 0; q < stride; q += LANES) {
        complex_t a[5];
        last_butterfly(last, q, stride, a);
        for (int j = 0; j < 5; j++)
            STORE_PAIRS(x + 2 * (q + j * stride), a[j].im, a[j].re);
    }
}
