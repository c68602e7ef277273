#include "apm/apm.h"

#include <math.h>
#include <string.h>

#include "aec/aec.h"
#include "aec/residual.h"
#include "agc/agc.h"
#include "delay/delay.h"
#include "hpf/hpf.h"
#include "kernels/spectrum.h"
#include "kernels/stft.h"
#include "limiter/limiter.h"
#include "ns/ns.h"

enum {
    BLOCKS_PER_S = 100,
    DELAY_LAGS = 101,      /* 0..1000 ms */
    PARTITIONS = 25,       /* 250 ms of echo path */
    HEADROOM_BLOCKS = 2,   /* the filter begins this much before the echo: an early surprise stays inside */
    FAR_FIFO_BLOCKS = 64,  /* far-end blocks that may wait for the microphone: callers come in bursts */
};

static const float HIGH_PASS_HZ = 80.0f;
static const float TARGET_DBFS = -20.0f;
static const float CEILING_DBFS = -1.0f;
static const float NOISE_ATTENUATION_DB = 18.0f;
static const float FAR_PRESENT_DBFS = -60.0f;

typedef struct {
    hpf_t hpf;
    aec_t aec;
    residual_t residual;
    ns_t ns;
    float *mic, *echo, *error;         /* hop each */
    float *error_history, *echo_history; /* 2*hop each */
    float *overlap;                    /* hop/2 */
} channel_t;

struct apm {
    int rate_hz, channels, hop, stride;
    apm_config_t config;
    fft_t fft;
    stft_t stft;
    reference_t reference, heard;      /* far end; microphone 0, for the delay */
    delay_t delay;
    agc_t agc;
    limiter_t limiter;
    channel_t channel[APM_MAX_CHANNELS];
    float *fifo;                       /* FAR_FIFO_BLOCKS * hop */
    int fifo_first, fifo_count;
    float *far;                        /* hop */
    float *re, *im, *error_power, *echo_power, *far_power; /* stride each */
    int hint_blocks;                   /* -1: no hint */
    int far_age_blocks, clip_age_blocks;
    float mic_power, out_power, far_level, echo_level;
};

int apm_valid(int rate_hz, int channels)
{
    return (rate_hz == 8000 || rate_hz == 16000 || rate_hz == 32000 || rate_hz == 48000) && channels >= 1 &&
           channels <= APM_MAX_CHANNELS;
}

/* Places everything that lies behind the struct; measures only when arena->base is NULL. */
static void lay_out(apm_t *apm, int rate_hz, int channels, arena_t *arena)
{
    const int hop = rate_hz / BLOCKS_PER_S;
    const size_t stride = (size_t)spectrum_stride(hop), block = (size_t)hop;
    apm->rate_hz = rate_hz;
    apm->channels = channels;
    apm->hop = hop;
    apm->stride = (int)stride;
    fft_init(&apm->fft, 2 * hop, arena);
    stft_init(&apm->stft, hop, arena);
    float window_power = 0.0f;
    for (int i = 0; arena->base && i < 2 * hop; i++)
        window_power += apm->stft.analysis[i] * apm->stft.analysis[i];
    reference_init(&apm->reference, hop, DELAY_LAGS + PARTITIONS, arena);
    reference_init(&apm->heard, hop, 1, arena);
    delay_init(&apm->delay, DELAY_LAGS, arena);
    limiter_init(&apm->limiter, rate_hz, channels, CEILING_DBFS, arena);
    for (int c = 0; c < channels; c++) {
        channel_t *channel = &apm->channel[c];
        aec_init(&channel->aec, hop, PARTITIONS, arena);
        residual_init(&channel->residual, rate_hz, hop + 1, apm->stride, arena);
        ns_init(&channel->ns, hop + 1, apm->stride, window_power, arena);
        channel->mic = arena_floats(arena, block);
        channel->echo = arena_floats(arena, block);
        channel->error = arena_floats(arena, block);
        channel->error_history = arena_floats(arena, 2 * block);
        channel->echo_history = arena_floats(arena, 2 * block);
        channel->overlap = arena_floats(arena, block / 2);
    }
    apm->fifo = arena_floats(arena, FAR_FIFO_BLOCKS * block);
    apm->far = arena_floats(arena, block);
    apm->re = arena_floats(arena, stride);
    apm->im = arena_floats(arena, stride);
    apm->error_power = arena_floats(arena, stride);
    apm->echo_power = arena_floats(arena, stride);
    apm->far_power = arena_floats(arena, stride);
}

size_t apm_size(int rate_hz, int channels)
{
    apm_t apm;
    arena_t arena = {NULL, 0};
    lay_out(&apm, rate_hz, channels, &arena);
    return arena_round(sizeof(apm_t)) + arena.used;
}

apm_t *apm_init(void *memory, int rate_hz, int channels, const apm_config_t *config)
{
    const size_t size = apm_size(rate_hz, channels);
    memset(memory, 0, size); /* also the padding of every spectrum */
    apm_t *apm = memory;
    arena_t arena = {(unsigned char *)memory + arena_round(sizeof(apm_t)), 0};
    lay_out(apm, rate_hz, channels, &arena);
    apm->config = *config;
    apm_reset(apm);
    return apm;
}

void apm_reset(apm_t *apm)
{
    const size_t block = sizeof(float) * (size_t)apm->hop;
    reference_reset(&apm->reference);
    reference_reset(&apm->heard);
    delay_reset(&apm->delay);
    agc_init(&apm->agc, TARGET_DBFS);
    limiter_reset(&apm->limiter);
    for (int c = 0; c < apm->channels; c++) {
        channel_t *channel = &apm->channel[c];
        hpf_init(&channel->hpf, apm->rate_hz, HIGH_PASS_HZ);
        aec_reset(&channel->aec);
        residual_reset(&channel->residual);
        ns_reset(&channel->ns);
        memset(channel->error_history, 0, 2 * block);
        memset(channel->echo_history, 0, 2 * block);
        memset(channel->overlap, 0, block / 2);
    }
    apm->fifo_first = apm->fifo_count = 0;
    apm->hint_blocks = -1;
    apm->far_age_blocks = apm->clip_age_blocks = BLOCKS_PER_S;
    apm->mic_power = apm->out_power = apm->far_level = apm->echo_level = 0.0f;
    apm_configure(apm, &apm->config);
}

void apm_configure(apm_t *apm, const apm_config_t *config)
{
    apm->config = *config;
    for (int c = 0; c < apm->channels; c++)
        ns_configure(&apm->channel[c].ns, config->noise_suppression ? NOISE_ATTENUATION_DB : 0.0f);
}

void apm_set_delay_hint(apm_t *apm, int delay_ms) { apm->hint_blocks = delay_ms / (1000 / BLOCKS_PER_S); }

void apm_render(apm_t *apm, const int16_t *frames, int channels)
{
    if (apm->fifo_count == FAR_FIFO_BLOCKS) { /* nobody reads the microphone: the oldest block is lost */
        apm->fifo_first = (apm->fifo_first + 1) % FAR_FIFO_BLOCKS;
        apm->fifo_count--;
    }
    float *block = apm->fifo + (size_t)((apm->fifo_first + apm->fifo_count) % FAR_FIFO_BLOCKS) * (size_t)apm->hop;
    const float scale = 1.0f / (32768.0f * (float)channels);
    for (int i = 0; i < apm->hop; i++) {
        int sum = 0;
        for (int c = 0; c < channels; c++)
            sum += frames[i * channels + c];
        block[i] = scale * (float)sum;
    }
    apm->fifo_count++;
}

/* The far-end block that goes with this microphone block; silence when none came. */
static void take_far(apm_t *apm)
{
    const size_t bytes = sizeof(float) * (size_t)apm->hop;
    if (apm->fifo_count == 0) {
        memset(apm->far, 0, bytes);
        return;
    }
    memcpy(apm->far, apm->fifo + (size_t)apm->fifo_first * (size_t)apm->hop, bytes);
    apm->fifo_first = (apm->fifo_first + 1) % FAR_FIFO_BLOCKS;
    apm->fifo_count--;
}

static float mean_square(const float *x, int count)
{
    float sum = 0.0f;
    for (int i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sum / (float)count;
}

/* Far-end side of a block: spectra, delay, and where the cancellers listen. */
static void follow_far(apm_t *apm)
{
    take_far(apm);
    reference_push(&apm->reference, &apm->fft, apm->far);
    const float far_power = mean_square(apm->far, apm->hop);
    if (far_power > powf(10.0f, FAR_PRESENT_DBFS / 10.0f))
        apm->far_age_blocks = 0;
    else if (apm->far_age_blocks < 10 * BLOCKS_PER_S)
        apm->far_age_blocks++;
    reference_push(&apm->heard, &apm->fft, apm->channel[0].mic);
    const int far_at = reference_at(&apm->reference, 0), mic_at = reference_at(&apm->heard, 0);
    delay_process(&apm->delay, apm->reference.re + far_at, apm->reference.im + far_at, apm->heard.re + mic_at,
                  apm->heard.im + mic_at);
    const int believed = apm->delay.best >= 0 ? apm->delay.best : apm->hint_blocks;
    int wanted = believed - HEADROOM_BLOCKS;
    if (wanted < 0)
        wanted = 0;
    for (int c = 0; c < apm->channels; c++)
        aec_set_delay(&apm->channel[c].aec, wanted);
}

static void append(float *history, const float *block, int hop)
{
    memcpy(history, history + hop, sizeof(float) * (size_t)hop);
    memcpy(history + hop, block, sizeof(float) * (size_t)hop);
}

static void suppress(apm_t *apm, channel_t *channel)
{
    const int n = apm->stride;
    if (apm->config.echo_cancellation) {
        stft_analyse(&apm->stft, &apm->fft, channel->echo_history, apm->re, apm->im);
        spectrum_power(n, apm->re, apm->im, apm->echo_power);
    }
    stft_analyse(&apm->stft, &apm->fft, channel->error_history, apm->re, apm->im);
    spectrum_power(n, apm->re, apm->im, apm->error_power);
    if (apm->config.echo_cancellation) {
        const float scale = channel->ns.window_power / (2.0f * (float)apm->hop);
        memset(apm->far_power, 0, sizeof(float) * (size_t)n);
        for (int p = 0; p < 6; p++) {
            const float *far = apm->reference.power + reference_at(&apm->reference, channel->aec.delay_blocks + p);
            for (int k = 0; k < n; k++)
                apm->far_power[k] = fmaxf(apm->far_power[k], scale * far[k]);
        }
        residual_process(&channel->residual, apm->error_power, apm->echo_power, channel->ns.noise, apm->far_power);
    } else
        residual_reset(&channel->residual);
    ns_process(&channel->ns, apm->re, apm->im, apm->error_power, channel->residual.power);
    stft_synthesise(&apm->stft, &apm->fft, apm->re, apm->im, channel->overlap, channel->mic);
}

void apm_capture(apm_t *apm, int16_t *frames)
{
    const int hop = apm->hop, channels = apm->channels;
    float *out[APM_MAX_CHANNELS];
    int clipped = 0;
    for (int c = 0; c < channels; c++) {
        channel_t *channel = &apm->channel[c];
        for (int i = 0; i < hop; i++) {
            const int16_t sample = frames[i * channels + c];
            clipped |= sample == INT16_MAX || sample == INT16_MIN;
            channel->mic[i] = (float)sample * (1.0f / 32768.0f);
        }
        if (apm->config.high_pass_filter)
            hpf_process(&channel->hpf, channel->mic, hop);
        out[c] = channel->mic;
    }
    if (clipped)
        apm->clip_age_blocks = 0;
    else if (apm->clip_age_blocks < BLOCKS_PER_S)
        apm->clip_age_blocks++;

    if (apm->config.echo_cancellation)
        follow_far(apm);
    float speech = 0.0f;
    for (int c = 0; c < channels; c++) {
        channel_t *channel = &apm->channel[c];
        if (apm->config.echo_cancellation)
            aec_process(&channel->aec, &apm->reference, &apm->fft, channel->mic, channel->echo, channel->error);
        else
            memcpy(channel->error, channel->mic, sizeof(float) * (size_t)hop);
        append(channel->error_history, channel->error, hop);
        append(channel->echo_history, channel->echo, hop);
        suppress(apm, channel);
        speech = fmaxf(speech, channel->ns.speech_probability);
    }
    agc_process(&apm->agc, out, channels, hop, speech, apm->config.auto_gain_control);
    limiter_process(&apm->limiter, out, hop);
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < hop; i++)
            frames[i * channels + c] = (int16_t)lrintf(fminf(fmaxf(out[c][i] * 32768.0f, -32768.0f), 32767.0f));
}

void apm_stats(const apm_t *apm, apm_stats_t *stats)
{
    memset(stats, 0, sizeof *stats);
    stats->delay_ms = apm->delay.best < 0 ? -1.0f : 10.0f * (float)apm->delay.best;
    stats->delay_confidence = apm->delay.confidence;
    stats->speech_probability = apm->channel[0].ns.speech_probability;
    stats->agc_gain_db = apm->agc.gain_db;
    stats->reference_present = apm->far_age_blocks < BLOCKS_PER_S;
    stats->microphone_clipping = apm->clip_age_blocks < BLOCKS_PER_S;
}

int apm_latency_samples(int rate_hz)
{
    return stft_latency_samples(rate_hz / BLOCKS_PER_S) + limiter_latency_samples(rate_hz);
}
