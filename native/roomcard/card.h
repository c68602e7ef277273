/* The card that all streams of one name and user share: its clock, and the loudspeakers' signals on the
 * card's time axis.
 *
 * It lives in /dev/shm/apmpi-room-UID-NAME. It is robust because the kernel releases the locks of a process
 * that ends, crash included:
 *
 *   - Each process that opens the card keeps a shared flock() on the file until it ends. A process that gets
 *     the lock exclusively is the only one: when it opens the card it makes it new, regardless of the file's
 *     content; when it exits it removes the file.
 *
 *   - Each open stream holds the lock of its direction's byte, so there is one writer and one reader at most.
 *
 * No lock is held while sound is computed: the ring has one writer (playback), one reader (capture) and one
 * atomic count between them.
 */
#ifndef APMPI_ROOMCARD_CARD_H
#define APMPI_ROOMCARD_CARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "roomcard/card_clock.h"
#include "roomcard/room.h"

/* Playback is at most a buffer (2^17 mono S16 frames) ahead of now; capture reads at most its own buffer, the
 * delay and the impulse response (2 s) behind: 2 * 2^17 + 2 * 48000 frames, rounded up to a power of two. */
#define CARD_RING_FRAMES ((int64_t)1 << 19)

/* card_header_t.near_start of a card from which nothing has been captured yet. */
#define CARD_NOT_CAPTURED (-1)

/* The shared file's content. */
typedef struct {
    uint64_t magic; /* written last */
    uint32_t version;
    uint32_t size_bytes;
    int64_t epoch_ns; /* CLOCK_MONOTONIC at card time 0, whole milliseconds */
    double speed;
    _Atomic uint32_t rate_hz[2]; /* by direction; 0: no hw_params yet */
    _Atomic uint32_t recorded;   /* 1: the record of this card has been begun */
    uint32_t loudspeakers;       /* as card_kind_t */
    _Atomic int64_t near_start;  /* card sample of the first captured frame, or CARD_NOT_CAPTURED */
    _Atomic int64_t written;     /* card sample up to which `speaker` is valid, silence from there on */
    card_clock_t clock;          /* of epoch_ns */
    /* [ROOM_LOUDSPEAKERS_MAX][CARD_RING_FRAMES]: sample c of each at c % CARD_RING_FRAMES, full scale 1.0 */
    float speaker[];
} card_header_t;

typedef struct {
    int fd; /* holds the lock of this direction */
    room_direction_t direction;
    card_header_t *header;
} card_t;

/* In what all streams of a card agree. */
typedef struct {
    double speed;
    int loudspeakers; /* 1..ROOM_LOUDSPEAKERS_MAX */
} card_kind_t;

/* Joins or makes the card. -EBUSY without a sentence when this direction is open already, as a real card
 * has none for it; else a negative errno with a sentence in `error`. */
int card_open(card_t *card, const char *name, room_direction_t direction, card_kind_t kind,
              room_error_t error);
void card_close(card_t *card);

/* Card time in seconds. */
double card_now_s(const card_t *card);
/* CLOCK_MONOTONIC at the card time `card_s`, if the machine does not stand still before. */
int64_t card_monotonic_ns(const card_t *card, double card_s);

/* Rate of the other direction's stream, 0 when it is closed or has none yet. */
unsigned card_other_rate_hz(const card_t *card);

/* Writing, for the playback stream only. speaker_put() sets the samples at `position`, one for each
 * loudspeaker; positions skipped since the last one become silence. The reader sees it after
 * speaker_publish(). */
typedef struct {
    card_header_t *header;
    int64_t written;
} speaker_writer_t;
speaker_writer_t speaker_begin(const card_t *card);
void speaker_put(speaker_writer_t *writer, int64_t position, const float *samples);
void speaker_publish(const speaker_writer_t *writer);
/* Silences everything from `position` on. For the playback stream only. */
void speaker_cut(const card_t *card, int64_t position);

/* out: `count` samples from `position` of a loudspeaker, counted from 0; silence where nothing was
 * played. */
void speaker_read(const card_t *card, int loudspeaker, int64_t position, float *out, int count);

#endif
