/* One open direction of the card: its state, its pointers, its timer, and the transfer of frames from and to
 * the application's buffer.
 *
 * Playback writes the loudspeaker's shared signal when the application writes, at the card positions at which
 * the frames will be played; capture computes the microphone's signal when the application reads. Nothing
 * runs in between: a timer descriptor wakes an application that waits, and the threads of card_clock.h only
 * advance the clock.
 */
#ifndef APMPI_ROOMCARD_STREAM_H
#define APMPI_ROOMCARD_STREAM_H

#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>

#include "roomcard/capture.h"
#include "roomcard/card.h"
#include "roomcard/options.h"
#include "roomcard/playback.h"
#include "roomcard/timeline.h"
#include "roomcard/wav.h"

typedef enum {
    STREAM_STOPPED,
    STREAM_RUNNING,
    STREAM_XRUN,
    STREAM_DISCONNECTED, /* unplugged: permanently */
} stream_state_t;

typedef struct {
    snd_pcm_ioplug_t io;
    room_direction_t direction;
    options_t options;
    wav_t impulse_response, near;
    paths_t paths;
    card_t card;
    int timer_fd;
    double unplug_s; /* card time at which this handle is disconnected, or INFINITY */

    /* Set by hw_params and sw_params; the member of the other direction stays empty. */
    playback_t playback;
    capture_t capture;
    snd_pcm_uframes_t boundary, avail_min, stop_threshold;

    /* Since prepare. */
    stream_state_t state;
    run_t run;
    int64_t hw_ptr;   /* frames passed by the hardware */
    int64_t appl_ptr; /* frames written or read by the application: io.appl_ptr without its wrap-around */
} stream_t;

/* Card time in samples. */
double stream_now(const stream_t *stream);

/* Brings hw_ptr, appl_ptr and state up to now. */
void stream_update(stream_t *stream);

/* Whether the card has been unplugged since this handle was opened. */
bool stream_disconnected(stream_t *stream);

/* ALSA's error for the state: 0, -EPIPE or -ENODEV. */
int stream_error(const stream_t *stream);

/* Whether avail_min is reached, or, while draining, everything is played. */
bool stream_ready(const stream_t *stream);

/* Sets the timer to the moment at which the stream becomes ready or fails. */
void stream_arm_timer(stream_t *stream);

void stream_start(stream_t *stream);
/* Silences what is queued and not played yet. */
void stream_stop(stream_t *stream);

/* Writes or reads `count` frames at `offset` of the application's buffer and moves appl_ptr. */
void stream_transfer(stream_t *stream, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
                     int64_t count);

/* Records what was played before card position `until`. */
void stream_record(stream_t *stream, int64_t until);

#endif
