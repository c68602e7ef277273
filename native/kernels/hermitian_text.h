/* Hermitian matrices by bin, laid out as hermitian.h says; for text.h. */
#include "kernels/hermitian.h"

static inline __attribute__((always_inline)) void
average_product(int n, const float *restrict ar, const float *restrict ai, const float *restrict br,
                const float *restrict bi, const float *restrict rate, float *restrict element)
{
    float *restrict re = element, *restrict im = element + n;
    for (int k = 0; k < n; k += LANES) {
        const V xr = LOAD(ar + k), xi = LOAD(ai + k), yr = LOAD(br + k), yi = LOAD(bi + k),
                part = LOAD(rate + k), before_r = LOAD(re + k), before_i = LOAD(im + k);
        STORE(re + k, before_r + part * (xr * yr + xi * yi - before_r));
        STORE(im + k, before_i + part * (xi * yr - xr * yi - before_i));
    }
}

static void hermitian_average(int n, int rows, const float *restrict xr, const float *restrict xi,
                              const float *restrict rate, float *restrict matrix)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j <= i; j++)
            average_product(n, xr + i * n, xi + i * n, xr + j * n, xi + j * n, rate,
                            matrix + hermitian_plane(i, j) * n);
}

typedef struct {
    V re, im;
} complex_v_t;

/* a - b * conj(c) */
static inline complex_v_t less_product(complex_v_t a, complex_v_t b, complex_v_t c)
{
    return (complex_v_t){a.re - b.re * c.re - b.im * c.im, a.im - b.im * c.re + b.re * c.im};
}

/* A pivot is no smaller than this part of its diagonal element, about the rounding error of the latter. */
static const float LEAST_PIVOT = 1e-6f;

/* Factors one vector of bins: the triangle becomes the unit lower triangular L of A = L D L^H, inverse[i] is
 * 1 / D. */
static inline void factor(int rows, complex_v_t *triangle, V *inverse)
{
    for (int i = 0; i < rows; i++) {
        complex_v_t *row = triangle + i * (i + 1) / 2;
        const V diagonal = row[i].re;
        for (int j = 0; j < i; j++) {
            const complex_v_t *above = triangle + j * (j + 1) / 2;
            complex_v_t sum = row[j];
            for (int k = 0; k < j; k++)
                sum = less_product(sum, row[k], above[k]);
            row[j] = sum; /* times D of column j, until the row is complete */
        }
        V pivot = diagonal;
        for (int j = 0; j < i; j++) {
            const complex_v_t scaled = {row[j].re * inverse[j], row[j].im * inverse[j]};
            pivot = pivot - row[j].re * scaled.re - row[j].im * scaled.im;
            row[j] = scaled;
        }
        inverse[i] = SPLAT(1.0f) / MAX(pivot, SPLAT(LEAST_PIVOT) * diagonal);
    }
}

/* The solution of L D L^H x = b, in place of b. */
static inline void substitute(int rows, const complex_v_t *triangle, const V *inverse, complex_v_t *x)
{
    for (int i = 0; i < rows; i++) {
        const complex_v_t *row = triangle + i * (i + 1) / 2;
        for (int k = 0; k < i; k++) {
            const complex_v_t l = row[k], y = x[k];
            x[i].re = x[i].re - l.re * y.re + l.im * y.im;
            x[i].im = x[i].im - l.re * y.im - l.im * y.re;
        }
    }
    for (int i = rows - 1; i >= 0; i--) {
        x[i] = (complex_v_t){x[i].re * inverse[i], x[i].im * inverse[i]};
        for (int k = i + 1; k < rows; k++)
            x[i] = less_product(x[i], x[k], triangle[k * (k + 1) / 2 + i]);
    }
}

static void hermitian_solve(int n, int rows, const float *restrict matrix, float *restrict xr,
                            float *restrict xi)
{
    complex_v_t triangle[HERMITIAN_MAX_ROWS * (HERMITIAN_MAX_ROWS + 1) / 2], x[HERMITIAN_MAX_ROWS];
    V inverse[HERMITIAN_MAX_ROWS];
    for (int k = 0; k < n; k += LANES) {
        for (int e = 0; e < rows * (rows + 1) / 2; e++)
            triangle[e] = (complex_v_t){LOAD(matrix + 2 * e * n + k), LOAD(matrix + (2 * e + 1) * n + k)};
        for (int i = 0; i < rows; i++)
            x[i] = (complex_v_t){LOAD(xr + i * n + k), LOAD(xi + i * n + k)};
        factor(rows, triangle, inverse);
        substitute(rows, triangle, inverse, x);
        for (int i = 0; i < rows; i++) {
            STORE(xr + i * n + k, x[i].re);
            STORE(xi + i * n + k, x[i].im);
        }
    }
}
