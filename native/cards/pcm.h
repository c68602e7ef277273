/* An open ALSA device: positions, transfers of a frame or less, xruns. The device was opened non-blocking and
 * with its parameters set (apmpi/cards/pcm.py); only capture_read() waits.
 *
 * Times are ns of the time base. ALSA reports a position as a pair: a time, and the number of samples per
 * channel (ALSA's frames) available at that time. `samples` count per channel. */
#ifndef APMPI_CARDS_PCM_H
#define APMPI_CARDS_PCM_H

#include <alsa/asoundlib.h>
#include <poll.h>
#include <stdint.h>

#include "cards/formats.h"

/* Time without a moved sample after which a card counts as lost: far beyond any scheduling delay. */
enum { STALL_MS = 500 };
/* Xruns without sound in between after which a card counts as lost: ALSA's plugins can hide ENODEV, and then
 * an unplugged device reports xruns without end. */
enum { XRUNS_IN_A_ROW_MAX = 8 };
/* Descriptors of a device: one for a card, one for each slave of a plugin that has several. */
enum { DESCRIPTORS_MAX = 16 };

/* Result of a call. After any fault the device is only to be closed. */
typedef enum {
    PCM_GOOD,
    PCM_STALLED,    /* no sample has moved for STALL_MS */
    PCM_ONLY_XRUNS, /* XRUNS_IN_A_ROW_MAX were exceeded */
    PCM_FAILED,     /* `error` has ALSA's code; -ENODEV and -EBADFD if it was unplugged */
} pcm_result_t;

typedef struct {
    snd_pcm_t *handle;
    format_t format;
    int rate_hz, channels, frame_samples, period_samples, buffer_samples;
    double speed; /* of the time base */
    /* State */
    int xruns, xruns_in_a_row;
    int error;
    unsigned char *raw; /* samples in the card's format: pcm_raw_samples() of them */
} pcm_t;

/* Samples per channel that `raw` has to hold. */
int pcm_raw_samples(const pcm_t *pcm);
int64_t pcm_now_ns(const pcm_t *pcm);

/* A recording device. */
typedef struct {
    pcm_t pcm;
    int restarted; /* 1 after the first samples that follow a start or an overrun: samples were lost before */
    int stopped;
    int pending_samples; /* in pcm.raw: of a frame that is not complete yet */
    int64_t moved_ns;    /* time of the last samples, or of the start; 0 until then */
    int64_t captured_ns; /* time at which the first sample of the last frame was at the converter */
    int descriptors_count;
    struct pollfd descriptors[DESCRIPTORS_MAX];
} capture_t;

/* Prepares `capture`, of which pcm has been set. */
void capture_begin(capture_t *capture);

/* Stops the card and discards its queue; the next transfer starts it again, without an xrun. */
void capture_rest(capture_t *capture);

/* Writes the next frame; waits at most STALL_MS. */
pcm_result_t capture_read(capture_t *capture, int16_t *frame);

/* Writes the samples available, at most a period, and their number; starts a stopped card. */
pcm_result_t capture_take(capture_t *capture, int16_t *out, int *samples);

/* Time at which the next sample to be read was at the converter. */
int64_t capture_unread_ns(capture_t *capture);

/* A playing device. It starts with its first write, after opening as after an xrun. */
typedef struct {
    pcm_t pcm;
    int moving; /* 1 once the card's position has advanced */
    int started;
    int64_t written_samples, played_samples; /* the last position; -1: none yet */
    int64_t moved_ns;                        /* time at which that position last changed */
} playback_t;

void playback_begin(playback_t *playback);

/* As capture_rest(). */
void playback_rest(playback_t *playback);

/* Sets *standing, or *next_ns to the time at which the next sample written will leave the converter. While it
 * stands, the next write starts it. */
pcm_result_t playback_next_ns(playback_t *playback, int *standing, int64_t *next_ns);

/* Queues silence, then samples, all of it at most pcm_raw_samples(). *done is 0 if an xrun prevented it,
 * which leaves the card stopped. */
pcm_result_t playback_write(playback_t *playback, int silence_samples, const int16_t *in, int samples,
                            int *done);

#endif
