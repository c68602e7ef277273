/* ALSA's callbacks and the opening of a stream; room.h is the contract. */
#include "roomcard/room.h"

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "roomcard/sinc.h"
#include "roomcard/stream.h"

/* --- ALSA callbacks --- */

static stream_t *stream_of(snd_pcm_ioplug_t *io) { return io->private_data; }

static int room_start(snd_pcm_ioplug_t *io)
{
    stream_t *stream = stream_of(io);
    stream_update(stream);
    if (stream->state == STREAM_DISCONNECTED) {
        snd_pcm_ioplug_set_state(io, SND_PCM_STATE_DISCONNECTED);
        return -ENODEV;
    }
    stream_start(stream);
    stream_arm_timer(stream);
    return 0;
}

static int room_stop(snd_pcm_ioplug_t *io)
{
    stream_stop(stream_of(io));
    stream_arm_timer(stream_of(io));
    return 0;
}

static snd_pcm_sframes_t room_pointer(snd_pcm_ioplug_t *io)
{
    stream_t *stream = stream_of(io);
    stream_update(stream);
    if (stream->state == STREAM_XRUN)
        return -EPIPE;
    if (stream->state == STREAM_DISCONNECTED) /* alsa-lib would turn an error code into an xrun */
        snd_pcm_ioplug_set_state(io, SND_PCM_STATE_DISCONNECTED);
    return stream->boundary ? (snd_pcm_sframes_t)((snd_pcm_uframes_t)stream->hw_ptr % stream->boundary) : 0;
}

static snd_pcm_sframes_t room_transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas,
                                       snd_pcm_uframes_t offset, snd_pcm_uframes_t size)
{
    stream_t *stream = stream_of(io);
    stream_update(stream);
    if (stream_error(stream) < 0)
        return stream_error(stream);
    stream_transfer(stream, areas, offset, (int64_t)size);
    stream_arm_timer(stream);
    return (snd_pcm_sframes_t)size;
}

static int room_delay(snd_pcm_ioplug_t *io, snd_pcm_sframes_t *delay)
{
    stream_t *stream = stream_of(io);
    stream_update(stream);
    *delay = (snd_pcm_sframes_t)(stream->direction == ROOM_PLAYBACK ? stream->appl_ptr - stream->hw_ptr
                                                                    : stream->hw_ptr - stream->appl_ptr);
    return stream_error(stream);
}

static int room_poll_revents(snd_pcm_ioplug_t *io, struct pollfd *descriptors, unsigned count,
                             unsigned short *revents)
{
    (void)descriptors;
    (void)count;
    stream_t *stream = stream_of(io);
    const unsigned short ready = stream->direction == ROOM_PLAYBACK ? POLLOUT : POLLIN;
    stream_update(stream);
    if (stream_error(stream) < 0) {
        if (io->state != SND_PCM_STATE_DRAINING)
            snd_pcm_ioplug_set_state(io, stream->state == STREAM_DISCONNECTED ? SND_PCM_STATE_DISCONNECTED
                                                                              : SND_PCM_STATE_XRUN);
        *revents = ready | POLLERR;
    } else if (stream_ready(stream)) {
        *revents = ready;
    } else {
        *revents = 0;
        stream_arm_timer(stream);
    }
    return 0;
}

static int room_prepare(snd_pcm_ioplug_t *io)
{
    stream_t *stream = stream_of(io);
    stream_stop(stream);
    if (stream_disconnected(stream)) {
        snd_pcm_ioplug_set_state(io, SND_PCM_STATE_DISCONNECTED);
        return -ENODEV;
    }
    stream->hw_ptr = stream->appl_ptr = 0;
    stream_arm_timer(stream);
    return 0;
}

static int room_sw_params(snd_pcm_ioplug_t *io, snd_pcm_sw_params_t *params)
{
    stream_t *stream = stream_of(io);
    snd_pcm_sw_params_get_boundary(params, &stream->boundary);
    snd_pcm_sw_params_get_avail_min(params, &stream->avail_min);
    snd_pcm_sw_params_get_stop_threshold(params, &stream->stop_threshold);
    return 0;
}

static int room_hw_free(snd_pcm_ioplug_t *io)
{
    stream_t *stream = stream_of(io);
    capture_free(&stream->capture);
    playback_free(&stream->playback);
    atomic_store(&stream->card.header->rate_hz[stream->direction], 0);
    return 0;
}

/* Makes the queue, and begins or continues the record of the card. */
static int open_playback(stream_t *stream)
{
    room_error_t error;
    playback_t *playback = &stream->playback;
    playback->loudspeakers = stream->paths.loudspeakers;
    playback->recorder.channels = (unsigned)playback->loudspeakers;
    int code = playback_init(playback, (int64_t)stream->io.buffer_size);
    if (code < 0 || !stream->options.record || playback->recorder.fd >= 0)
        return code;
    const bool fresh = atomic_exchange(&stream->card.header->recorded, 1) == 0;
    code = recorder_open(&playback->recorder, stream->options.record, stream->io.rate, fresh, error);
    if (code < 0)
        SNDERR("record: %s", error);
    playback->recorded = (int64_t)stream_now(stream);
    return code;
}

static int open_capture(stream_t *stream, int delay_samples)
{
    const microphone_room_t room = {&stream->card,   &stream->paths, &stream->near,
                                    stream->io.rate, delay_samples,  stream->options.clip_db};
    capture_t *capture = &stream->capture;
    *capture = (capture_t){.card = &stream->card,
                           .run = &stream->run,
                           .noise_rms = powf(10.0f, (float)stream->options.noise_dbfs / 20.0f)};
    for (int m = 0; m < stream->paths.microphones; m++) {
        capture->microphone[m] = microphone_create(&room, m);
        if (!capture->microphone[m])
            return -ENOMEM;
    }
    return 0;
}

static int room_hw_params(snd_pcm_ioplug_t *io, snd_pcm_hw_params_t *params)
{
    (void)params;
    stream_t *stream = stream_of(io);
    const options_t *options = &stream->options;
    if (stream_disconnected(stream))
        return -ENODEV;
    room_hw_free(io);

    const unsigned other = card_other_rate_hz(&stream->card);
    if (other != 0 && other != io->rate) {
        SNDERR("rate: %u Hz, but the other direction of card \"%s\" runs at %u Hz", io->rate, options->card,
               other);
        return -EINVAL;
    }
    const int delay_samples = (int)lround(options->delay_ms * 1e-3 * io->rate);
    const int least = SINC_HALF * options->interpolators;
    if (delay_samples < least) {
        SNDERR("delay_ms: %g, expected at least %g with these playback_ppm and capture_ppm at %u Hz",
               options->delay_ms, 1e3 * least / io->rate, io->rate);
        return -EINVAL;
    }
    const int code = stream->direction == ROOM_CAPTURE ? open_capture(stream, delay_samples)
                                                       : open_playback(stream);
    if (code == 0)
        atomic_store(&stream->card.header->rate_hz[stream->direction], io->rate);
    return code;
}

static void stream_free(stream_t *stream)
{
    if (stream->timer_fd >= 0)
        close(stream->timer_fd);
    if (stream->card.header)
        card_close(&stream->card);
    wav_free(&stream->impulse_response);
    wav_free(&stream->near);
    options_free(&stream->options);
    free(stream);
}

static int room_close(snd_pcm_ioplug_t *io)
{
    stream_t *stream = stream_of(io);
    stream_stop(stream);
    if (stream->playback.recorder.fd >= 0) {
        const int64_t now = (int64_t)stream_now(stream);
        stream_record(stream, now);
        recorder_close(&stream->playback.recorder, now);
    }
    room_hw_free(io);
    stream_free(stream);
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

enum { RATES = 4 };
static const unsigned rates_hz[RATES] = {8000, 16000, 32000, 48000};

static int load_file(const char *option, const char *path, int channels, bool or_mono, wav_t *wav)
{
    room_error_t error;
    const int code = path ? wav_load(wav, path, (unsigned)channels, or_mono, error) : 0;
    if (code < 0)
        SNDERR("%s: %s", option, error);
    return code;
}

/* Loads the files. Returns the card's only rate in Hz, 0 where all of rates_hz are possible, or a negative
 * errno. */
static int load_room(stream_t *stream)
{
    const options_t *options = &stream->options;
    const wav_t *h = &stream->impulse_response, *near = &stream->near;
    const int pairs = stream->paths.loudspeakers * stream->paths.microphones;
    int code = load_file("impulse_response", options->impulse_response, pairs, false,
                         &stream->impulse_response);
    if (code == 0)
        code = load_file("near", options->near, stream->paths.microphones, true, &stream->near);
    if (code < 0)
        return code;
    if (!h->bytes && !near->bytes)
        return (int)card_other_rate_hz(&stream->card);

    const unsigned rate_hz = h->bytes ? h->rate_hz : near->rate_hz;
    if (near->bytes && near->rate_hz != rate_hz) {
        SNDERR("near: %s has %u Hz, expected %u Hz as in impulse_response", options->near, near->rate_hz,
               rate_hz);
        return -EINVAL;
    }
    int k = 0;
    while (k < RATES && rates_hz[k] != rate_hz)
        k++;
    if (k == RATES) {
        SNDERR("%s: %s has %u Hz, expected 8000, 16000, 32000 or 48000 Hz",
               h->bytes ? "impulse_response" : "near", h->bytes ? options->impulse_response : options->near,
               rate_hz);
        return -EINVAL;
    }
    if (h->bytes && (double)h->frames > ROOM_IMPULSE_RESPONSE_MAX_S * h->rate_hz) {
        SNDERR("impulse_response: %s lasts %.2f s, expected at most %g s", options->impulse_response,
               (double)h->frames / h->rate_hz, ROOM_IMPULSE_RESPONSE_MAX_S);
        return -EINVAL;
    }
    return (int)rate_hz;
}

/* Declares what the card offers; `rate_hz` 0 means all rates. */
static int constrain(snd_pcm_ioplug_t *io, unsigned rate_hz)
{
    static const unsigned access[] = {SND_PCM_ACCESS_RW_INTERLEAVED, SND_PCM_ACCESS_RW_NONINTERLEAVED,
                                      SND_PCM_ACCESS_MMAP_INTERLEAVED, SND_PCM_ACCESS_MMAP_NONINTERLEAVED};
    const snd_pcm_format_t only = stream_of(io)->options.only_format;
    const unsigned format = (unsigned)only;
    const bool any = only == SND_PCM_FORMAT_UNKNOWN;
    int code = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_ACCESS, 4, access);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_FORMAT, any ? ROOM_FORMATS : 1,
                                             any ? room_formats : &format);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_CHANNELS, 1, 8);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_RATE, rate_hz ? 1 : RATES,
                                             rate_hz ? &rate_hz : rates_hz);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 32,
                                               ROOM_BUFFER_MAX_BYTES / 2);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_BUFFER_BYTES, 64, ROOM_BUFFER_MAX_BYTES);
    if (code >= 0)
        code = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIODS, 2, 1024);
    return code;
}

static int join_card(stream_t *stream)
{
    room_error_t error = "";
    const card_kind_t kind = {stream->options.speed, stream->paths.loudspeakers};
    const int code = card_open(&stream->card, stream->options.card, stream->direction, kind, error);
    if (code < 0) {
        if (error[0])
            SNDERR("%s", error);
        return code;
    }
    const double now_s = card_now_s(&stream->card);
    if (!faults_plugged(&stream->options.faults, now_s))
        return -ENODEV;
    stream->unplug_s = faults_next_unplug(&stream->options.faults, now_s);
    stream->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (stream->timer_fd < 0)
        return -errno;
    sinc_init();
    return 0;
}

#pragma GCC visibility push(default)
SND_PCM_PLUGIN_DEFINE_FUNC(apmpi_room)
{
    (void)root;
    room_error_t error = "";
    int rate_hz = 0;
    stream_t *opened = calloc(1, sizeof *opened);
    if (!opened)
        return -ENOMEM;
    opened->timer_fd = opened->playback.recorder.fd = -1;
    opened->playback.card = &opened->card;
    opened->playback.run = &opened->run;
    opened->paths.file = &opened->impulse_response;
    opened->direction = stream == SND_PCM_STREAM_PLAYBACK ? ROOM_PLAYBACK : ROOM_CAPTURE;

    int code = options_read(&opened->options, conf, opened->direction, error);
    if (code == 0)
        code = options_paths(&opened->options, &opened->paths, error);
    if (code < 0 && error[0])
        SNDERR("%s", error);
    if (code == 0)
        code = join_card(opened);
    if (code == 0)
        code = rate_hz = load_room(opened);
    if (code >= 0) {
        opened->io.version = SND_PCM_IOPLUG_VERSION;
        opened->io.name = "apmpi room card";
        opened->io.flags = SND_PCM_IOPLUG_FLAG_MONOTONIC | SND_PCM_IOPLUG_FLAG_BOUNDARY_WA;
        opened->io.callback = &callbacks;
        opened->io.private_data = opened;
        opened->io.poll_fd = opened->timer_fd;
        opened->io.poll_events = POLLIN;
        code = snd_pcm_ioplug_create(&opened->io, name, stream, mode);
    }
    if (code < 0) {
        stream_free(opened);
        return code;
    }
    code = constrain(&opened->io, (unsigned)rate_hz);
    if (code < 0) {
        snd_pcm_ioplug_delete(&opened->io); /* which calls room_close */
        return code;
    }
    *pcmp = opened->io.pcm;
    return 0;
}
SND_PCM_PLUGIN_SYMBOL(apmpi_room);
#pragma GCC visibility pop
