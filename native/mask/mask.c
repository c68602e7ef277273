#include "mask/mask.h"

#include <math.h>
#include <string.h>

#include "kernels/dense.h"
#include "kernels/kernels.h"
#include "kernels/levels.h"
#include "kernels/spectrum.h"
#include "mask/weights.h"

static const float TRAINED_HOP = 160.0f; /* samples of a block at 16 kHz, the rate of the training */
/* of the natural log of a ratio: 22 dB become 1, the range in which tanh and 8-bit inputs work well */
static const float RATIO_SCALE = 0.2f;
static const float RATIO_LIMIT = 3.0f; /* 65 dB */
/* Decay per block of the held speech probability, time constant 0.3 s: a sibilant alone may be taken for
 * noise, but one between vowels is speech. */
static const float SPEECH_HOLD_DECAY = 0.97f;

enum {
    DENSE_SCRATCH = 2 * MASK_UNITS > MASK_FEATURES ? 2 * MASK_UNITS : (MASK_FEATURES + 15) & ~15,
};

void mask_init(mask_t *mask, int bins, int stride, float window_power, arena_t *arena)
{
    mask->bins = bins;
    /* A band's power grows with the square of the frame, its quantisation noise with the frame. Scaled so
     * that the features of all rates are those of 16 kHz. */
    mask->quiet_power = QUANTISATION_POWER * window_power * (float)(bins - 1) / TRAINED_HOP;
    mask->speech = arena_floats(arena, (size_t)stride);
    mask->rest = arena_floats(arena, (size_t)stride);
    if (arena->base)
        mask_reset(mask);
}

void mask_reset(mask_t *mask)
{
    for (int k = 0; k < mask->bins; k++)
        mask->speech[k] = mask->rest[k] = 1.0f;
    memset(mask->state, 0, sizeof mask->state);
    mask->speech_probability = mask->held_speech_probability = 0.0f;
}

void mask_features(const mask_t *mask, const mask_input_t *input, float features[MASK_FEATURES])
{
    enum { RATIOS = 4 * MASK_BANDS, PADDED = WHOLE_VECTORS(RATIOS) };
    float over[PADDED], under[PADDED];
    float *coherence = features + RATIOS;
    for (int i = 0; i < PADDED; i++)
        over[i] = under[i] = 1.0f; /* bands above half the rate: every ratio is 1 */
    memset(coherence, 0, sizeof(float) * MASK_BANDS);
    for (int band = 0, from = 0; band < MASK_BANDS && from + 1 < mask->bins; band++) {
        const int to = spectrum_band_end(from) < mask->bins ? spectrum_band_end(from) : mask->bins;
        const float quiet = mask->quiet_power * (float)(to - from);
        const float error = spectrum_sum(input->error, from, to) + quiet,
                    echo = spectrum_sum(input->echo, from, to) + quiet;
        over[band] = over[MASK_BANDS + band] = error;
        under[band] = spectrum_sum(input->noise, from, to) + quiet;
        under[MASK_BANDS + band] = spectrum_sum(input->residual, from, to) + quiet;
        over[2 * MASK_BANDS + band] = echo;
        over[3 * MASK_BANDS + band] = spectrum_sum(input->far, from, to) + quiet;
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

/* y = bias + weight x; weight: `outputs` rows, `inputs` each, padded to dense_stride(). */
static void layer(int outputs, int inputs, const int8_t *weight, const float *scale, const float *bias,
                  const float *x, float *y)
{
    int8_t scratch[DENSE_SCRATCH];
    memcpy(y, bias, sizeof(float) * (size_t)outputs);
    dense_add(outputs, inputs, weight, scale, x, scratch, y);
}

/* Gated recurrent unit. hidden: MASK_UNITS outputs of the first layer, behind them room for the new state. */
static void recur(float *state, float *hidden)
{
    enum { N = MASK_UNITS };
    float gates[3 * N], recurrent[3 * N];
    layer(3 * N, N, INPUT_GATES_WEIGHT, INPUT_GATES_SCALE, INPUT_GATES_BIAS, hidden, gates);
    layer(3 * N, N, STATE_GATES_WEIGHT, STATE_GATES_SCALE, STATE_GATES_BIAS, state, recurrent);
    for (int i = 0; i < 2 * N; i++)
        gates[i] += recurrent[i];
    kernels()->sigmoid(2 * N, gates, gates);
    float *const reset = gates, *const keep = gates + N, *const candidate = gates + 2 * N;
    for (int i = 0; i < N; i++)
        candidate[i] += reset[i] * recurrent[2 * N + i];
    kernels()->tanh(N, candidate, candidate);
    for (int i = 0; i < N; i++)
        state[i] = candidate[i] + keep[i] * (state[i] - candidate[i]);
    memcpy(hidden + N, state, sizeof(float) * N);
}

/* One value a bin from one a band: linear interpolation between the bands' centres. */
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

/* The training ends at 8 kHz. During near-end speech the bins above are opened, so that breath and sibilants
 * there are left to the statistical gain. */
static void open_top(mask_t *mask)
{
    mask->held_speech_probability = fmaxf(mask->speech_probability,
                                          SPEECH_HOLD_DECAY * mask->held_speech_probability);
    for (int k = MASK_LAST_BIN; k < mask->bins; k++)
        mask->speech[k] += mask->held_speech_probability * (1.0f - mask->speech[k]);
}

void mask_process(mask_t *mask, const mask_input_t *input)
{
    float features[MASK_FEATURES], hidden[2 * MASK_UNITS], outputs[WHOLE_VECTORS(MASK_OUTPUTS)] = {0};
    mask_features(mask, input, features);
    layer(MASK_UNITS, MASK_FEATURES, FIRST_WEIGHT, FIRST_SCALE, FIRST_BIAS, features, hidden);
    kernels()->tanh(MASK_UNITS, hidden, hidden);
    recur(mask->state, hidden);
    layer(MASK_OUTPUTS, 2 * MASK_UNITS, LAST_WEIGHT, LAST_SCALE, LAST_BIAS, hidden, outputs);
    kernels()->sigmoid((int)(sizeof outputs / sizeof *outputs), outputs, outputs);
    spread(outputs, mask->bins, mask->speech);
    spread(outputs + MASK_BANDS, mask->bins, mask->rest);
    mask->speech_probability = outputs[2 * MASK_BANDS];
    open_top(mask);
}
