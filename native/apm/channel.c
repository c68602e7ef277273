#include "apm/channel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apm/block.h"

/* Decay per block of the held speech probability: time constant 0.2 s, longer than the gap between two
 * syllables. */
static const float SPEECH_HOLD_DECAY = 0.95f;
/* confidence (residual.h) that the echo estimate is an echo, above which the network is given echo and far
 * end */
static const float ECHO_CONFIDENT = 0.5f;
/* 1 dB: an estimate that adds more than this to the microphone is not subtracted; in double talk a good one,
 * too, adds and subtracts a little by chance */
static const float WORTH_IT = 1.25f;
static const float HARMFUL = 4.0f; /* 6 dB louder than the microphone: not subtracted, without a fade */
/* High-pass of the level measurement: twice the 2nd order, so that rumble of 25 Hz is 40 dB down, (80 /
 * 25)^8, while the fundamentals of the lowest voices, 80 to 100 Hz and a small part of their power, lose 3 to
 * 6 dB. */
static const float LEVEL_HIGH_PASS_HZ = 80.0f;

void channel_init(channel_t *channel, workspace_t *ws, int references, float window_power, arena_t *arena)
{
    const int hop = ws->hop, bins = hop + 1;
    const size_t block = (size_t)hop;
    channel->hop = hop;
    aec_init(&channel->aec, hop, references, FAR_PARTITIONS, arena);
    residual_init(&channel->residual, bins, ws->stride, arena);
    ns_init(&channel->ns, bins, ws->stride, window_power, arena);
    mask_init(&channel->mask, bins, ws->stride, window_power, arena);
    for (int stage = 0; stage < 2; stage++)
        hpf_init(&channel->level_high_pass[stage], ws->rate_hz, LEVEL_HIGH_PASS_HZ);
    channel->mic = arena_floats(arena, block);
    channel->echo = arena_floats(arena, block);
    channel->error = arena_floats(arena, block);
    channel->error_history = arena_floats(arena, 2 * block);
    channel->echo_history = arena_floats(arena, 2 * block);
    channel->overlap = arena_floats(arena, block / 2);
}

void channel_configure(channel_t *channel, int rate_hz, const apm_config_t *config)
{
    hpf_configure(&channel->high_pass.hpf, rate_hz, config->high_pass_hz);
}

void channel_reset(channel_t *channel, const apm_config_t *config)
{
    const size_t block = sizeof(float) * (size_t)channel->hop;
    high_pass_reset(&channel->high_pass, config->high_pass_filter);
    for (int stage = 0; stage < 2; stage++)
        hpf_reset(&channel->level_high_pass[stage]);
    aec_reset(&channel->aec);
    residual_reset(&channel->residual);
    ns_reset(&channel->ns);
    mask_reset(&channel->mask);
    channel->speech_probability = channel->held_speech_probability = channel->near_speech = 0.0f;
    memset(channel->error_history, 0, 2 * block);
    memset(channel->echo_history, 0, 2 * block);
    memset(channel->overlap, 0, block / 2);
    channel->cancel_share = 0.0f;
    channel->path = PATH_LEARNED;
    channel->harmful_blocks = 0;
}

void channel_read(channel_t *channel, workspace_t *ws, int high_pass_filter, const int16_t *frames,
                  int channels)
{
    read_channel(channel->hop, frames, channels, channel->mic);
    high_pass_process(&channel->high_pass, ws, high_pass_filter, channel->mic);
}

static aec_block_t canceller_block(const channel_t *channel, const workspace_t *ws,
                                   const channel_input_t *input)
{
    return (aec_block_t){
        .reference = &input->far->reference,
        .paired = far_is_paired(input->far),
        .fft = &ws->fft,
        .mic = channel->mic,
        .echo = channel->echo,
        .error = channel->error,
    };
}

int channel_predict(channel_t *channel, const workspace_t *ws, const channel_input_t *input)
{
    if (!input->config->echo_cancellation && channel->cancel_share <= 0.0f)
        return 0;
    const aec_block_t block = canceller_block(channel, ws, input);
    aec_predict(&channel->aec, &block);
    return 1;
}

/* Adapts the canceller to the block, unless far-end blocks may come late whose echo it holds. */
static void adapt(channel_t *channel, const workspace_t *ws, const channel_input_t *input)
{
    aec_t *aec = &channel->aec;
    /* Squared: near 1 only where both of its factors are. Until an echo is found, the filter's path may be no
     * echo, and must not be protected from unlearning. */
    const float near = channel->near_speech, near_speech = input->far->measured ? near * near : 0.0f;
    if (far_is_missing(input->far, aec->delay_blocks))
        return;
    const aec_block_t block = canceller_block(channel, ws, input);
    if (input->jump->searched_blocks > 0) /* the search compares with a path that stays as it is */
        aec_observe(aec, &block);
    else
        aec_learn(aec, &block, near_speech);
}

static void append(float *history, const float *block, int hop)
{
    memcpy(history, history + hop, sizeof(float) * (size_t)hop);
    memcpy(history + hop, block, sizeof(float) * (size_t)hop);
}

void channel_cancel(channel_t *channel, const workspace_t *ws, const channel_input_t *input, int predicted)
{
    const int hop = channel->hop, enabled = input->config->echo_cancellation;
    float from = channel->cancel_share, to = 0.0f, next = 0.0f;
    if (predicted) {
        adapt(channel, ws, input);
        const float error = mean_square(channel->error, hop), mic = mean_square(channel->mic, hop);
        if (error > HARMFUL * mic)
            from = 0.0f; /* no fade: all of it would be audible */
        if (enabled && error <= WORTH_IT * mic)
            /* until an echo is found, by how far the estimate is in the microphone at all */
            to = input->far->measured ? 1.0f : aec_confidence(&channel->aec);
        /* in digital silence the echo paused, too: the share is kept */
        next = enabled && mic < QUANTISATION_POWER ? channel->cancel_share : to;
    } else {
        memset(channel->echo, 0, sizeof(float) * (size_t)hop);
    }
    for (int i = 0; i < hop && (from < 1.0f || to < 1.0f); i++) {
        channel->echo[i] *= fade(from, to, i, hop);
        channel->error[i] = channel->mic[i] - channel->echo[i];
    }
    channel->cancel_share = next;
    append(channel->error_history, channel->error, hop);
    append(channel->echo_history, channel->echo, hop);
}

/* Fills ws->far_power: far end at the echo's delay. Returns it, or silence while the delay is unknown. */
static const float *far_power(const channel_t *channel, workspace_t *ws, const channel_input_t *input)
{
    const reference_t *reference = &input->far->reference;
    if (!input->far->measured)
        return ws->silence;
    const int at = reference_at(reference, channel->aec.delay_blocks + FAR_HEADROOM_BLOCKS);
    kernels()->power(ws->stride, reference->re + at, reference->im + at, ws->far_power);
    if (far_is_paired(input->far)) {
        const float *re = reference->re + at + reference->side, *im = reference->im + at + reference->side;
        for (int k = 0; k < ws->stride; k++)
            ws->far_power[k] += re[k] * re[k] + im[k] * im[k];
    }
    return ws->far_power;
}

mask_input_t channel_mask_input(const channel_t *channel, const workspace_t *ws, const channel_input_t *input)
{
    const int cancels = input->config->echo_cancellation;
    const int playing = cancels && input->far->age_blocks < BLOCKS_PER_S && input->far->measured;
    const int echo = playing && channel->residual.confidence > ECHO_CONFIDENT;
    return (mask_input_t){
        .error = ws->error_power,
        .echo = echo ? ws->echo_power : ws->silence,
        .cross = echo ? ws->cross : ws->silence,
        .residual = cancels ? channel->residual.power : ws->silence,
        .noise = channel->ns.noise,
        .far = echo ? ws->far_power : ws->silence,
    };
}

/* Returns 1 if the microphone may hold an echo: before the delay is known, of a far end that was active
 * within the longest delay, 1 s; after that, of one that was active at the echo's delay within 1 s. */
static int echo_is_possible(const channel_input_t *input)
{
    const int found = input->config->echo_cancellation && input->far->measured;
    return (found ? input->echo_age_blocks : input->far->age_blocks) < BLOCKS_PER_S;
}

void channel_analyse(const channel_t *channel, workspace_t *ws, const channel_input_t *input)
{
    stft_analyse(&ws->stft, &ws->fft, channel->error_history, ws->re, ws->im);
    if (input->config->echo_cancellation)
        stft_analyse(&ws->stft, &ws->fft, channel->echo_history, ws->echo_re, ws->echo_im);
}

/* Powers of the spectra of error and echo estimate. */
static void measure_powers(workspace_t *ws, const channel_input_t *input)
{
    const int n = ws->stride;
    kernels()->power(n, ws->re, ws->im, ws->error_power);
    if (!input->config->echo_cancellation)
        return;
    kernels()->power(n, ws->echo_re, ws->echo_im, ws->echo_power);
    kernels()->cross(n, ws->re, ws->im, ws->echo_re, ws->echo_im, ws->cross);
}

void channel_suppress(channel_t *channel, workspace_t *ws, const channel_input_t *input)
{
    const apm_config_t *config = input->config;
    const float *residual = ws->silence;
    measure_powers(ws, input);
    if (config->echo_cancellation) {
        const residual_input_t powers = {
            .error = ws->error_power,
            .echo = ws->echo_power,
            .cross = ws->cross,
            .noise = channel->ns.noise,
            .far = far_power(channel, ws, input),
            .moved = input->jump->evidence,
        };
        residual_process(&channel->residual, &powers);
        residual = channel->residual.power;
    }
    ns_input_t block = {.re = ws->re, .im = ws->im, .power = ws->error_power, .echo = residual};
    ns_track(&channel->ns, &block);
    channel->speech_probability = channel->ns.speech_probability;
    const int suppresses = config->noise_suppression != APM_NOISE_KEPT,
              learned = config->learned_gain && suppresses;
    /* the gain control uses the network's speech probability, too */
    if (learned || (config->learned_gain && config->auto_gain_control)) {
        const mask_input_t mask_input = channel_mask_input(channel, ws, input);
        mask_process(&channel->mask, &mask_input);
        channel->speech_probability = channel->mask.speech_probability;
    }
    /* the statistical probability once more if the network did not run */
    channel->near_speech = channel->ns.speech_probability * channel->speech_probability;
    channel->held_speech_probability = fmaxf(channel->speech_probability,
                                             SPEECH_HOLD_DECAY * channel->held_speech_probability);
    const ns_mask_t mask = {channel->mask.speech, channel->mask.rest, channel->mask.speech_probability};
    block.mask = learned ? &mask : NULL;
    /* without an echo nothing is known of the canceller */
    block.canceller_confidence = input->echo_age_blocks < BLOCKS_PER_S ? channel->residual.convergence : 0.0f;
    block.echo_confidence = echo_is_possible(input) ? 0.0f : 1.0f;
    ns_suppress(&channel->ns, &block);
    stft_synthesise(&ws->stft, &ws->fft, ws->re, ws->im, channel->overlap, channel->mic);
}

void channel_follow(channel_t *channel, const channel_t *other)
{
    const size_t block = sizeof(float) * (size_t)channel->hop;
    memcpy(channel->mic, other->mic, block);
    memcpy(channel->overlap, other->overlap, block / 2);
    channel->speech_probability = other->speech_probability;
    channel->near_speech = other->near_speech;
}

/* A restored path that is far too strong is hardly unlearned, for its error is taken for a loud near end. So
 * it is reset if it adds power for a second of far-end sound before it has reduced the echo by 10 dB. */
void channel_check_path(channel_t *channel, const channel_input_t *input)
{
    aec_t *aec = &channel->aec;
    if (channel->path == PATH_LEARNED || !input->far_active)
        return;
    if (aec->kalman.error_energy > WORTH_IT * aec->mic_energy)
        channel->harmful_blocks++;
    else if (channel->harmful_blocks > 0)
        channel->harmful_blocks--;
    const int helped = CHANNEL_CONVERGED * aec->kalman.error_energy < aec->mic_energy;
    const int harmed = channel->harmful_blocks == BLOCKS_PER_S;
    if (harmed) {
        const int window = aec->delay_blocks, divergences = aec->divergences;
        aec_reset(aec);
        aec_follow_delay(aec, window);
        aec->divergences = divergences;
    }
    if (helped || harmed)
        channel->path = PATH_LEARNED;
}

void channel_slip(channel_t *channel, int blocks)
{
    const int step = blocks < 0 ? -1 : 1;
    for (; blocks != 0; blocks -= step)
        aec_slip(&channel->aec, step, FAR_LATEST_WINDOW);
}

void channel_place(channel_t *channel, const far_placement_t *placement)
{
    /* Either the echo moved, or it was there before and is only found now: the learned path is nearer to the
     * delay of before, or to that of now. */
    const int learned = aec_peak_blocks(&channel->aec);
    if (abs(learned - placement->before_blocks) < abs(learned - placement->now_blocks))
        aec_follow_delay(&channel->aec, placement->window_blocks);
    else
        aec_set_delay(&channel->aec, placement->window_blocks);
}

float channel_level_power(channel_t *channel, workspace_t *ws)
{
    memcpy(ws->block, channel->mic, sizeof(float) * (size_t)channel->hop);
    for (int stage = 0; stage < 2; stage++)
        hpf_process(&channel->level_high_pass[stage], ws->block, channel->hop);
    return mean_square(ws->block, channel->hop);
}

void channel_keep(channel_t *channel, tape_t *tape)
{
    aec_keep(&channel->aec, FAR_LATEST_WINDOW, tape);
    ns_keep(&channel->ns, tape);
}

void channel_keep_side(channel_t *channel, tape_t *tape) { aec_keep_side(&channel->aec, tape); }

int channel_resume(channel_t *channel, int delay_blocks)
{
    const int behind = delay_blocks - channel->aec.delay_blocks;
    channel->path = PATH_RESTORED;
    channel->harmful_blocks = 0;
    return behind >= 0 && behind < FAR_PARTITIONS;
}
