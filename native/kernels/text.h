/* The text of every kernel; contracts are in kernels.h. The including variant has defined, besides what
 * fft_text.h and elementary_text.h need:
 *
 *   V, LANES            the vector, and the number of its floats; + - * / work on vectors
 *   LOAD(p) STORE(p, v) LANES floats from and to memory
 *   SPLAT(f)            the same float in every lane
 *   SUM(v)              sum of all lanes
 *   STORE_SUMS(p, v)    SUM() of each of the vectors v[0] .. v[3] to memory
 *   DOT_ROWS            rows of weights that dot_rows(inputs, row, x, sum) takes at once:
 *                       sum[r] = sum_i row[r][i] * x[i]
 */
#include "kernels/elementary_text.h"
#include "kernels/hermitian_text.h"
#include "kernels/kernels.h"

static void power(int n, const float *restrict re, const float *restrict im, float *restrict power)
{
    for (int k = 0; k < n; k += LANES) {
        const V xr = LOAD(re + k), xi = LOAD(im + k);
        STORE(power + k, xr * xr + xi * xi);
    }
}

static void cross(int n, const float *restrict ar, const float *restrict ai, const float *restrict br,
                  const float *restrict bi, float *restrict cross)
{
    for (int k = 0; k < n; k += LANES)
        STORE(cross + k, LOAD(ar + k) * LOAD(br + k) + LOAD(ai + k) * LOAD(bi + k));
}

/* Filters process all rows for CHUNK vectors of bins at a time, so that sums and gains stay in registers.
 * `vectors` and `by_bin` are constants wherever the functions below are inlined. */
enum { CHUNK = 4 };
#define EACH_CHUNK(n, call)                                                                                  \
    do {                                                                                                     \
        int k = 0;                                                                                           \
        for (; k + CHUNK * LANES <= (n); k += CHUNK * LANES)                                                 \
            call(CHUNK);                                                                                     \
        for (; k < (n); k += LANES)                                                                          \
            call(1);                                                                                         \
    } while (0)

static inline __attribute__((always_inline)) void
filter_chunk(int vectors, int by_bin, int n, int rows, int x_step, const float *xr, const float *xi,
             const float *wr, const float *wi, const float *v, float *echo_r, float *echo_i, float *explained)
{
    V sum_r[CHUNK], sum_i[CHUNK], sum_x[CHUNK];
    for (int j = 0; j < vectors; j++) {
        sum_r[j] = LOAD(echo_r + j * LANES);
        sum_i[j] = LOAD(echo_i + j * LANES);
        sum_x[j] = LOAD(explained + j * LANES);
    }
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vectors; j++) {
            const V ar = LOAD(xr + j * LANES), ai = LOAD(xi + j * LANES), br = LOAD(wr + j * LANES),
                    bi = LOAD(wi + j * LANES);
            sum_r[j] = sum_r[j] + ar * br - ai * bi;
            sum_i[j] = sum_i[j] + ar * bi + ai * br;
            sum_x[j] = sum_x[j] + (by_bin ? LOAD(v + j * LANES) : SPLAT(*v)) * (ar * ar + ai * ai);
        }
        xr += x_step;
        xi += x_step;
        wr += n;
        wi += n;
        v += by_bin ? n : 1;
    }
    for (int j = 0; j < vectors; j++) {
        STORE(echo_r + j * LANES, sum_r[j]);
        STORE(echo_i + j * LANES, sum_i[j]);
        STORE(explained + j * LANES, sum_x[j]);
    }
}

static void filter_kalman(int n, int rows, int x_step, const float *restrict xr, const float *restrict xi,
                          const float *restrict wr, const float *restrict wi, const float *restrict v,
                          float *restrict echo_r, float *restrict echo_i, float *restrict explained)
{
#define FILTER(vectors)                                                                                      \
    filter_chunk(vectors, 1, n, rows, x_step, xr + k, xi + k, wr + k, wi + k, v + k, echo_r + k, echo_i + k, \
                 explained + k)
    EACH_CHUNK(n, FILTER);
#undef FILTER
}

static void filter_lms(int n, int rows, int x_step, const float *restrict xr, const float *restrict xi,
                       const float *restrict wr, const float *restrict wi, const float *restrict v,
                       float *restrict echo_r, float *restrict echo_i, float *restrict explained)
{
#define FILTER(vectors)                                                                                      \
    filter_chunk(vectors, 0, n, rows, x_step, xr + k, xi + k, wr + k, wi + k, v, echo_r + k, echo_i + k,     \
                 explained + k)
    EACH_CHUNK(n, FILTER);
#undef FILTER
}

static inline __attribute__((always_inline)) void
kalman_chunk(int vectors, int n, int rows, int x_step, const float *xr, const float *xi, const float *gr,
             const float *gi, const float *weight, float keep, float *wr, float *wi, float *v)
{
    const V kept = SPLAT(keep), gained = SPLAT(1.0f - keep);
    V error_r[CHUNK], error_i[CHUNK], kept_weight[CHUNK];
    for (int j = 0; j < vectors; j++) {
        error_r[j] = LOAD(gr + j * LANES);
        error_i[j] = LOAD(gi + j * LANES);
        kept_weight[j] = SPLAT(0.5f * keep) * LOAD(weight + j * LANES);
    }
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vectors; j++) {
            const V ar = LOAD(xr + j * LANES), ai = LOAD(xi + j * LANES), before = LOAD(v + j * LANES);
            const V re = LOAD(wr + j * LANES) + before * (ar * error_r[j] + ai * error_i[j]);
            const V im = LOAD(wi + j * LANES) + before * (ar * error_i[j] - ai * error_r[j]);
            const V left = kept - before * kept_weight[j] * (ar * ar + ai * ai);
            STORE(wr + j * LANES, re);
            STORE(wi + j * LANES, im);
            STORE(v + j * LANES, gained * (re * re + im * im) + before * left);
        }
        xr += x_step;
        xi += x_step;
        wr += n;
        wi += n;
        v += n;
    }
}

static void adapt_kalman(int n, int rows, int x_step, const float *restrict xr, const float *restrict xi,
                         const float *restrict gr, const float *restrict gi, const float *restrict weight,
                         float keep, float *restrict wr, float *restrict wi, float *restrict v)
{
#define ADAPT(vectors)                                                                                       \
    kalman_chunk(vectors, n, rows, x_step, xr + k, xi + k, gr + k, gi + k, weight + k, keep, wr + k, wi + k, \
                 v + k)
    EACH_CHUNK(n, ADAPT);
#undef ADAPT
}

static inline __attribute__((always_inline)) void lms_chunk(int vectors, int n, int rows, int x_step,
                                                            const float *xr, const float *xi, const float *gr,
                                                            const float *gi, const float *v, float *wr,
                                                            float *wi)
{
    V error_r[CHUNK], error_i[CHUNK];
    for (int j = 0; j < vectors; j++) {
        error_r[j] = LOAD(gr + j * LANES);
        error_i[j] = LOAD(gi + j * LANES);
    }
    for (int r = 0; r < rows; r++) {
        const V step = SPLAT(v[r]);
        for (int j = 0; j < vectors; j++) {
            const V ar = LOAD(xr + j * LANES), ai = LOAD(xi + j * LANES);
            STORE(wr + j * LANES, LOAD(wr + j * LANES) + step * (ar * error_r[j] + ai * error_i[j]));
            STORE(wi + j * LANES, LOAD(wi + j * LANES) + step * (ar * error_i[j] - ai * error_r[j]));
        }
        xr += x_step;
        xi += x_step;
        wr += n;
        wi += n;
    }
}

static void adapt_lms(int n, int rows, int x_step, const float *restrict xr, const float *restrict xi,
                      const float *restrict gr, const float *restrict gi, const float *restrict v,
                      float *restrict wr, float *restrict wi)
{
#define ADAPT(vectors) lms_chunk(vectors, n, rows, x_step, xr + k, xi + k, gr + k, gi + k, v, wr + k, wi + k)
    EACH_CHUNK(n, ADAPT);
#undef ADAPT
}

static inline __attribute__((always_inline)) void
filter_pair_chunk(int vectors, int n, int rows, int x_step, int x_side, int w_side, const float *xr,
                  const float *xi, const float *wr, const float *wi, const float *v, float *echo_r,
                  float *echo_i, float *explained)
{
    V sum_r[CHUNK], sum_i[CHUNK], sum_x[CHUNK];
    for (int j = 0; j < vectors; j++) {
        sum_r[j] = LOAD(echo_r + j * LANES);
        sum_i[j] = LOAD(echo_i + j * LANES);
        sum_x[j] = LOAD(explained + j * LANES);
    }
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vectors; j++) {
            const V ar = LOAD(xr + j * LANES), ai = LOAD(xi + j * LANES), br = LOAD(xr + x_side + j * LANES),
                    bi = LOAD(xi + x_side + j * LANES);
            const V pr = LOAD(wr + j * LANES), pi = LOAD(wi + j * LANES), qr = LOAD(wr + w_side + j * LANES),
                    qi = LOAD(wi + w_side + j * LANES);
            const V both = LOAD(v + 2 * w_side + j * LANES) * (ar * br + ai * bi);
            sum_r[j] = sum_r[j] + ar * pr - ai * pi + br * qr - bi * qi;
            sum_i[j] = sum_i[j] + ar * pi + ai * pr + br * qi + bi * qr;
            sum_x[j] = sum_x[j] + LOAD(v + j * LANES) * (ar * ar + ai * ai) +
                       LOAD(v + w_side + j * LANES) * (br * br + bi * bi) + both + both;
        }
        xr += x_step;
        xi += x_step;
        wr += n;
        wi += n;
        v += n;
    }
    for (int j = 0; j < vectors; j++) {
        STORE(echo_r + j * LANES, sum_r[j]);
        STORE(echo_i + j * LANES, sum_i[j]);
        STORE(explained + j * LANES, sum_x[j]);
    }
}

static void filter_pair(int n, int rows, int x_step, int x_side, int w_side, const float *restrict xr,
                        const float *restrict xi, const float *restrict wr, const float *restrict wi,
                        const float *restrict v, float *restrict echo_r, float *restrict echo_i,
                        float *restrict explained)
{
#define FILTER(vectors)                                                                                      \
    filter_pair_chunk(vectors, n, rows, x_step, x_side, w_side, xr + k, xi + k, wr + k, wi + k, v + k,       \
                      echo_r + k, echo_i + k, explained + k)
    EACH_CHUNK(n, FILTER);
#undef FILTER
}

static inline __attribute__((always_inline)) void
adapt_pair_chunk(int vectors, int n, int rows, int x_step, int x_side, int w_side, const float *xr,
                 const float *xi, const float *gr, const float *gi, const float *weight, float keep,
                 float keep_covariance, float *wr, float *wi, float *v)
{
    const V kept = SPLAT(keep), gained = SPLAT(1.0f - keep);
    V error_r[CHUNK], error_i[CHUNK], half_weight[CHUNK];
    for (int j = 0; j < vectors; j++) {
        error_r[j] = LOAD(gr + j * LANES);
        error_i[j] = LOAD(gi + j * LANES);
        half_weight[j] = SPLAT(0.5f) * LOAD(weight + j * LANES);
    }
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vectors; j++) {
            float *middle_r = wr + j * LANES, *middle_i = wi + j * LANES, *variance = v + j * LANES;
            const V ar = LOAD(xr + j * LANES), ai = LOAD(xi + j * LANES), br = LOAD(xr + x_side + j * LANES),
                    bi = LOAD(xi + x_side + j * LANES);
            const V va = LOAD(variance), vb = LOAD(variance + w_side), vc = LOAD(variance + 2 * w_side);
            /* the matrix v times both references; its conjugate is the gain without the error */
            const V sr = va * ar + vc * br, si = va * ai + vc * bi, tr = vc * ar + vb * br,
                    ti = vc * ai + vb * bi;
            const V pr = LOAD(middle_r) + sr * error_r[j] + si * error_i[j],
                    pi = LOAD(middle_i) + sr * error_i[j] - si * error_r[j],
                    qr = LOAD(middle_r + w_side) + tr * error_r[j] + ti * error_i[j],
                    qi = LOAD(middle_i + w_side) + tr * error_i[j] - ti * error_r[j];
            STORE(middle_r, pr);
            STORE(middle_i, pi);
            STORE(middle_r + w_side, qr);
            STORE(middle_i + w_side, qi);
            STORE(variance,
                  kept * (va - (sr * sr + si * si) * half_weight[j]) + gained * (pr * pr + pi * pi));
            STORE(variance + w_side,
                  kept * (vb - (tr * tr + ti * ti) * half_weight[j]) + gained * (qr * qr + qi * qi));
            STORE(variance + 2 * w_side,
                  SPLAT(keep_covariance) * (vc - (sr * tr + si * ti) * half_weight[j]));
        }
        xr += x_step;
        xi += x_step;
        wr += n;
        wi += n;
        v += n;
    }
}

static void adapt_pair(int n, int rows, int x_step, int x_side, int w_side, const float *restrict xr,
                       const float *restrict xi, const float *restrict gr, const float *restrict gi,
                       const float *restrict weight, float keep, float keep_covariance, float *restrict wr,
                       float *restrict wi, float *restrict v)
{
#define ADAPT(vectors)                                                                                       \
    adapt_pair_chunk(vectors, n, rows, x_step, x_side, w_side, xr + k, xi + k, gr + k, gi + k, weight + k,   \
                     keep, keep_covariance, wr + k, wi + k, v + k)
    EACH_CHUNK(n, ADAPT);
#undef ADAPT
}

/* Sums are split over CHUNK registers, so that no addition waits for the one before. */
static inline float total_of(const V *sum) { return SUM((sum[0] + sum[1]) + (sum[2] + sum[3])); }

static float coherence(int n, float keep, const float *restrict xr, const float *restrict xi,
                       const float *restrict mr, const float *restrict mi, float *restrict cr,
                       float *restrict ci)
{
    const V kept = SPLAT(keep), zero = SPLAT(0.0f);
    V sum[CHUNK] = {zero, zero, zero, zero};
#define AVERAGE(vectors)                                                                                     \
    for (int j = 0; j < (vectors); j++) {                                                                    \
        const int at = k + j * LANES;                                                                        \
        const V ar = LOAD(xr + at), ai = LOAD(xi + at), br = LOAD(mr + at), bi = LOAD(mi + at);              \
        const V re = kept * LOAD(cr + at) + ar * br + ai * bi,                                               \
                im = kept * LOAD(ci + at) + ar * bi - ai * br;                                               \
        STORE(cr + at, re);                                                                                  \
        STORE(ci + at, im);                                                                                  \
        sum[j] = sum[j] + re * re + im * im;                                                                 \
    }
    EACH_CHUNK(n, AVERAGE);
#undef AVERAGE
    return total_of(sum);
}

static inline __attribute__((always_inline)) void convolve_chunk(int vectors, int taps, const float *tap,
                                                                 const float *x, float *out)
{
    V sum[CHUNK];
    for (int j = 0; j < vectors; j++)
        sum[j] = SPLAT(0.0f);
    for (int t = 0; t < taps; t++)
        for (int j = 0; j < vectors; j++)
            sum[j] = sum[j] + SPLAT(tap[t]) * LOAD(x + t + j * LANES);
    for (int j = 0; j < vectors; j++)
        STORE(out + j * LANES, sum[j]);
}

static void convolve(int n, int taps, const float *restrict tap, const float *restrict x, float *restrict out)
{
#define CONVOLVE(vectors) convolve_chunk(vectors, taps, tap, x + k, out + k)
    EACH_CHUNK(n, CONVOLVE);
#undef CONVOLVE
}

static void multiply(int n, const float *a, const float *b, float *out)
{
    for (int k = 0; k < n; k += LANES)
        STORE(out + k, LOAD(a + k) * LOAD(b + k));
}

static float dot(int n, const float *a, const float *b)
{
    const V zero = SPLAT(0.0f);
    V sum[CHUNK] = {zero, zero, zero, zero};
#define MULTIPLY(vectors)                                                                                    \
    for (int j = 0; j < (vectors); j++)                                                                      \
        sum[j] = sum[j] + LOAD(a + k + j * LANES) * LOAD(b + k + j * LANES);
    EACH_CHUNK(n, MULTIPLY);
#undef MULTIPLY
    return total_of(sum);
}

static float interpolate(int n, const float *x, const float *low, const float *high, float part)
{
    const V zero = SPLAT(0.0f), towards = SPLAT(part);
    V sum[CHUNK] = {zero, zero, zero, zero};
#define MULTIPLY(vectors)                                                                                    \
    for (int j = 0; j < (vectors); j++) {                                                                    \
        const V from = LOAD(low + k + j * LANES), to = LOAD(high + k + j * LANES);                           \
        sum[j] = sum[j] + LOAD(x + k + j * LANES) * (from + towards * (to - from));                          \
    }
    EACH_CHUNK(n, MULTIPLY);
#undef MULTIPLY
    return total_of(sum);
}

static void interpolate_four(int n, const float *restrict x, const float *restrict low,
                             const float *restrict high, float part, float step, float *restrict out)
{
    V from[4], to[4];
    for (int i = 0; i < 4; i++)
        from[i] = to[i] = SPLAT(0.0f);
    int k = 0;
    do {
        const V low_taps = LOAD(low + k), high_taps = LOAD(high + k);
        for (int i = 0; i < 4; i++) {
            const V sound = LOAD(x + k + i);
            from[i] = from[i] + sound * low_taps;
            to[i] = to[i] + sound * high_taps;
        }
        k += LANES;
    } while (k < n);
    for (int i = 0; i < 4; i++)
        from[i] = from[i] + SPLAT(part + (float)i * step) * (to[i] - from[i]);
    STORE_SUMS(out, from);
}

static inline void dense_rows(int rows, int inputs, const int8_t *weight, const float *restrict scale,
                              const int8_t *x, float step, float *restrict y)
{
    const int8_t *row[DOT_ROWS];
    int32_t sum[DOT_ROWS];
    for (int r = 0; r < DOT_ROWS; r++)
        row[r] = weight + (r < rows ? r : rows - 1) * inputs;
    dot_rows(inputs, row, x, sum);
    for (int r = 0; r < rows; r++)
        y[r] += step * scale[r] * (float)sum[r];
}

static void dense(int outputs, int inputs, const int8_t *weight, const float *scale, const int8_t *x,
                  float step, float *y)
{
    int o = 0;
    for (; o + DOT_ROWS <= outputs; o += DOT_ROWS)
        dense_rows(DOT_ROWS, inputs, weight + o * inputs, scale + o, x, step, y + o);
    if (o < outputs)
        dense_rows(outputs - o, inputs, weight + o * inputs, scale + o, x, step, y + o);
}

#define KERNELS(variant)                                                                                     \
    {                                                                                                        \
        .name = variant,                                                                                     \
        .power = power,                                                                                      \
        .cross = cross,                                                                                      \
        .convolve = convolve,                                                                                \
        .filter_kalman = filter_kalman,                                                                      \
        .filter_lms = filter_lms,                                                                            \
        .adapt_kalman = adapt_kalman,                                                                        \
        .adapt_lms = adapt_lms,                                                                              \
        .filter_pair = filter_pair,                                                                          \
        .adapt_pair = adapt_pair,                                                                            \
        .coherence = coherence,                                                                              \
        .hermitian_average = hermitian_average,                                                              \
        .hermitian_solve = hermitian_solve,                                                                  \
        .multiply = multiply,                                                                                \
        .dot = dot,                                                                                          \
        .interpolate = interpolate,                                                                          \
        .interpolate_four = interpolate_four,                                                                \
        .exp = exponential,                                                                                  \
        .log = logarithm,                                                                                    \
        .sigmoid = sigmoid,                                                                                  \
        .tanh = hyperbolic_tangent,                                                                          \
        .log_spectral_gain = log_spectral_gain,                                                              \
        .dense = dense,                                                                                      \
        .fft_forward = forward,                                                                              \
        .fft_inverse = inverse,                                                                              \
    }
