/* WAV files: read one whole, record one at absolute positions.
 *
 * Without ALSA. An `error` names the file.
 */
#ifndef APMPI_ROOMCARD_WAV_H
#define APMPI_ROOMCARD_WAV_H

#include <stdbool.h>
#include <stdint.h>

#include "roomcard/room.h"

/* A WAV file in memory. */
typedef struct {
    unsigned char *bytes; /* the whole file, owned; NULL: not loaded */
    size_t size;
    const unsigned char *data; /* first sample, inside bytes, unaligned, little endian */
    int64_t frames;
    unsigned channels, rate_hz;
    bool is_float; /* 32-bit float, else 16-bit PCM */
} wav_t;

/* Finds the samples in wav->bytes and fills the other fields but `size`; reads nothing outside those bytes,
 * whatever they are. -EINVAL when this is not a complete file of 16-bit PCM or 32-bit float with so many
 * channels, or or_mono with a single one. */
int wav_parse(wav_t *wav, const char *path, unsigned channels, bool or_mono, room_error_t error);

int wav_load(wav_t *wav, const char *path, unsigned channels, bool or_mono, room_error_t error);
void wav_free(wav_t *wav);

/* Sample `index` of a channel, both from 0, full scale 1.0; silence before the first and after the last. */
float wav_sample(const wav_t *wav, int channel, int64_t index);

/* A 16-bit WAV file that grows; positions never written read as silence. The header's sizes are valid
 * after each call. */
typedef struct {
    int fd; /* -1: closed */
    int64_t frames;
    unsigned channels;
} recorder_t;

/* Opens `path`, with recorder->channels set; `fresh` empties it, else an existing record is continued. */
int recorder_open(recorder_t *recorder, const char *path, unsigned rate_hz, bool fresh, room_error_t error);

/* Writes `count` interleaved frames (full scale 1.0) at frame `position` >= 0. */
int recorder_write(recorder_t *recorder, int64_t position, const float *frames, int count);

/* Lengthens the record with silence to `frames` and closes it. */
void recorder_close(recorder_t *recorder, int64_t frames);

#endif
