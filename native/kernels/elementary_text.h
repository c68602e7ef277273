/* The text of the elementary functions; included by text.h, which defines V. The variant also defines:
 *
 *   I                                 a vector of LANES int32_t
 *   ADD_INT(a, b) SUB_INT(a, b)       sum and difference of two I
 *   SPLAT_INT(i)                      the same integer in every lane
 *   TO_EXPONENT(i) FROM_EXPONENT(i)   shifts by 23 bits, to and from the place of a float's exponent; the
 *                                     latter keeps the sign
 *   BITS(v) FROM_BITS(i)              the same bits as I and as V
 *   FROM_INT(i)                       the value of I as V
 *   MIN(a, b) MAX(a, b)               of each lane
 *   IF_LESS(a, b, x, y)               x where a < b, else y
 *
 * tests/reference/elementary.py computes the coefficients. Worst errors over the whole range, measured by
 * tests/stages/test_elementary.py, are in kernels.h. */

/* ln(2) rounded to 9 bits, so that its products with small integers are exact. */
static const float LN2_HIGH = 0.693359375f;
/* ln(2) - LN2_HIGH */
static const float LN2_LOW = -2.12194440e-4f;

/* 2^n e^r with n = round(x / ln 2), |r| <= ln(2)/2. Adding 1.5 * 2^23 rounds to an integer, which then stands
 * in the lowest bits. */
static inline V exp_of(V x)
{
    const V to_integer = SPLAT(12582912.0f);
    const V inside = MIN(MAX(x, SPLAT(-87.0f)), SPLAT(88.0f));
    const V moved = inside * SPLAT(1.44269504f) + to_integer;
    const V n = moved - to_integer;
    const V r = inside - n * SPLAT(LN2_HIGH) - n * SPLAT(LN2_LOW);
    const V tail = SPLAT(0.499992311f) +
                   r * (SPLAT(0.166671142f) + r * (SPLAT(0.0418901332f) + r * SPLAT(0.00831253268f)));
    const V power = SPLAT(1.0f) + (r + r * r * tail);
    return FROM_BITS(ADD_INT(BITS(power), TO_EXPONENT(BITS(moved))));
}

/* x = 2^e m, m from sqrt(1/2), whose bits are 0x3f3504f3, to sqrt(2); log(m) = 2 artanh(s), by its series. */
static inline V log_of(V x)
{
    const I bits = BITS(MAX(x, SPLAT(1.17549435e-38f)));
    const I exponent = FROM_EXPONENT(SUB_INT(bits, SPLAT_INT(0x3f3504f3)));
    const V m = FROM_BITS(SUB_INT(bits, TO_EXPONENT(exponent))), e = FROM_INT(exponent);
    const V s = (m - SPLAT(1.0f)) / (m + SPLAT(1.0f)), z = s * s;
    const V tail = SPLAT(0.666667759f) + z * (SPLAT(0.399775714f) + z * SPLAT(0.298709989f));
    return e * SPLAT(LN2_HIGH) + (s * SPLAT(2.0f) + (s * z * tail + e * SPLAT(LN2_LOW)));
}

static inline V sigmoid_of(V x) { return SPLAT(1.0f) / (SPLAT(1.0f) + exp_of(-x)); }

static void exponential(int n, const float *in, float *out)
{
    for (int k = 0; k < n; k += LANES)
        STORE(out + k, exp_of(LOAD(in + k)));
}

static void logarithm(int n, const float *in, float *out)
{
    for (int k = 0; k < n; k += LANES)
        STORE(out + k, log_of(LOAD(in + k)));
}

static void sigmoid(int n, const float *in, float *out)
{
    for (int k = 0; k < n; k += LANES)
        STORE(out + k, sigmoid_of(LOAD(in + k)));
}

static void hyperbolic_tangent(int n, const float *in, float *out)
{
    for (int k = 0; k < n; k += LANES) {
        const V x = LOAD(in + k);
        STORE(out + k, SPLAT(2.0f) * sigmoid_of(x + x) - SPLAT(1.0f));
    }
}

/* exp(E1(v)/2), the log-spectral amplitude gain over the Wiener gain. E1(v) by Abramowitz & Stegun 5.1.53
 * up to 1 (to v^5) and 5.1.54 above (relative error 5e-5). */
static inline V log_spectral_factor(V v)
{
    const V one = SPLAT(1.0f);
    const V series = SPLAT(0.99999193f) +
                     v * (SPLAT(-0.24991055f) +
                          v * (SPLAT(0.05519968f) + v * (SPLAT(-0.00976004f) + v * SPLAT(0.00107857f))));
    const V low = v * series - SPLAT(0.57721566f) - log_of(v);
    const V over = SPLAT(0.250621f) + v * (SPLAT(2.334733f) + v),
            under = v * (SPLAT(1.681534f) + v * (SPLAT(3.330657f) + v));
    const V high = exp_of(-v) * over / under;
    return exp_of(SPLAT(0.5f) * IF_LESS(one, v, high, low));
}

static void log_spectral_gain(int n, const float *wiener, const float *posterior, float *out)
{
    for (int k = 0; k < n; k += LANES) {
        const V w = LOAD(wiener + k), v = MAX(w * LOAD(posterior + k), SPLAT(1e-6f));
        STORE(out + k, MIN(SPLAT(1.0f), w * log_spectral_factor(v)));
    }
}
