/* The ends of the loop that are devices beside the microphone: the far end's queue and a player. Both move 10
 * ms in a call, without waiting, and keep the sound in its place relative to the microphone's (follower.h).
 */
#ifndef APMPI_CARDS_ENDS_H
#define APMPI_CARDS_ENDS_H

#include <stdint.h>

#include "cards/follower.h"
#include "cards/pcm.h"

/* A far end's samples on the microphone's clock, so that the frame taken was always captured the same time
 * before its microphone frame. */
typedef struct {
    place_t place;
    int channels, rate_hz; /* of the frames taken */
    int queued_samples, capacity_samples;
    int16_t *queue; /* capacity_samples * channels */
} far_end_t;

/* Samples per channel of the queue at a rate: FAR_END_SILENCE_MAX_S, and as much again for sound. */
int far_end_capacity_samples(int rate_hz);

/* Discards the queue; the next sound is placed anew. */
void far_end_forget(far_end_t *far_end);

/* A reading of the far end's card. */
typedef struct {
    capture_t *card;
    follower_t *follower;
    int64_t due_ns; /* time at which the first sample of the queue shall have been captured */
    int one_card;   /* whether the card is known to be the microphone's */
} far_end_reading_t;

/* Reads all available samples and puts the queue in its place. *flows: 1 if samples came. */
pcm_result_t far_end_fill(far_end_t *far_end, const far_end_reading_t *from, int *flows);

/* Takes the next frame from the queue; returns 0, and has the sound placed anew, if there is none. */
int far_end_take(far_end_t *far_end, int16_t *frame);

/* A card that plays frames at the times when they are due.
 *
 * The first write is one piece: silence up to the time at which the first sample is due, then the frame. So
 * the delay between the two directions is known from the start. The same write restores it after an xrun of
 * either direction, so that an echo canceller's filter stays valid. */
typedef struct {
    place_t place;
} player_t;

/* A frame to be played, and the result. */
typedef struct {
    playback_t *card;
    follower_t *follower;
    const int16_t *frame; /* 10 ms at the follower's in_rate_hz */
    int64_t due_ns;       /* time at which its first sample shall leave the converter */
    int one_card;         /* whether the card is known to be the microphone's */
    /* Result */
    int late;      /* 1: later than its whole length, so that it was not played */
    int64_t at_ns; /* else: time at which its first sample will leave the converter */
} play_t;

/* Queues the frame without waiting. */
pcm_result_t player_play(player_t *player, play_t *play);

#endif
