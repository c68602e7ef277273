/* One microphone channel: high-pass, echo canceller, residual echo, noise and echo suppressor, and the
 * network's mask.
 *
 * For each block, in this order: channel_read(), channel_predict(), channel_cancel(), channel_analyse(),
 * channel_suppress(). Where the microphones are one beam, that is suppressed as channel 0, and the others
 * take its result by channel_follow(). They change the channel and the workspace; far end, settings and jump
 * search are only read. Feedback within the channel from one block to the next is drawn in apm.c's head.
 */
#ifndef APMPI_APM_CHANNEL_H
#define APMPI_APM_CHANNEL_H

#include <stdint.h>

#include "aec/aec.h"
#include "aec/jump.h"
#include "aec/residual.h"
#include "apm/far.h"
#include "mask/mask.h"
#include "ns/ns.h"

/* 10 dB: the microphone's power over the error's from which a canceller counts as converged */
static const float CHANNEL_CONVERGED = 10.0f;

typedef enum {
    PATH_LEARNED,  /* learned here, or restored and of use since: the echo was reduced by 10 dB */
    PATH_RESTORED, /* from a saved state, not confirmed yet: it may be another room's, or forged */
} channel_path_t;

typedef struct {
    int hop;
    high_pass_t high_pass;
    aec_t aec;
    channel_path_t path;
    int harmful_blocks; /* of PATH_RESTORED: in which it added power, less those in which it did not */
    float cancel_share; /* 0..1: echo estimate subtracted at the end of the last block */
    residual_t residual;
    ns_t ns;
    mask_t mask;
    hpf_t level_high_pass[2];  /* in series, for channel_level_power() alone */
    float *mic, *echo, *error; /* hop each: microphone, then output; echo estimate; their difference */
    float *error_history, *echo_history; /* 2*hop each: the last two blocks */
    float *overlap;                      /* hop/2, of which stft.h uses `fade` */
    float speech_probability;            /* of near-end speech in the last block */
    float held_speech_probability;       /* the same, decaying over the gaps between syllables */
    float near_speech; /* that times the statistical probability, for the canceller's next block */
} channel_t;

/* What a channel reads of the rest of the chain. */
typedef struct {
    const apm_config_t *config;
    const far_t *far;
    const jump_t *jump;
    /* of the previous block: far end above FAR_PRESENT_POWER at the echo's delay, 0 or 1; blocks since it
     * was, at most BLOCKS_PER_S */
    int far_active, echo_age_blocks;
} channel_input_t;

/* references: of the far end, 1 or 2. */
void channel_init(channel_t *channel, workspace_t *ws, int references, float window_power, arena_t *arena);
void channel_configure(channel_t *channel, int rate_hz, const apm_config_t *config);
/* After channel_configure() with the same config. */
void channel_reset(channel_t *channel, const apm_config_t *config);

/* frames: of `channels` channels, interleaved, beginning with this one's first sample; high_pass_filter: 0 or
 * 1. Result in channel->mic. */
void channel_read(channel_t *channel, workspace_t *ws, int high_pass_filter, const int16_t *frames,
                  int channels);
/* Estimates the echo. Returns 0 if the canceller is off and faded out, else 1, with channel->echo and
 * channel->error valid. */
int channel_predict(channel_t *channel, const workspace_t *ws, const channel_input_t *input);
/* Adapts the canceller to the block if channel_predict() gave `predicted` 1, and fades its estimate in or
 * out. Result: channel->error = mic - channel->echo, the latter being the part of the estimate that is
 * subtracted. */
void channel_cancel(channel_t *channel, const workspace_t *ws, const channel_input_t *input, int predicted);
/* Results in ws: spectra of error and, if echo is cancelled, echo estimate. */
void channel_analyse(const channel_t *channel, workspace_t *ws, const channel_input_t *input);
/* Suppresses noise and residual echo in these spectra. Result in channel->mic and
 * channel->speech_probability.
 */
void channel_suppress(channel_t *channel, workspace_t *ws, const channel_input_t *input);
/* Takes over the output of another channel and what it knows of near-end speech. */
void channel_follow(channel_t *channel, const channel_t *other);

/* Resets a restored echo path that turns out to be harmful. */
void channel_check_path(channel_t *channel, const channel_input_t *input);

/* The canceller's window follows a slip of far.h, or is placed anew. */
void channel_slip(channel_t *channel, int blocks);
void channel_place(channel_t *channel, const far_placement_t *placement);

/* Mean square of channel->mic without DC and rumble, whether or not the high-pass is on. Overwrites
 * ws->block. */
float channel_level_power(channel_t *channel, workspace_t *ws);

/* The network's input of the block that is, or was last, suppressed; for the training, too. */
mask_input_t channel_mask_input(const channel_t *channel, const workspace_t *ws,
                                const channel_input_t *input);

/* Learned values, for a saved state. */
void channel_keep(channel_t *channel, tape_t *tape);
/* Of two references, what is learned of the second. */
void channel_keep_side(channel_t *channel, tape_t *tape);
/* After values were restored. Returns 1 if the canceller's window holds an echo of this delay, 0 if it does
 * not (the state is forged). */
int channel_resume(channel_t *channel, int delay_blocks);

#endif
