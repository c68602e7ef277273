/* The text of every kernel; contracts are in kernels.h. The including variant has defined:
 *
 *   V, LANES            the vector and how many floats it holds; + - * work on it, and on it with a float constant
 *   LOAD(p) STORE(p, v) LANES floats from and to memory
 *   SPLAT(f)            the same float in every lane
 *   SUM(v)              of all lanes
 *   DOT_ROWS            rows of weights that dot(inputs, row, x, sum) takes at once: sum[r] = sum_i row[r][i] * x[i]
 *   and what fft_text.h and elementary_text.h ask for
 */
#include "kernels/elementary_text.h"
#include "kernels/fft_text.h"
#include "kernels/kernels.h"

static void power(int n, const float *restrict re, const float *restrict im, float *restrict power)
{
    for (int k = 0; k < n; k += LANES) {
        const V xr = LOAD(re + k), xi = LOAD(im + k);
        STORE(power + k, xr * xr + xi * xi);
    }
}

static void cross(int n, const float *restrict ar, const float *restrict ai, const float *restrict br, const float *restrict bi,
                  float *restrict cross)
{
    for (int k = 0; k < n; k += LANES)
        STORE(cross + k, LOAD(ar + k) * LOAD(br + k) + LOAD(ai + k) * LOAD(bi + k));
}

static void mac(int n, const float *restrict xr, const float *restrict xi, const float *restrict wr, const float *restrict wi,
                float *restrict acc_r, float *restrict acc_i)
{
    for (int k = 0; k < n; k += LANES) {
        const V ar = LOAD(xr + k), ai = LOAD(xi + k), br = LOAD(wr + k), bi = LOAD(wi + k);
        STORE(acc_r + k, LOAD(acc_r + k) + ar * br - ai * bi);
        STORE(acc_i + k, LOAD(acc_i + k) + ar * bi + ai * br);
    }
}

static void mac_real(int n, const float *restrict a, const float *restrict b, float *restrict acc)
{
    for (int k = 0; k < n; k += LANES)
        STORE(acc + k, LOAD(acc + k) + LOAD(a + k) * LOAD(b + k));
}

static void add_scaled(int n, float scale, const float *restrict a, float *restrict acc)
{
    const V factor = SPLAT(scale);
    for (int k = 0; k < n; k += LANES)
        STORE(acc + k, LOAD(acc + k) + factor * LOAD(a + k));
}

static void lms(int n, const float *restrict xr, const float *restrict xi, const float *restrict gr, const float *restrict gi, float step,
                float *restrict wr, float *restrict wi)
{
    const V factor = SPLAT(step);
    for (int k = 0; k < n; k += LANES) {
        const V ar = LOAD(xr + k), ai = LOAD(xi + k), br = LOAD(gr + k), bi = LOAD(gi + k);
        STORE(wr + k, LOAD(wr + k) + factor * (ar * br + ai * bi));
        STORE(wi + k, LOAD(wi + k) + factor * (ar * bi - ai * br));
    }
}

static void kalman(int n, const float *restrict xr, const float *restrict xi, const float *restrict x2, const float *restrict gr,
                   const float *restrict gi, const float *restrict weight, float keep, float *restrict wr, float *restrict wi, float *restrict v)
{
    const V kept = SPLAT(keep), gained = SPLAT(1.0f - keep), half = SPLAT(0.5f);
    for (int k = 0; k < n; k += LANES) {
        const V ar = LOAD(xr + k), ai = LOAD(xi + k), br = LOAD(gr + k), bi = LOAD(gi + k), before = LOAD(v + k);
        const V re = LOAD(wr + k) + before * (ar * br + ai * bi);
        const V im = LOAD(wi + k) + before * (ar * bi - ai * br);
        STORE(wr + k, re);
        STORE(wi + k, im);
        const V left = before - half * before * before * LOAD(x2 + k) * LOAD(weight + k);
        STORE(v + k, kept * left + gained * (re * re + im * im));
    }
}

static void multiply(int n, const float *a, const float *b, float *out)
{
    for (int k = 0; k < n; k += LANES)
        STORE(out + k, LOAD(a + k) * LOAD(b + k));
}

/* Four sums side by side: a compiler may not change the order of additions, so a single sum would never be a vector. */
static float energy(int n, const float *x)
{
    V sum[4 / LANES];
    for (int j = 0; j < 4 / LANES; j++)
        sum[j] = SPLAT(0.0f);
    for (int k = 0; k < n; k += 4)
        for (int j = 0; j < 4 / LANES; j++) {
            const V now = LOAD(x + k + j * LANES);
            sum[j] = sum[j] + now * now;
        }
    float total = 0.0f;
    for (int j = 0; j < 4 / LANES; j++)
        total += SUM(sum[j]);
    return total;
}

/* The last rows are taken together with the last one repeated. */
static void dense(int outputs, int inputs, const int8_t *weight, const float *scale, const int16_t *x, float step, float *y)
{
    for (int o = 0; o < outputs; o += DOT_ROWS) {
        const int8_t *row[DOT_ROWS];
        int32_t sum[DOT_ROWS];
        for (int r = 0; r < DOT_ROWS; r++)
            row[r] = weight + (o + r < outputs ? o + r : outputs - 1) * inputs;
        dot(inputs, row, x, sum);
        for (int r = 0; r < DOT_ROWS && o + r < outputs; r++)
            y[o + r] += step * scale[o + r] * (float)sum[r];
    }
}

#define KERNELS(variant)                                                                                                           \
    {                                                                                                                              \
        .name = variant, .power = power, .cross = cross, .mac = mac, .mac_real = mac_real, .add_scaled = add_scaled, .lms = lms,    \
        .kalman = kalman, .multiply = multiply, .energy = energy, .exp = exponential, .log = logarithm, .sigmoid = sigmoid,         \
        .tanh = hyperbolic_tangent, .dense = dense, .fft_forward = forward, .fft_inverse = inverse,                                 \
    }
