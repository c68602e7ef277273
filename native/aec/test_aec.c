/* aec.h: converges on a room, keeps its path in double talk and silence, finds the new path after a change,
 * moves with the delay. */
#include "aec/aec.h"

#include "base/test_support.h"

/* 8 kHz: 120 ms of filter, 60 ms of room, 20 ms late */
enum { HOP = 80, PARTITIONS = 12, BLOCKS = 40, ROOM = 6 * HOP, LATE = 2 * HOP };

typedef struct {
    fft_t fft;
    reference_t reference;
    aec_t aec;
    float *memory, far[LATE + ROOM + HOP], room[ROOM]; /* far: the newest samples last */
} rig_t;

static void place(rig_t *rig, arena_t *arena)
{
    fft_init(&rig->fft, 2 * HOP, arena);
    reference_init(&rig->reference, HOP, BLOCKS, arena);
    aec_init(&rig->aec, HOP, PARTITIONS, arena);
}

static void new_room(rig_t *rig)
{
    float energy = 0.0f;
    for (int i = 0; i < ROOM; i++) {
        rig->room[i] = test_random() * expf(-6.9f * (float)i / ROOM);
        energy += rig->room[i] * rig->room[i];
    }
    for (int i = 0; i < ROOM; i++)
        rig->room[i] /= sqrtf(energy);
}

static rig_t *start(void)
{
    rig_t *rig = test_memory(sizeof *rig);
    arena_t arena = {0};
    place(rig, &arena);
    rig->memory = test_memory(arena.used);
    arena = (arena_t){(unsigned char *)rig->memory, 0};
    place(rig, &arena);
    new_room(rig);
    return rig;
}

static void cancel(rig_t *rig, const float *mic, float near_speech, float *echo, float *out)
{
    const aec_block_t block = {&rig->reference, &rig->fft, mic, echo, out};
    aec_predict(&rig->aec, &block);
    aec_learn(&rig->aec, &block, near_speech);
}

/* Runs `blocks` of far-end noise at `far_level` and near-end noise at `near_level` in syllables and pauses of
 * `syllable_blocks`, with `near_speech` as the probability given to the canceller. Returns the echo's
 * reduction in dB over the last half. */
static double talk_in_syllables(rig_t *rig, int blocks, float far_level, float near_level,
                                int syllable_blocks, float near_speech)
{
    double in = 0.0, left = 0.0;
    for (int b = 0; b < blocks; b++) {
        float mic[HOP], echo[HOP], out[HOP], near[HOP], clean[HOP];
        memmove(rig->far, rig->far + HOP, sizeof(float) * (LATE + ROOM));
        for (int i = 0; i < HOP; i++)
            rig->far[LATE + ROOM + i] = far_level * test_random();
        for (int i = 0; i < HOP; i++) {
            clean[i] = 0.0f;
            for (int k = 0; k < ROOM; k++)
                clean[i] += rig->room[k] * rig->far[ROOM + i - k];
            near[i] = b / syllable_blocks % 2 ? 0.0f : near_level * test_random();
            mic[i] = clean[i] + near[i];
        }
        reference_push(&rig->reference, &rig->fft, rig->far + LATE + ROOM);
        cancel(rig, mic, near_speech, echo, out);
        for (int i = 0; i < HOP && b >= blocks / 2; i++) {
            in += (double)clean[i] * (double)clean[i];
            left += (double)(out[i] - near[i]) * (double)(out[i] - near[i]);
        }
        for (int i = 0; i < HOP; i++)
            if (out[i] != mic[i] - echo[i])
                CHECK(0, "error is not mic - echo");
    }
    return test_db(in) - test_db(left);
}

/* The same without pauses, the probability of near-end speech being unknown. */
static double talk(rig_t *rig, int blocks, float far_level, float near_level)
{
    return talk_in_syllables(rig, blocks, far_level, near_level, blocks, 0.0f);
}

/* reference_rewind(): blocks that come late replace the silence that was pushed for them. */
static void takes_pushes_back(void)
{
    enum { NEVER = 3 };
    rig_t *direct = start(), *again = start();
    float far[HOP], silence[HOP] = {0}, before[2 * HOP];
    for (int b = 0; b < BLOCKS + 7; b++) {
        if (b == BLOCKS + 2) {
            memcpy(before, again->reference.samples, sizeof before);
            for (int n = 0; n < NEVER; n++)
                reference_push(&again->reference, &again->fft, silence);
            reference_rewind(&again->reference, NEVER, before);
        }
        for (int i = 0; i < HOP; i++)
            far[i] = test_random();
        reference_push(&direct->reference, &direct->fft, far);
        reference_push(&again->reference, &again->fft, far);
    }
    int different = 0;
    for (int lag = 0; lag < BLOCKS; lag++) {
        const int at[] = {reference_at(&direct->reference, lag), reference_at(&again->reference, lag)};
        const size_t bytes = sizeof(float) * (size_t)direct->reference.stride;
        different += memcmp(direct->reference.re + at[0], again->reference.re + at[1], bytes) != 0;
        different += memcmp(direct->reference.im + at[0], again->reference.im + at[1], bytes) != 0;
    }
    CHECK(!different, "%d pushes taken back: %d of %d spectra differ", NEVER, different, 2 * BLOCKS);
    free(direct->memory), free(direct), free(again->memory), free(again);
}

static void follows_the_path(rig_t *rig)
{
    const double first = talk(rig, 100, 0.1f, 1e-4f), second = talk(rig, 100, 0.1f, 1e-4f);
    CHECK(first > 15.0 && second > 30.0,
          "converges: echo %.1f dB down in the first second, %.1f dB in the second", first, second);

    /* the near end has ten times the echo's power: an NLMS filter of step 1 without a model of the near end
     * would give -10 dB */
    const double both = talk(rig, 300, 0.1f, 0.3f);
    CHECK(both > 15.0, "double talk: the echo stays %.1f dB down", both);
    const double unknown = talk_in_syllables(rig, 300, 0.1f, 0.3f, 15, 0.0f),
                 known = talk_in_syllables(rig, 300, 0.1f, 0.3f, 15, 1.0f);
    CHECK(known > unknown + 1.0, "near-end syllables: %.1f dB, %.1f dB when their probability is given",
          unknown, known);
    const double after = talk(rig, 60, 0.1f, 1e-4f);
    CHECK(after > 25.0, "after it: %.1f dB", after);

    talk(rig, 2000, 0.0f, 0.1f); /* 20 s of the near end alone */
    const double again = talk(rig, 40, 0.1f, 1e-4f);
    CHECK(again > 20.0, "after 20 s without a far end: %.1f dB", again);

    /* the window moves by two partitions and back: the path keeps its lags */
    aec_set_delay(&rig->aec, 2);
    const double later = talk(rig, 20, 0.1f, 1e-4f);
    CHECK(later > 20.0, "window moved by 20 ms: %.1f dB at once", later);
    aec_set_delay(&rig->aec, 0);
    const double back = talk(rig, 20, 0.1f, 1e-4f);
    CHECK(back > 20.0, "and back: %.1f dB at once", back);

    new_room(rig);
    talk(rig, 100, 0.1f, 1e-4f);
    const double moved = talk(rig, 200, 0.1f, 1e-4f);
    CHECK(moved > 25.0, "another room: %.1f dB within three seconds", moved);
}

static void survives_silence_and_nan(rig_t *rig)
{
    aec_reset(&rig->aec);
    reference_reset(&rig->reference);
    float mic[HOP], echo[HOP], out[HOP], silence[HOP] = {0};
    double heard = 0.0;
    for (int b = 0; b < 50; b++) {
        for (int i = 0; i < HOP; i++)
            mic[i] = test_random();
        reference_push(&rig->reference, &rig->fft, silence);
        cancel(rig, mic, 0.0f, echo, out);
        for (int i = 0; i < HOP; i++)
            test_worst(&heard, fabs((double)echo[i]));
    }
    CHECK(heard == 0.0, "a silent far end: largest echo estimate %.1e", heard);

    /* a NaN may cost the learned path, but must not last */
    talk(rig, 100, 0.1f, 1e-4f);
    mic[HOP / 2] = NAN;
    cancel(rig, mic, 0.0f, echo, out);
    talk(rig, 100, 0.1f, 1e-4f);
    const double mended = talk(rig, 100, 0.1f, 1e-4f);
    CHECK(mended > 25.0, "not a number from the microphone: %.1f dB two seconds later", mended);
}

int main(void)
{
    takes_pushes_back();
    rig_t *rig = start();
    follows_the_path(rig);
    survives_silence_and_nan(rig);
    free(rig->memory), free(rig);
    return test_failures != 0;
}
