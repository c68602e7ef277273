#include "microphone.h"

#include <math.h>
#include <stdlib.h>

struct microphone *microphone_create(const struct card *card, const struct wav *impulse_response,
                                     const struct wav *near, int delay_samples, double clip_db)
{
    struct microphone *microphone = calloc(1, sizeof *microphone);
    int taps = impulse_response->bytes ? (int)impulse_response->frames : 1;
    float *h = malloc(sizeof *h * (size_t)taps);
    if (!microphone || !h) {
        free(microphone);
        free(h);
        return NULL;
    }
    h[0] = 1.0f;
    for (int i = 0; impulse_response->bytes && i < taps; i++)
        h[i] = wav_sample(impulse_response, i);
    microphone->card = card;
    microphone->near = near;
    microphone->taps = taps;
    microphone->delay = delay_samples;
    microphone->drive = clip_db > 0.0 ? (float)pow(10.0, clip_db / 20.0) : 0.0f;
    microphone->echo = echo_create(h, taps);
    free(h);
    if (!microphone->echo) {
        free(microphone);
        return NULL;
    }
    return microphone;
}

void microphone_free(struct microphone *microphone)
{
    if (microphone)
        echo_free(microphone->echo);
    free(microphone);
}

/* Next `count` <= ECHO_BLOCK samples of the echo, from card position `position`. */
static void hear(struct microphone *m, int64_t position, float *out, int count)
{
    speaker_read(m->card, position - m->delay, out, count);
    if (m->drive > 0.0f) {
        for (int i = 0; i < count; i++)
            out[i] = tanhf(m->drive * out[i]) / m->drive;
    }
    echo_process(m->echo, out, out, count);
}

/* Makes `position` the next one: fills the room with the sound that still rings there. */
static void seek(struct microphone *m, int64_t position)
{
    float ignored[ECHO_BLOCK];
    echo_reset(m->echo);
    for (int64_t at = position - m->taps; at < position; at += ECHO_BLOCK)
        hear(m, at, ignored, (int)(position - at < ECHO_BLOCK ? position - at : ECHO_BLOCK));
    m->first = m->next = position;
}

static void extend(struct microphone *m, int64_t end)
{
    int64_t near_start = atomic_load(&m->card->header->near_start);
    while (m->next < end) {
        float block[ECHO_BLOCK];
        int count = (int)(end - m->next < ECHO_BLOCK ? end - m->next : ECHO_BLOCK);
        hear(m, m->next, block, count);
        for (int i = 0; i < count; i++, m->next++) {
            float talker = m->near->bytes ? wav_sample(m->near, m->next - near_start) : 0.0f;
            m->kept[m->next & (MICROPHONE_KEPT - 1)] = block[i] + talker;
        }
    }
}

void microphone_read(struct microphone *m, int64_t position, float *out, int count)
{
    bool lost = position < m->first || position < m->next - MICROPHONE_KEPT;
    bool far_ahead = position > m->next + m->taps; /* then filling the room anew is less work */
    if (lost || far_ahead)
        seek(m, position);
    extend(m, position + count);
    for (int i = 0; i < count; i++)
        out[i] = m->kept[(position + i) & (MICROPHONE_KEPT - 1)];
}
