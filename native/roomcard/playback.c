#include "roomcard/playback.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "roomcard/sinc.h"

enum { CHUNK = 256 }; /* frames recorded at a time, on the stack */

int playback_init(playback_t *playback, int64_t buffer_frames)
{
    playback->queue_frames = 1;
    while (playback->queue_frames < buffer_frames + SINC_TAPS)
        playback->queue_frames *= 2;
    playback->queue = calloc((size_t)(playback->queue_frames * playback->loudspeakers),
                             sizeof *playback->queue);
    return playback->queue ? 0 : -ENOMEM;
}

void playback_free(playback_t *playback)
{
    free(playback->queue);
    playback->queue = NULL;
}

/* Frame `frame` in the queue. */
static float *queued(const playback_t *playback, int64_t frame)
{
    return playback->queue + (frame & (playback->queue_frames - 1)) * playback->loudspeakers;
}

void playback_put(playback_t *playback, int64_t frame, const float *samples)
{
    memcpy(queued(playback, frame), samples, sizeof *samples * (size_t)playback->loudspeakers);
}

static float queued_at(const playback_t *playback, int loudspeaker, int64_t frame, int64_t end)
{
    return frame >= 0 && frame < end ? queued(playback, frame)[loudspeaker] : 0.0f;
}

/* The signal played at card position `position`, between the stream's frames; `end` of the queue. */
static float resampled_at(const playback_t *playback, int loudspeaker, int64_t position, int64_t end)
{
    const run_t *run = playback->run;
    if (run_stalled(run, position))
        return 0.0f;
    const double frame = run_frames(run, (double)position);
    const int64_t whole = (int64_t)frame;
    float around[SINC_TAPS];
    for (int i = 0; i < SINC_TAPS; i++)
        around[i] = queued_at(playback, loudspeaker, whole - (SINC_HALF - 1) + i, end);
    return sinc_at(around, frame - (double)whole);
}

void playback_place(const playback_t *playback, int64_t from, int64_t to)
{
    const run_t *run = playback->run;
    float samples[ROOM_LOUDSPEAKERS_MAX];
    speaker_writer_t writer = speaker_begin(playback->card);
    if (run->ratio == 1.0) {
        for (int64_t frame = from; frame < to; frame++) {
            const int64_t position = (int64_t)run_position(run, frame);
            if (position >= run->end)
                break;
            speaker_put(&writer, position, queued(playback, frame));
        }
    } else {
        /* The last SINC_HALF frames before these were interpolated with silence after them: again. They
         * have not been captured yet, because the delay is at least SINC_HALF samples here. */
        from = from > SINC_HALF ? from - SINC_HALF : 0;
        int64_t position = (int64_t)ceil(run_position(run, from));
        const int64_t end = (int64_t)ceil(run_position(run, to));
        for (; position < end && position < run->end; position++) {
            for (int l = 0; l < playback->loudspeakers; l++)
                samples[l] = resampled_at(playback, l, position, to);
            speaker_put(&writer, position, samples);
        }
    }
    speaker_publish(&writer);
}

int playback_record(playback_t *playback, int64_t until)
{
    int code = 0;
    while (playback->recorder.fd >= 0 && playback->recorded < until) {
        float frames[CHUNK * ROOM_LOUDSPEAKERS_MAX], samples[CHUNK];
        const int64_t left = until - playback->recorded;
        const int count = (int)(left < CHUNK ? left : CHUNK), loudspeakers = playback->loudspeakers;
        for (int l = 0; l < loudspeakers; l++) {
            speaker_read(playback->card, l, playback->recorded, samples, count);
            for (int i = 0; i < count; i++)
                frames[i * loudspeakers + l] = samples[i];
        }
        code = recorder_write(&playback->recorder, playback->recorded, frames, count);
        if (code < 0)
            recorder_close(&playback->recorder, 0);
        playback->recorded += count;
    }
    return code;
}
