#include "roomcard/stream.h"

#include <math.h>
#include <sys/timerfd.h>

/* Frames captured at a time on the stack. */
enum { CHUNK = 256 };

/* Played frames are recorded in pieces of this card time, to limit system calls at high speed. */
static const double RECORD_EVERY_S = 0.1;

double stream_now(const stream_t *stream) { return card_now_s(&stream->card) * stream->io.rate; }

/* --- state and pointers --- */

bool stream_disconnected(stream_t *stream)
{
    if (card_now_s(&stream->card) >= stream->unplug_s)
        stream->state = STREAM_DISCONNECTED;
    return stream->state == STREAM_DISCONNECTED;
}

int stream_error(const stream_t *stream)
{
    return stream->state == STREAM_DISCONNECTED ? -ENODEV : stream->state == STREAM_XRUN ? -EPIPE : 0;
}

static void follow_appl_ptr(stream_t *stream)
{
    if (stream->boundary == 0)
        return;
    const snd_pcm_uframes_t seen = (snd_pcm_uframes_t)stream->appl_ptr % stream->boundary;
    const snd_pcm_uframes_t forward = (stream->io.appl_ptr + stream->boundary - seen) % stream->boundary;
    stream->appl_ptr += forward <= stream->boundary / 2 ? (int64_t)forward
                                                        : (int64_t)forward - (int64_t)stream->boundary;
}

/* Frames that the application may write or read. */
static int64_t available(const stream_t *stream)
{
    const int64_t space = stream->direction == ROOM_PLAYBACK ? (int64_t)stream->io.buffer_size : 0;
    return stream->hw_ptr + space - stream->appl_ptr;
}

void stream_update(stream_t *stream)
{
    follow_appl_ptr(stream);
    if (stream_disconnected(stream) || stream->state != STREAM_RUNNING)
        return;

    const bool draining = stream->io.state == SND_PCM_STATE_DRAINING;
    const double now = stream_now(stream);
    stream->hw_ptr = (int64_t)run_frames(&stream->run, fmin(now, (double)stream->run.end));
    if (stream->direction == ROOM_PLAYBACK) {
        if (draining && stream->hw_ptr > stream->appl_ptr)
            stream->hw_ptr = stream->appl_ptr;
        if (now - (double)stream->playback.recorded >= RECORD_EVERY_S * stream->io.rate)
            stream_record(stream, (int64_t)now);
    }
    if (now >= (double)stream->run.end)
        stream->state = stream->run.end_kind == FAULT_UNPLUG ? STREAM_DISCONNECTED : STREAM_XRUN;
    else if (!draining && available(stream) >= (int64_t)stream->stop_threshold)
        stream->state = STREAM_XRUN;
}

/* --- waiting --- */

static int64_t missing_frames(const stream_t *stream)
{
    const bool draining = stream->io.state == SND_PCM_STATE_DRAINING; /* ready when all is played */
    const int64_t wanted = (int64_t)(draining ? stream->io.buffer_size : stream->avail_min);
    return wanted - available(stream);
}

bool stream_ready(const stream_t *stream) { return missing_frames(stream) <= 0; }

void stream_arm_timer(stream_t *stream)
{
    double wake_s = stream->unplug_s;
    const int64_t missing = missing_frames(stream);
    if (stream_error(stream) < 0 || missing <= 0) {
        wake_s = 0.0;
    } else if (stream->state == STREAM_RUNNING) {
        /* The end of the last missing frame, not the start of the next: a stall may lie between. */
        const run_t *run = &stream->run;
        const double ready = run_position(run, stream->hw_ptr + missing - 1) + 1.0 / run->ratio;
        wake_s = fmin(wake_s, fmin(ready, (double)run->end) / stream->io.rate);
    }
    struct itimerspec timer = {0}; /* all 0 disarms; a time in the past expires at once */
    if (isfinite(wake_s)) {
        const int64_t ns = card_monotonic_ns(&stream->card, wake_s);
        timer.it_value.tv_sec = (time_t)(ns / 1000000000);
        timer.it_value.tv_nsec = (long)(ns % 1000000000);
    }
    timerfd_settime(stream->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
}

/* --- start and stop --- */

void stream_start(stream_t *stream)
{
    const int64_t start = (int64_t)ceil(stream_now(stream));
    run_begin(&stream->run, start, stream->options.ppm, &stream->options.faults, stream->io.rate);
    stream->state = STREAM_RUNNING;
    if (stream->direction == ROOM_PLAYBACK) {
        playback_place(&stream->playback, 0, stream->appl_ptr);
    } else {
        int64_t none = CARD_NOT_CAPTURED;
        atomic_compare_exchange_strong(&stream->card.header->near_start, &none, start);
    }
}

void stream_stop(stream_t *stream)
{
    if (stream->state == STREAM_RUNNING && stream->direction == ROOM_PLAYBACK) {
        const int64_t now = (int64_t)ceil(stream_now(stream));
        speaker_cut(&stream->card, now);
        stream_record(stream, now);
    }
    if (stream->state != STREAM_DISCONNECTED)
        stream->state = STREAM_STOPPED;
}

void stream_record(stream_t *stream, int64_t until)
{
    const int code = playback_record(&stream->playback, until);
    if (code < 0)
        SNDERR("record: %s: %s; the record ends here", stream->options.record, strerror(-code));
}

/* --- transfer --- */

static char *sample_address(const snd_pcm_channel_area_t *area, snd_pcm_uframes_t frame)
{
    return (char *)area->addr + (area->first + frame * area->step) / 8;
}

/* Bytes of an integer sample, little endian. */
static size_t integer_bytes(snd_pcm_format_t format)
{
    return format == SND_PCM_FORMAT_S16_LE ? 2 : format == SND_PCM_FORMAT_S24_3LE ? 3 : 4;
}

/* The sample, full scale 1.0; an infinity or a NaN is read as 0. */
static float load_sample(snd_pcm_format_t format, const char *from)
{
    if (format == SND_PCM_FORMAT_FLOAT_LE) {
        float sample;
        memcpy(&sample, from, sizeof sample);
        return isfinite(sample) ? sample : 0.0f;
    }
    const size_t bytes = integer_bytes(format);
    int32_t integer = 0;
    memcpy((char *)&integer + sizeof integer - bytes, from, bytes); /* the upper bytes: full scale 2^31 */
    return (float)integer * 0x1p-31f;
}

/* Integers are rounded and saturated. */
static void store_sample(snd_pcm_format_t format, char *to, float sample)
{
    if (format == SND_PCM_FORMAT_FLOAT_LE) {
        memcpy(to, &sample, sizeof sample);
        return;
    }
    const size_t bytes = integer_bytes(format);
    const double full_scale = ldexp(1.0, 8 * (int)bytes - 1);
    const double rounded = rint((double)sample * full_scale);
    const int32_t integer = (int32_t)fmin(fmax(rounded, -full_scale), full_scale - 1.0);
    memcpy(to, &integer, bytes);
}

/* Channel c plays on loudspeaker c % loudspeakers, a mono stream on all. */
static void write_frames(stream_t *stream, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
                         int64_t count)
{
    const unsigned channels = stream->io.channels, loudspeakers = (unsigned)stream->paths.loudspeakers;
    for (int64_t i = 0; i < count; i++, offset++) {
        float samples[ROOM_LOUDSPEAKERS_MAX];
        for (unsigned l = 0; l < loudspeakers; l++) {
            float sum = 0.0f;
            int summed = 0;
            for (unsigned c = l < channels ? l : 0; c < channels; c += loudspeakers, summed++)
                sum += load_sample(stream->io.format, sample_address(&areas[c], offset));
            samples[l] = sum / (float)summed;
        }
        playback_put(&stream->playback, stream->appl_ptr + i, samples);
    }
    if (stream->state == STREAM_RUNNING)
        playback_place(&stream->playback, stream->appl_ptr, stream->appl_ptr + count);
}

/* The source of a captured channel, counted from 0. */
static capture_source_t source_of(const stream_t *stream, int channel)
{
    const int channels = (int)stream->io.channels, loudspeakers = stream->paths.loudspeakers;
    const bool wired = stream->options.reference > 0.0 && channels > loudspeakers;
    const int first_reference = wired ? channels - loudspeakers : channels;
    if (channel >= first_reference)
        return (capture_source_t){CAPTURE_REFERENCE, channel - first_reference};
    if (stream->paths.microphones == 1)
        return (capture_source_t){CAPTURE_MICROPHONE, 0};
    return (capture_source_t){channel < stream->paths.microphones ? CAPTURE_MICROPHONE : CAPTURE_NOTHING,
                              channel};
}

static void read_frames(const stream_t *stream, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
                        int64_t count)
{
    for (int64_t done = 0; done < count;) {
        float samples[CHUNK];
        const int part = (int)(count - done < CHUNK ? count - done : CHUNK);
        capture_source_t read = {CAPTURE_NOTHING, -1};
        for (int c = 0; c < (int)stream->io.channels; c++) {
            const capture_source_t source = source_of(stream, c);
            if (source.kind != read.kind || source.number != read.number)
                capture_read(&stream->capture, source, stream->appl_ptr + done, samples, part);
            read = source;
            for (int i = 0; i < part; i++)
                store_sample(stream->io.format, sample_address(&areas[c], offset + (snd_pcm_uframes_t)i),
                             samples[i]);
        }
        offset += (snd_pcm_uframes_t)part;
        done += part;
    }
}

void stream_transfer(stream_t *stream, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
                     int64_t count)
{
    if (stream->direction == ROOM_PLAYBACK)
        write_frames(stream, areas, offset, count);
    else
        read_frames(stream, areas, offset, count);
    stream->appl_ptr += count; /* alsa-lib moves its pointer by as much after this */
}
