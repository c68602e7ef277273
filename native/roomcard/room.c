/*
 * The ALSA side of the room card: pointer, transfer and poll of one stream.  room.h is the contract.
 *
 * Playback writes to the loudspeaker's shared signal when the application writes, at the card positions at
 * which the frames will be played; capture computes what the microphone heard when the application reads.
 * Nothing runs in between: a timer descriptor only wakes who waits, and the threads of patience.h only watch
 * the clock.
 */
#include "room.h"

#include "card.h"
#include "microphone.h"
#include "options.h"
#include "sinc.h"
#include "timeline.h"
#include "wav.h"

#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Frames handled at a time on the stack. */
enum { CHUNK = 256 };

/* Played frames are recorded in pieces of this much card time, to spare system calls at high speed. */
#define RECORD_EVERY_S 0.1

/* Same noise in every run. */
#define NOISE_SEED UINT64_C(0x61706d7069)

enum condition {
    STOPPED,
    RUNNING,
    XRUN,
    GONE, /* unplugged: for good */
};

struct room {
    snd_pcm_ioplug_t io;
    enum room_direction direction;
    struct options options;
    struct wav impulse_response, near;
    struct card card;
    int timer_fd;
    double unplug_s; /* this handle dies then, card seconds */

    /* Set by hw_params and sw_params. */
    struct microphone *microphone; /* capture */
    float *queued;                 /* playback: the queue on its own clock, frame n at n % queued_frames */
    int64_t queued_frames;         /* a power of two */
    int delay;                     /* samples */
    snd_pcm_uframes_t boundary, avail_min, stop_threshold;

    /* Since prepare. */
    enum condition condition;
    struct run run;
    int64_t hw;   /* frames passed by the hardware */
    int64_t appl; /* frames written or read by the application: io.appl_ptr without its wrap-around */

    struct recorder recorder;
    int64_t recorded; /* card sample up to which the record is written */
};

static double card_now(const struct room *room) { return card_now_s(&room->card) * room->io.rate; }

/* --- samples --- */

static const char *sample_address(const snd_pcm_channel_area_t *area, snd_pcm_uframes_t frame)
{
    return (const char *)area->addr + (area->first + frame * area->step) / 8;
}

static float load_sample(snd_pcm_format_t format, const char *from)
{
    union {
        int16_t s16;
        int32_t s32;
        float f32;
    } value = {0};
    switch (format) {
    case SND_PCM_FORMAT_S16_LE:
        memcpy(&value.s16, from, 2);
        return (float)value.s16 * (1.0f / 32768.0f);
    case SND_PCM_FORMAT_S24_3LE:
        memcpy((char *)&value.s32 + 1, from, 3);
        return (float)value.s32 * (1.0f / 2147483648.0f);
    case SND_PCM_FORMAT_S32_LE:
        memcpy(&value.s32, from, 4);
        return (float)value.s32 * (1.0f / 2147483648.0f);
    default:
        memcpy(&value.f32, from, 4);
        return isfinite(value.f32) ? value.f32 : 0.0f;
    }
}

/* Full scale is 2^(bits - 1). */
static int32_t sample_to_integer(float sample, int bits)
{
    double full_scale = ldexp(1.0, bits - 1);
    return (int32_t)fmin(fmax(rint((double)sample * full_scale), -full_scale), full_scale - 1.0);
}

static void store_sample(snd_pcm_format_t format, char *to, float sample)
{
    int16_t s16;
    int32_t integer;
    switch (format) {
    case SND_PCM_FORMAT_S16_LE:
        s16 = sample_to_s16(sample);
        memcpy(to, &s16, 2);
        break;
    case SND_PCM_FORMAT_S24_3LE:
        integer = sample_to_integer(sample, 24);
        memcpy(to, &integer, 3);
        break;
    case SND_PCM_FORMAT_S32_LE:
        integer = sample_to_integer(sample, 32);
        memcpy(to, &integer, 4);
        break;
    default:
        memcpy(to, &sample, 4);
    }
}

/* White noise of RMS 1 that depends on its index only: splitmix64's finalizer as a hash, the sum of its four
 * 16-bit parts (variance 4/12) for a bell shape. */
static float noise_at(int64_t index)
{
    uint64_t z = (uint64_t)index * UINT64_C(0x9E3779B97F4A7C15) + NOISE_SEED;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    int sum = (int)(z & 0xFFFF) + (int)(z >> 16 & 0xFFFF) + (int)(z >> 32 & 0xFFFF) + (int)(z >> 48);
    return ((float)sum / 65536.0f - 2.0f) * 1.7320508f; /* sqrt(3) */
}

/* --- playback: the queue, onto the card's axis --- */

static float queued_at(const struct room *room, int64_t frame, int64_t end)
{
    return frame >= 0 && frame < end ? room->queued[frame & (room->queued_frames - 1)] : 0.0f;
}

/* Puts the queued frames from..to-1 where they will be played.  The schedule of faults is known, so what a
 * fault delays or cuts off is delayed or left out already here, however late the application notices. */
static void place(struct room *room, int64_t from, int64_t to)
{
    struct speaker_writer writer = speaker_begin(&room->card);
    if (room->run.ratio == 1.0) {
        for (int64_t frame = from; frame < to; frame++) {
            int64_t position = (int64_t)run_position(&room->run, frame);
            if (position >= room->run.end)
                break;
            speaker_put(&writer, position, queued_at(room, frame, to));
        }
    } else {
        /* Again from SINC_HALF frames earlier: they were interpolated towards a silence that is no more.  The
         * delay, at least SINC_HALF samples here, keeps the microphone from having heard them. */
        from = from > SINC_HALF ? from - SINC_HALF : 0;
        int64_t position = (int64_t)ceil(run_position(&room->run, from));
        int64_t end = (int64_t)ceil(run_position(&room->run, to));
        for (; position < end && position < room->run.end; position++) {
            float sample = 0.0f;
            if (!run_stalled(&room->run, position)) {
                double frame = run_frames(&room->run, (double)position);
                int64_t whole = (int64_t)frame;
                float around[SINC_TAPS];
                for (int i = 0; i < SINC_TAPS; i++)
                    around[i] = queued_at(room, whole - (SINC_HALF - 1) + i, to);
                sample = sinc_at(around, frame - (double)whole);
            }
            speaker_put(&writer, position, sample);
        }
    }
    speaker_publish(&writer);
}

static void queue_frames(struct room *room, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
                         int64_t count)
{
    unsigned channels = room->io.channels;
    for (int64_t i = 0; i < count; i++, offset++) {
        float sum = 0.0f;
        for (unsigned c = 0; c < channels; c++)
            sum += load_sample(room->io.format, sample_address(&areas[c], offset));
        room->queued[(room->appl + i) & (room->queued_frames - 1)] = sum / (float)channels;
    }
    if (room->condition == RUNNING)
        place(room, room->appl, room->appl + count);
}

/* Records what was played before card position `until`. */
static void record_until(struct room *room, int64_t until)
{
    while (room->recorder.fd >= 0 && room->recorded < until) {
        float samples[CHUNK];
        int count = (int)(until - room->recorded < CHUNK ? until - room->recorded : CHUNK);
        speaker_read(&room->card, room->recorded, samples, count);
        int code = recorder_write(&room->recorder, room->recorded, samples, count);
        if (code < 0) {
            SNDERR("record: %s: %s; the record ends here", room->options.record, strerror(-code));
            recorder_close(&room->recorder, 0);
        }
        room->recorded += count;
    }
}

/* --- capture: the microphone, onto the stream's clock --- */

/* What is heard at `count` card positions: by the microphone, or on the wire to the loudspeaker. */
static void listen(struct room *room, bool wire, int64_t position, float *out, int count)
{
    if (wire)
        speaker_read(&room->card, position, out, count);
    else
        microphone_read(room->microphone, position, out, count);
}

static void heard(struct room *room, bool wire, int64_t frame, float *out, int count)
{
    if (room->run.ratio == 1.0) {
        while (count > 0) {
            /* As far as the frames lie next to each other: up to the next stall. */
            int64_t position = (int64_t)run_position(&room->run, frame);
            int part = 1;
            while (part < count && (int64_t)run_position(&room->run, frame + part) == position + part)
                part++;
            listen(room, wire, position, out, part);
            frame += part;
            out += part;
            count -= part;
        }
        return;
    }
    while (count > 0) {
        /* What lies around all frames up to the next long stall, heard at once: sample by sample, the echo
         * costs most of a fast card's time. */
        float around[CHUNK + SINC_TAPS];
        int64_t first = (int64_t)run_position(&room->run, frame), last = first;
        int part = 0;
        for (int64_t next = first; part < count && next < first + CHUNK; part++) {
            last = next;
            next = (int64_t)run_position(&room->run, frame + part + 1);
        }
        listen(room, wire, first - (SINC_HALF - 1), around, (int)(last - first) + SINC_TAPS);
        for (int i = 0; i < part; i++) {
            double position = run_position(&room->run, frame + i), whole = floor(position);
            out[i] = sinc_at(around + ((int64_t)whole - first), position - whole);
        }
        frame += part;
        out += part;
        count -= part;
    }
}

static void capture_frames(struct room *room, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
                           int64_t count)
{
    float noise_rms = powf(10.0f, (float)room->options.noise_dbfs / 20.0f);
    unsigned channels = room->io.channels;
    unsigned microphones = channels > 1 && room->options.reference > 0.0 ? channels - 1 : channels;
    for (int64_t done = 0; done < count;) {
        float samples[CHUNK], wire[CHUNK] = {0};
        int part = (int)(count - done < CHUNK ? count - done : CHUNK);
        int64_t frame = room->appl + done;
        heard(room, false, frame, samples, part);
        if (microphones < channels)
            heard(room, true, frame, wire, part);
        for (int i = 0; i < part; i++, offset++) {
            if (noise_rms > 0.0f)
                samples[i] += noise_rms * noise_at(room->run.start + frame + i);
            for (unsigned c = 0; c < channels; c++)
                store_sample(room->io.format, (char *)sample_address(&areas[c], offset),
                             c < microphones ? samples[i] : wire[i]);
        }
        done += part;
    }
}

/* --- where the stream is --- */

static bool is_gone(struct room *room)
{
    if (room->condition != GONE && card_now_s(&room->card) >= room->unplug_s)
        room->condition = GONE;
    return room->condition == GONE;
}

static void follow_appl_ptr(struct room *room)
{
    if (room->boundary == 0)
        return;
    snd_pcm_uframes_t seen = (snd_pcm_uframes_t)room->appl % room->boundary;
    snd_pcm_uframes_t forward = (room->io.appl_ptr + room->boundary - seen) % room->boundary;
    room->appl += forward <= room->boundary / 2 ? (int64_t)forward
                                                : (int64_t)forward - (int64_t)room->boundary;
}

/* Frames that the application may write or read. */
static int64_t available(const struct room *room)
{
    int64_t space = room->direction == ROOM_PLAYBACK ? (int64_t)room->io.buffer_size : 0;
    return room->hw + space - room->appl;
}

/* Brings hw and condition up to now. */
static void update(struct room *room)
{
    follow_appl_ptr(room);
    if (is_gone(room) || room->condition != RUNNING)
        return;

    double now = card_now(room);
    int64_t passed = (int64_t)run_frames(&room->run, fmin(now, (double)room->run.end));
    if (room->direction == ROOM_PLAYBACK) {
        if (room->io.state == SND_PCM_STATE_DRAINING && passed > room->appl)
            passed = room->appl;
        if (now - (double)room->recorded >= RECORD_EVERY_S * room->io.rate)
            record_until(room, (int64_t)now);
    }
    room->hw = passed;
    bool behind = room->io.state != SND_PCM_STATE_DRAINING &&
                  available(room) >= (int64_t)room->stop_threshold;
    if (now >= (double)room->run.end)
        room->condition = room->run.end_kind == FAULT_UNPLUG ? GONE : XRUN;
    else if (behind)
        room->condition = XRUN;
}

/* What the application must see of the condition: 0, -EPIPE or -ENODEV. */
static int condition_code(const struct room *room)
{
    return room->condition == GONE ? -ENODEV : room->condition == XRUN ? -EPIPE : 0;
}

static int64_t wanted_available(const struct room *room)
{
    bool draining = room->io.state == SND_PCM_STATE_DRAINING; /* wake when all is played */
    return (int64_t)(draining ? room->io.buffer_size : room->avail_min);
}

/* Sets the timer to when the stream becomes ready for `appl` frames done, or fails. */
static void arm_timer(struct room *room)
{
    double wake_s = room->unplug_s;
    int64_t missing = wanted_available(room) - available(room);
    if (condition_code(room) < 0 || missing <= 0) {
        wake_s = 0.0;
    } else if (room->condition == RUNNING) {
        /* The end of the last missing frame, not the begin of the one after it: a stall may lie between. */
        double ready = run_position(&room->run, room->hw + missing - 1) + 1.0 / room->run.ratio;
        wake_s = fmin(wake_s, fmin(ready, (double)room->run.end) / room->io.rate);
    }
    struct itimerspec timer = {0}; /* all 0 disarms; the past fires at once */
    if (isfinite(wake_s)) {
        int64_t ns = card_monotonic_ns(&room->card, wake_s);
        timer.it_value.tv_sec = (time_t)(ns / 1000000000);
        timer.it_value.tv_nsec = (long)(ns % 1000000000);
    }
    timerfd_settime(room->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
}

static void stop_run(struct room *room)
{
    if (room->condition == RUNNING && room->direction == ROOM_PLAYBACK) {
        int64_t now = (int64_t)ceil(card_now(room));
        speaker_cut(&room->card, now);
        record_until(room, now);
    }
    if (room->condition != GONE)
        room->condition = STOPPED;
}

/* --- ALSA callbacks --- */

static int room_start(snd_pcm_ioplug_t *io)
{
    struct room *room = io->private_data;
    update(room);
    if (room->condition == GONE) {
        snd_pcm_ioplug_set_state(io, SND_PCM_STATE_DISCONNECTED);
        return -ENODEV;
    }
    int64_t start = (int64_t)ceil(card_now(room));
    run_begin(&room->run, start, room->options.ppm, &room->options.faults, io->rate);
    room->condition = RUNNING;
    if (room->direction == ROOM_PLAYBACK) {
        place(room, 0, room->appl);
    } else {
        int64_t none = -1;
        atomic_compare_exchange_strong(&room->card.header->near_start, &none, start);
    }
    arm_timer(room);
    return 0;
}

static int room_stop(snd_pcm_ioplug_t *io)
{
    struct room *room = io->private_data;
    stop_run(room);
    arm_timer(room);
    return 0;
}

static snd_pcm_sframes_t room_pointer(snd_pcm_ioplug_t *io)
{
    struct room *room = io->private_data;
    update(room);
    if (room->condition == XRUN)
        return -EPIPE;
    if (room->condition == GONE) /* not by an error code: alsa-lib would make it an xrun */
        snd_pcm_ioplug_set_state(io, SND_PCM_STATE_DISCONNECTED);
    return room->boundary ? (snd_pcm_sframes_t)((snd_pcm_uframes_t)room->hw % room->boundary) : 0;
}

static snd_pcm_sframes_t room_transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas,
                                       snd_pcm_uframes_t offset, snd_pcm_uframes_t size)
{
    struct room *room = io->private_data;
    update(room);
    if (condition_code(room) < 0)
        return condition_code(room);
    if (room->direction == ROOM_PLAYBACK)
        queue_frames(room, areas, offset, (int64_t)size);
    else
        capture_frames(room, areas, offset, (int64_t)size);
    room->appl += (int64_t)size; /* alsa-lib moves its pointer by as much after this */
    arm_timer(room);
    return (snd_pcm_sframes_t)size;
}

static int room_delay(snd_pcm_ioplug_t *io, snd_pcm_sframes_t *delay)
{
    struct room *room = io->private_data;
    update(room);
    *delay = (snd_pcm_sframes_t)(room->direction == ROOM_PLAYBACK ? room->appl - room->hw
                                                                  : room->hw - room->appl);
    return condition_code(room);
}

static int room_poll_revents(snd_pcm_ioplug_t *io, struct pollfd *descriptors, unsigned count,
                             unsigned short *revents)
{
    (void)descriptors;
    (void)count;
    struct room *room = io->private_data;
    unsigned short ready = room->direction == ROOM_PLAYBACK ? POLLOUT : POLLIN;
    update(room);
    if (condition_code(room) < 0) {
        if (io->state != SND_PCM_STATE_DRAINING)
            snd_pcm_ioplug_set_state(io, room->condition == GONE ? SND_PCM_STATE_DISCONNECTED
                                                                 : SND_PCM_STATE_XRUN);
        *revents = ready | POLLERR;
    } else if (available(room) >= wanted_available(room)) {
        *revents = ready;
    } else {
        *revents = 0;
        arm_timer(room);
    }
    return 0;
}

static int room_prepare(snd_pcm_ioplug_t *io)
{
    struct room *room = io->private_data;
    stop_run(room);
    if (is_gone(room)) {
        snd_pcm_ioplug_set_state(io, SND_PCM_STATE_DISCONNECTED);
        return -ENODEV;
    }
    room->hw = room->appl = 0;
    arm_timer(room);
    return 0;
}

static int room_sw_params(snd_pcm_ioplug_t *io, snd_pcm_sw_params_t *params)
{
    struct room *room = io->private_data;
    snd_pcm_sw_params_get_boundary(params, &room->boundary);
    snd_pcm_sw_params_get_avail_min(params, &room->avail_min);
    snd_pcm_sw_params_get_stop_threshold(params, &room->stop_threshold);
    return 0;
}

static int room_hw_free(snd_pcm_ioplug_t *io)
{
    struct room *room = io->private_data;
    microphone_free(room->microphone);
    free(room->queued);
    room->microphone = NULL;
    room->queued = NULL;
    atomic_store(&room->card.header->rate_hz[room->direction], 0);
    return 0;
}

static int room_hw_params(snd_pcm_ioplug_t *io, snd_pcm_hw_params_t *params)
{
    (void)params;
    struct room *room = io->private_data;
    char error[ROOM_ERROR_SIZE];
    if (is_gone(room))
        return -ENODEV;
    room_hw_free(io);

    unsigned other = card_other_rate_hz(&room->card);
    if (other != 0 && other != io->rate) {
        SNDERR("rate: %u Hz, but the other direction of card \"%s\" runs at %u Hz", io->rate,
               room->options.card, other);
        return -EINVAL;
    }
    room->delay = (int)lround(room->options.delay_ms * 1e-3 * io->rate);
    int least = SINC_HALF * room->options.interpolators;
    if (room->delay < least) {
        SNDERR("delay_ms: %g, expected at least %g with these playback_ppm and capture_ppm at %u Hz",
               room->options.delay_ms, 1e3 * least / io->rate, io->rate);
        return -EINVAL;
    }
    if (room->direction == ROOM_CAPTURE) {
        room->microphone = microphone_create(&room->card, &room->impulse_response, &room->near, room->delay,
                                             room->options.clip_db);
        if (!room->microphone)
            return -ENOMEM;
    } else {
        room->queued_frames = 1;
        while (room->queued_frames < (int64_t)io->buffer_size + SINC_TAPS)
            room->queued_frames *= 2;
        room->queued = calloc((size_t)room->queued_frames, sizeof *room->queued);
        if (!room->queued)
            return -ENOMEM;
        if (room->options.record && room->recorder.fd < 0) {
            bool fresh = atomic_exchange(&room->card.header->recorded, 1) == 0;
            int code = recorder_open(&room->recorder, room->options.record, io->rate, fresh, error);
            if (code < 0) {
                SNDERR("record: %s", error);
                return code;
            }
            room->recorded = (int64_t)card_now(room);
        }
    }
    atomic_store(&room->card.header->rate_hz[room->direction], io->rate);
    return 0;
}

static void room_free(struct room *room)
{
    if (room->timer_fd >= 0)
        close(room->timer_fd);
    if (room->card.header)
        card_close(&room->card);
    wav_free(&room->impulse_response);
    wav_free(&room->near);
    options_free(&room->options);
    free(room);
}

static int room_close(snd_pcm_ioplug_t *io)
{
    struct room *room = io->private_data;
    stop_run(room);
    if (room->recorder.fd >= 0) {
        int64_t now = (int64_t)card_now(room);
        record_until(room, now);
        recorder_close(&room->recorder, now);
    }
    room_hw_free(io);
    room_free(room);
    return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
    .start = room_start,
    .stop = room_stop,
    .pointer = room_pointer,
    .transfer = room_transfer,
    .close = room_close,
    .hw_params = room_hw_params,
    .hw_free = room_hw_free,
    .sw_params = room_sw_params,
    .prepare = room_prepare,
    .poll_revents = room_poll_revents,
    .delay = room_delay,
};

/* --- opening --- */

static int load_file(const char *option, const char *path, struct wav *wav)
{
    char error[ROOM_ERROR_SIZE];
    int code = path ? wav_load(wav, path, error) : 0;
    if (code < 0)
        SNDERR("%s: %s", option, error);
    return code;
}

/* Loads the files and finds the rates at which the card can run. */
static int load_room(struct room *room, unsigned rates_hz[4], unsigned *count)
{
    static const unsigned all_rates_hz[4] = {8000, 16000, 32000, 48000};
    const struct wav *h = &room->impulse_response, *near = &room->near;
    int code = load_file("impulse_response", room->options.impulse_response, &room->impulse_response);
    if (code == 0)
        code = load_file("near", room->options.near, &room->near);
    if (code < 0)
        return code;

    unsigned rate_hz = h->bytes ? h->rate_hz : near->rate_hz;
    if (near->bytes && near->rate_hz != rate_hz) {
        SNDERR("near: %s has %u Hz, expected %u Hz as in impulse_response", room->options.near, near->rate_hz,
               rate_hz);
        return -EINVAL;
    }
    if (rate_hz == 0) {
        rate_hz = card_other_rate_hz(&room->card);
    } else if (rate_hz != 8000 && rate_hz != 16000 && rate_hz != 32000 && rate_hz != 48000) {
        SNDERR("%s: %s has %u Hz, expected 8000, 16000, 32000 or 48000 Hz",
               h->bytes ? "impulse_response" : "near",
               h->bytes ? room->options.impulse_response : room->options.near, rate_hz);
        return -EINVAL;
    }
    if (h->bytes && (double)h->frames > ROOM_IMPULSE_RESPONSE_MAX_S * h->rate_hz) {
        SNDERR("impulse_response: %s lasts %.2f s, expected at most %g s", room->options.impulse_response,
               (double)h->frames / h->rate_hz, ROOM_IMPULSE_RESPONSE_MAX_S);
        return -EINVAL;
    }
    *count = rate_hz ? 1 : 4;
    memcpy(rates_hz, rate_hz ? &rate_hz : all_rates_hz, *count * sizeof *rates_hz);
    return 0;
}

static int constrain(snd_pcm_ioplug_t *io, const unsigned *rates_hz, unsigned rates)
{
    static const unsigned access[] = {SND_PCM_ACCESS_RW_INTERLEAVED, SND_PCM_ACCESS_RW_NONINTERLEAVED,
                                      SND_PCM_ACCESS_MMAP_INTERLEAVED, SND_PCM_ACCESS_MMAP_NONINTERLEAVED};
    static const unsigned formats[] = {SND_PCM_FORMAT_S16_LE, SND_PCM_FORMAT_S24_3LE, SND_PCM_FORMAT_S32_LE,
                                       SND_PCM_FORMAT_FLOAT_LE};
    const struct room *room = io->private_data;
    int only = room->options.only_format;
    int code = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_ACCESS, 4, access);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_FORMAT, only < 0 ? 4 : 1,
                                             only < 0 ? formats : &(unsigned){(unsigned)only});
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_CHANNELS, 1, 8);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_RATE, rates, rates_hz);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 32,
                                               ROOM_BUFFER_MAX_BYTES / 2);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_BUFFER_BYTES, 64, ROOM_BUFFER_MAX_BYTES);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIODS, 2, 1024);
    return code;
}

static int open_room(struct room *room)
{
    char error[ROOM_ERROR_SIZE] = "";
    int code = card_open(&room->card, room->options.card, room->direction, room->options.speed, error);
    if (code < 0) {
        if (error[0])
            SNDERR("%s", error);
        return code;
    }
    double now_s = card_now_s(&room->card);
    if (!faults_plugged(&room->options.faults, now_s))
        return -ENODEV;
    room->unplug_s = faults_next_unplug(&room->options.faults, now_s);
    room->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (room->timer_fd < 0)
        return -errno;
    sinc_init();
    return 0;
}

#pragma GCC visibility push(default)
SND_PCM_PLUGIN_DEFINE_FUNC(apmpi_room)
{
    (void)root;
    char error[ROOM_ERROR_SIZE] = "";
    unsigned rates_hz[4], rates = 0;
    struct room *room = calloc(1, sizeof *room);
    if (!room)
        return -ENOMEM;
    room->timer_fd = room->recorder.fd = -1;
    room->direction = stream == SND_PCM_STREAM_PLAYBACK ? ROOM_PLAYBACK : ROOM_CAPTURE;

    int code = options_read(&room->options, conf, room->direction, error);
    if (code < 0 && error[0])
        SNDERR("%s", error);
    if (code == 0)
        code = open_room(room);
    if (code == 0)
        code = load_room(room, rates_hz, &rates);
    if (code == 0) {
        room->io.version = SND_PCM_IOPLUG_VERSION;
        room->io.name = "apmpi room card";
        room->io.flags = SND_PCM_IOPLUG_FLAG_MONOTONIC | SND_PCM_IOPLUG_FLAG_BOUNDARY_WA;
        room->io.callback = &callbacks;
        room->io.private_data = room;
        room->io.poll_fd = room->timer_fd;
        room->io.poll_events = POLLIN;
        code = snd_pcm_ioplug_create(&room->io, name, stream, mode);
    }
    if (code < 0) {
        room_free(room);
        return code;
    }
    code = constrain(&room->io, rates_hz, rates);
    if (code < 0) {
        snd_pcm_ioplug_delete(&room->io); /* which calls room_close */
        return code;
    }
    *pcmp = room->io.pcm;
    return 0;
}
SND_PCM_PLUGIN_SYMBOL(apmpi_room);
#pragma GCC visibility pop
