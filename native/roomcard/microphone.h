/*
 * What the microphone hears, on the card's time axis: the loudspeaker through clip, delay and impulse
 * response, and the talker.  The capture clock and its noise come later, in room.c.
 */
#ifndef APMPI_ROOMCARD_MICROPHONE_H
#define APMPI_ROOMCARD_MICROPHONE_H

#include "card.h"
#include "echo.h"
#include "wav.h"

/* Kept so that a piece can be asked for again (mmap access, interpolation): a whole ALSA buffer of mono
 * S16. */
#define MICROPHONE_KEPT ((int64_t)ROOM_BUFFER_MAX_BYTES / 2)

struct microphone {
    const struct card *card;
    struct echo *echo;
    const struct wav *near; /* bytes NULL: nobody talks */
    int taps, delay;        /* samples */
    float drive;            /* of the soft clip; 0: linear */
    /* computed so far: positions first..next-1, of these the last MICROPHONE_KEPT are in kept */
    int64_t first, next;
    float kept[MICROPHONE_KEPT];
};

/* `impulse_response` with bytes NULL is one tap of 1.0.  NULL when there is no memory. */
struct microphone *microphone_create(const struct card *card, const struct wav *impulse_response,
                                     const struct wav *near, int delay_samples, double clip_db);
void microphone_free(struct microphone *microphone);

/* `count` samples from card position `position`, which must have been played already (the delay included). */
void microphone_read(struct microphone *microphone, int64_t position, float *out, int count);

#endif
