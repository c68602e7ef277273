#include "roomcard/microphone.h"

#include <math.h>
#include <stdlib.h>

/* Makes the echo path from each loudspeaker; false when there is no memory. */
static bool make_echoes(microphone_t *m)
{
    const paths_t *paths = m->room.paths;
    float *response = malloc(sizeof *response * (size_t)m->taps);
    bool made = response != NULL;
    for (int l = 0; made && l < paths->loudspeakers; l++) {
        paths_response(paths, l, m->number, m->room.rate_hz, response);
        m->echo[l] = echo_create(response, m->taps);
        made = m->echo[l] != NULL;
    }
    free(response);
    return made;
}

microphone_t *microphone_create(const microphone_room_t *room, int number)
{
    microphone_t *microphone = calloc(1, sizeof *microphone);
    if (!microphone)
        return NULL;
    microphone->room = *room;
    microphone->number = number;
    microphone->taps = paths_taps(room->paths, room->rate_hz);
    microphone->drive = room->clip_db > 0.0 ? (float)pow(10.0, room->clip_db / 20.0) : 0.0f;
    if (!make_echoes(microphone)) {
        microphone_free(microphone);
        return NULL;
    }
    return microphone;
}

void microphone_free(microphone_t *microphone)
{
    for (int l = 0; microphone && l < ROOM_LOUDSPEAKERS_MAX; l++)
        echo_free(microphone->echo[l]);
    free(microphone);
}

/* Next `count` <= ECHO_BLOCK samples of a loudspeaker's echo, from card position `position`. */
static void next_echo_of(microphone_t *m, int loudspeaker, int64_t position, float *out, int count)
{
    speaker_read(m->room.card, loudspeaker, position - m->room.delay_samples, out, count);
    if (m->drive > 0.0f) {
        for (int i = 0; i < count; i++)
            out[i] = tanhf(m->drive * out[i]) / m->drive;
    }
    echo_process(m->echo[loudspeaker], out, out, count);
}

/* Next `count` <= ECHO_BLOCK samples of the echo, from card position `position`. */
static void next_echo(microphone_t *m, int64_t position, float *out, int count)
{
    float more[ECHO_BLOCK];
    next_echo_of(m, 0, position, out, count);
    for (int l = 1; l < ROOM_LOUDSPEAKERS_MAX && m->echo[l]; l++) {
        next_echo_of(m, l, position, more, count);
        for (int i = 0; i < count; i++)
            out[i] += more[i];
    }
}

/* Makes `position` the next one: fills the echo's memory with the samples before it. */
static void seek(microphone_t *m, int64_t position)
{
    float ignored[ECHO_BLOCK];
    for (int l = 0; l < ROOM_LOUDSPEAKERS_MAX && m->echo[l]; l++)
        echo_reset(m->echo[l]);
    for (int64_t at = position - m->taps; at < position; at += ECHO_BLOCK)
        next_echo(m, at, ignored, (int)(position - at < ECHO_BLOCK ? position - at : ECHO_BLOCK));
    m->first = m->next = position;
}

/* Computes up to position `end`. */
static void extend(microphone_t *m, int64_t end)
{
    const wav_t *near = m->room.near;
    const float gain = m->room.paths->microphone_gain[m->number];
    const int channel = near->channels > 1 ? m->number : 0;
    const int64_t near_start = atomic_load(&m->room.card->header->near_start);
    while (m->next < end) {
        float block[ECHO_BLOCK];
        const int count = (int)(end - m->next < ECHO_BLOCK ? end - m->next : ECHO_BLOCK);
        next_echo(m, m->next, block, count);
        for (int i = 0; i < count; i++, m->next++) {
            const float speech = near->bytes ? wav_sample(near, channel, m->next - near_start) : 0.0f;
            m->kept[m->next & (MICROPHONE_KEPT - 1)] = block[i] + gain * speech;
        }
    }
}

void microphone_read(microphone_t *m, int64_t position, float *out, int count)
{
    const bool lost = position < m->first || position < m->next - MICROPHONE_KEPT;
    const bool far_ahead = position > m->next + m->taps; /* a seek computes fewer samples */
    if (lost || far_ahead)
        seek(m, position);
    extend(m, position + count);
    for (int i = 0; i < count; i++)
        out[i] = m->kept[(position + i) & (MICROPHONE_KEPT - 1)];
}
