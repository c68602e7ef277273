/* The stages behind opaque handles, for ctypes.
 *
 * NAME_new(...) returns a handle, NAME_again(handle) resets it, NAME_run(handle, ...) processes a block,
 * handle_free(handle) frees any. A handle is one block of memory that begins with the stage's state. Arrays
 * are float32 and contiguous; sizes are in samples or bins.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "aec/aec.h"
#include "aec/drift.h"
#include "aec/jump.h"
#include "aec/resampler.h"
#include "aec/residual.h"
#include "aec/saturation.h"
#include "agc/agc.h"
#include "array/array.h"
#include "array/direction.h"
#include "delay/delay.h"
#include "mask/mask.h"
#include "hpf/hpf.h"
#include "kernels/spectrum.h"
#include "kernels/stft.h"
#include "limiter/limiter.h"
#include "ns/level.h"
#include "ns/ns.h"

#define API __attribute__((visibility("default")))

API void handle_free(void *handle) { free(handle); }

/* Returns memory for a state of `size` bytes and the arrays after it; the arena is set to the latter. */
static void *allocate(size_t size, arena_t *arena)
{
    const size_t head = arena_round(size), bytes = head + arena->used;
    unsigned char *memory = aligned_alloc(ARENA_ALIGN, bytes);
    memset(memory, 0, bytes);
    *arena = (arena_t){memory + head, 0};
    return memory;
}

/* ---- fft: x[size] -> re, im [size/2 + 1] -> back[size] */

API void fft_run(int size, const float *x, float *re, float *im, float *back)
{
    arena_t arena = {0};
    fft_t measure;
    fft_init(&measure, size, &arena);
    fft_t *fft = allocate(sizeof *fft, &arena);
    fft_init(fft, size, &arena);
    fft_forward(fft, x, re, im);
    fft_inverse(fft, re, im, back);
    free(fft);
}

/* ---- elementary functions of the kernels: count a multiple of KERNEL_LANES */

API void exp_run(int count, const float *in, float *out) { kernels()->exp(count, in, out); }
API void log_run(int count, const float *in, float *out) { kernels()->log(count, in, out); }
API void sigmoid_run(int count, const float *in, float *out) { kernels()->sigmoid(count, in, out); }
API void tanh_run(int count, const float *in, float *out) { kernels()->tanh(count, in, out); }
API void log_spectral_gain_run(int count, const float *wiener, const float *posterior, float *out)
{
    kernels()->log_spectral_gain(count, wiener, posterior, out);
}

/* ---- stft: one channel with its history; gain[hop + 1] is applied in between */

typedef struct {
    fft_t fft;
    stft_t stft;
    float *history, *overlap, *re, *im;
} filterbank_t;

static void filterbank_init(filterbank_t *bank, int hop, int fade, arena_t *arena)
{
    fft_init(&bank->fft, 2 * hop, arena);
    stft_init(&bank->stft, hop, fade, arena);
    bank->history = arena_floats(arena, 2 * (size_t)hop);
    bank->overlap = arena_floats(arena, (size_t)fade);
    bank->re = arena_floats(arena, (size_t)spectrum_stride(hop));
    bank->im = arena_floats(arena, (size_t)spectrum_stride(hop));
}

API void *stft_new(int hop, int fade)
{
    arena_t arena = {0};
    filterbank_t measure;
    filterbank_init(&measure, hop, fade, &arena);
    filterbank_t *bank = allocate(sizeof *bank, &arena);
    filterbank_init(bank, hop, fade, &arena);
    return bank;
}

API void stft_run(filterbank_t *bank, const float *in, const float *gain, float *re, float *im, float *out)
{
    const int hop = bank->stft.hop;
    memcpy(bank->history, bank->history + hop, sizeof(float) * (size_t)hop);
    memcpy(bank->history + hop, in, sizeof(float) * (size_t)hop);
    stft_analyse(&bank->stft, &bank->fft, bank->history, bank->re, bank->im);
    memcpy(re, bank->re, sizeof(float) * ((size_t)hop + 1));
    memcpy(im, bank->im, sizeof(float) * ((size_t)hop + 1));
    for (int k = 0; k <= hop; k++) {
        bank->re[k] *= gain[k];
        bank->im[k] *= gain[k];
    }
    stft_synthesise(&bank->stft, &bank->fft, bank->re, bank->im, bank->overlap, out);
}

/* ---- hpf: x[count] in place */

API void *hpf_new(int rate_hz, float cutoff_hz)
{
    hpf_t *hpf = malloc(sizeof *hpf);
    hpf_init(hpf, rate_hz, cutoff_hz);
    return hpf;
}

API void hpf_again(hpf_t *hpf) { hpf_reset(hpf); }
API void hpf_run(hpf_t *hpf, float *x, int count) { hpf_process(hpf, x, count); }

/* ---- limiter and agc: x[channels][count] in place */

API void *limiter_new(int rate_hz, int channels, float headroom_db)
{
    arena_t arena = {0};
    limiter_t measure;
    limiter_init(&measure, rate_hz, channels, &arena);
    limiter_t *limiter = allocate(sizeof *limiter, &arena);
    limiter_init(limiter, rate_hz, channels, &arena);
    limiter_configure(limiter, headroom_db);
    return limiter;
}

API void limiter_again(limiter_t *limiter) { limiter_reset(limiter); }

API void limiter_run(limiter_t *limiter, float *x, int count)
{
    float *channel[8];
    for (int c = 0; c < limiter->channels; c++)
        channel[c] = x + c * count;
    limiter_process(limiter, channel, count);
}

API void *agc_new(float target_dbfs, float max_gain_db)
{
    agc_t *agc = malloc(sizeof *agc);
    agc_reset(agc);
    agc_configure(agc, target_dbfs, max_gain_db);
    return agc;
}

API void agc_again(agc_t *agc) { agc_reset(agc); }

/* Returns the gain in dB. */
API float agc_run(agc_t *agc, float *x, int channels, int count, float power, float speech_probability,
                  int enabled)
{
    float *channel[8];
    for (int c = 0; c < channels; c++)
        channel[c] = x + c * count;
    agc_process(agc, channel, channels, count, power, speech_probability, enabled);
    return agc_gain_db(agc);
}

/* ---- delay: spectra of 20 ms frames; returns the accepted lag, gives the confidence and the score of
 * every lag */

API void *delay_new(int lags)
{
    arena_t arena = {0};
    delay_t measure;
    delay_init(&measure, lags, &arena);
    delay_t *delay = allocate(sizeof *delay, &arena);
    delay_init(delay, lags, &arena);
    return delay;
}

API void delay_again(delay_t *delay) { delay_reset(delay); }

API int delay_run(delay_t *delay, const float *far_re, const float *far_im, const float *mic_re,
                  const float *mic_im, float *confidence, float *score)
{
    delay_push(delay, far_re, far_im);
    delay_process(delay, mic_re, mic_im);
    *confidence = delay->confidence;
    memcpy(score, delay->score, sizeof(float) * (size_t)delay->lags);
    return delay->best;
}

/* A far-end block without a microphone block, or (far_re NULL) a microphone block without a far-end block. */
API void delay_step(delay_t *delay, const float *far_re, const float *far_im)
{
    if (far_re)
        delay_push(delay, far_re, far_im);
    delay_slip(delay, far_re ? 1 : -1);
}

/* ---- resampler: far[hop] -> out[2*hop], returns blocks */

API void *resampler_new(int hop)
{
    arena_t arena = {0};
    resampler_t measure;
    resampler_init(&measure, hop, &arena);
    resampler_t *resampler = allocate(sizeof *resampler, &arena);
    resampler_init(resampler, hop, &arena);
    return resampler;
}

API void resampler_again(resampler_t *resampler) { resampler_reset(resampler); }
API void resampler_begin(resampler_t *resampler, int a_block_late)
{
    resampler_start(resampler, a_block_late);
}

API int resampler_run(resampler_t *resampler, float slide, const float *far, float *out)
{
    resampler->slide = slide;
    return resampler_process(resampler, far, out);
}

/* ---- drift: returns the slide, gives the rate */

API void *drift_new(int hop)
{
    drift_t *drift = malloc(sizeof *drift);
    drift_init(drift, hop);
    return drift;
}

API void drift_again(drift_t *drift) { drift_reset(drift); }

API float drift_run(drift_t *drift, float lag_sum, float information, float reduction, float *rate)
{
    const float slide = drift_process(drift, lag_sum, information, reduction);
    *rate = drift->rate;
    return slide;
}

/* ---- saturation: applies the curve to x[count]; learns and returns the drive */

API void *saturation_new(void)
{
    saturation_t *saturation = malloc(sizeof *saturation);
    saturation_reset(saturation);
    return saturation;
}

API void saturation_again(saturation_t *saturation) { saturation_reset(saturation); }

API void saturation_apply(const saturation_t *saturation, float *x, int count)
{
    saturation_process(saturation, x, count);
}

API float saturation_run(saturation_t *saturation, float loudness, float power, float cross)
{
    saturation_learn(saturation, loudness, power, cross);
    return sqrtf(saturation->drive_square);
}

/* ---- aec: mic, echo, error [hop], far [references * hop], middle first, with its own reference */

typedef struct {
    fft_t fft;
    reference_t reference;
    aec_t aec;
} canceller_t;

static void canceller_init(canceller_t *canceller, int hop, int references, int partitions, int blocks,
                           arena_t *arena)
{
    fft_init(&canceller->fft, 2 * hop, arena);
    reference_init(&canceller->reference, hop, references, blocks, arena);
    aec_init(&canceller->aec, hop, references, partitions, arena);
}

API void *aec_new(int hop, int references, int partitions, int blocks)
{
    arena_t arena = {0};
    canceller_t measure;
    canceller_init(&measure, hop, references, partitions, blocks, &arena);
    canceller_t *canceller = allocate(sizeof *canceller, &arena);
    canceller_init(canceller, hop, references, partitions, blocks, &arena);
    return canceller;
}

API void aec_again(canceller_t *canceller)
{
    reference_reset(&canceller->reference);
    aec_reset(&canceller->aec);
}

API void aec_move(canceller_t *canceller, int delay_blocks) { aec_set_delay(&canceller->aec, delay_blocks); }

API void aec_step(canceller_t *canceller, int blocks, int most_blocks)
{
    aec_slip(&canceller->aec, blocks, most_blocks);
}

API void aec_lag(canceller_t *canceller, float *lag_sum, float *information)
{
    *lag_sum = canceller->aec.lag_sum;
    *information = canceller->aec.lag_information;
}

API float aec_confident(canceller_t *canceller) { return aec_confidence(&canceller->aec); }

/* paired: 1: middle and side; 0: the middle alone. */
static aec_block_t aec_next(canceller_t *canceller, const float *far, int paired, const float *mic,
                            float *echo, float *error)
{
    const float *side = paired ? far + canceller->aec.hop : NULL;
    reference_push(&canceller->reference, &canceller->fft, far, side);
    return (aec_block_t){&canceller->reference, paired, &canceller->fft, mic, echo, error};
}

API void aec_run(canceller_t *canceller, const float *far, int paired, const float *mic, float near_speech,
                 float *echo, float *error)
{
    const aec_block_t block = aec_next(canceller, far, paired, mic, echo, error);
    aec_predict(&canceller->aec, &block);
    aec_learn(&canceller->aec, &block, near_speech);
}

API void aec_guess(canceller_t *canceller, const float *far, int paired, const float *mic, float *echo,
                   float *error)
{
    const aec_block_t block = aec_next(canceller, far, paired, mic, echo, error);
    aec_predict(&canceller->aec, &block);
}

API void aec_late(canceller_t *canceller, int samples)
{
    aec_delay_path(&canceller->aec, &canceller->fft, samples);
}

/* ---- jump: mic, echo [hop], usual power [hop + 1]; returns the samples */

typedef struct {
    fft_t fft;
    jump_t jump;
} jumper_t;

static void jumper_init(jumper_t *jumper, int hop, arena_t *arena)
{
    fft_init(&jumper->fft, 2 * hop, arena);
    jump_init(&jumper->jump, hop, arena);
}

API void *jump_new(int hop)
{
    arena_t arena = {0};
    jumper_t measure;
    jumper_init(&measure, hop, &arena);
    jumper_t *jumper = allocate(sizeof *jumper, &arena);
    jumper_init(jumper, hop, &arena);
    return jumper;
}

API void jump_again(jumper_t *jumper) { jump_reset(&jumper->jump); }

API int jump_run(jumper_t *jumper, const float *mic, const float *echo, const float *usual_power,
                 float *evidence)
{
    const jump_input_t input = {mic, echo, usual_power};
    const int samples = jump_process(&jumper->jump, &jumper->fft, &input);
    *evidence = jumper->jump.evidence;
    return samples;
}

/* ---- residual and ns: arrays of stride floats, of which the first hop + 1 are bins; spectra of 20 ms
 * frames */

API int stride_of(int hop) { return spectrum_stride(hop); }

API void *residual_new(int hop)
{
    arena_t arena = {0};
    residual_t measure;
    residual_init(&measure, hop + 1, spectrum_stride(hop), &arena);
    residual_t *residual = allocate(sizeof *residual, &arena);
    residual_init(residual, hop + 1, spectrum_stride(hop), &arena);
    return residual;
}

API void residual_again(residual_t *residual) { residual_reset(residual); }

/* Returns the convergence. */
API float residual_run(residual_t *residual, const float *error, const float *echo, const float *cross,
                       const float *noise, const float *far, float moved, float *power)
{
    const residual_input_t input = {error, echo, cross, noise, far, moved};
    residual_process(residual, &input);
    memcpy(power, residual->power, sizeof(float) * (size_t)residual->stride);
    return residual->convergence;
}

API void *ns_new(int hop, float window_power, float attenuation_db)
{
    arena_t arena = {0};
    ns_t measure;
    ns_init(&measure, hop + 1, spectrum_stride(hop), window_power, &arena);
    ns_t *ns = allocate(sizeof *ns, &arena);
    ns_init(ns, hop + 1, spectrum_stride(hop), window_power, &arena);
    ns_configure(ns, attenuation_db);
    return ns;
}

API void ns_again(ns_t *ns) { ns_reset(ns); }
API void ns_attenuate(ns_t *ns, float attenuation_db) { ns_configure(ns, attenuation_db); }

API float ns_tonality(const ns_t *ns) { return ns->steady.tonality; }

/* Returns the speech probability; re and im in place. mask: NULL, or two rows of stride floats and the
 * mask's own probability. */
API float ns_run(ns_t *ns, float *re, float *im, const float *power, const float *echo, const float *mask,
                 float canceller_confidence, float echo_confidence, float *gain, float *noise)
{
    const ns_mask_t rows = {mask, mask ? mask + ns->stride : NULL, mask ? mask[2 * ns->stride] : 0.0f};
    const ns_input_t input = {
        .re = re,
        .im = im,
        .power = power,
        .echo = echo,
        .mask = mask ? &rows : NULL,
        .canceller_confidence = canceller_confidence,
        .echo_confidence = echo_confidence,
    };
    ns_track(ns, &input);
    ns_suppress(ns, &input);
    memcpy(gain, ns->gains.total, sizeof(float) * (size_t)ns->stride);
    memcpy(noise, ns->noise, sizeof(float) * (size_t)ns->stride);
    return ns->speech_probability;
}

/* ---- array: re and im of [channels][stride]; beam [2][stride] */

API void *array_new(int hop, int channels, float window_power)
{
    arena_t arena = {0};
    array_t measure;
    array_init(&measure, channels, hop + 1, spectrum_stride(hop), window_power, &arena);
    array_t *array = allocate(sizeof *array, &arena);
    array_init(array, channels, hop + 1, spectrum_stride(hop), window_power, &arena);
    return array;
}

API void array_again(array_t *array) { array_reset(array); }

/* Returns the reference. */
API int array_run(array_t *array, const float *re, const float *im, const float *echo,
                  float speech_probability, float *power, float *beam)
{
    const int stride = array->stride;
    float *beam_im = beam + stride;
    array_advance(array);
    for (int c = 0; c < array->channels; c++)
        array_put_error(array, c, re + c * stride, im + c * stride);
    array_beam_error(array, beam, beam_im);
    for (int k = 0; k < stride; k++)
        power[k] = beam[k] * beam[k] + beam_im[k] * beam_im[k];
    array_learn(array, &(array_input_t){power, echo, speech_probability});
    return array->reference;
}

API float array_gain(const array_t *array) { return array_gain_db(array); }

/* ---- direction: positions_mm [channels][2]; re, im [channels][stride]; power, echo, noise [stride] */

API void *direction_new(int hop, int channels, float window_power)
{
    arena_t arena = {0};
    direction_t measure;
    direction_init(&measure, channels, hop + 1, spectrum_stride(hop), window_power, &arena);
    direction_t *direction = allocate(sizeof *direction, &arena);
    direction_init(direction, channels, hop + 1, spectrum_stride(hop), window_power, &arena);
    return direction;
}

API void direction_again(direction_t *direction) { direction_reset(direction); }

/* Returns the number of bins in use. */
API int direction_at(direction_t *direction, const float (*positions_mm)[2])
{
    direction_place(direction, positions_mm);
    return direction->count;
}

API float direction_run(direction_t *direction, const float *re, const float *im, const float *power,
                        const float *echo, const float *noise, float speech_probability)
{
    direction_process(direction, &(direction_input_t){re, im, power, echo, noise, speech_probability});
    return direction->degrees;
}

/* ---- ns_level: returns the level */

API void *ns_level_new(void)
{
    ns_level_t *level = malloc(sizeof *level);
    ns_level_reset(level);
    return level;
}

API void ns_level_again(ns_level_t *level) { ns_level_reset(level); }

API int ns_level_run(ns_level_t *level, float heard, float noise, float echo, float speech_probability,
                     float *snr_db)
{
    ns_level_process(level, heard, noise, echo, speech_probability);
    *snr_db = level->snr_db;
    return level->level;
}

/* ---- mask: powers[6][stride] in the order of mask_input_t; masks[2][stride]; returns the speech
 * probability */

API void *mask_new(int hop, float window_power)
{
    arena_t arena = {0};
    mask_t measure;
    mask_init(&measure, hop + 1, spectrum_stride(hop), window_power, &arena);
    mask_t *mask = allocate(sizeof *mask, &arena);
    mask_init(mask, hop + 1, spectrum_stride(hop), window_power, &arena);
    return mask;
}

API void mask_again(mask_t *mask) { mask_reset(mask); }

API float mask_run(mask_t *mask, const float *powers, float *masks)
{
    const int stride = spectrum_stride(mask->bins - 1);
    const mask_input_t input = {powers,
                                powers + stride,
                                powers + 2 * stride,
                                powers + 3 * stride,
                                powers + 4 * stride,
                                powers + 5 * stride};
    mask_process(mask, &input);
    const float *const rows[] = {mask->speech, mask->rest};
    for (int i = 0; i < 2; i++)
        memcpy(masks + i * stride, rows[i], sizeof(float) * (size_t)mask->bins);
    return mask->speech_probability;
}
