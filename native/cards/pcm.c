#include "cards/pcm.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "cards/time.h"

/* Sleep after poll() has reported data and none could be read: it prevents a busy loop and is far below a
 * period. */
static const struct timespec FALSE_WAKE_SLEEP = {0, 500000};

static const int64_t STALL_NS = (int64_t)STALL_MS * 1000000;

static int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* A time of CLOCK_MONOTONIC in the time base. */
static int64_t in_time_base(const pcm_t *pcm, int64_t ns)
{
    return pcm->speed == 1.0 ? ns : (int64_t)((double)ns * pcm->speed);
}

int64_t pcm_now_ns(const pcm_t *pcm) { return in_time_base(pcm, monotonic_ns()); }

/* A frame and a period more for a capture; a whole buffer and a frame more for the first write. */
int pcm_raw_samples(const pcm_t *pcm) { return pcm->buffer_samples + 2 * pcm->frame_samples; }

static size_t sample_bytes(const pcm_t *pcm)
{
    return (size_t)pcm->channels * (size_t)format_bytes(pcm->format);
}

/* Gives a time and the samples available at that time; returns 0 while the card does not run. */
static int position(const pcm_t *pcm, int64_t *at_ns, int *available)
{
    snd_pcm_uframes_t count = 0;
    snd_htimestamp_t stamp = {0};
    /* the state after the position, which is undefined after an error */
    if (snd_pcm_htimestamp(pcm->handle, &count, &stamp) < 0 ||
        snd_pcm_state(pcm->handle) != SND_PCM_STATE_RUNNING || count > (snd_pcm_uframes_t)pcm->buffer_samples)
        return 0;
    const int64_t stamp_ns = (int64_t)stamp.tv_sec * NS_PER_S + stamp.tv_nsec, now_ns = monotonic_ns(),
                  age_ns = now_ns - stamp_ns;
    /* A card just started may have no time stamp yet, and some plugins use another clock. */
    *at_ns = in_time_base(pcm, age_ns >= 0 && age_ns < NS_PER_S ? stamp_ns : now_ns);
    *available = (int)count;
    return 1;
}

static pcm_result_t failed(pcm_t *pcm, int error)
{
    pcm->error = error;
    return PCM_FAILED;
}

/* Counts an xrun and stops the card; the next transfer starts it. */
static pcm_result_t xrun(pcm_t *pcm)
{
    pcm->xruns++;
    if (++pcm->xruns_in_a_row > XRUNS_IN_A_ROW_MAX)
        return PCM_ONLY_XRUNS;
    const int code = snd_pcm_drop(pcm->handle);
    return code < 0 ? failed(pcm, code) : PCM_GOOD;
}

/* Reads or writes `samples`; gives their number, which is 0 without any, or -1 after an xrun, which is
 * counted and stops the card. */
static pcm_result_t transfer(pcm_t *pcm, snd_pcm_stream_t direction, unsigned char *raw, int samples,
                             int *moved)
{
    *moved = -1;
    const snd_pcm_state_t state = snd_pcm_state(pcm->handle);
    if (state == SND_PCM_STATE_XRUN)
        return xrun(pcm);
    snd_pcm_sframes_t code = state == SND_PCM_STATE_SETUP ? snd_pcm_prepare(pcm->handle) : 0;
    if (code == 0 && direction == SND_PCM_STREAM_CAPTURE)
        code = snd_pcm_readi(pcm->handle, raw, (snd_pcm_uframes_t)samples);
    else if (code == 0)
        code = snd_pcm_writei(pcm->handle, raw, (snd_pcm_uframes_t)samples);
    if (code == -EPIPE)
        return xrun(pcm);
    if (code < 0 && code != -EAGAIN)
        return failed(pcm, (int)code);
    *moved = code < 0 ? 0 : (int)code;
    return PCM_GOOD;
}

/* ---- recording */

void capture_begin(capture_t *capture)
{
    capture->restarted = capture->stopped = 1;
    capture->pending_samples = 0;
    capture->moved_ns = capture->captured_ns = 0;
    const int count = snd_pcm_poll_descriptors(capture->pcm.handle, capture->descriptors, DESCRIPTORS_MAX);
    capture->descriptors_count = count > 0 ? count : 0;
}

void capture_rest(capture_t *capture)
{
    snd_pcm_drop(capture->pcm.handle); /* the next transfer meets an error again */
    capture->pending_samples = 0;
    capture->moved_ns = 0;
}

/* Appends the samples available, at most a period, to those pending; *moved is 1 if there were any. */
static pcm_result_t receive(capture_t *capture, int *moved)
{
    pcm_t *pcm = &capture->pcm;
    *moved = 0;
    if (!capture->moved_ns) { /* starts now */
        capture->stopped = 1;
        capture->moved_ns = pcm_now_ns(pcm);
    }
    int count = 0;
    for (int attempt = 0; attempt < 2;
         attempt++) { /* the second restarts it: a stopped card does not wake poll() */
        unsigned char *end = pcm->raw + (size_t)capture->pending_samples * sample_bytes(pcm);
        const pcm_result_t result = transfer(pcm, SND_PCM_STREAM_CAPTURE, end, pcm->period_samples, &count);
        if (result != PCM_GOOD)
            return result;
        if (count >= 0)
            break;
        capture->pending_samples = 0;
        capture->stopped = 1;
    }
    if (count <= 0)
        return PCM_GOOD;
    pcm->xruns_in_a_row = 0;
    capture->moved_ns = pcm_now_ns(pcm);
    capture->pending_samples += count;
    capture->restarted = capture->stopped;
    capture->stopped = 0;
    *moved = 1;
    return PCM_GOOD;
}

/* Moves `samples` of those pending to `out`. */
static void deliver(capture_t *capture, int samples, int16_t *out)
{
    pcm_t *pcm = &capture->pcm;
    const size_t bytes = sample_bytes(pcm);
    format_to_int16(pcm->format, pcm->raw, samples * pcm->channels, out);
    capture->pending_samples -= samples;
    memmove(pcm->raw, pcm->raw + (size_t)samples * bytes, (size_t)capture->pending_samples * bytes);
}

/* Waits until samples may be available; sleeps after a wake-up without any. */
static void wait_for_samples(capture_t *capture, int64_t timeout_ns)
{
    const int timeout_ms = (int)((double)timeout_ns / capture->pcm.speed / 1e6) + 1;
    if (poll(capture->descriptors, (nfds_t)capture->descriptors_count, timeout_ms) <= 0)
        return;
    unsigned short events = 0;
    snd_pcm_poll_descriptors_revents(capture->pcm.handle, capture->descriptors,
                                     (unsigned)capture->descriptors_count, &events);
    if (!(events & (POLLIN | POLLERR)))
        nanosleep(&FALSE_WAKE_SLEEP, NULL);
}

pcm_result_t capture_read(capture_t *capture, int16_t *frame)
{
    pcm_t *pcm = &capture->pcm;
    for (;;) {
        int64_t at_ns;
        int available, moved;
        /* poll() wakes for a whole period: samples read before that would delay it */
        if (!position(pcm, &at_ns, &available) || available >= pcm->period_samples) {
            const pcm_result_t result = receive(capture, &moved);
            if (result != PCM_GOOD)
                return result;
            if (capture->pending_samples >= pcm->frame_samples) {
                deliver(capture, pcm->frame_samples, frame);
                capture->captured_ns = capture_unread_ns(capture) -
                                       ns_of_samples(pcm->frame_samples, pcm->rate_hz);
                return PCM_GOOD;
            }
            if (!moved) /* poll() may return at once all the same, without end */
                nanosleep(&FALSE_WAKE_SLEEP, NULL);
        }
        const int64_t left_ns = capture->moved_ns + STALL_NS - pcm_now_ns(pcm);
        if (left_ns <= 0)
            return PCM_STALLED;
        wait_for_samples(capture, left_ns);
    }
}

pcm_result_t capture_take(capture_t *capture, int16_t *out, int *samples)
{
    int moved;
    *samples = 0;
    const pcm_result_t result = receive(capture, &moved);
    if (result != PCM_GOOD)
        return result;
    if (capture->pending_samples == 0)
        return pcm_now_ns(&capture->pcm) - capture->moved_ns > STALL_NS ? PCM_STALLED : PCM_GOOD;
    *samples = capture->pending_samples;
    deliver(capture, *samples, out);
    return PCM_GOOD;
}

int64_t capture_unread_ns(capture_t *capture)
{
    const pcm_t *pcm = &capture->pcm;
    int64_t at_ns;
    int available;
    if (!position(pcm, &at_ns, &available)) {
        at_ns = pcm_now_ns(pcm);
        available = 0;
    }
    return at_ns - ns_of_samples(available + capture->pending_samples, pcm->rate_hz);
}

/* ---- playing */

void playback_begin(playback_t *playback)
{
    playback->moving = playback->started = 0;
    playback->written_samples = playback->moved_ns = 0;
    playback->played_samples = -1;
}

void playback_rest(playback_t *playback)
{
    snd_pcm_drop(playback->pcm.handle);
    playback->started = 0;
}

pcm_result_t playback_next_ns(playback_t *playback, int *standing, int64_t *next_ns)
{
    pcm_t *pcm = &playback->pcm;
    int64_t at_ns;
    int available;
    *standing = !position(pcm, &at_ns, &available);
    if (*standing) {
        const int started = playback->started;
        playback->started = 0;
        return started ? xrun(pcm) : PCM_GOOD;
    }
    const int queued = pcm->buffer_samples - available;
    const int64_t played = playback->written_samples - queued;
    if (played != playback->played_samples) {
        if (playback->played_samples >= 0) {
            playback->moving = 1;
            pcm->xruns_in_a_row = 0;
        }
        playback->played_samples = played;
        playback->moved_ns = at_ns;
    } else if (at_ns - playback->moved_ns > STALL_NS) {
        return PCM_STALLED;
    }
    *next_ns = at_ns + ns_of_samples(queued, pcm->rate_hz);
    return PCM_GOOD;
}

pcm_result_t playback_write(playback_t *playback, int silence_samples, const int16_t *in, int samples,
                            int *done)
{
    pcm_t *pcm = &playback->pcm;
    int written;
    const size_t silence_bytes = (size_t)silence_samples * sample_bytes(pcm);
    memset(pcm->raw, 0, silence_bytes);
    format_from_int16(pcm->format, in, samples * pcm->channels, pcm->raw + silence_bytes);
    const pcm_result_t result = transfer(pcm, SND_PCM_STREAM_PLAYBACK, pcm->raw, silence_samples + samples,
                                         &written);
    *done = result == PCM_GOOD && written >= 0;
    if (result != PCM_GOOD)
        return result;
    if (!*done) {
        playback->started = 0;
        return PCM_GOOD;
    }
    if (!playback->started) {
        playback->started = 1;
        playback->written_samples = 0;
        playback->played_samples = -1;
    }
    playback->written_samples += written;
    return PCM_GOOD;
}
