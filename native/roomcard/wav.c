#include "roomcard/wav.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/branchless.h"

enum { FORMAT_PCM = 1, FORMAT_FLOAT = 3, FORMAT_EXTENSIBLE = 0xFFFE };

/* The header that recorder_open() writes: RIFF, fmt of 16 bytes, data. */
enum { HEADER_BYTES = 44, RIFF_SIZE_AT = 4, DATA_SIZE_AT = 40 };

/* A near-end file is held in memory whole; an hour at 48 kHz float is 660 MiB. */
#define FILE_MAX_BYTES ((off_t)1 << 30)

/* WAV sizes are 32 bit. */
#define RECORD_MAX_BYTES ((int64_t)(UINT32_MAX - HEADER_BYTES))

static unsigned le16(const unsigned char *p) { return p[0] | (unsigned)p[1] << 8; }

static uint32_t le32(const unsigned char *p) { return le16(p) | (uint32_t)le16(p + 2) << 16; }

static void put_le16(unsigned char *p, unsigned value)
{
    p[0] = (unsigned char)value;
    p[1] = (unsigned char)(value >> 8);
}

static void put_le32(unsigned char *p, uint32_t value)
{
    put_le16(p, value & 0xFFFF);
    put_le16(p + 2, value >> 16);
}

/* --- reading --- */

int wav_parse(wav_t *wav, const char *path, unsigned channels, bool or_mono, room_error_t error)
{
    const unsigned char *bytes = wav->bytes;
    const size_t size = wav->size;
    if (size < 12 || memcmp(bytes, "RIFF", 4) != 0 || memcmp(bytes + 8, "WAVE", 4) != 0)
        return room_fail(error, -EINVAL, "%s: not a WAV file (no RIFF/WAVE header)", path);

    unsigned format = 0, bits = 0;
    size_t at = 12;
    while (size - at >= 8) {
        const unsigned char *chunk = bytes + at;
        const size_t length = le32(chunk + 4), there = size - at - 8;
        if (memcmp(chunk, "data", 4) == 0) {
            if (format == 0)
                return room_fail(error, -EINVAL, "%s: the samples come before their format (no fmt chunk)",
                                 path);
            if (length > there)
                return room_fail(error, -EINVAL,
                                 "%s: truncated, the header promises %zu bytes of samples, the file has %zu",
                                 path, length, there);
            wav->data = chunk + 8;
            wav->frames = (int64_t)(length / (bits / 8 * wav->channels));
            if (wav->frames == 0)
                return room_fail(error, -EINVAL, "%s: holds no samples", path);
            return 0;
        }
        if (length > there)
            break;
        if (memcmp(chunk, "fmt ", 4) == 0 && length >= 16) {
            format = le16(chunk + 8);
            if (format == FORMAT_EXTENSIBLE && length >= 26)
                format = le16(chunk + 8 + 24); /* the sub-format's first two bytes are the plain format */
            wav->channels = le16(chunk + 10);
            wav->rate_hz = le32(chunk + 12);
            bits = le16(chunk + 22);
            wav->is_float = format == FORMAT_FLOAT && bits == 32;
            if (!wav->is_float && !(format == FORMAT_PCM && bits == 16))
                return room_fail(error, -EINVAL,
                                 "%s: WAV format %u with %u bits, expected 16-bit PCM or 32-bit float", path,
                                 format, bits);
            if (wav->channels != channels && !(or_mono && wav->channels == 1))
                return room_fail(error, -EINVAL, "%s: %u channels, expected %s%u", path, wav->channels,
                                 or_mono && channels > 1 ? "1 or " : "", channels);
        }
        at += 8 + length + (length & 1 && length < there); /* chunks start at even offsets */
    }
    return room_fail(error, -EINVAL, "%s: truncated, no samples found (no data chunk)", path);
}

int wav_load(wav_t *wav, const char *path, unsigned channels, bool or_mono, room_error_t error)
{
    struct stat status = {0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    int code = fd < 0 || fstat(fd, &status) < 0 ? -errno : 0;
    if (code < 0)
        room_fail(error, code, "%s: %s", path, strerror(-code));
    else if (!S_ISREG(status.st_mode) || status.st_size > FILE_MAX_BYTES)
        code = room_fail(error, -EINVAL, "%s: expected a regular file of at most 1 GiB", path);
    if (code < 0) {
        if (fd >= 0)
            close(fd);
        return code;
    }
    const size_t size = (size_t)status.st_size;
    wav->bytes = malloc(size ? size : 1);
    wav->size = 0;
    while (wav->bytes && wav->size < size) {
        const ssize_t got = read(fd, wav->bytes + wav->size, size - wav->size);
        if (got <= 0)
            break; /* a file that shrinks meanwhile is reported as truncated */
        wav->size += (size_t)got;
    }
    close(fd);
    if (!wav->bytes)
        return room_fail(error, -ENOMEM, "%s: no memory for %zu bytes", path, size);
    code = wav_parse(wav, path, channels, or_mono, error);
    if (code < 0)
        wav_free(wav);
    return code;
}

void wav_free(wav_t *wav)
{
    free(wav->bytes);
    wav->bytes = NULL;
}

float wav_sample(const wav_t *wav, int channel, int64_t index)
{
    if (index < 0 || index >= wav->frames)
        return 0.0f;
    const int64_t at = index * wav->channels + channel;
    if (!wav->is_float)
        return (float)(int16_t)le16(wav->data + 2 * at) * (1.0f / 32768.0f);
    const uint32_t bits = le32(wav->data + 4 * at);
    float sample;
    memcpy(&sample, &bits, sizeof sample);
    return isfinite(sample) ? sample : 0.0f;
}

/* --- recording --- */

static int write_all(int fd, const void *bytes, size_t size, off_t at)
{
    const char *p = bytes;
    while (size > 0) {
        const ssize_t done = pwrite(fd, p, size, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -EIO;
        p += done;
        at += done;
        size -= (size_t)done;
    }
    return 0;
}

static int64_t bytes_of(const recorder_t *recorder, int64_t frames)
{
    return 2 * recorder->channels * frames;
}

static int write_sizes(const recorder_t *recorder)
{
    unsigned char field[4];
    const uint32_t data_bytes = (uint32_t)bytes_of(recorder, recorder->frames);
    put_le32(field, data_bytes);
    const int code = write_all(recorder->fd, field, 4, DATA_SIZE_AT);
    put_le32(field, data_bytes + HEADER_BYTES - 8);
    return code < 0 ? code : write_all(recorder->fd, field, 4, RIFF_SIZE_AT);
}

int recorder_open(recorder_t *recorder, const char *path, unsigned rate_hz, bool fresh, room_error_t error)
{
    struct stat status = {0};
    int code;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (fresh ? O_TRUNC : 0), 0666);
    recorder->fd = fd;
    recorder->frames = 0;
    if (fd < 0 || fstat(fd, &status) < 0) {
        code = -errno;
    } else if (status.st_size >= HEADER_BYTES) {
        recorder->frames = (status.st_size - HEADER_BYTES) / bytes_of(recorder, 1);
        code = write_sizes(recorder);
    } else {
        unsigned char header[HEADER_BYTES] = "RIFF\0\0\0\0WAVEfmt \20\0\0\0";
        put_le32(header + RIFF_SIZE_AT, HEADER_BYTES - 8);
        put_le16(header + 20, FORMAT_PCM);
        put_le16(header + 22, recorder->channels);
        put_le32(header + 24, rate_hz);
        put_le32(header + 28, (uint32_t)bytes_of(recorder, rate_hz));
        put_le16(header + 32, (unsigned)bytes_of(recorder, 1));
        put_le16(header + 34, 16);
        memcpy(header + 36, "data", 4);
        code = write_all(fd, header, sizeof header, 0);
    }
    if (code < 0) {
        room_fail(error, code, "%s: %s", path, strerror(-code));
        if (fd >= 0)
            close(fd);
        recorder->fd = -1;
    }
    return code;
}

int recorder_write(recorder_t *recorder, int64_t position, const float *frames, int count)
{
    if (bytes_of(recorder, position + count) > RECORD_MAX_BYTES)
        return -EFBIG;
    unsigned char bytes[2 * 256];
    const int samples = count * (int)recorder->channels;
    for (int done = 0; done < samples;) {
        const int part = samples - done < 256 ? samples - done : 256;
        for (int i = 0; i < part; i++)
            put_le16(bytes + 2 * i, (unsigned)sample_to_int16(frames[done + i]) & 0xFFFF);
        const int code = write_all(recorder->fd, bytes, 2 * (size_t)part,
                                   HEADER_BYTES + bytes_of(recorder, position) + 2 * done);
        if (code < 0)
            return code;
        done += part;
    }
    if (position + count > recorder->frames)
        recorder->frames = position + count;
    return write_sizes(recorder);
}

void recorder_close(recorder_t *recorder, int64_t frames)
{
    if (recorder->fd < 0)
        return;
    if (frames > recorder->frames && bytes_of(recorder, frames) <= RECORD_MAX_BYTES &&
        ftruncate(recorder->fd, HEADER_BYTES + bytes_of(recorder, frames)) == 0) {
        recorder->frames = frames;
        (void)write_sizes(recorder);
    }
    close(recorder->fd);
    recorder->fd = -1;
}
