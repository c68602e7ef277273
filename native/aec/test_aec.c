/* aec.h: converges on a room, keeps its path in double talk and silence, finds the new path after a change,
 * moves with the delay; cancels two loudspeakers, whatever each of them plays. */
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
    reference_init(&rig->reference, HOP, 1, BLOCKS, arena);
    aec_init(&rig->aec, HOP, 1, PARTITIONS, arena);
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
    const aec_block_t block = {&rig->reference, 0, &rig->fft, mic, echo, out};
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
        reference_push(&rig->reference, &rig->fft, rig->far + LATE + ROOM, NULL);
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
                reference_push(&again->reference, &again->fft, silence, NULL);
            reference_rewind(&again->reference, NEVER, before);
        }
        for (int i = 0; i < HOP; i++)
            far[i] = test_random();
        reference_push(&direct->reference, &direct->fft, far, NULL);
        reference_push(&again->reference, &again->fft, far, NULL);
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
        reference_push(&rig->reference, &rig->fft, silence, NULL);
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

/* ---- Two loudspeakers */

typedef struct {
    fft_t fft;
    reference_t reference;
    aec_t aec;
    float far[2][ROOM + HOP], room[2][ROOM]; /* left, right */
} pair_t;

static void place_pair(pair_t *rig, arena_t *arena)
{
    fft_init(&rig->fft, 2 * HOP, arena);
    reference_init(&rig->reference, HOP, 2, BLOCKS, arena);
    aec_init(&rig->aec, HOP, 2, PARTITIONS, arena);
}

/* A rig and the memory behind it, both to be freed. */
static pair_t *new_pair(float **memory)
{
    pair_t measure, *rig = test_memory(sizeof *rig);
    arena_t arena = {0};
    place_pair(&measure, &arena);
    *memory = test_memory(arena.used);
    arena = (arena_t){(unsigned char *)*memory, 0};
    place_pair(rig, &arena);
    return rig;
}

/* Plays the next block on both. Each channel is a talker of its own, of that level, and `shared` of a common
 * one. */
static void play(pair_t *rig, const float own[2], const float shared[2], int paired, float *mic)
{
    float middle[HOP], side[HOP];
    for (int c = 0; c < 2; c++)
        memmove(rig->far[c], rig->far[c] + HOP, sizeof(float) * ROOM);
    for (int i = 0; i < HOP; i++) {
        const float common = test_random();
        for (int c = 0; c < 2; c++)
            rig->far[c][ROOM + i] = own[c] * test_random() + shared[c] * common;
        middle[i] = 0.5f * (rig->far[0][ROOM + i] + rig->far[1][ROOM + i]);
        side[i] = 0.5f * (rig->far[0][ROOM + i] - rig->far[1][ROOM + i]);
        mic[i] = 1e-5f * test_random();
        for (int c = 0; c < 2; c++)
            for (int k = 0; k < ROOM; k++)
                mic[i] += rig->room[c][k] * rig->far[c][ROOM + i - k];
    }
    reference_push(&rig->reference, &rig->fft, middle, paired ? side : NULL);
}

/* Reduction of the echo in dB over the last half of so many blocks. */
static double reduction(pair_t *rig, int blocks, const float own[2], const float shared[2], int paired)
{
    double in = 0.0, left = 0.0;
    for (int b = 0; b < blocks; b++) {
        float mic[HOP], echo[HOP], out[HOP];
        play(rig, own, shared, paired, mic);
        const aec_block_t block = {&rig->reference, paired, &rig->fft, mic, echo, out};
        aec_predict(&rig->aec, &block);
        aec_learn(&rig->aec, &block, 0.0f);
        for (int i = 0; i < HOP && b >= blocks / 2; i++) {
            in += (double)mic[i] * (double)mic[i];
            left += (double)out[i] * (double)out[i];
        }
    }
    return test_db(in) - test_db(left);
}

static void cancels_two_loudspeakers(void)
{
    static const float none[2] = {0.0f, 0.0f}, both[2] = {0.1f, 0.1f}, left[2] = {0.1f, 0.0f},
                       right[2] = {0.0f, 0.1f}, opposite[2] = {0.1f, -0.1f};
    float *memory;
    pair_t *rig = new_pair(&memory);
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < ROOM; i++)
            rig->room[c][i] = 0.3f * test_random() * expf(-6.9f * (float)i / ROOM);

    const double one = reduction(rig, 200, none, left, 1);
    reduction(rig, 200, none, right, 1);
    const double back = reduction(rig, 10, none, left, 1);
    CHECK(one > 25.0 && back > 25.0,
          "a talker at the left %.1f dB, then right, and at once after that %.1f dB", one, back);
    const double at_once = reduction(rig, 10, both, none, 1), two = reduction(rig, 200, both, none, 1);
    CHECK(at_once > 20.0 && two > 25.0, "two talkers, %.1f dB at once, then %.1f dB", at_once, two);
    const double inverted = reduction(rig, 10, none, opposite, 1);
    CHECK(inverted > 20.0, "one talker, inverted: %.1f dB at once", inverted);

    /* alike, with the side left out, and different again: neither way is there a jump */
    const double alike = reduction(rig, 10, none, both, 0), later = reduction(rig, 200, none, both, 0),
                 differ = reduction(rig, 10, both, none, 1);
    CHECK(alike > 20.0 && later > 25.0 && differ > 15.0,
          "alike: %.1f dB at once, then %.1f; different: %.1f dB at once", alike, later, differ);

    aec_reset(&rig->aec);
    const double mono = reduction(rig, 100, none, both, 0), opened = reduction(rig, 10, none, left, 1),
                 learned = reduction(rig, 200, both, none, 1);
    CHECK(mono > 15.0 && opened > -3.0 && learned > 25.0,
          "alike from the start: %.1f dB; the first side: %.1f dB at once; two talkers: %.1f dB", mono,
          opened, learned);
    free(memory), free(rig);
}

/* A talker at one place, loud and quiet in turn, and a weak echo of 16 bits without noise, for 100 s. The
 * covariance is close to what the variances allow, and must not exceed it by rounding. */
static void stays_definite(void)
{
    float *memory;
    pair_t *rig = new_pair(&memory);
    double worst = -300.0;
    float least = 0.0f, far[ROOM + HOP] = {0};
    for (int i = 0; i < ROOM; i++)
        rig->room[0][i] = 0.01f * test_random() * expf(-6.9f * (float)i / 100.0f);
    for (int b = 0; b < 10000; b++) {
        float middle[HOP], side[HOP], mic[HOP], echo[HOP], out[HOP];
        memmove(far, far + HOP, sizeof(float) * ROOM);
        double in = 0.0, left = 0.0;
        for (int i = 0; i < HOP; i++) {
            far[ROOM + i] = rintf(32768.0f * (b / 100 % 2 ? 0.9f : 0.01f) * test_random()) / 32768.0f;
            middle[i] = 0.65f * far[ROOM + i];
            side[i] = 0.35f * far[ROOM + i];
            float sum = 0.0f;
            for (int k = 0; k < ROOM; k++)
                sum += rig->room[0][k] * far[ROOM + i - k];
            mic[i] = rintf(32768.0f * sum) / 32768.0f;
        }
        reference_push(&rig->reference, &rig->fft, middle, side);
        const aec_block_t block = {&rig->reference, 1, &rig->fft, mic, echo, out};
        aec_predict(&rig->aec, &block);
        for (int k = 0; k < rig->aec.stride; k++)
            least = fminf(least, rig->aec.weight[k]); /* the power that the uncertainty explains */
        aec_learn(&rig->aec, &block, 0.0f);
        for (int i = 0; i < HOP && b % 100 > 5; i++) {
            in += (double)mic[i] * (double)mic[i];
            left += (double)out[i] * (double)out[i];
        }
        if (b > 1000 && in > 0.0)
            worst = fmax(worst, test_db(left) - test_db(in));
    }
    CHECK(least >= 0.0f && worst < 0.0,
          "a talker at one place, 100 s: error at most %.1f dB of the echo, least "
          "expected power %.1e",
          worst, (double)least);
    free(memory), free(rig);
}

int main(void)
{
    takes_pushes_back();
    cancels_two_loudspeakers();
    stays_definite();
    rig_t *rig = start();
    follows_the_path(rig);
    survives_silence_and_nan(rig);
    free(rig->memory), free(rig);
    return test_failures != 0;
}
