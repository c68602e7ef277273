#include "apm/apm.h"

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
#include "delay/delay.h"
#include "mask/mask.h"
#include "hpf/hpf.h"
#include "base/branchless.h"
#include "kernels/kernels.h"
#include "kernels/spectrum.h"
#include "kernels/stft.h"
#include "base/tape.h"
#include "limiter/limiter.h"
#include "ns/level.h"
#include "ns/ns.h"

enum {
    BLOCKS_PER_S = 100,
    DELAY_LAGS = 101,    /* 0..1000 ms */
    PARTITIONS = 32,     /* 320 ms of echo path */
    HEADROOM_BLOCKS = 2, /* the filter begins this much before the echo: an early surprise stays inside */
    /* block at which the filter begins for the longest delay */
    LATEST_WINDOW = DELAY_LAGS - 1 - HEADROOM_BLOCKS,
    ECHO_FADES_BLOCKS = 30, /* 0.3 s: a living room's */
    FIGURE_BLOCKS = 10,     /* far end alone for so long, from first to last, tells of the echo */
    NEAR_ENDS_BLOCKS = 10,  /* a word's end may be too weak to be taken for speech */
    NOT_DOUBTED = -1,       /* a path that has helped, or was not restored */
    FIFO_WATCH_BLOCKS = 50, /* half a second: longer than the period of any caller's bursts */
    /* far-end blocks that may wait for the microphone, more than FIFO_WATCH_BLOCKS: callers come in bursts */
    FAR_FIFO_BLOCKS = 56,
    /* 0.3 s: a far end that stays away for longer pauses; threads are seldom late by 0.2 s */
    LATEST_BLOCKS = 30,
    SETTLED_BLOCKS = 20, /* 0.2 s: after so many blocks none of which was late, it was a pause */
    FAR_RING_BLOCKS = FAR_FIFO_BLOCKS + SETTLED_BLOCKS, /* so many may be taken once more */
};

static const float FAR_PRESENT_POWER = 1e-6f; /* -60 dBFS: a whisper on a loudspeaker at full volume */
static const float NEAR_SPEAKS = 0.5f;        /* speech probability */
static const float SPOKEN_DECAY = 0.95f;      /* 0.2 s: nobody stops talking between two syllables */
static const float BELIEVED = 0.5f;           /* of the echo estimate being an echo */
static const float NEAR_QUIET = 0.35f;        /* speech probability below which figures are taken */
static const float AS_USUAL = 2.0f;           /* 3 dB */
static const float FIGURE_RATE = 0.2f;        /* by spell of FIGURE_BLOCKS: half a second of far-end speech */
/* 9 dB: more of the echo than that over the usual is let in by and by */
static const float UNUSUAL = 8.0f;
static const float CONVERGED = 10.0f;    /* 10 dB */
static const float CLEAR_OF_ECHO = 4.0f; /* 6 dB above what may be left of it */
static const float WORTH_IT = 1.25f;     /* 1 dB: double talk adds and subtracts by chance */
static const float HARMFUL = 4.0f;       /* 6 dB louder than the microphone */
static const float TINY_POWER = 1e-10f;  /* -100 dBFS: below a 16-bit step */
/* What the level of a voice is measured behind: twice the 2nd order, so that rumble of 25 Hz is 40 dB down,
 * (80 / 25)^8, while the fundamentals of the lowest voices, 80 to 100 Hz and a small part of their power,
 * lose 3 to 6 dB. */
static const float LEVEL_HIGH_PASS_HZ = 80.0f;

/* A high-pass and how much of its work is in the signal: 0..1, faded over a block. */
typedef struct {
    hpf_t hpf;
    float share;
} high_pass_t;

typedef struct {
    high_pass_t high_pass;
    aec_t aec;
    residual_t residual;
    ns_t ns;
    mask_t mask;
    hpf_t level_high_pass[2];            /* in series, of the level's measurement alone */
    float *mic, *echo, *error;           /* hop each */
    float *error_history, *echo_history; /* 2*hop each */
    float *overlap;                      /* hop/2 */
    float speech_probability;            /* of near-end speech in the last block */
    float spoken;                        /* the same, held over the gaps between syllables */
    /* 0..1: how much of the canceller's work is in the signal, faded over a block */
    float cancel_share;
    int doubted_blocks; /* in which a restored echo path added power; or NOT_DOUBTED */
} channel_t;

/* Powers of channel 0 averaged over blocks in which only the far end speaks. */
typedef struct {
    float far, echo, mic, error, out;
} figures_t;

/* Silence that stands in for far-end blocks which did not come in time, and the far end's side of the chain
 * as it was before it: it goes on from there once more should they come after all. Both streams count the
 * same time, so a block's place is its number. But after a pause of the far end, too, blocks come again, and
 * all of them lie later. */
typedef struct {
    /* none; silence before what came since; silence behind it */
    enum { GAP_CLOSED, GAP_PAUSE, GAP_LATE } kind;
    int silent, since; /* blocks of silence, and real ones behind them */
    int pushed;        /* reference blocks that both have become */
    int settled;       /* blocks since one was missing or late */
    high_pass_t high_pass;
    resampler_t resampler;
    float *samples; /* 2*hop: the reference's last two blocks */
} gap_t;

struct apm {
    int rate_hz, channels, hop, stride;
    apm_config_t config;
    fft_t fft;
    stft_t stft;
    reference_t reference, heard; /* far end; mean of the microphones, for the delay */
    delay_t delay;
    resampler_t resampler;
    drift_t drift;
    jump_t jump;
    int jump_samples; /* by which the echo moved in this block */
    saturation_t saturation;
    /* the microphone's once more: so it is no part of the path that the cancellers learn */
    high_pass_t far_high_pass;
    ns_level_t level;
    agc_t agc;
    limiter_t limiter;
    channel_t channel[APM_MAX_CHANNELS];
    int16_t *fifo; /* FAR_RING_BLOCKS * hop */
    float *far;    /* hop: the block that leaves it */
    int fifo_first, fifo_count;
    int fifo_lowest, fifo_watched_blocks; /* the smallest fill of the last FIFO_WATCH_BLOCKS, */
    int fifo_came_blocks;                 /* and how many came in them */
    /* far-end blocks since the last of the microphone; the fewest lately, or 0 */
    int burst_blocks, least_burst_blocks;
    gap_t gap;
    /* 2*hop: far end, mean of the microphones, unfiltered microphone in turn */
    float *block;
    /* stride each */
    float *re, *im, *error_power, *echo_re, *echo_im, *echo_power, *cross, *far_power, *silence;
    int hint_blocks; /* -1: no hint */
    /* delay for which the cancellers are placed (-1: none), and whether it was measured */
    int believed_blocks, measured;
    int started;  /* a microphone block has come */
    int restored; /* lags are those of an earlier run, which began as this one does */
    int far_age_blocks, clip_age_blocks;
    int far_speaks;      /* in the last block */
    int echo_age_blocks; /* since it did */
    /* spell: summed over the last spell_blocks, which may yet turn out to be double talk */
    figures_t figures, spell;
    int spell_blocks; /* negative: so many are still to pass after near-end speech */
};

static const apm_config_t DEFAULTS = {
    .echo_cancellation = 1,
    .high_pass_filter = 1,
    .auto_gain_control = 1,
    .noise_suppression = APM_NOISE_LOW + NS_LEVEL_DEFAULT,
    .learned_gain = 1,
    .high_pass_hz = 80.0f,
    .gain_target_dbfs = -20.0f,
    .gain_max_db = 32.0f,
    .headroom_db = 1.0f,
};

apm_config_t apm_everything(void) { return DEFAULTS; }

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
    reference_init(&apm->reference, hop, LATEST_WINDOW + PARTITIONS, arena);
    reference_init(&apm->heard, hop, 1, arena);
    delay_init(&apm->delay, DELAY_LAGS, arena);
    resampler_init(&apm->resampler, hop, arena);
    limiter_init(&apm->limiter, rate_hz, channels, arena);
    jump_init(&apm->jump, hop, arena);
    for (int c = 0; c < channels; c++) {
        channel_t *channel = &apm->channel[c];
        aec_init(&channel->aec, hop, PARTITIONS, arena);
        residual_init(&channel->residual, hop + 1, apm->stride, arena);
        ns_init(&channel->ns, hop + 1, apm->stride, window_power, arena);
        mask_init(&channel->mask, hop + 1, apm->stride, window_power, arena);
        channel->mic = arena_floats(arena, block);
        channel->echo = arena_floats(arena, block);
        channel->error = arena_floats(arena, block);
        channel->error_history = arena_floats(arena, 2 * block);
        channel->echo_history = arena_floats(arena, 2 * block);
        channel->overlap = arena_floats(arena, block / 2);
    }
    apm->fifo = arena_take(arena, sizeof(int16_t) * FAR_RING_BLOCKS * block);
    resampler_init(&apm->gap.resampler, hop, arena);
    apm->gap.samples = arena_floats(arena, 2 * block);
    apm->far = arena_floats(arena, block);
    apm->block = arena_floats(arena, 2 * block);
    apm->re = arena_floats(arena, stride);
    apm->im = arena_floats(arena, stride);
    apm->error_power = arena_floats(arena, stride);
    apm->echo_re = arena_floats(arena, stride);
    apm->echo_im = arena_floats(arena, stride);
    apm->echo_power = arena_floats(arena, stride);
    apm->cross = arena_floats(arena, stride);
    apm->far_power = arena_floats(arena, stride);
    apm->silence = arena_floats(arena, stride);
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

static void start_high_pass(apm_t *apm, high_pass_t *high_pass)
{
    hpf_init(&high_pass->hpf, apm->rate_hz, apm->config.high_pass_hz);
    high_pass->share = apm->config.high_pass_filter ? 1.0f : 0.0f;
}

void apm_reset(apm_t *apm)
{
    const size_t block = sizeof(float) * (size_t)apm->hop;
    reference_reset(&apm->reference);
    reference_reset(&apm->heard);
    delay_reset(&apm->delay);
    resampler_reset(&apm->resampler);
    drift_init(&apm->drift, apm->hop);
    jump_reset(&apm->jump);
    apm->jump_samples = 0;
    saturation_reset(&apm->saturation);
    agc_init(&apm->agc);
    limiter_reset(&apm->limiter);
    ns_level_reset(&apm->level);
    start_high_pass(apm, &apm->far_high_pass);
    for (int c = 0; c < apm->channels; c++) {
        channel_t *channel = &apm->channel[c];
        start_high_pass(apm, &channel->high_pass);
        for (int stage = 0; stage < 2; stage++)
            hpf_init(&channel->level_high_pass[stage], apm->rate_hz, LEVEL_HIGH_PASS_HZ);
        aec_reset(&channel->aec);
        residual_reset(&channel->residual);
        ns_reset(&channel->ns);
        mask_reset(&channel->mask);
        channel->speech_probability = channel->spoken = 0.0f;
        memset(channel->error_history, 0, 2 * block);
        memset(channel->echo_history, 0, 2 * block);
        memset(channel->overlap, 0, block / 2);
        channel->cancel_share = 0.0f;
        channel->doubted_blocks = NOT_DOUBTED;
    }
    apm->fifo_first = apm->fifo_count = apm->fifo_watched_blocks = apm->fifo_came_blocks = 0;
    apm->started = apm->restored = apm->far_speaks = 0;
    apm->fifo_lowest = FAR_FIFO_BLOCKS;
    apm->burst_blocks = apm->least_burst_blocks = 0;
    apm->gap.kind = GAP_CLOSED;
    apm->hint_blocks = apm->believed_blocks = -1;
    apm->measured = 0;
    apm->far_age_blocks = apm->clip_age_blocks = BLOCKS_PER_S;
    memset(&apm->figures, 0, sizeof apm->figures);
    memset(&apm->spell, 0, sizeof apm->spell);
    apm->spell_blocks = 0;
    apm->echo_age_blocks = BLOCKS_PER_S;
    apm_configure(apm, &apm->config);
}

/* Largest attenuation of noise that is asked for now. */
static float attenuation_db(const apm_t *apm)
{
    const apm_noise_t wanted = apm->config.noise_suppression;
    if (wanted == APM_NOISE_KEPT)
        return 0.0f;
    return NS_LEVEL_DB[wanted == APM_NOISE_AUTO ? apm->level.level : (int)(wanted - APM_NOISE_LOW)];
}

static void set_attenuation(apm_t *apm)
{
    for (int c = 0; c < apm->channels; c++)
        ns_configure(&apm->channel[c].ns, attenuation_db(apm));
}

void apm_configure(apm_t *apm, const apm_config_t *config)
{
    apm->config = *config;
    set_attenuation(apm);
    agc_configure(&apm->agc, config->gain_target_dbfs, config->gain_max_db);
    limiter_configure(&apm->limiter, config->headroom_db);
    hpf_configure(&apm->far_high_pass.hpf, apm->rate_hz, config->high_pass_hz);
    for (int c = 0; c < apm->channels; c++)
        hpf_configure(&apm->channel[c].high_pass.hpf, apm->rate_hz, config->high_pass_hz);
}

void apm_set_delay_hint(apm_t *apm, int delay_ms) { apm->hint_blocks = delay_ms / (1000 / BLOCKS_PER_S); }

/* One channel of interleaved frames, and back. `step` is known where these are inlined for mono: then they
 * are loops over vectors. */
static inline void from_frames(int count, const int16_t *restrict frames, int step, float *restrict out)
{
    for (int i = 0; i < count; i++)
        out[i] = (float)frames[i * step] * (1.0f / 32768.0f);
}

static inline void to_frames(int count, const float *restrict x, int16_t *restrict frames, int step)
{
    for (int i = 0; i < count; i++)
        frames[i * step] = nearest_int16(lesser(greater(x[i] * 32768.0f, -32768.0f), 32767.0f));
}

static void take_channel(int count, const int16_t *frames, int channels, float *out)
{
    if (channels == 1)
        from_frames(count, frames, 1, out);
    else
        from_frames(count, frames, channels, out);
}

static void give_channel(int count, const float *x, int16_t *frames, int channels)
{
    if (channels == 1)
        to_frames(count, x, frames, 1);
    else
        to_frames(count, x, frames, channels);
}

void apm_render(apm_t *apm, const int16_t *frames, int channels)
{
    if (apm->fifo_count == FAR_FIFO_BLOCKS) { /* nobody reads the microphone: the oldest block is lost */
        apm->fifo_first = (apm->fifo_first + 1) % FAR_RING_BLOCKS;
        apm->fifo_count--;
        apm->gap.kind = GAP_CLOSED; /* a number is missing */
    }
    const int place = (apm->fifo_first + apm->fifo_count) % FAR_RING_BLOCKS;
    int16_t *block = apm->fifo + (size_t)place * (size_t)apm->hop;
    if (channels == 1)
        memcpy(block, frames, sizeof *block * (size_t)apm->hop);
    for (int i = 0; i < apm->hop && channels > 1; i++) {
        int sum = 0;
        for (int c = 0; c < channels; c++)
            sum += frames[i * channels + c];
        block[i] = (int16_t)lrintf((float)sum / (float)channels);
    }
    apm->fifo_count++;
    apm->burst_blocks += apm->burst_blocks < FAR_FIFO_BLOCKS;
}

/* share: in and out of a stage over one block, so that switching it does not click. */
static float fade(float from, float to, int i, int count)
{
    return from + (to - from) * (float)(i + 1) / (float)count;
}

static void take_low_away(apm_t *apm, high_pass_t *high_pass, float *x)
{
    const float from = high_pass->share, to = apm->config.high_pass_filter ? 1.0f : 0.0f;
    const int mixed = from < 1.0f || to < 1.0f;
    if (mixed)
        memcpy(apm->block, x, sizeof(float) * (size_t)apm->hop);
    hpf_process(&high_pass->hpf, x, apm->hop); /* always: its registers stay true for the next switch */
    for (int i = 0; i < apm->hop && mixed; i++)
        x[i] = apm->block[i] + fade(from, to, i, apm->hop) * (x[i] - apm->block[i]);
    high_pass->share = to;
}

static float mean_square(const float *x, int count) { return kernels()->dot(count, x, x) / (float)count; }

/* A far-end block, silence where frames is NULL, read onto the microphone's clock, becomes lag 0 of the
 * reference. Returns how many blocks it gave. */
static int push_far(apm_t *apm, const int16_t *frames)
{
    if (frames)
        take_channel(apm->hop, frames, 1, apm->far);
    else
        memset(apm->far, 0, sizeof(float) * (size_t)apm->hop);
    if (mean_square(apm->far, apm->hop) > FAR_PRESENT_POWER)
        apm->far_age_blocks = 0;
    else if (apm->far_age_blocks < BLOCKS_PER_S)
        apm->far_age_blocks++;
    saturation_process(&apm->saturation, apm->far, apm->hop);
    take_low_away(apm, &apm->far_high_pass, apm->far);
    const int blocks = resampler_process(&apm->resampler, apm->far, apm->block);
    for (int b = 0; b < blocks; b++) {
        reference_push(&apm->reference, &apm->fft, apm->block + b * apm->hop);
        const int at = reference_at(&apm->reference, 0);
        delay_push(&apm->delay, apm->reference.re + at, apm->reference.im + at);
    }
    return blocks;
}

/* The block that waits at `place` in the FIFO; before it, at negative places, those that were taken last. */
static const int16_t *far_frames(const apm_t *apm, int place)
{
    const int at = (apm->fifo_first + place + FAR_RING_BLOCKS) % FAR_RING_BLOCKS;
    return apm->fifo + (size_t)at * (size_t)apm->hop;
}

/* The far end's side of the chain, so that it may go on from here once more. */
static void start_gap(apm_t *apm)
{
    gap_t *gap = &apm->gap;
    gap->since = gap->pushed = 0;
    gap->high_pass = apm->far_high_pass;
    resampler_copy(&apm->resampler, &gap->resampler);
    memcpy(gap->samples, apm->reference.samples, sizeof(float) * 2 * (size_t)apm->hop);
}

/* As if nothing had been pushed since start_gap(). */
static void undo_gap(apm_t *apm)
{
    const gap_t *gap = &apm->gap;
    reference_rewind(&apm->reference, gap->pushed, gap->samples);
    delay_rewind(&apm->delay, gap->pushed);
    resampler_copy(&gap->resampler, &apm->resampler);
    apm->far_high_pass = gap->high_pass;
}

static void drop_oldest(apm_t *apm, int blocks)
{
    apm->fifo_first = (apm->fifo_first + blocks) % FAR_RING_BLOCKS;
    apm->fifo_count -= blocks;
}

/* The next far-end block, silence when none came. Returns how many reference blocks it gave. */
static int take_far(apm_t *apm)
{
    gap_t *gap = &apm->gap;
    const int came = apm->fifo_count > 0;
    if (!came && gap->kind == GAP_CLOSED && apm->least_burst_blocks > 0) {
        gap->kind = GAP_PAUSE;
        gap->silent = gap->settled = 0;
        start_gap(apm);
    }
    const int blocks = push_far(apm, came ? far_frames(apm, 0) : NULL);
    drop_oldest(apm, came);
    gap->pushed += blocks;
    gap->since += came;
    gap->silent += !came;
    gap->settled += came;
    if (gap->silent > LATEST_BLOCKS || (gap->kind == GAP_PAUSE && gap->since > SETTLED_BLOCKS))
        gap->kind = GAP_CLOSED;
    return blocks;
}

/* Far-end blocks and microphone blocks are out of step by `blocks`: every lag moves with them. */
static void slip(apm_t *apm, int blocks)
{
    const int step = blocks < 0 ? -1 : 1;
    for (; blocks != 0; blocks -= step) {
        delay_slip(&apm->delay, step);
        for (int c = 0; c < apm->channels; c++)
            aec_slip(&apm->channel[c].aec, step, LATEST_WINDOW);
        if (apm->believed_blocks >= 0 && apm->believed_blocks + step >= 0 &&
            apm->believed_blocks + step < DELAY_LAGS)
            apm->believed_blocks += step;
    }
}

/* Far-end blocks beyond the one that belongs to this microphone block are not the future but a past that came
 * late: callers begin with the far end, or lose microphone blocks. They move into the reference, and every
 * lag grows with them. */
static void catch_up(apm_t *apm, int blocks)
{
    for (; blocks > 0; blocks--)
        slip(apm, take_far(apm));
}

static int least(int a, int b) { return a < b ? a : b; }

/* A caller's bursts: the fewest blocks fall at once and rise by one with each burst: a late thread is no
 * habit. */
static void follow_bursts(apm_t *apm)
{
    const int burst = apm->burst_blocks, before = apm->least_burst_blocks;
    if (burst > 0)
        apm->least_burst_blocks = before > 0 ? least(before + 1, burst) : burst;
    apm->fifo_came_blocks += apm->burst_blocks;
    apm->burst_blocks = 0;
}

/* What waits moves to the start of the gap, and what came since the gap with it. */
static void fill_gap(apm_t *apm)
{
    gap_t *gap = &apm->gap;
    const int before = gap->pushed, late = least(apm->fifo_count, gap->silent);
    int pushed = 0;
    undo_gap(apm);
    for (int place = -gap->since; place < late; place++)
        pushed += push_far(apm, far_frames(apm, place));
    gap->kind = late < gap->silent ? GAP_LATE : GAP_CLOSED;
    gap->silent -= late;
    gap->settled = late > 1 ? 0 : gap->settled + 1;
    drop_oldest(apm, late);
    start_gap(apm);
    for (int b = 0; b < gap->silent; b++)
        gap->pushed += push_far(apm, NULL);
    slip(apm, pushed + gap->pushed - before);
}

/* The far end paused, and what came since was not late. */
static void end_pause(apm_t *apm)
{
    gap_t *gap = &apm->gap;
    undo_gap(apm);
    slip(apm, gap->silent - gap->pushed);
    gap->kind = GAP_CLOSED;
}

/* More blocks than the caller's bursts have are late, and so is what follows until the gap is full. */
static void mind_gap(apm_t *apm)
{
    const gap_t *gap = &apm->gap;
    if (gap->kind == GAP_LATE && gap->settled > SETTLED_BLOCKS && apm->fifo_count > 0)
        end_pause(apm);
    else if (gap->kind != GAP_CLOSED &&
             apm->fifo_count > (gap->kind == GAP_LATE ? 0 : apm->least_burst_blocks))
        fill_gap(apm);
}

static void place_cancellers(apm_t *apm)
{
    const int measured = apm->delay.best >= 0, before = apm->believed_blocks;
    const int believed = measured ? apm->delay.best : apm->hint_blocks;
    /* a delay between two blocks, or with a strong reflection, may be measured as either, and as another one
     * while a talker is heard: the headroom has room for both */
    const int tolerance = measured && apm->measured ? HEADROOM_BLOCKS : 0;
    if (believed < 0 || (measured == apm->measured && abs(believed - before) <= tolerance))
        return;
    const int window = believed > HEADROOM_BLOCKS ? believed - HEADROOM_BLOCKS : 0;
    for (int c = 0; c < apm->channels; c++) {
        aec_t *aec = &apm->channel[c].aec;
        /* did the echo move, or was it always there and only now found? what was learned tells */
        const int learned = aec_peak_blocks(aec);
        if (abs(learned - before) < abs(learned - believed))
            aec_follow_delay(aec, window);
        else
            aec_set_delay(aec, window);
    }
    apm->believed_blocks = believed;
    apm->measured = measured;
}

/* Far-end side of a block: spectra, delay, and where the cancellers listen. */
static void follow_far(apm_t *apm)
{
    while (!apm->started && apm->restored && apm->fifo_count > 1)
        take_far(apm); /* the restored lags have grown with blocks like these */
    if (!apm->started)
        catch_up(apm, apm->fifo_count - 1);
    apm->started = 1;
    mind_gap(apm);
    follow_bursts(apm);
    slip(apm, take_far(apm) - 1);
    if (apm->fifo_count < apm->fifo_lowest)
        apm->fifo_lowest = apm->fifo_count;
    if (++apm->fifo_watched_blocks == FIFO_WATCH_BLOCKS) {
        if (apm->fifo_came_blocks >= FIFO_WATCH_BLOCKS) /* no microphone that makes up for being late */
            catch_up(apm, apm->fifo_lowest);
        apm->fifo_lowest = FAR_FIFO_BLOCKS;
        apm->fifo_watched_blocks = apm->fifo_came_blocks = 0;
    }
    if (!apm->config.echo_cancellation)
        return;

    for (int i = 0; i < apm->hop; i++) {
        float sum = 0.0f;
        for (int c = 0; c < apm->channels; c++)
            sum += apm->channel[c].mic[i];
        apm->block[i] = sum / (float)apm->channels;
    }
    reference_push(&apm->heard, &apm->fft, apm->block);
    const int mic_at = reference_at(&apm->heard, 0);
    delay_process(&apm->delay, apm->heard.re + mic_at, apm->heard.im + mic_at);
    place_cancellers(apm);
}

static void append(float *history, const float *block, int hop)
{
    memcpy(history, history + hop, sizeof(float) * (size_t)hop);
    memcpy(history + hop, block, sizeof(float) * (size_t)hop);
}

/* Whether far-end blocks that may be late are in the filter's window: what is heard may be their echo. */
static int lacks_far(const apm_t *apm, const aec_t *aec)
{
    const gap_t *gap = &apm->gap;
    return apm->measured && gap->kind != GAP_CLOSED && gap->since + gap->silent > aec->delay_blocks;
}

/* channel->error = mic less the part of the echo estimate that is let through, channel->echo = that part. */
static void cancel(apm_t *apm, channel_t *channel)
{
    const int hop = apm->hop;
    float from = channel->cancel_share, to = 0.0f, next = 0.0f;
    if (apm->config.echo_cancellation || from > 0.0f) {
        /* the vote, and what the network said if it was asked: where both are nearly sure, to the power of 4.
         * Until an echo was found, what the filter believes may be no echo, and is to go soon */
        const float near = channel->ns.speech_probability * channel->speech_probability,
                    speaks = apm->measured ? near * near : 0.0f;
        aec_t *aec = &channel->aec;
        const aec_block_t block = {&apm->reference, &apm->fft, channel->mic, channel->echo, channel->error};
        aec_predict(aec, &block);
        const int lacks = lacks_far(apm, aec);
        if (channel == apm->channel && apm->measured && !lacks)
            apm->jump_samples = jump_process(
                &apm->jump, &apm->fft, &(jump_input_t){channel->mic, channel->echo, aec->kalman.near_power});
        if (!lacks && apm->jump.searched_blocks > 0)
            aec_observe(aec, &block);
        else if (!lacks)
            aec_learn(aec, &block, speaks);
        /* an estimate that adds power is worse than none: it waits until it helps */
        const float error = mean_square(channel->error, hop), mic = mean_square(channel->mic, hop);
        if (error > HARMFUL * mic)
            from = 0.0f; /* no fade: all of it would be heard */
        if (apm->config.echo_cancellation && error <= WORTH_IT * mic)
            /* until an echo is found, the estimate must prove itself */
            to = apm->measured ? 1.0f : aec_confidence(&channel->aec);
        /* silence refutes nothing: the echo paused, too */
        next = apm->config.echo_cancellation && mic < TINY_POWER ? channel->cancel_share : to;
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

/* Power of the far end at the echo's delay, silence while that is unknown. */
static const float *far_power(apm_t *apm, const channel_t *channel)
{
    if (!apm->measured)
        return apm->silence;
    const int at = reference_at(&apm->reference, channel->aec.delay_blocks + HEADROOM_BLOCKS);
    kernels()->power(apm->stride, apm->reference.re + at, apm->reference.im + at, apm->far_power);
    return apm->far_power;
}

/* What the network is told of the block: of what plays, only while its echo is there to be heard. */
static mask_input_t hear(const apm_t *apm, const channel_t *channel, const float *far, const float *residual)
{
    const int playing = apm->config.echo_cancellation && apm->far_age_blocks < BLOCKS_PER_S && apm->measured;
    const float *silence = apm->silence;
    if (!playing || channel->residual.confidence <= BELIEVED)
        return (mask_input_t){apm->error_power, silence, silence, residual, channel->ns.noise, silence};
    return (mask_input_t){apm->error_power, apm->echo_power, apm->cross, residual, channel->ns.noise, far};
}

/* A far end that was given less than the longest delay ago may come as an echo; once the delay is known,
 * one that did less than a second ago. */
static int echo_may_be_there(const apm_t *apm)
{
    const int found = apm->config.echo_cancellation && apm->measured;
    return (found ? apm->echo_age_blocks : apm->far_age_blocks) < BLOCKS_PER_S;
}

static void suppress(apm_t *apm, channel_t *channel)
{
    const int n = apm->stride;
    const float *residual = apm->silence, *far = apm->silence;
    stft_analyse(&apm->stft, &apm->fft, channel->error_history, apm->re, apm->im);
    kernels()->power(n, apm->re, apm->im, apm->error_power);
    if (apm->config.echo_cancellation) {
        stft_analyse(&apm->stft, &apm->fft, channel->echo_history, apm->echo_re, apm->echo_im);
        kernels()->power(n, apm->echo_re, apm->echo_im, apm->echo_power);
        kernels()->cross(n, apm->re, apm->im, apm->echo_re, apm->echo_im, apm->cross);
        far = far_power(apm, channel);
        const residual_input_t input = {
            apm->error_power, apm->echo_power, apm->cross, channel->ns.noise, far, apm->jump.evidence};
        residual_process(&channel->residual, &input);
        residual = channel->residual.power;
    }
    ns_track(&channel->ns, apm->error_power, residual);
    channel->speech_probability = channel->ns.speech_probability;
    const int suppresses = apm->config.noise_suppression != APM_NOISE_KEPT,
              learned = apm->config.learned_gain && suppresses;
    /* the gain control, too, wants to know who speaks */
    if (learned || (apm->config.learned_gain && apm->config.auto_gain_control)) {
        const mask_input_t heard = hear(apm, channel, far, residual);
        mask_process(&channel->mask, &heard);
        channel->speech_probability = channel->mask.speech_probability;
    }
    channel->spoken = fmaxf(channel->speech_probability, SPOKEN_DECAY * channel->spoken);
    const ns_mask_t mask = {channel->mask.speech, channel->mask.rest, channel->mask.speech_probability};
    /* no echo, nothing to be trusted with */
    const float trust = apm->echo_age_blocks < BLOCKS_PER_S ? channel->residual.convergence : 0.0f;
    const ns_input_t input = {
        .re = apm->re,
        .im = apm->im,
        .power = apm->error_power,
        .echo = residual,
        .mask = learned ? &mask : NULL,
        .canceller_confidence = trust,
        .echo_confidence = echo_may_be_there(apm) ? 0.0f : 1.0f,
    };
    ns_suppress(&channel->ns, &input);
    stft_synthesise(&apm->stft, &apm->fft, apm->re, apm->im, channel->overlap, channel->mic);
}

static int converged(const apm_t *apm)
{
    return apm->figures.mic + TINY_POWER > CONVERGED * (apm->figures.error + TINY_POWER);
}

static void average(float *state, float now) { *state += FIGURE_RATE * (now - *state); }

/* What of near-end speech was overheard nevertheless must not drown what is left of an echo. */
static float let_in(const figures_t *figures, const figures_t *spell, float usual, float now)
{
    return figures->mic > 0.0f ? lesser(now, UNUSUAL * spell->mic * usual / figures->mic + TINY_POWER) : now;
}

/* A spell of far end alone counts. */
static void take_spell(figures_t *figures, const figures_t *spell)
{
    average(&figures->error, let_in(figures, spell, figures->error, spell->error));
    average(&figures->out, let_in(figures, spell, figures->out, spell->out));
    average(&figures->far, spell->far);
    average(&figures->echo, spell->echo);
    average(&figures->mic, spell->mic);
}

/* Mean square of the far end at the echo's delay. */
static float far_loudness(const apm_t *apm)
{
    const int at = reference_at(&apm->reference, apm->channel[0].aec.delay_blocks + HEADROOM_BLOCKS),
              n = apm->stride;
    const float *re = apm->reference.re + at, *im = apm->reference.im + at;
    const float energy = kernels()->dot(n, re, re) + kernels()->dot(n, im, im);
    /* Parseval: bins 0..hop hold half the energy of 2*hop samples */
    return energy / (float)(2 * apm->hop * apm->hop);
}

/* far: its loudness; mic_power: of the block before the chain changed it. */
static void take_figures(apm_t *apm, float far, float mic_power)
{
    const channel_t *channel = &apm->channel[0];
    apm->far_speaks = apm->config.echo_cancellation && far > FAR_PRESENT_POWER;
    const float error = mean_square(channel->error, apm->hop);
    /* what the canceller takes as much of as usual is no near end, even if the suppressor takes the rest
     * for speech */
    const int as_usual = error * apm->figures.mic <= AS_USUAL * apm->figures.error * mic_power;
    if (channel->speech_probability > NEAR_QUIET && !as_usual) {
        memset(&apm->spell, 0, sizeof apm->spell);
        apm->spell_blocks = -NEAR_ENDS_BLOCKS;
    } else if (apm->far_speaks && ++apm->spell_blocks > 0) {
        figures_t *spell = &apm->spell;
        spell->far += far;
        spell->echo += mean_square(channel->echo, apm->hop);
        spell->mic += mic_power;
        spell->error += error;
        spell->out += mean_square(channel->mic, apm->hop);
        if (apm->spell_blocks == FIGURE_BLOCKS) {
            take_spell(&apm->figures, spell);
            memset(spell, 0, sizeof *spell);
            apm->spell_blocks = 0;
        }
    }
}

/* One level of suppression for all channels, told by the first. */
static void follow_level(apm_t *apm)
{
    const ns_t *ns = &apm->channel[0].ns;
    const int before = apm->level.level;
    ns_level_process(&apm->level, ns->bands.input_power, ns->bands.noise_power, ns->bands.echo_power,
                     apm->channel[0].speech_probability);
    if (apm->level.level != before)
        set_attenuation(apm);
}

/* Whether what is heard now may be the far end's voice, for whatever would be learned from a talker here. */
static int may_be_echo(apm_t *apm)
{
    const ns_t *ns = &apm->channel[0].ns;
    apm->echo_age_blocks = apm->far_speaks ? 0 : apm->echo_age_blocks + (apm->echo_age_blocks < BLOCKS_PER_S);
    if (!apm->config.echo_cancellation)
        return apm->far_age_blocks < BLOCKS_PER_S;
    if (apm->echo_age_blocks >= ECHO_FADES_BLOCKS)
        return 0;
    return !converged(apm) || ns->bands.input_power < CLEAR_OF_ECHO * ns->bands.echo_power;
}

/* Every microphone hears the same loudspeaker: the first one tells. */
static void follow_jump(apm_t *apm)
{
    const int hop = apm->hop, samples = apm->jump_samples;
    if (samples == 0)
        return;
    const int blocks = samples < 0 ? -((hop - 1 - samples) / hop) : samples / hop; /* rounded down */
    slip(apm, blocks);
    for (int c = 0; c < apm->channels; c++)
        aec_delay_path(&apm->channel[c].aec, &apm->fft, samples - blocks * hop);
    apm->jump_samples = 0;
}

/* All microphones run on one clock. An echo that comes within 10 ms has no block to spare for reading the
 * far end later. */
static void follow_clock(apm_t *apm)
{
    float lag_sum = 0.0f, information = 0.0f;
    for (int c = 0; c < apm->channels && apm->config.echo_cancellation && apm->measured; c++) {
        lag_sum += apm->channel[c].aec.lag_sum;
        information += apm->channel[c].aec.lag_information;
    }
    const aec_t *aec = &apm->channel[0].aec;
    const float reduction = (aec->mic_energy + TINY_POWER) / (aec->kalman.error_energy + TINY_POWER);
    apm->resampler.slide = drift_process(&apm->drift, lag_sum, information, reduction);
    if (apm->drift.steering && !apm->resampler.started)
        resampler_start(&apm->resampler, apm->believed_blocks > 0);
}

/* Every microphone hears the same loudspeaker: the first one tells. */
static void follow_loudspeaker(apm_t *apm, float far)
{
    const aec_t *aec = &apm->channel[0].aec;
    if (apm->far_speaks && apm->measured)
        saturation_learn(&apm->saturation, far, aec->block_power, aec->block_cross);
}

/* A restored echo path may be another room's, or forged. One that is far too strong is hardly unlearned, for
 * its error is taken for a loud near end: if it adds power for a second of far-end sound before it has
 * reduced the echo by 10 dB, it is reset. */
static void doubt_restored_path(const apm_t *apm, channel_t *channel)
{
    aec_t *aec = &channel->aec;
    if (channel->doubted_blocks == NOT_DOUBTED || !apm->far_speaks)
        return;
    if (aec->kalman.error_energy > WORTH_IT * aec->mic_energy)
        channel->doubted_blocks++;
    else if (channel->doubted_blocks > 0)
        channel->doubted_blocks--;
    const int helped = CONVERGED * aec->kalman.error_energy < aec->mic_energy;
    const int harmed = channel->doubted_blocks == BLOCKS_PER_S;
    if (harmed) {
        const int window = aec->delay_blocks, divergences = aec->divergences;
        aec_reset(aec);
        aec_follow_delay(aec, window);
        aec->divergences = divergences;
    }
    if (helped || harmed)
        channel->doubted_blocks = NOT_DOUBTED;
}

/* Mean square of all channels without DC and rumble, whether or not the signal holds them. */
static float voice_power(apm_t *apm)
{
    float power = 0.0f;
    for (int c = 0; c < apm->channels; c++) {
        channel_t *channel = &apm->channel[c];
        memcpy(apm->block, channel->mic, sizeof(float) * (size_t)apm->hop);
        for (int stage = 0; stage < 2; stage++)
            hpf_process(&channel->level_high_pass[stage], apm->block, apm->hop);
        power += mean_square(apm->block, apm->hop);
    }
    return power / (float)apm->channels;
}

void apm_capture(apm_t *apm, int16_t *frames)
{
    const int hop = apm->hop, channels = apm->channels;
    float *out[APM_MAX_CHANNELS];
    int clipped = 0;
    for (int i = 0; i < hop * channels; i++)
        clipped |= (frames[i] == INT16_MAX) | (frames[i] == INT16_MIN);
    for (int c = 0; c < channels; c++) {
        channel_t *channel = &apm->channel[c];
        take_channel(hop, frames + c, channels, channel->mic);
        take_low_away(apm, &channel->high_pass, channel->mic);
        out[c] = channel->mic;
    }
    if (clipped)
        apm->clip_age_blocks = 0;
    else if (apm->clip_age_blocks < BLOCKS_PER_S)
        apm->clip_age_blocks++;

    follow_far(apm);
    const float mic_power = mean_square(apm->channel[0].mic, hop);
    float speech = 0.0f;
    for (int c = 0; c < channels; c++) {
        cancel(apm, &apm->channel[c]);
        suppress(apm, &apm->channel[c]);
        doubt_restored_path(apm, &apm->channel[c]);
        speech = fmaxf(speech, apm->channel[c].speech_probability);
    }
    follow_jump(apm);
    follow_level(apm);
    follow_clock(apm);
    const float far = far_loudness(apm);
    take_figures(apm, far, mic_power);
    follow_loudspeaker(apm, far);
    const float near_speech = may_be_echo(apm) ? 0.0f : speech;
    agc_process(&apm->agc, out, channels, hop, voice_power(apm), near_speech, apm->config.auto_gain_control);
    limiter_process(&apm->limiter, out, hop);
    for (int c = 0; c < channels; c++)
        give_channel(hop, out[c], frames + c, channels);
}

static float ratio_db(float over, float under)
{
    return 10.0f * log10f((over + TINY_POWER) / (under + TINY_POWER));
}

void apm_stats(const apm_t *apm, apm_stats_t *stats)
{
    const channel_t *channel = &apm->channel[0];
    const figures_t *figures = &apm->figures;
    float noise = 0.0f;
    for (int k = 0; k <= apm->hop; k++)
        noise += channel->ns.noise[k];
    stats->erle_db = ratio_db(figures->mic, figures->out);
    stats->erl_db = ratio_db(figures->far, figures->echo);
    stats->delay_ms = -1.0f;
    if (apm->delay.best >= 0)
        stats->delay_ms = 1000.0f / BLOCKS_PER_S *
                          ((float)apm->delay.best + (float)apm->resampler.unread / (float)apm->hop);
    stats->delay_confidence = apm->delay.confidence;
    stats->drift_ppm = drift_ppm(&apm->drift);
    stats->speech_probability = channel->speech_probability;
    stats->noise_floor_dbfs = 10.0f *
                              log10f(noise / ((float)(apm->hop + 1) * channel->ns.window_power) + TINY_POWER);
    stats->snr_db = apm->level.snr_db;
    stats->noise_suppression_db = attenuation_db(apm);
    stats->agc_gain_db = agc_gain_db(&apm->agc);
    stats->converged = converged(apm);
    stats->double_talk = apm->far_speaks && channel->spoken > NEAR_SPEAKS;
    stats->reference_present = apm->far_age_blocks < BLOCKS_PER_S;
    stats->divergences = channel->aec.divergences;
    stats->microphone_too_quiet = agc_out_of_reach(&apm->agc);
    stats->microphone_clipping = apm->clip_age_blocks < BLOCKS_PER_S;
}

/* What is worth keeping, by stage. Not the leakage: a card may start a sample earlier than it did, and while
 * that is learned, "all leaks" is the safe assumption. */
static void keep(apm_t *apm, tape_t *tape)
{
    delay_keep(&apm->delay, tape);
    drift_keep(&apm->drift, tape);
    saturation_keep(&apm->saturation, tape);
    resampler_keep(&apm->resampler, tape);
    tape_int(tape, &apm->believed_blocks, -1, DELAY_LAGS - 1);
    tape_int(tape, &apm->measured, 0, 1);
    for (int c = 0; c < apm->channels; c++) {
        aec_keep(&apm->channel[c].aec, LATEST_WINDOW, tape);
        ns_keep(&apm->channel[c].ns, tape);
    }
    agc_keep(&apm->agc, tape);
}

/* After all values are restored: what depends on several of them. */
static void take_up(apm_t *apm)
{
    apm->restored = 1;
    apm->gap.kind = GAP_CLOSED; /* what was before it is not what was restored */
    for (int c = 0; c < apm->channels; c++) {
        channel_t *channel = &apm->channel[c];
        const int behind = apm->believed_blocks - channel->aec.delay_blocks;
        if (behind < 0 || behind >= PARTITIONS) /* forged: the window misses the echo and is placed anew */
            apm->believed_blocks = -1;
        channel->doubted_blocks = 0;
    }
    if (apm->believed_blocks < 0)
        apm->measured = 0;
}

enum { STATE_VERSION = 2 }; /* rises when a value changes its meaning but not its place */

/* A state: this, then the tape. */
typedef struct {
    char magic[8];
    uint32_t crc; /* of all that follows it */
    uint32_t layout;
    int32_t rate_hz, channels;
} header_t;

static const char STATE_MAGIC[8] = "apmpi\r\n\x1a"; /* like PNG's: what a text conversion would change */

static tape_t measured_tape(apm_t *apm)
{
    tape_t tape = {TAPE_MEASURE, NULL, 0, 2166136261u ^ STATE_VERSION, 0}; /* FNV's offset basis */
    keep(apm, &tape);
    return tape;
}

/* The list once more, over the bytes behind the header; how many values were odd. */
static int run_tape(apm_t *apm, tape_mode_t mode, unsigned char *state)
{
    tape_t tape = {mode, state + sizeof(header_t), 0, 0, 0};
    keep(apm, &tape);
    return tape.odd;
}

size_t apm_state_size(apm_t *apm) { return sizeof(header_t) + measured_tape(apm).used; }

void apm_save(apm_t *apm, unsigned char *state)
{
    header_t header = {{0}, 0, measured_tape(apm).layout, apm->rate_hz, apm->channels};
    memcpy(header.magic, STATE_MAGIC, sizeof header.magic);
    memcpy(state, &header, sizeof header);
    run_tape(apm, TAPE_RECORD, state);
}

static uint32_t crc_of(const unsigned char *state, size_t bytes)
{
    const size_t skipped = offsetof(header_t, layout);
    return tape_crc(state + skipped, bytes - skipped);
}

void apm_seal(unsigned char *state, size_t bytes)
{
    const uint32_t crc = crc_of(state, bytes);
    memcpy(state + offsetof(header_t, crc), &crc, sizeof crc);
}

/* Copies the header out; 0 if there is none. */
static int read_header(const unsigned char *state, size_t bytes, header_t *header)
{
    if (bytes < sizeof *header)
        return 0;
    memcpy(header, state, sizeof *header);
    return memcmp(header->magic, STATE_MAGIC, sizeof header->magic) == 0;
}

void apm_state_shape(const unsigned char *state, size_t bytes, int *rate_hz, int *channels)
{
    header_t header;
    const int known = read_header(state, bytes, &header);
    *rate_hz = known ? header.rate_hz : 0;
    *channels = known ? header.channels : 0;
}

apm_state_t apm_restore(apm_t *apm, const unsigned char *state, size_t bytes)
{
    header_t header;
    const tape_t tape = measured_tape(apm);
    if (!read_header(state, bytes, &header))
        return APM_STATE_FOREIGN;
    if (crc_of(state, bytes) != header.crc)
        return APM_STATE_DAMAGED;
    if (header.rate_hz != apm->rate_hz || header.channels != apm->channels)
        return APM_STATE_SHAPE;
    if (header.layout != tape.layout || bytes != sizeof header + tape.used)
        return APM_STATE_LAYOUT;
    unsigned char *read_only = (unsigned char *)state; /* neither mode writes there */
    if (run_tape(apm, TAPE_CHECK, read_only))
        return APM_STATE_ODD;
    run_tape(apm, TAPE_PLAY, read_only);
    take_up(apm);
    return APM_STATE_GOOD;
}

int apm_latency_samples(int rate_hz)
{
    return stft_latency_samples(rate_hz / BLOCKS_PER_S) + limiter_latency_samples(rate_hz);
}
