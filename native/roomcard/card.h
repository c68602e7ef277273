/*
 * The card that all streams of one name and user share: its clock, and the loudspeaker signal on the card's
 * time axis.
 *
 * It lives in /dev/shm/apmpi-room-UID-NAME.  Robust by what the kernel undoes when a process ends, crash
 * included:
 *
 *   - each process that opens the card keeps a shared flock() on the file until it ends.  Who can get it
 * exclusively is alone and makes the card new, whatever the file holds from earlier; at exit, it removes the
 * file;
 *   - each open stream holds the lock of its direction's byte, so there is one writer and one reader at most.
 *
 * No lock is held while sound is computed: the ring has one writer (playback), one reader (capture) and one
 * atomic count between them.
 */
#ifndef APMPI_ROOMCARD_CARD_H
#define APMPI_ROOMCARD_CARD_H

#include "patience.h"
#include "room.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Playback is at most a buffer (2^17 mono S16 frames) ahead of now; capture reads at most its own buffer, the
 * delay and the impulse response (2 s) behind: 2 * 2^17 + 2 * 48000 frames, rounded up to a power of two. */
#define CARD_RING_FRAMES ((int64_t)1 << 19)

struct card_header {
    uint64_t magic; /* written last */
    uint32_t version;
    uint32_t size_bytes;
    int64_t epoch_ns; /* CLOCK_MONOTONIC at card time 0, whole milliseconds */
    double speed;
    _Atomic uint32_t rate_hz[2]; /* by direction; 0: no hw_params yet */
    _Atomic uint32_t recorded;   /* the record of this card has been begun */
    _Atomic int64_t near_start;  /* card sample of the first captured frame ever; -1: none yet */
    /* the speaker signal is known up to this card sample, silence from there on */
    _Atomic int64_t written;
    patient_clock_t clock; /* of epoch_ns */
    float speaker[];       /* [CARD_RING_FRAMES], sample c at c % CARD_RING_FRAMES, full scale 1.0 */
};

struct card {
    int fd; /* holds the lock of this direction */
    enum room_direction direction;
    struct card_header *header;
};

/* Joins or makes the card.  -EBUSY when this direction is open already (no sentence, as a real card has
 * none); else a negative errno with one sentence in `error`. */
int card_open(struct card *card, const char *name, enum room_direction direction, double speed,
              char error[ROOM_ERROR_SIZE]);
void card_close(struct card *card);

/* Seconds of card time now, and the moment of CLOCK_MONOTONIC when the card gets to a time, or later if the
 * machine stands still until then. */
double card_now_s(const struct card *card);
int64_t card_monotonic_ns(const struct card *card, double card_s);

/* Rate that the other direction runs at, 0 when it is closed or has none yet. */
unsigned card_other_rate_hz(const struct card *card);

/* Writer only.  Sets the speaker's sample at `position`; what was skipped since the last one becomes silence.
 * Valid for the reader after card_publish. */
struct speaker_writer {
    struct card_header *header;
    int64_t written;
};
struct speaker_writer speaker_begin(const struct card *card);
void speaker_put(struct speaker_writer *writer, int64_t position, float sample);
void speaker_publish(const struct speaker_writer *writer);

/* Writer only: nothing is played from `position` on. */
void speaker_cut(const struct card *card, int64_t position);

/* `count` samples from `position`; silence where nothing was played. */
void speaker_read(const struct card *card, int64_t position, float *out, int count);

#endif
