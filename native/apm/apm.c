/* Order of the stages, configuration, and what passes between them.
 *
 *   far_push ──────────────► far end: FIFO, loudspeaker's curve, high-pass, resampler, reference, delay
 *                             ▲       │ ▲                 ▲
 *                           3 │     1 │ │ 2               │ 6
 *                             │       ▼ │         5       │
 *   microphone ─► high-pass ──┴─► canceller ◄─────────► jump
 *                                     │ ▲
 *                                     ▼ │ 4       7, 8
 *                   (array) ─► suppressor, mask ◄──────► SNR level
 *                                     │
 *                                     ▼           9
 *                               gain control ◄───────── figures
 *                                     │
 *                                     ▼
 *                                  limiter ─► out
 *
 * Feedback between stages: used in the same block, or in the next one.
 *
 *      from                                    to                                                      block
 *   1  reference, delay, missing blocks        canceller, residual echo, mask                          same
 *      far end active at the echo's delay      suppressor: convergence of the canceller; path check    next
 *   2  canceller: lag and information          drift, which slides the resampler                       next
 *      canceller: estimate against loudness    saturation, the loudspeaker's curve                     next
 *   3  mean of the microphones                 delay search, which places the cancellers               same
 *   4  speech probability (vote and mask)      canceller: expected near end                            next
 *      tracked noise                           residual echo: what the error holds beside echo         next
 *      residual echo, speech probability       array: weights of the beam                              next
 *   5  jump: search running, evidence          canceller holds its path; all of the echo may be left   same
 *   6  jump: samples                           far end's lags, windows and paths of the cancellers     next
 *   7  powers and speech of channel 0          SNR level                                               same
 *   8  SNR level                               suppressor's attenuation                                next
 *   9  converged, echo against the input       gain control: whether speech may be echo                same
 *                                              array: the same, for the direction of the talker        next
 *
 * Channel 0 stands for all in 5 to 9 and for the curve in 2, since every microphone receives the same
 * loudspeaker. Lags are summed over all channels. The gain control takes their highest speech probability.
 */
#include "apm/apm.h"

#include <math.h>
#include <string.h>

#include "apm/block.h"
#include "apm/internal.h"
#include "kernels/spectrum.h"

enum { ECHO_FADES_BLOCKS = 30 }; /* 0.3 s: a living room's reverberation */

/* Crossfade of two frames (stft.h) as a part of a block, which is the delay: 5 ms. */
enum { FADE_PART = 2 };
/* The same with low_latency, 1.25 ms. In recordings of double talk the learned score of what else is degraded
 * falls by 0.14, with 2.5 ms by 0.07; noisy and clean scenes stay the same to 0.02 of PESQ. */
enum { SHORT_FADE_PART = 8 };

static const float CLEAR_OF_ECHO = 4.0f; /* 6 dB above the expected residual echo */

static const apm_config_t DEFAULTS = {
    .echo_cancellation = 1,
    .high_pass_filter = 1,
    .auto_gain_control = 1,
    .noise_suppression = APM_NOISE_LOW + NS_LEVEL_DEFAULT,
    .learned_gain = 1,
    .array = 0,
    .low_latency = 0,
    .high_pass_hz = 80.0f,
    .gain_target_dbfs = -20.0f,
    .gain_max_db = 32.0f,
    .headroom_db = 1.0f,
};

apm_config_t apm_everything(void) { return DEFAULTS; }

int apm_valid(int rate_hz, int channels, int references)
{
    return (rate_hz == 8000 || rate_hz == 16000 || rate_hz == 32000 || rate_hz == 48000) && channels >= 1 &&
           channels <= APM_MAX_CHANNELS && references >= 1 && references <= APM_MAX_REFERENCES;
}

static void lay_out_workspace(workspace_t *ws, int rate_hz, int fade_part, arena_t *arena)
{
    const int hop = rate_hz / BLOCKS_PER_S;
    const size_t stride = (size_t)spectrum_stride(hop);
    float **const spectra[] = {&ws->re,         &ws->im,    &ws->error_power, &ws->echo_re, &ws->echo_im,
                               &ws->echo_power, &ws->cross, &ws->far_power,   &ws->silence};
    ws->rate_hz = rate_hz;
    ws->hop = hop;
    ws->stride = (int)stride;
    fft_init(&ws->fft, 2 * hop, arena);
    stft_init(&ws->stft, hop, hop / fade_part, arena);
    ws->block = arena_floats(arena, 2 * (size_t)hop);
    for (size_t i = 0; i < sizeof spectra / sizeof *spectra; i++)
        *spectra[i] = arena_floats(arena, stride);
}

/* Places everything that lies behind the struct; measures only when arena->base is NULL. */
static void lay_out(apm_t *apm, int rate_hz, int channels, int references, int fade_part, arena_t *arena)
{
    workspace_t *ws = &apm->workspace;
    float window_power = 0.0f;
    apm->channels = channels;
    lay_out_workspace(ws, rate_hz, fade_part, arena);
    for (int i = 0; arena->base && i < 2 * ws->hop; i++)
        window_power += ws->stft.analysis[i] * ws->stft.analysis[i];
    far_init(&apm->far, rate_hz, references, arena);
    jump_init(&apm->jump, ws->hop, arena);
    for (int c = 0; c < channels; c++)
        channel_init(&apm->channel[c], ws, references, window_power, arena);
    if (channels > 1) {
        array_init(&apm->array, channels, ws->hop + 1, ws->stride, window_power, arena);
        direction_init(&apm->direction, channels, ws->hop + 1, ws->stride, window_power, arena);
    }
    limiter_init(&apm->limiter, rate_hz, channels, arena);
}

size_t apm_size(int rate_hz, int channels, int references)
{
    apm_t apm;
    arena_t arena = {NULL, 0};
    lay_out(&apm, rate_hz, channels, references, FADE_PART, &arena);
    return arena_round(sizeof(apm_t)) + arena.used;
}

apm_t *apm_init(void *memory, int rate_hz, int channels, int references, const apm_config_t *config)
{
    const size_t size = apm_size(rate_hz, channels, references);
    memset(memory, 0, size); /* also the padding of every spectrum */
    apm_t *apm = memory;
    arena_t arena = {(unsigned char *)memory + arena_round(sizeof(apm_t)), 0};
    lay_out(apm, rate_hz, channels, references, config->low_latency ? SHORT_FADE_PART : FADE_PART, &arena);
    apm_configure(apm, config);
    apm_reset(apm);
    return apm;
}

float apm_attenuation_db(const apm_t *apm)
{
    const apm_noise_t wanted = apm->config.noise_suppression;
    if (wanted == APM_NOISE_KEPT)
        return 0.0f;
    return NS_LEVEL_DB[wanted == APM_NOISE_AUTO ? apm->level.level : (int)(wanted - APM_NOISE_LOW)];
}

int apm_is_beam(const apm_t *apm) { return apm->config.array && apm->channels > 1; }

/* The beam begins as channel 0 alone, so that a switch is no click. */
static void reset_beam(apm_t *apm)
{
    array_reset(&apm->array);
    direction_reset(&apm->direction);
}

static void set_attenuation(apm_t *apm)
{
    for (int c = 0; c < apm->channels; c++)
        ns_configure(&apm->channel[c].ns, apm_attenuation_db(apm));
}

void apm_reset(apm_t *apm)
{
    far_reset(&apm->far);
    jump_reset(&apm->jump);
    for (int c = 0; c < apm->channels; c++)
        channel_reset(&apm->channel[c], &apm->config);
    if (apm->channels > 1)
        reset_beam(apm);
    figures_reset(&apm->figures);
    ns_level_reset(&apm->level);
    agc_reset(&apm->agc);
    limiter_reset(&apm->limiter);
    apm->far_active = 0;
    apm->echo_age_blocks = apm->clip_age_blocks = BLOCKS_PER_S;
    apm_configure(apm, &apm->config); /* the level was reset, and a gap may have held an older cut-off */
}

void apm_configure(apm_t *apm, const apm_config_t *config)
{
    const int rate_hz = apm->workspace.rate_hz;
    if (config->array && !apm->config.array && apm->channels > 1)
        reset_beam(apm);
    apm->config = *config;
    set_attenuation(apm);
    agc_configure(&apm->agc, config->gain_target_dbfs, config->gain_max_db);
    limiter_configure(&apm->limiter, config->headroom_db);
    far_configure(&apm->far, rate_hz, config);
    for (int c = 0; c < apm->channels; c++)
        channel_configure(&apm->channel[c], rate_hz, config);
}

void apm_set_positions(apm_t *apm, const float (*positions_mm)[2])
{
    direction_place(&apm->direction, positions_mm);
}

void apm_set_delay_hint(apm_t *apm, int delay_ms) { apm->far.hint_blocks = delay_ms / (1000 / BLOCKS_PER_S); }

void apm_render(apm_t *apm, const int16_t *frames, int channels) { far_push(&apm->far, frames, channels); }

channel_input_t apm_channel_input(const apm_t *apm)
{
    return (channel_input_t){&apm->config, &apm->far, &apm->jump, apm->far_active, apm->echo_age_blocks};
}

/* The far end's lags have moved by `blocks`: so do the cancellers' windows. */
static void slip_channels(apm_t *apm, int blocks)
{
    for (int c = 0; c < apm->channels; c++)
        channel_slip(&apm->channel[c], blocks);
}

/* Takes the far-end block that belongs to the microphones', and places the cancellers. */
static void advance_far(apm_t *apm)
{
    workspace_t *ws = &apm->workspace;
    const far_slips_t slips = far_advance(&apm->far, ws);
    slip_channels(apm, slips.start);
    slip_channels(apm, slips.gap);
    slip_channels(apm, slips.block);
    slip_channels(apm, slips.backlog);
    if (!apm->config.echo_cancellation)
        return;
    for (int i = 0; i < ws->hop; i++) {
        float sum = 0.0f;
        for (int c = 0; c < apm->channels; c++)
            sum += apm->channel[c].mic[i];
        ws->block[i] = sum / (float)apm->channels;
    }
    const far_placement_t placement = far_locate(&apm->far, ws, ws->block);
    for (int c = 0; c < apm->channels && placement.moved; c++)
        channel_place(&apm->channel[c], &placement);
}

/* Returns by how many samples the echo of channel 0 moved. */
static int search_jump(apm_t *apm)
{
    const channel_t *channel = &apm->channel[0];
    if (!apm->far.measured || far_is_missing(&apm->far, channel->aec.delay_blocks))
        return 0;
    const jump_input_t input = {channel->mic, channel->echo, channel->aec.kalman.near_power};
    return jump_process(&apm->jump, &apm->workspace.fft, &input);
}

static void follow_jump(apm_t *apm, int samples)
{
    const int hop = apm->workspace.hop;
    if (samples == 0)
        return;
    const int blocks = samples < 0 ? -((hop - 1 - samples) / hop) : samples / hop; /* rounded down */
    far_slip(&apm->far, blocks);
    slip_channels(apm, blocks);
    for (int c = 0; c < apm->channels; c++)
        aec_delay_path(&apm->channel[c].aec, &apm->workspace.fft, samples - blocks * hop);
}

/* Returns 1 if speech in this block may be the far end's, so that gain control and direction must not learn
 * from it. */
static int may_be_echo(const apm_t *apm)
{
    const ns_t *ns = &apm->channel[0].ns;
    if (!apm->config.echo_cancellation)
        return apm->far.age_blocks < BLOCKS_PER_S;
    if (apm->echo_age_blocks >= ECHO_FADES_BLOCKS)
        return 0;
    return !figures_converged(&apm->figures) || ns->bands.input_power < CLEAR_OF_ECHO * ns->bands.echo_power;
}

/* The beam of all microphones, suppressed as channel 0, is the output of every channel. Returns its speech
 * probability. */
static float process_beam(apm_t *apm, const channel_input_t *input)
{
    workspace_t *ws = &apm->workspace;
    channel_t *beam = &apm->channel[0];
    const int cancels = apm->config.echo_cancellation;
    array_beam_error(&apm->array, ws->re, ws->im);
    if (cancels)
        array_beam_echo(&apm->array, ws->echo_re, ws->echo_im);
    channel_suppress(beam, ws, input);
    const array_input_t learned = {
        .power = ws->error_power,
        .echo = cancels ? beam->residual.power : ws->silence,
        .speech_probability = beam->near_speech,
    };
    array_learn(&apm->array, &learned);
    const direction_input_t heard = {
        .re = apm->array.error.re,
        .im = apm->array.error.im,
        .power = learned.power,
        .echo = learned.echo,
        .noise = beam->ns.noise,
        .speech_probability = may_be_echo(apm) ? 0.0f : learned.speech_probability,
    };
    direction_process(&apm->direction, &heard);
    for (int c = 1; c < apm->channels; c++)
        channel_follow(&apm->channel[c], beam);
    return beam->speech_probability;
}

/* The spectra of a channel become rows of the beam's filter. */
static void put_into_beam(apm_t *apm, int channel)
{
    const workspace_t *ws = &apm->workspace;
    array_put_error(&apm->array, channel, ws->re, ws->im);
    if (apm->config.echo_cancellation)
        array_put_echo(&apm->array, channel, ws->echo_re, ws->echo_im);
}

/* Echo cancellation and suppression of all channels. Returns the highest speech probability. */
static float process_channels(apm_t *apm)
{
    workspace_t *ws = &apm->workspace;
    const channel_input_t input = apm_channel_input(apm);
    const int beam = apm_is_beam(apm);
    float speech = 0.0f;
    int jump_samples = 0;
    if (beam)
        array_advance(&apm->array);
    for (int c = 0; c < apm->channels; c++) {
        channel_t *channel = &apm->channel[c];
        const int predicted = channel_predict(channel, ws, &input);
        if (c == 0 && predicted)
            jump_samples = search_jump(apm);
        channel_cancel(channel, ws, &input, predicted);
        channel_analyse(channel, ws, &input);
        if (beam)
            put_into_beam(apm, c);
        else
            channel_suppress(channel, ws, &input);
        channel_check_path(channel, &input);
        speech = fmaxf(speech, channel->speech_probability);
    }
    if (beam)
        speech = process_beam(apm, &input);
    follow_jump(apm, jump_samples);
    return speech;
}

/* One level of suppression for all channels. */
static void follow_level(apm_t *apm)
{
    const ns_t *ns = &apm->channel[0].ns;
    const int before = apm->level.level;
    ns_level_process(&apm->level, ns->bands.input_power, ns->bands.noise_power, ns->bands.echo_power,
                     apm->channel[0].speech_probability);
    if (apm->level.level != before)
        set_attenuation(apm);
}

/* All microphones run on one clock, so what their cancellers measure of it is summed. */
static void follow_clock(apm_t *apm)
{
    float lag_sum = 0.0f, information = 0.0f;
    for (int c = 0; c < apm->channels && apm->config.echo_cancellation && apm->far.measured; c++) {
        lag_sum += apm->channel[c].aec.lag_sum;
        information += apm->channel[c].aec.lag_information;
    }
    const aec_t *aec = &apm->channel[0].aec;
    const float reduction = (aec->mic_energy + QUANTISATION_POWER) /
                            (aec->kalman.error_energy + QUANTISATION_POWER);
    far_track_drift(&apm->far, lag_sum, information, reduction);
}

/* Figures, loudspeaker's curve, and the age of the echo. mic_power: mean square of channel 0 before the
 * canceller. */
static void follow_echo(apm_t *apm, float mic_power)
{
    const channel_t *channel = &apm->channel[0];
    const aec_t *aec = &channel->aec;
    const float far = far_mean_square(&apm->far, aec->delay_blocks + FAR_HEADROOM_BLOCKS);
    apm->far_active = apm->config.echo_cancellation && far > FAR_PRESENT_POWER;
    const figures_input_t input = {
        .count = channel->hop,
        .echo = channel->echo,
        .error = channel->error,
        .out = channel->mic,
        .far = far,
        .mic = mic_power,
        .far_active = apm->far_active,
        .speech_probability = channel->speech_probability,
    };
    figures_process(&apm->figures, &input);
    if (apm->far_active && apm->far.measured)
        saturation_learn(&apm->far.saturation, far, aec->block_power, aec->block_cross);
    apm->echo_age_blocks = apm->far_active ? 0 : apm->echo_age_blocks + (apm->echo_age_blocks < BLOCKS_PER_S);
}

/* Gain control and limiter, which all channels share. speech: probability, 0..1. */
static void control_gain(apm_t *apm, float speech)
{
    const int channels = apm->channels, hop = apm->workspace.hop;
    float *out[APM_MAX_CHANNELS], power = 0.0f;
    for (int c = 0; c < channels; c++) {
        out[c] = apm->channel[c].mic;
        power += channel_level_power(&apm->channel[c], &apm->workspace);
    }
    agc_process(&apm->agc, out, channels, hop, power / (float)channels, may_be_echo(apm) ? 0.0f : speech,
                apm->config.auto_gain_control);
    limiter_process(&apm->limiter, out, hop);
}

static void watch_clipping(apm_t *apm, const int16_t *frames)
{
    int clipped = 0;
    for (int i = 0; i < apm->workspace.hop * apm->channels; i++)
        clipped |= (frames[i] == INT16_MAX) | (frames[i] == INT16_MIN);
    apm->clip_age_blocks = clipped ? 0 : apm->clip_age_blocks + (apm->clip_age_blocks < BLOCKS_PER_S);
}

void apm_capture(apm_t *apm, int16_t *frames)
{
    const int hop = apm->workspace.hop, channels = apm->channels;
    watch_clipping(apm, frames);
    for (int c = 0; c < channels; c++)
        channel_read(&apm->channel[c], &apm->workspace, apm->config.high_pass_filter, frames + c, channels);
    advance_far(apm);
    const float mic_power = mean_square(apm->channel[0].mic, hop);
    const float speech = process_channels(apm);
    follow_level(apm);
    follow_clock(apm);
    follow_echo(apm, mic_power);
    control_gain(apm, speech);
    for (int c = 0; c < channels; c++)
        write_channel(hop, apm->channel[c].mic, frames + c, channels);
}

int apm_latency_samples(const apm_t *apm)
{
    const workspace_t *ws = &apm->workspace;
    return ws->stft.fade + limiter_latency_samples(ws->rate_hz);
}
