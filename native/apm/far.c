#include "apm/far.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apm/block.h"

enum {
    FIFO_WATCH_BLOCKS = 50, /* 0.5 s: longer than the period of any caller's bursts */
    /* blocks that may wait for the microphone, more than FIFO_WATCH_BLOCKS: callers come in bursts */
    FIFO_BLOCKS = 56,
    /* 0.3 s: a far end that stays away longer has paused; threads are seldom late by 0.2 s */
    LATEST_BLOCKS = 30,
    SETTLED_BLOCKS = 20, /* 0.2 s: after so many blocks of which none was late, the far end had paused */
    FIFO_RING_BLOCKS = FIFO_BLOCKS + SETTLED_BLOCKS, /* blocks behind the gap may be read a second time */
};

/* Power of the side over that of the loudspeakers up to which it counts as silent: -60 dB, below what a
 * canceller leaves. Dither and lossy codecs make channels differ by as little. */
static const float LEAST_SIDE = 1e-6f;

void far_init(far_t *far, int rate_hz, int references, arena_t *arena)
{
    const int hop = rate_hz / BLOCKS_PER_S;
    const size_t block = (size_t)hop;
    far->hop = hop;
    far->references = references;
    reference_init(&far->reference, hop, references, FAR_LATEST_WINDOW + FAR_PARTITIONS, arena);
    reference_init(&far->microphone, hop, 1, 1, arena);
    delay_init(&far->delay, FAR_DELAY_LAGS, arena);
    drift_init(&far->drift, hop);
    for (int r = 0; r < references; r++) {
        resampler_init(&far->resampler[r], hop, arena);
        resampler_init(&far->gap.resampler[r], hop, arena);
    }
    far->fifo = arena_take(arena, sizeof(int16_t) * FIFO_RING_BLOCKS * block * (size_t)references);
    far->block = arena_floats(arena, block * (size_t)references);
    far->gap.samples = arena_floats(arena, reference_samples(&far->reference));
    if (references > 1) {
        far->side = arena_floats(arena, 2 * block);
        far->search_re = arena_floats(arena, (size_t)far->reference.stride);
        far->search_im = arena_floats(arena, (size_t)far->reference.stride);
    }
}

void far_configure(far_t *far, int rate_hz, const apm_config_t *config)
{
    far->high_pass_filter = config->high_pass_filter;
    for (int r = 0; r < far->references; r++)
        hpf_configure(&far->high_pass[r].hpf, rate_hz, config->high_pass_hz);
}

/* The side begins anew, in silence. */
static void reset_side(far_t *far)
{
    high_pass_reset(&far->high_pass[1], far->high_pass_filter);
    resampler_reset(&far->resampler[1]);
}

void far_reset(far_t *far)
{
    pick_reset(&far->pick);
    saturation_reset(&far->saturation);
    high_pass_reset(&far->high_pass[0], far->high_pass_filter);
    resampler_reset(&far->resampler[0]);
    if (far->references > 1)
        reset_side(far);
    far->alike_blocks = FAR_ALIKE_BLOCKS;
    drift_reset(&far->drift);
    reference_reset(&far->reference);
    reference_reset(&far->microphone);
    delay_reset(&far->delay);
    far->hint_blocks = far->placed_blocks = FAR_DELAY_UNKNOWN;
    far->measured = far->started = far->restored = 0;
    far->age_blocks = BLOCKS_PER_S;
    far->fifo_first = far->fifo_count = far->fifo_watched_blocks = far->fifo_came_blocks = 0;
    far->fifo_lowest = FIFO_BLOCKS;
    far->burst_blocks = far->least_burst_blocks = 0;
    far->gap.kind = GAP_CLOSED;
}

static void drop_oldest(far_t *far, int blocks)
{
    far->fifo_first = (far->fifo_first + blocks) % FIFO_RING_BLOCKS;
    far->fifo_count -= blocks;
}

/* The block at `place` in the FIFO, 0 being the next; negative places hold those that were taken last. */
static int16_t *fifo_block(const far_t *far, int place)
{
    const int at = (far->fifo_first + place + FIFO_RING_BLOCKS) % FIFO_RING_BLOCKS;
    return far->fifo + (size_t)at * (size_t)(far->hop * far->references);
}

/* Mean of all channels. */
static void average_channels(int count, const int16_t *frames, int channels, int16_t *out)
{
    for (int i = 0; i < count; i++) {
        int sum = 0;
        for (int c = 0; c < channels; c++)
            sum += frames[i * channels + c];
        out[i] = (int16_t)lrintf((float)sum / (float)channels);
    }
}

static void copy_channel(int count, const int16_t *frames, int channels, int16_t *out)
{
    for (int i = 0; i < count; i++)
        out[i] = frames[i * channels];
}

void far_push(far_t *far, const int16_t *frames, int channels)
{
    if (far->fifo_count == FIFO_BLOCKS) { /* the microphone is not read */
        drop_oldest(far, 1);
        far->gap.kind = GAP_CLOSED; /* a number is missing */
    }
    int16_t *block = fifo_block(far, far->fifo_count);
    if (far->references > 1) {
        pick_process(&far->pick, far->hop, frames, channels);
        copy_channel(far->hop, frames + far->pick.left, channels, block);
        copy_channel(far->hop, frames + far->pick.right, channels, block + far->hop);
    } else if (channels > 1) {
        average_channels(far->hop, frames, channels, block);
    } else {
        memcpy(block, frames, sizeof *block * (size_t)far->hop);
    }
    far->fifo_count++;
    far->burst_blocks += far->burst_blocks < FIFO_BLOCKS;
}

int far_is_paired(const far_t *far) { return far->alike_blocks < FAR_ALIKE_BLOCKS; }

/* Counts the blocks without a side; power, side: mean squares of the loudspeakers and of the side. */
static void follow_side(far_t *far, float power, float side)
{
    if (side > greater(QUANTISATION_POWER, LEAST_SIDE * power))
        far->alike_blocks = 0;
    else if (power > FAR_PRESENT_POWER && far_is_paired(far) && ++far->alike_blocks == FAR_ALIKE_BLOCKS)
        reset_side(far);
}

/* Reads a block of `references` channels (silence where frames is NULL) to far->block. */
static void read_block(far_t *far, const int16_t *frames)
{
    if (frames)
        from_frames(far->hop * far->references, frames, 1, far->block);
    else
        memset(far->block, 0, sizeof(float) * (size_t)(far->hop * far->references));
}

/* Turns left and right in far->block into middle and side. The curve is each loudspeaker's own. Returns the
 * mean of their mean squares. */
static float read_pair(far_t *far)
{
    const int hop = far->hop;
    float *left = far->block, *right = far->block + hop, *side = far->side;
    for (int i = 0; i < hop; i++)
        side[i] = 0.5f * (left[i] - right[i]);
    const float power = 0.5f * (mean_square(left, hop) + mean_square(right, hop));
    follow_side(far, power, mean_square(side, hop));
    saturation_process(&far->saturation, far->block, 2 * hop);
    for (int i = 0; i < hop; i++) {
        const float middle = 0.5f * (left[i] + right[i]);
        right[i] = 0.5f * (left[i] - right[i]);
        left[i] = middle;
    }
    return power;
}

/* Gives the delay search the newest spectra of the reference. Those of two are added with the side turned by
 * 90 degrees: whatever the balance of the loudspeakers, they do not cancel, and the search does not need the
 * phase. */
static void push_search(far_t *far, int paired)
{
    const int at = reference_at(&far->reference, 0), side = at + far->reference.side;
    const float *re = far->reference.re, *im = far->reference.im;
    if (!paired) {
        delay_push(&far->delay, re + at, im + at);
        return;
    }
    for (int k = 0; k < far->reference.stride; k++) {
        far->search_re[k] = re[at + k] - im[side + k];
        far->search_im[k] = im[at + k] + re[side + k];
    }
    delay_push(&far->delay, far->search_re, far->search_im);
}

/* Passes a block (silence where frames is NULL) through the far end's stages; it becomes lag 0 of the
 * reference. Returns the number of reference blocks that this gave. */
static int enter_reference(far_t *far, workspace_t *ws, const int16_t *frames)
{
    float *middle = far->block, *side = far->block + far->hop;
    read_block(far, frames);
    const float power = far->references > 1 ? read_pair(far) : mean_square(middle, far->hop);
    if (power > FAR_PRESENT_POWER)
        far->age_blocks = 0;
    else if (far->age_blocks < BLOCKS_PER_S)
        far->age_blocks++;
    if (far->references == 1)
        saturation_process(&far->saturation, middle, far->hop);
    const int paired = far_is_paired(far);
    high_pass_process(&far->high_pass[0], ws, far->high_pass_filter, middle);
    if (paired) {
        high_pass_process(&far->high_pass[1], ws, far->high_pass_filter, side);
        resampler_follow(&far->resampler[0], &far->resampler[1]);
        resampler_process(&far->resampler[1], side, far->side);
    }
    const int blocks = resampler_process(&far->resampler[0], middle, ws->block);
    for (int b = 0; b < blocks; b++) {
        reference_push(&far->reference, &ws->fft, ws->block + b * far->hop,
                       paired ? far->side + b * far->hop : NULL);
        push_search(far, paired);
    }
    return blocks;
}

/* Keeps the state of the far end's stages, so that they can go on from here a second time. */
static void start_gap(far_t *far)
{
    far_gap_t *gap = &far->gap;
    gap->since_blocks = gap->pushed_blocks = 0;
    for (int r = 0; r < far->references; r++) {
        gap->high_pass[r] = far->high_pass[r];
        resampler_copy(&far->resampler[r], &gap->resampler[r]);
    }
    memcpy(gap->samples, far->reference.samples, sizeof(float) * reference_samples(&far->reference));
}

/* Back to the state at start_gap(). */
static void undo_gap(far_t *far)
{
    const far_gap_t *gap = &far->gap;
    reference_rewind(&far->reference, gap->pushed_blocks, gap->samples);
    delay_rewind(&far->delay, gap->pushed_blocks);
    for (int r = 0; r < far->references; r++) {
        resampler_copy(&gap->resampler[r], &far->resampler[r]);
        far->high_pass[r] = gap->high_pass[r];
    }
}

/* Takes the next block, silence if none came. Returns the number of reference blocks that it gave. */
static int take_block(far_t *far, workspace_t *ws)
{
    far_gap_t *gap = &far->gap;
    const int came = far->fifo_count > 0;
    if (!came && gap->kind == GAP_CLOSED && far->least_burst_blocks > 0) {
        gap->kind = GAP_PAUSE;
        gap->silent_blocks = gap->settled_blocks = 0;
        start_gap(far);
    }
    const int blocks = enter_reference(far, ws, came ? fifo_block(far, 0) : NULL);
    drop_oldest(far, came);
    gap->pushed_blocks += blocks;
    gap->since_blocks += came;
    gap->silent_blocks += !came;
    gap->settled_blocks += came;
    if (gap->silent_blocks > LATEST_BLOCKS || (gap->kind == GAP_PAUSE && gap->since_blocks > SETTLED_BLOCKS))
        gap->kind = GAP_CLOSED;
    return blocks;
}

void far_slip(far_t *far, int blocks)
{
    const int step = blocks < 0 ? -1 : 1;
    for (; blocks != 0; blocks -= step) {
        delay_slip(&far->delay, step);
        if (far->placed_blocks >= 0 && far->placed_blocks + step >= 0 &&
            far->placed_blocks + step < FAR_DELAY_LAGS)
            far->placed_blocks += step;
    }
}

/* Takes `blocks` blocks beyond the one that belongs to this microphone block: they are not early, they are of
 * the past. Callers begin with the far end, or lose microphone blocks. Every lag grows with them. Returns the
 * slip. */
static int catch_up(far_t *far, workspace_t *ws, int blocks)
{
    int slip = 0;
    for (; blocks > 0; blocks--)
        slip += take_block(far, ws);
    far_slip(far, slip);
    return slip;
}

static int least(int a, int b) { return a < b ? a : b; }

/* Size of a caller's bursts: the smallest falls at once and rises by one with each burst, so that a thread
 * that is late once does not raise it for long. */
static void track_bursts(far_t *far)
{
    const int burst = far->burst_blocks, before = far->least_burst_blocks;
    if (burst > 0)
        far->least_burst_blocks = before > 0 ? least(before + 1, burst) : burst;
    far->fifo_came_blocks += far->burst_blocks;
    far->burst_blocks = 0;
}

/* Late blocks: those that wait move to the start of the gap, and with them those that came since the gap.
 * Returns the slip. */
static int fill_gap(far_t *far, workspace_t *ws)
{
    far_gap_t *gap = &far->gap;
    const int before = gap->pushed_blocks, late = least(far->fifo_count, gap->silent_blocks);
    int pushed = 0;
    undo_gap(far);
    for (int place = -gap->since_blocks; place < late; place++)
        pushed += enter_reference(far, ws, fifo_block(far, place));
    gap->kind = late < gap->silent_blocks ? GAP_LATE : GAP_CLOSED;
    gap->silent_blocks -= late;
    gap->settled_blocks = late > 1 ? 0 : gap->settled_blocks + 1;
    drop_oldest(far, late);
    start_gap(far);
    for (int b = 0; b < gap->silent_blocks; b++)
        gap->pushed_blocks += enter_reference(far, ws, NULL);
    return pushed + gap->pushed_blocks - before;
}

/* The far end had paused, and the blocks that came since were not late. Returns the slip. */
static int end_pause(far_t *far)
{
    undo_gap(far);
    far->gap.kind = GAP_CLOSED;
    return far->gap.silent_blocks - far->gap.pushed_blocks;
}

/* More blocks than the caller's bursts have are late, and so are all that follow until the gap is full.
 * Returns the slip. */
static int follow_gap(far_t *far, workspace_t *ws)
{
    const far_gap_t *gap = &far->gap;
    int slip = 0;
    if (gap->kind == GAP_LATE && gap->settled_blocks > SETTLED_BLOCKS && far->fifo_count > 0)
        slip = end_pause(far);
    else if (gap->kind != GAP_CLOSED &&
             far->fifo_count > (gap->kind == GAP_LATE ? 0 : far->least_burst_blocks))
        slip = fill_gap(far, ws);
    far_slip(far, slip);
    return slip;
}

/* Blocks that waited throughout a watch are taken at its end. Returns the slip. */
static int follow_backlog(far_t *far, workspace_t *ws)
{
    int slip = 0;
    far->fifo_lowest = least(far->fifo_lowest, far->fifo_count);
    if (++far->fifo_watched_blocks == FIFO_WATCH_BLOCKS) {
        if (far->fifo_came_blocks >= FIFO_WATCH_BLOCKS) /* else a late microphone is catching up */
            slip = catch_up(far, ws, far->fifo_lowest);
        far->fifo_lowest = FIFO_BLOCKS;
        far->fifo_watched_blocks = far->fifo_came_blocks = 0;
    }
    return slip;
}

far_slips_t far_advance(far_t *far, workspace_t *ws)
{
    far_slips_t slips = {0};
    while (!far->started && far->restored && far->fifo_count > 1)
        take_block(far, ws); /* the restored lags have grown with blocks like these */
    if (!far->started)
        slips.start = catch_up(far, ws, far->fifo_count - 1);
    far->started = 1;
    slips.gap = follow_gap(far, ws);
    track_bursts(far);
    slips.block = take_block(far, ws) - 1;
    far_slip(far, slips.block);
    slips.backlog = follow_backlog(far, ws);
    return slips;
}

far_placement_t far_locate(far_t *far, const workspace_t *ws, const float *microphone)
{
    reference_push(&far->microphone, &ws->fft, microphone, NULL);
    const int at = reference_at(&far->microphone, 0);
    delay_process(&far->delay, far->microphone.re + at, far->microphone.im + at);
    const int measured = far->delay.best >= 0, before = far->placed_blocks;
    const int now = measured ? far->delay.best : far->hint_blocks;
    /* a delay between two blocks, or with a strong reflection, may be measured as either, and differently in
     * double talk: both lie within the headroom */
    const int tolerance = measured && far->measured ? FAR_HEADROOM_BLOCKS : 0;
    if (now < 0 || (measured == far->measured && abs(now - before) <= tolerance))
        return (far_placement_t){0};
    far->placed_blocks = now;
    far->measured = measured;
    return (far_placement_t){1, before, now, now > FAR_HEADROOM_BLOCKS ? now - FAR_HEADROOM_BLOCKS : 0};
}

void far_track_drift(far_t *far, float lag_sum, float information, float reduction)
{
    far->resampler[0].slide = drift_process(&far->drift, lag_sum, information, reduction);
    /* an echo that comes within 10 ms leaves no block by which the far end could be read later */
    if (far->drift.steering && !far->resampler[0].started)
        resampler_start(&far->resampler[0], far->placed_blocks > 0);
}

float far_mean_square(const far_t *far, int lag_blocks)
{
    const int at = reference_at(&far->reference, lag_blocks), n = far->reference.stride;
    float energy = 0.0f;
    for (int r = 0; r <= far_is_paired(far); r++) {
        const float *re = far->reference.re + at + r * far->reference.side,
                    *im = far->reference.im + at + r * far->reference.side;
        energy += kernels()->dot(n, re, re) + kernels()->dot(n, im, im);
    }
    /* Parseval: bins 0..hop hold half the energy of 2*hop samples */
    return energy / (float)(2 * far->hop * far->hop);
}

int far_is_missing(const far_t *far, int delay_blocks)
{
    const far_gap_t *gap = &far->gap;
    return far->measured && gap->kind != GAP_CLOSED && gap->since_blocks + gap->silent_blocks > delay_blocks;
}

void far_keep(far_t *far, tape_t *tape)
{
    delay_keep(&far->delay, tape);
    drift_keep(&far->drift, tape);
    saturation_keep(&far->saturation, tape);
    resampler_keep(&far->resampler[0], tape);
    tape_int(tape, &far->placed_blocks, FAR_DELAY_UNKNOWN, FAR_DELAY_LAGS - 1);
    tape_int(tape, &far->measured, 0, 1);
}

void far_resume(far_t *far, int placed)
{
    far->restored = 1;
    far->gap.kind = GAP_CLOSED; /* its kept state is not the restored one */
    if (!placed)
        far->placed_blocks = FAR_DELAY_UNKNOWN; /* the delay search places the windows anew */
    if (far->placed_blocks < 0)
        far->measured = 0;
}
