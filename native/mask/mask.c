#include "mask/mask.h"

#include <math.h>
#include <string.h>

#include "mask/weights.h"
#include "kernels/dense.h"
#include "kernels/kernels.h"
#include "kernels/spectrum.h"

static const float QUIET_POWER = 1e-10f; /* of a sample: quantisation noise of 16 bit, (2^-15)^2 / 12 */
static const float HEARD_HOP = 160.0f;   /* 16 kHz: what the network was trained on */
/* ratios of 15 dB and more become 1, the range in which tanh and 8 bits work well */
static const float RATIO_SCALE = 0.2f;
static const float RATIO_LIMIT = 3.0f; /* 65 dB */
/* 0.3 s: a sibilant alone may be taken for noise, between vowels it is none */
static const float SPOKEN_DECAY = 0.97f;

enum {
    DENSE_SCRATCH = 2 * MASK_UNITS > MASK_FEATURES ? 2 * MASK_UNITS : (MASK_FEATURES + 15) & ~15,
};

void mask_init(mask_t *gain, int bins, int stride, float window_power, arena_t *arena)
{
    gain->bins = bins;
    /* A band's power grows with the square of the frame, its quantisation noise with the frame: told at
     * every rate as at 16 kHz. */
    gain->tiny = QUIET_POWER * window_power * (float)(bins - 1) / HEARD_HOP;
    gain->speech = arena_floats(arena, (size_t)stride);
    gain->rest = arena_floats(arena, (size_t)stride);
    if (arena->base)
        mask_reset(gain);
}

void mask_reset(mask_t *gain)
{
    for (int k = 0; k < gain->bins; k++)
        gain->speech[k] = gain->rest[k] = 1.0f;
    memset(gain->state, 0, sizeof gain->state);
    gain->speech_probability = gain->spoken = 0.0f;
}

void mask_features(const mask_t *gain, const mask_input_t *input, float features[MASK_FEATURES])
{
    enum { RATIOS = 4 * MASK_BANDS, PADDED = WHOLE_VECTORS(RATIOS) };
    float over[PADDED], under[PADDED];
    float *coherence = features + RATIOS;
    for (int i = 0; i < PADDED; i++)
        over[i] = under[i] = 1.0f; /* bands above half the rate: nothing is known */
    memset(coherence, 0, sizeof(float) * MASK_BANDS);
    for (int band = 0, from = 0; band < MASK_BANDS && from + 1 < gain->bins; band++) {
        const int to = spectrum_band_end(from) < gain->bins ? spectrum_band_end(from) : gain->bins;
        const float tiny = gain->tiny * (float)(to - from);
        const float error = spectrum_sum(input->error, from, to) + tiny,
                    echo = spectrum_sum(input->echo, from, to) + tiny;
        over[band] = over[MASK_BANDS + band] = error;
        under[band] = spectrum_sum(input->noise, from, to) + tiny;
        under[MASK_BANDS + band] = spectrum_sum(input->residual, from, to) + tiny;
        over[2 * MASK_BANDS + band] = echo;
        over[3 * MASK_BANDS + band] = spectrum_sum(input->far, from, to) + tiny;
        under[2 * MASK_BANDS + band] = under[3 * MASK_BANDS + band] = error;
        coherence[band] = 2.0f * spectrum_sum(input->cross, from, to) / (error + echo);
        from = to;
    }
    for (int i = 0; i < PADDED; i++)
        over[i] /= under[i];
    kernels()->log(PADDED, over, over);
    for (int i = 0; i < RATIOS; i++)
        features[i] = fminf(RATIO_LIMIT, fmaxf(-RATIO_LIMIT, RATIO_SCALE * over[i]));
}

/* rows of `inputs` weights each: y = bias + weight x */
static void layer(int outputs, int inputs, const int8_t *weight, const float *scale, const float *bias,
                  const float *x, float *y)
{
    int8_t scratch[DENSE_SCRATCH];
    memcpy(y, bias, sizeof(float) * (size_t)outputs);
    dense_add(outputs, inputs, weight, scale, x, scratch, y);
}

/* seen: outputs of the first layer, behind them room for the new state. */
static void recur(float *state, float *seen)
{
    enum { N = MASK_UNITS };
    float gates[3 * N], recalled[3 * N];
    layer(3 * N, N, INPUT_GATES_WEIGHT, INPUT_GATES_SCALE, INPUT_GATES_BIAS, seen, gates);
    layer(3 * N, N, STATE_GATES_WEIGHT, STATE_GATES_SCALE, STATE_GATES_BIAS, state, recalled);
    for (int i = 0; i < 2 * N; i++)
        gates[i] += recalled[i];
    kernels()->sigmoid(2 * N, gates, gates);
    float *const reset = gates, *const keep = gates + N, *const candidate = gates + 2 * N;
    for (int i = 0; i < N; i++)
        candidate[i] += reset[i] * recalled[2 * N + i];
    kernels()->tanh(N, candidate, candidate);
    for (int i = 0; i < N; i++)
        state[i] = candidate[i] + keep[i] * (state[i] - candidate[i]);
    memcpy(seen + N, state, sizeof(float) * N);
}

/* From one value a band to one a bin: straight lines between the bands' centres. */
static void spread(const float *bands, int bins, float *out)
{
    int bin = 0;
    float left_centre = 0.0f, left = bands[0];
    for (int band = 0, from = 0; band < MASK_BANDS; band++) {
        const int to = spectrum_band_end(from);
        const float centre = 0.5f * (float)(from + to - 1),
                    slope = (bands[band] - left) / (centre - left_centre);
        for (; bin < bins && (float)bin <= centre; bin++)
            out[bin] = left + slope * ((float)bin - left_centre);
        left_centre = centre;
        left = bands[band];
        from = to;
    }
    for (; bin < bins; bin++)
        out[bin] = left;
}

/* Above 8 kHz nothing was learned: as long as somebody talks, breath and sibilants there are left to the
 * statistics. */
static void open_top(mask_t *gain)
{
    gain->spoken = fmaxf(gain->speech_probability, SPOKEN_DECAY * gain->spoken);
    for (int k = MASK_LAST_BIN; k < gain->bins; k++)
        gain->speech[k] += gain->spoken * (1.0f - gain->speech[k]);
}

void mask_process(mask_t *gain, const mask_input_t *input)
{
    float features[MASK_FEATURES], seen[2 * MASK_UNITS], outputs[WHOLE_VECTORS(MASK_OUTPUTS)] = {0};
    mask_features(gain, input, features);
    layer(MASK_UNITS, MASK_FEATURES, FIRST_WEIGHT, FIRST_SCALE, FIRST_BIAS, features, seen);
    kernels()->tanh(MASK_UNITS, seen, seen);
    recur(gain->state, seen);
    layer(MASK_OUTPUTS, 2 * MASK_UNITS, LAST_WEIGHT, LAST_SCALE, LAST_BIAS, seen, outputs);
    kernels()->sigmoid((int)(sizeof outputs / sizeof *outputs), outputs, outputs);
    spread(outputs, gain->bins, gain->speech);
    spread(outputs + MASK_BANDS, gain->bins, gain->rest);
    gain->speech_probability = outputs[2 * MASK_BANDS];
    open_top(gain);
}
