#include "roomcard/microphone.h"

#include <math.h>
#include <stdlib.h>

microphone_t *microphone_create(const microphone_room_t *room)
{
    const wav_t *response = room->impulse_response;
    microphone_t *microphone = calloc(1, sizeof *microphone);
    const int taps = response->bytes ? (int)response->frames : 1;
    float *h = malloc(sizeof *h * (size_t)taps);
    if (microphone && h) {
        h[0] = 1.0f;
        for (int i = 0; response->bytes && i < taps; i++)
            h[i] = wav_sample(response, i);
        microphone->room = *room;
        microphone->taps = taps;
        microphone->drive = room->clip_db > 0.0 ? (float)pow(10.0, room->clip_db / 20.0) : 0.0f;
        microphone->echo = echo_create(h, taps);
    }
    free(h);
    if (!microphone || !microphone->echo) {
        free(microphone);
        return NULL;
    }
    return microphone;
}

void microphone_free(microphone_t *microphone)
{
    if (microphone)
        echo_free(microphone->echo);
    free(microphone);
}

/* Next `count` <= ECHO_BLOCK samples of the echo, from card position `position`. */
static void next_echo(microphone_t *m, int64_t position, float *out, int count)
{
    speaker_read(m->room.card, position - m->room.delay_samples, out, count);
    if (m->drive > 0.0f) {
        for (int i = 0; i < count; i++)
            out[i] = tanhf(m->drive * out[i]) / m->drive;
    }
    echo_process(m->echo, out, out, count);
}

/* Makes `position` the next one: fills the echo's memory with the samples before it. */
static void seek(microphone_t *m, int64_t position)
{
    float ignored[ECHO_BLOCK];
    echo_reset(m->echo);
    for (int64_t at = position - m->taps; at < position; at += ECHO_BLOCK)
        next_echo(m, at, ignored, (int)(position - at < ECHO_BLOCK ? position - at : ECHO_BLOCK));
    m->first = m->next = position;
}

/* Computes up to position `end`. */
static void extend(microphone_t *m, int64_t end)
{
    const int64_t near_start = atomic_load(&m->room.card->header->near_start);
    while (m->next < end) {
        float block[ECHO_BLOCK];
        const int count = (int)(end - m->next < ECHO_BLOCK ? end - m->next : ECHO_BLOCK);
        next_echo(m, m->next, block, count);
        for (int i = 0; i < count; i++, m->next++) {
            const float speech = m->room.near->bytes ? wav_sample(m->room.near, m->next - near_start) : 0.0f;
            m->kept[m->next & (MICROPHONE_KEPT - 1)] = block[i] + speech;
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
