/*
 * WAV files: read a mono one whole, record a mono one at absolute positions.
 *
 * Nothing here knows ALSA.  Functions return 0 or a negative errno; `error` then holds one sentence, naming
 * the file.
 */
#ifndef APMPI_ROOMCARD_WAV_H
#define APMPI_ROOMCARD_WAV_H

#include "room.h"

#include <stdbool.h>
#include <stdint.h>

/* A mono WAV file in memory. */
struct wav {
    unsigned char *bytes;      /* the whole file, owned; NULL when nothing is loaded */
    const unsigned char *data; /* first sample, inside bytes, unaligned, little endian */
    int64_t frames;
    unsigned rate_hz;
    bool is_float; /* 32-bit float, else 16-bit PCM */
};

/* Finds the samples in `size` bytes of a WAV file.  Fills `wav` (bytes stays as it is); reads nothing outside
 * the given bytes whatever they hold.  -EINVAL when this is not a complete mono file of 16-bit PCM or 32-bit
 * float. */
int wav_parse(struct wav *wav, const unsigned char *bytes, size_t size, const char *path,
              char error[ROOM_ERROR_SIZE]);

int wav_load(struct wav *wav, const char *path, char error[ROOM_ERROR_SIZE]);
void wav_free(struct wav *wav);

/* Sample `index`, full scale 1.0; silence before the first and after the last. */
float wav_sample(const struct wav *wav, int64_t index);

/* A mono 16-bit WAV file that grows; what was never written reads as silence.  The header's sizes are true
 * after each call. */
struct recorder {
    int fd; /* -1: no record */
    int64_t frames;
};

/* Opens `path`; `fresh` empties it, else an existing record is continued. */
int recorder_open(struct recorder *recorder, const char *path, unsigned rate_hz, bool fresh,
                  char error[ROOM_ERROR_SIZE]);

/* Writes `count` samples (full scale 1.0) at frame `position` >= 0. */
int recorder_write(struct recorder *recorder, int64_t position, const float *samples, int count);

/* Lengthens the record with silence to `frames` and closes it. */
void recorder_close(struct recorder *recorder, int64_t frames);

/* Full scale 1.0 to 16 bit, rounded and saturated. */
int16_t sample_to_s16(float sample);

#endif
