/* The far end, from the caller's blocks to the spectra that the echo cancellers read, and the echo's delay.
 *
 *   far_push ─► FIFO ─► loudspeaker's curve ─► high-pass ─► drift resampler ─► reference ─► delay search
 *
 * With two references left and right are two of the far end's channels (pick.h), and everything behind the
 * curve runs for the middle and the side of two loudspeakers, (L + R) / 2 and (L - R) / 2 (reference.h).
 * While both play the same, the side is left out, and all is as with one reference.
 *
 * Far-end and microphone blocks belong together by their number. far_advance() takes one far-end block for
 * one of the microphone. Silence stands in for a block that is missing; up to 0.3 s of such silence is
 * replaced by the blocks if they come later (see far_gap_t). Whenever the count of far-end blocks and that of
 * microphone blocks move against each other, every lag moves with them: a slip. The delay search and the
 * placement slip in here; far_advance() returns the slips, in order, for the caller to apply to the channels.
 *
 * The caller gives back what the channels measure: far_locate() the microphones, far_track_drift() and
 * far_track_saturation() the cancellers' results. Nothing in here refers to a channel.
 */
#ifndef APMPI_APM_FAR_H
#define APMPI_APM_FAR_H

#include <stdint.h>

#include "aec/drift.h"
#include "aec/reference.h"
#include "aec/resampler.h"
#include "aec/saturation.h"
#include "apm/apm.h"
#include "apm/high_pass.h"
#include "apm/pick.h"
#include "apm/workspace.h"
#include "delay/delay.h"

enum {
    FAR_DELAY_LAGS = 101, /* delays that are searched: 0..1000 ms */
    FAR_PARTITIONS = 32,  /* of the echo path: 320 ms */
    /* the cancellers' filters begin this much before the echo: if it comes earlier, it stays inside */
    FAR_HEADROOM_BLOCKS = 2,
    FAR_LATEST_WINDOW = FAR_DELAY_LAGS - 1 -
        FAR_HEADROOM_BLOCKS, /* the filters' start for the longest delay */
    FAR_DELAY_UNKNOWN = -1,
    FAR_REFERENCES = 2, /* at most */
    /* 2 s of sound that two loudspeakers play alike: more than the filters' longest reach, 1.3 s, so that the
     * side is no longer in any echo; and long enough that a pause of the side in music is not one */
    FAR_ALIKE_BLOCKS = 200,
};

static const float FAR_PRESENT_POWER = 1e-6f; /* -60 dBFS: a whisper on a loudspeaker at full volume */

typedef enum {
    GAP_CLOSED, /* no silence that a late block could replace */
    GAP_PAUSE,  /* silence, then the blocks that came since: the far end paused, or they are late */
    GAP_LATE,   /* late blocks have replaced the start of the silence; the rest is behind them */
} far_gap_kind_t;

/* Silence that stands in for missing far-end blocks, and the state of the far end's stages before it: they go
 * on from there once more if the blocks come late. After a pause of the far end, too, blocks come again, and
 * they do not belong into the silence. */
typedef struct {
    far_gap_kind_t kind;
    int silent_blocks, since_blocks; /* blocks of silence, and real ones behind them */
    int pushed_blocks;               /* reference blocks that both have become */
    int settled_blocks;              /* since a block was last missing or late */
    high_pass_t high_pass[FAR_REFERENCES];
    resampler_t resampler[FAR_REFERENCES];
    float *samples; /* the reference's last two blocks */
} far_gap_t;

/* [FAR_REFERENCES]: of the middle and the side; with one reference only the first is in use. */
typedef struct {
    int hop;
    int references;       /* 1 or 2 */
    int high_pass_filter; /* 0 or 1, as configured */
    int alike_blocks;     /* of far-end sound without a side; from FAR_ALIKE_BLOCKS on the side is left out */
    pick_t pick;          /* which channels are left and right */
    saturation_t saturation;
    /* as the microphones': so the high-pass is no part of the path that the cancellers learn */
    high_pass_t high_pass[FAR_REFERENCES];
    resampler_t resampler[FAR_REFERENCES];
    drift_t drift;
    reference_t reference;
    reference_t microphone; /* spectrum of the mean of the microphones, for the delay */
    delay_t delay;
    int hint_blocks;   /* delay given by the caller, or FAR_DELAY_UNKNOWN */
    int placed_blocks; /* delay for which the cancellers are placed, or FAR_DELAY_UNKNOWN */
    int measured;      /* 0 or 1: that delay was measured */
    int started;       /* 0 or 1: a microphone block has come */
    int restored;      /* 0 or 1: the lags are those of an earlier run, which began as this one does */
    int age_blocks;    /* since a block above FAR_PRESENT_POWER was taken; at most BLOCKS_PER_S */
    int16_t *fifo; /* a ring of blocks of `hop` samples: the mean of the far end's channels; or left, right */
    float *block;  /* references * hop: scratch for the block that leaves it */
    /* scratch of two references: the resampled side, 2*hop; spectrum for the delay search, stride each */
    float *side, *search_re, *search_im;
    int fifo_first, fifo_count;
    /* of the current watch (FIFO_WATCH_BLOCKS in far.c): smallest fill, length so far, blocks that came */
    int fifo_lowest, fifo_watched_blocks, fifo_came_blocks;
    /* far-end blocks since the last one of the microphone; the fewest of recent bursts, 0 before the first */
    int burst_blocks, least_burst_blocks;
    far_gap_t gap;
} far_t;

/* Blocks by which the far end's count moved ahead of the microphone's, to be applied in this order: the
 * window of a canceller is limited at both ends, so a sum would not do. */
typedef struct {
    int start;   /* blocks that waited before the first one of the microphone */
    int gap;     /* late blocks, or a pause that ended */
    int block;   /* -1, 0 or 1: the drift resampler gave no block, one, or two */
    int backlog; /* blocks that waited in the FIFO during a whole watch */
} far_slips_t;

/* A new place for the cancellers' windows. */
typedef struct {
    int moved;                     /* 0 or 1; 0: the other members are not valid */
    int before_blocks, now_blocks; /* delay for which they were placed (or FAR_DELAY_UNKNOWN), and are now */
    int window_blocks;             /* where the windows are to begin */
} far_placement_t;

/* references: 1, the mean of all channels, or 2. */
void far_init(far_t *far, int rate_hz, int references, arena_t *arena);
void far_configure(far_t *far, int rate_hz, const apm_config_t *config);
/* After far_configure(). */
void far_reset(far_t *far);

/* One block of interleaved frames joins the FIFO; of a full one the oldest block is dropped. */
void far_push(far_t *far, const int16_t *frames, int channels);
/* The far end moves on by one microphone block. Overwrites ws->block. */
far_slips_t far_advance(far_t *far, workspace_t *ws);
/* Searches the delay. microphone: hop samples, mean of the channels, of the block that far_advance() made
 * room for. */
far_placement_t far_locate(far_t *far, const workspace_t *ws, const float *microphone);
/* Every lag grows by `blocks`: the echo moved. */
void far_slip(far_t *far, int blocks);
/* lag_sum, information: sums over the channels of what aec_t has of the last block, 0 where that is not
 * valid; reduction: microphone's energy over the error's. Sets how far the next block is shifted. */
void far_track_drift(far_t *far, float lag_sum, float information, float reduction);

/* 1 while the side is in use: the loudspeakers play, or lately played, different things. */
int far_is_paired(const far_t *far);
/* Mean square of the far end `lag_blocks` ago, in the mean of the loudspeakers. */
float far_mean_square(const far_t *far, int lag_blocks);
/* 1 if far-end blocks that may still come late lie in a filter's window that begins at delay_blocks: the
 * microphone may hold their echo. */
int far_is_missing(const far_t *far, int delay_blocks);

/* Learned values, for a saved state; the cancellers' placement is one of them. */
void far_keep(far_t *far, tape_t *tape);
/* After values were restored. placed: 0 if the channels' windows do not fit placed_blocks. */
void far_resume(far_t *far, int placed);

#endif
