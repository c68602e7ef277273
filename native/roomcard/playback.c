#include "roomcard/playback.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "roomcard/sinc.h"

enum { CHUNK = 256 }; /* samples recorded in one system call */

int playback_init(playback_t *playback, int64_t buffer_frames)
{
    playback->queue_frames = 1;
    while (playback->queue_frames < buffer_frames + SINC_TAPS)
        playback->queue_frames *= 2;
    playback->queue = calloc((size_t)playback->queue_frames, sizeof *playback->queue);
    return playback->queue ? 0 : -ENOMEM;
}

void playback_free(playback_t *playback)
{
    free(playback->queue);
    playback->queue = NULL;
}

void playback_put(playback_t *playback, int64_t frame, float sample)
{
    playback->queue[frame & (playback->queue_frames - 1)] = sample;
}

static float queued_at(const playback_t *playback, int64_t frame, int64_t end)
{
    return frame >= 0 && frame < end ? playback->queue[frame & (playback->queue_frames - 1)] : 0.0f;
}

/* The signal played at card position `position`, between the stream's frames; `end` of the queue. */
static float resampled_at(const playback_t *playback, int64_t position, int64_t end)
{
    const run_t *run = playback->run;
    if (run_stalled(run, position))
        return 0.0f;
    const double frame = run_frames(run, (double)position);
    const int64_t whole = (int64_t)frame;
    float around[SINC_TAPS];
    for (int i = 0; i < SINC_TAPS; i++)
        around[i] = queued_at(playback, whole - (SINC_HALF - 1) + i, end);
    return sinc_at(around, frame - (double)whole);
}

void playback_place(const playback_t *playback, int64_t from, int64_t to)
{
    const run_t *run = playback->run;
    speaker_writer_t writer = speaker_begin(playback->card);
    if (run->ratio == 1.0) {
        for (int64_t frame = from; frame < to; frame++) {
            const int64_t position = (int64_t)run_position(run, frame);
            if (position >= run->end)
                break;
            speaker_put(&writer, position, queued_at(playback, frame, to));
        }
    } else {
        /* The last SINC_HALF frames before these were interpolated with silence after them: again. They
         * have not been captured yet, because the delay is at least SINC_HALF samples here. */
        from = from > SINC_HALF ? from - SINC_HALF : 0;
        int64_t position = (int64_t)ceil(run_position(run, from));
        const int64_t end = (int64_t)ceil(run_position(run, to));
        for (; position < end && position < run->end; position++)
            speaker_put(&writer, position, resampled_at(playback, position, to));
    }
    speaker_publish(&writer);
}

int playback_record(playback_t *playback, int64_t until)
{
    int code = 0;
    while (playback->recorder.fd >= 0 && playback->recorded < until) {
        float samples[CHUNK];
        const int64_t left = until - playback->recorded;
        const int count = (int)(left < CHUNK ? left : CHUNK);
        speaker_read(playback->card, playback->recorded, samples, count);
        code = recorder_write(&playback->recorder, playback->recorded, samples, count);
        if (code < 0)
            recorder_close(&playback->recorder, 0);
        playback->recorded += count;
    }
    return code;
}
