/* A microphone's signal on the card's time axis: each loudspeaker through clip, delay and the pair's impulse
 * response, plus near-end speech. The capture clock and the noise follow in capture.h.
 */
#ifndef APMPI_ROOMCARD_MICROPHONE_H
#define APMPI_ROOMCARD_MICROPHONE_H

#include "roomcard/card.h"
#include "roomcard/echo.h"
#include "roomcard/paths.h"
#include "roomcard/wav.h"

/* Samples kept so that they can be read again (mmap access, interpolation): a whole ALSA buffer of mono
 * S16. */
#define MICROPHONE_KEPT ((int64_t)ROOM_BUFFER_MAX_BYTES / 2)

typedef struct {
    const card_t *card;
    const paths_t *paths;
    const wav_t *near; /* mono, or a channel for each microphone; not loaded: none */
    unsigned rate_hz;
    int delay_samples;
    double clip_db; /* 0: linear */
} microphone_room_t;

typedef struct {
    microphone_room_t room;
    int number;                          /* counted from 0 */
    echo_t *echo[ROOM_LOUDSPEAKERS_MAX]; /* of each loudspeaker; NULL beyond the last */
    int taps;                            /* of each impulse response */
    float drive;                         /* of the soft clip; 0: linear */
    int64_t first;                       /* first position computed since the last seek */
    int64_t next; /* first position not computed yet; `kept` holds the last MICROPHONE_KEPT before it */
    float kept[MICROPHONE_KEPT];
} microphone_t;

/* `room` is copied, the objects it points to must stay. number: of the microphone, counted from 0. NULL when
 * there is no memory. */
microphone_t *microphone_create(const microphone_room_t *room, int number);
void microphone_free(microphone_t *microphone);

/* out: `count` samples from card position `position`, which must have been played already (the delay
 * included). */
void microphone_read(microphone_t *microphone, int64_t position, float *out, int count);

#endif
