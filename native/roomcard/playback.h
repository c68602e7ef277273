/* Playback without ALSA: a queue of frames on the stream's clock, put at the positions of the card's time
 * axis at which they will be played, and the record of what was played.
 */
#ifndef APMPI_ROOMCARD_PLAYBACK_H
#define APMPI_ROOMCARD_PLAYBACK_H

#include "roomcard/card.h"
#include "roomcard/timeline.h"
#include "roomcard/wav.h"

typedef struct {
    const card_t *card;
    const run_t *run;
    int loudspeakers;
    float *queue;         /* [queue_frames][loudspeakers], frame n of the stream at n % queue_frames; owned */
    int64_t queue_frames; /* a power of two */
    recorder_t recorder;
    int64_t recorded; /* card sample up to which the record is written */
} playback_t;

/* Makes an empty queue for an ALSA buffer of that size; set card, run and loudspeakers before. -ENOMEM. */
int playback_init(playback_t *playback, int64_t buffer_frames);
void playback_free(playback_t *playback);

/* Queues frame `frame` of the stream: a sample for each loudspeaker, full scale 1.0. */
void playback_put(playback_t *playback, int64_t frame, const float *samples);

/* Plays the queued frames from..to-1: `to` is the end of the queue. The schedule of faults is known, so a
 * stall or an end of the run takes effect here, before the application can notice it. */
void playback_place(const playback_t *playback, int64_t from, int64_t to);

/* Records what was played before card position `until`. When the file cannot be written, closes it and
 * returns the negative errno. */
int playback_record(playback_t *playback, int64_t until);

#endif
