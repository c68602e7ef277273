#include "kernels/fft.h"

#include <math.h>

typedef struct {
    float *restrict re, *restrict im;
} split_t;

static int factorise(int points, int radix[FFT_MAX_PASSES])
{
    static const int choices[] = {4, 2, 3, 5};
    int passes = 0;
    for (int i = 0; i < 4; i++)
        while (points % choices[i] == 0 && passes < FFT_MAX_PASSES) {
            radix[passes++] = choices[i];
            points /= choices[i];
        }
    return passes;
}

void fft_init(fft_t *fft, int size, arena_t *arena)
{
    const int points = size / 2;
    fft->size = size;
    fft->passes = factorise(points, fft->radix);
    fft->twiddle_re = arena_floats(arena, (size_t)points);
    fft->twiddle_im = arena_floats(arena, (size_t)points);
    fft->split_re = arena_floats(arena, (size_t)points + 1);
    fft->split_im = arena_floats(arena, (size_t)points + 1);
    fft->scratch = arena_floats(arena, 4 * (size_t)points);
    if (!arena->base)
        return;
    int at = 0, left = points;
    for (int pass = 0; pass < fft->passes; pass++) {
        const int r = fft->radix[pass];
        for (int k = 1; k < r; k++)
            for (int p = 0; p < left / r; p++, at++) {
                const double angle = -2.0 * M_PI * p * k / left;
                fft->twiddle_re[at] = (float)cos(angle);
                fft->twiddle_im[at] = (float)sin(angle);
            }
        left /= r;
    }
    for (int k = 0; k <= points; k++) {
        fft->split_re[k] = (float)cos(-2.0 * M_PI * k / size);
        fft->split_im[k] = (float)sin(-2.0 * M_PI * k / size);
    }
}

/* Butterflies. A pass over `left` points in `stride` interleaved transforms reads a_k = x[q + stride (p + k m)] and writes
 * y[q + stride (r p + j)] = w_p^j sum_k a_k exp(-2 pi i j k / r), for p < m = left/r and q < stride. tw points to m factors for each
 * j = 1..r-1. Both loops run in either order; whichever index is contiguous is the inner one. */
#define MUL_RE(ar, ai, br, bi) ((ar) * (br) - (ai) * (bi))
#define MUL_IM(ar, ai, br, bi) ((ar) * (bi) + (ai) * (br))
#define STORE(j, vr, vi, twr, twi)                                  \
    do {                                                            \
        const float vr_ = (vr), vi_ = (vi);                         \
        out.re[o + (j) * stride] = MUL_RE(vr_, vi_, twr, twi);      \
        out.im[o + (j) * stride] = MUL_IM(vr_, vi_, twr, twi);      \
    } while (0)

static inline void butterfly2(split_t in, split_t out, int i, int o, int step, int stride, const float *wr, const float *wi)
{
    const float ar = in.re[i], ai = in.im[i], br = in.re[i + step], bi = in.im[i + step];
    out.re[o] = ar + br;
    out.im[o] = ai + bi;
    STORE(1, ar - br, ai - bi, wr[0], wi[0]);
}

static inline void butterfly3(split_t in, split_t out, int i, int o, int step, int stride, const float *wr, const float *wi)
{
    const float s = 0.866025403784438647f; /* sin(pi/3) */
    const float ar = in.re[i], ai = in.im[i];
    const float br = in.re[i + step], bi = in.im[i + step], cr = in.re[i + 2 * step], ci = in.im[i + 2 * step];
    const float sr = br + cr, si = bi + ci, mr = ar - 0.5f * sr, mi = ai - 0.5f * si;
    const float dr = s * (bi - ci), di = s * (cr - br);
    out.re[o] = ar + sr;
    out.im[o] = ai + si;
    STORE(1, mr + dr, mi + di, wr[0], wi[0]);
    STORE(2, mr - dr, mi - di, wr[1], wi[1]);
}

static inline void butterfly4(split_t in, split_t out, int i, int o, int step, int stride, const float *wr, const float *wi)
{
    const float ar = in.re[i], ai = in.im[i], br = in.re[i + step], bi = in.im[i + step];
    const float cr = in.re[i + 2 * step], ci = in.im[i + 2 * step], dr = in.re[i + 3 * step], di = in.im[i + 3 * step];
    const float acr = ar + cr, aci = ai + ci, bdr = br + dr, bdi = bi + di;
    const float amcr = ar - cr, amci = ai - ci, jr = bi - di, ji = dr - br; /* j = -i (b - d) */
    out.re[o] = acr + bdr;
    out.im[o] = aci + bdi;
    STORE(1, amcr + jr, amci + ji, wr[0], wi[0]);
    STORE(2, acr - bdr, aci - bdi, wr[1], wi[1]);
    STORE(3, amcr - jr, amci - ji, wr[2], wi[2]);
}

static inline void butterfly5(split_t in, split_t out, int i, int o, int step, int stride, const float *wr, const float *wi)
{
    const float c1 = 0.309016994374947424f, c2 = -0.809016994374947424f; /* cos(2 pi/5), cos(4 pi/5) */
    const float s1 = 0.951056516295153572f, s2 = 0.587785252292473129f;  /* sin(2 pi/5), sin(4 pi/5) */
    const float ar = in.re[i], ai = in.im[i];
    const float br = in.re[i + step], bi = in.im[i + step], er = in.re[i + 4 * step], ei = in.im[i + 4 * step];
    const float cr = in.re[i + 2 * step], ci = in.im[i + 2 * step], dr = in.re[i + 3 * step], di = in.im[i + 3 * step];
    const float pr = br + er, pi = bi + ei, qr = cr + dr, qi = ci + di;
    const float ur = br - er, ui = bi - ei, vr = cr - dr, vi = ci - di;
    const float m1r = ar + c1 * pr + c2 * qr, m1i = ai + c1 * pi + c2 * qi;
    const float m2r = ar + c2 * pr + c1 * qr, m2i = ai + c2 * pi + c1 * qi;
    const float n1r = s1 * ui + s2 * vi, n1i = -s1 * ur - s2 * vr; /* -i (s1 u + s2 v) */
    const float n2r = s2 * ui - s1 * vi, n2i = -s2 * ur + s1 * vr;
    out.re[o] = ar + pr + qr;
    out.im[o] = ai + pi + qi;
    STORE(1, m1r + n1r, m1i + n1i, wr[0], wi[0]);
    STORE(2, m2r + n2r, m2i + n2i, wr[1], wi[1]);
    STORE(3, m2r - n2r, m2i - n2i, wr[2], wi[2]);
    STORE(4, m1r - n1r, m1i - n1i, wr[3], wi[3]);
}

#define PASS(r)                                                                                               \
    static void pass##r(split_t in, split_t out, int m, int stride, const float *twr, const float *twi)       \
    {                                                                                                         \
        for (int p = 0; p < m; p++) {                                                                         \
            float wr[r - 1], wi[r - 1];                                                                       \
            for (int k = 0; k < r - 1; k++) {                                                                 \
                wr[k] = twr[p + k * m];                                                                       \
                wi[k] = twi[p + k * m];                                                                       \
            }                                                                                                 \
            for (int q = 0; q < stride; q++)                                                                  \
                butterfly##r(in, out, q + stride * p, q + stride * r * p, stride * m, stride, wr, wi);        \
        }                                                                                                     \
    }
PASS(2)
PASS(3)
PASS(4)
PASS(5)

/* Forward complex FFT of `points` points; the result is in the buffer it returns (a or b). */
static split_t transform(const fft_t *fft, split_t a, split_t b)
{
    int left = fft->size / 2, stride = 1, at = 0;
    for (int pass = 0; pass < fft->passes; pass++) {
        const int r = fft->radix[pass], m = left / r;
        const float *twr = fft->twiddle_re + at, *twi = fft->twiddle_im + at;
        switch (r) {
        case 2: pass2(a, b, m, stride, twr, twi); break;
        case 3: pass3(a, b, m, stride, twr, twi); break;
        case 4: pass4(a, b, m, stride, twr, twi); break;
        default: pass5(a, b, m, stride, twr, twi); break;
        }
        const split_t swap = a;
        a = b;
        b = swap;
        at += (r - 1) * m;
        left = m;
        stride *= r;
    }
    return a;
}

void fft_forward(const fft_t *fft, const float *x, float *restrict re, float *restrict im)
{
    const int n = fft->size / 2;
    split_t a = {fft->scratch, fft->scratch + n}, b = {fft->scratch + 2 * n, fft->scratch + 3 * n};
    for (int i = 0; i < n; i++) {
        a.re[i] = x[2 * i];
        a.im[i] = x[2 * i + 1];
    }
    const split_t z = transform(fft, a, b);
    re[0] = z.re[0] + z.im[0];
    im[0] = 0.0f;
    re[n] = z.re[0] - z.im[0];
    im[n] = 0.0f;
    /* X[k] = (Z[k] + Z*[n-k])/2 - i w^k (Z[k] - Z*[n-k])/2 */
    for (int k = 1; k < n; k++) {
        const float er = 0.5f * (z.re[k] + z.re[n - k]), ei = 0.5f * (z.im[k] - z.im[n - k]);
        const float or_ = 0.5f * (z.im[k] + z.im[n - k]), oi = -0.5f * (z.re[k] - z.re[n - k]);
        re[k] = er + MUL_RE(or_, oi, fft->split_re[k], fft->split_im[k]);
        im[k] = ei + MUL_IM(or_, oi, fft->split_re[k], fft->split_im[k]);
    }
}

void fft_inverse(const fft_t *fft, const float *restrict re, const float *restrict im, float *x)
{
    const int n = fft->size / 2;
    /* Real and imaginary parts change places on the way in and out: that turns the forward transform into the inverse. */
    split_t a = {fft->scratch, fft->scratch + n}, b = {fft->scratch + 2 * n, fft->scratch + 3 * n};
    a.im[0] = re[0] + re[n];
    a.re[0] = re[0] - re[n];
    for (int k = 1; k < n; k++) {
        const float er = re[k] + re[n - k], ei = im[k] - im[n - k];
        const float dr = re[k] - re[n - k], di = im[k] + im[n - k];
        const float or_ = MUL_RE(dr, di, fft->split_re[k], -fft->split_im[k]);
        const float oi = MUL_IM(dr, di, fft->split_re[k], -fft->split_im[k]);
        a.im[k] = er - oi;
        a.re[k] = ei + or_;
    }
    const split_t z = transform(fft, a, b);
    const float scale = 1.0f / (float)fft->size;
    for (int i = 0; i < n; i++) {
        x[2 * i] = scale * z.im[i];
        x[2 * i + 1] = scale * z.re[i];
    }
}
