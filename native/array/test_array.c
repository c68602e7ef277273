/* array.h: noise from one place is attenuated and the talker is not; microphones that are dead, covered,
 * inverted, louder or all the same do no harm; without noise the beam is the reference; adverse values leave
 * no infinities. */
#include "array/array.h"

#include "base/test_support.h"
#include "kernels/spectrum.h"

enum { HOP = 160, BINS = HOP + 1, STRIDE = WHOLE_VECTORS(BINS), MOST_CHANNELS = ARRAY_MAX_CHANNELS };

static const float WINDOW_POWER = 160.0f; /* about that of 16 kHz */

typedef struct {
    array_t array;
    void *memory;
    int channels;
    float level[MOST_CHANNELS];            /* of each microphone; negative: inverted */
    float path[2][MOST_CHANNELS][2][BINS]; /* of talker and noise: re, im */
    float re[MOST_CHANNELS][STRIDE], im[MOST_CHANNELS][STRIDE];
    float beam[2][STRIDE], power[STRIDE], echo[STRIDE];
    double talker, talker_error, noise; /* sums of powers behind the beam, the microphone's being 1 */
    double talker_before, noise_before;
} rig_t;

static rig_t *start(int channels)
{
    rig_t *rig = test_memory(sizeof *rig);
    arena_t arena = {0};
    array_init(&rig->array, channels, BINS, STRIDE, WINDOW_POWER, &arena);
    rig->memory = test_memory(arena.used);
    arena = (arena_t){rig->memory, 0};
    array_init(&rig->array, channels, BINS, STRIDE, WINDOW_POWER, &arena);
    rig->channels = channels;
    for (int c = 0; c < channels; c++)
        rig->level[c] = 1.0f;
    for (int source = 0; source < 2; source++)
        for (int c = 0; c < channels; c++)
            for (int k = 0; k < BINS; k++) {
                const float turn = 3.14159f * test_random();
                rig->path[source][c][0][k] = cosf(turn);
                rig->path[source][c][1][k] = sinf(turn);
            }
    return rig;
}

static void finish(rig_t *rig)
{
    free(rig->memory);
    free(rig);
}

static void run_block(rig_t *rig, float presence)
{
    array_advance(&rig->array);
    for (int c = 0; c < rig->channels; c++)
        array_put_error(&rig->array, c, rig->re[c], rig->im[c]);
    array_beam_error(&rig->array, rig->beam[0], rig->beam[1]);
    for (int k = 0; k < STRIDE; k++)
        rig->power[k] = rig->beam[0][k] * rig->beam[0][k] + rig->beam[1][k] * rig->beam[1][k];
    array_learn(&rig->array, &(array_input_t){rig->power, rig->echo, presence});
}

/* What the weights for this block give of one source, of which the spectrum is x, beside that of the
 * reference. The block before has another one, so only this block's rows are taken. */
static void measure(rig_t *rig, int source, const float x[2][BINS])
{
    const array_spectra_t *weight = &rig->array.weight;
    const int reference = rig->array.reference;
    for (int k = 0; k < BINS; k++) {
        double gain[2] = {0.0, 0.0};
        for (int c = 0; c < rig->channels; c++) {
            const double pr = (double)(rig->level[c] * rig->path[source][c][0][k]),
                         pi = (double)(rig->level[c] * rig->path[source][c][1][k]),
                         wr = (double)weight->re[c * STRIDE + k], wi = (double)weight->im[c * STRIDE + k];
            gain[0] += pr * wr - pi * wi;
            gain[1] += pr * wi + pi * wr;
        }
        const double own[2] = {(double)(rig->level[reference] * rig->path[source][reference][0][k]),
                               (double)(rig->level[reference] * rig->path[source][reference][1][k])};
        const double power = (double)(x[0][k] * x[0][k] + x[1][k] * x[1][k]),
                     before = own[0] * own[0] + own[1] * own[1],
                     behind = gain[0] * gain[0] + gain[1] * gain[1];
        if (source == 0) {
            rig->talker_before += power * before;
            rig->talker += power * behind;
            rig->talker_error += power * (pow(gain[0] - own[0], 2.0) + pow(gain[1] - own[1], 2.0));
        } else {
            rig->noise_before += power * before;
            rig->noise += power * behind;
        }
    }
}

/* `blocks` of noise from one place, of that level, with decorrelated noise 30 dB below it, and of a talker of
 * power 1 in half of them; figures over the last half. */
static void listen(rig_t *rig, int blocks, float noise)
{
    rig->talker = rig->talker_error = rig->noise = rig->talker_before = rig->noise_before = 0.0;
    for (int b = 0; b < blocks; b++) {
        const float talks = b % 40 < 20 ? 1.0f : 0.0f;
        float x[2][2][BINS];
        for (int part = 0; part < 2; part++)
            for (int k = 0; k < BINS; k++) {
                x[0][part][k] = talks * test_random();
                x[1][part][k] = noise * test_random();
            }
        for (int source = 0; source < 2 && b >= blocks / 2; source++)
            measure(rig, source, x[source]);
        for (int c = 0; c < rig->channels; c++)
            for (int k = 0; k < BINS; k++) {
                rig->re[c][k] = rig->level[c] * 0.03f * noise * test_random();
                rig->im[c][k] = rig->level[c] * 0.03f * noise * test_random();
                for (int source = 0; source < 2; source++) {
                    const float pr = rig->level[c] * rig->path[source][c][0][k],
                                pi = rig->level[c] * rig->path[source][c][1][k];
                    rig->re[c][k] += pr * x[source][0][k] - pi * x[source][1][k];
                    rig->im[c][k] += pr * x[source][1][k] + pi * x[source][0][k];
                }
            }
        run_block(rig, talks);
    }
}

/* expected: least reduction of the noise in dB. */
static void check_beam(rig_t *rig, const char *what, double expected)
{
    listen(rig, 600, 0.5f);
    const double reduction = test_db(rig->noise_before) - test_db(rig->noise),
                 talker = test_db(rig->talker) - test_db(rig->talker_before),
                 error = test_db(rig->talker_error) - test_db(rig->talker_before);
    CHECK(reduction >= expected && fabs(talker) < 1.0 && error < -15.0,
          "%-28s reference %d: noise reduced by %.1f dB (%.0f), talker %+.2f dB, distortion %.1f dB", what,
          rig->array.reference, reduction, expected, talker, error);
    finish(rig);
}

static void check_faults(void)
{
    check_beam(start(2), "2 microphones", 10.0);
    check_beam(start(4), "4 microphones", 12.0);
    check_beam(start(8), "8 microphones", 12.0);
    rig_t *rig = start(4);
    rig->level[0] = 0.0f;
    check_beam(rig, "the first is dead", 12.0);
    rig = start(4);
    rig->level[0] = 0.1f;
    check_beam(rig, "the first is covered, -20 dB", 12.0);
    rig = start(4);
    rig->level[1] = -1.0f;
    check_beam(rig, "the second is inverted", 12.0);
    rig = start(4);
    rig->level[2] = 1.41f;
    check_beam(rig, "the third is 3 dB louder", 12.0);
}

static void check_same(void)
{
    rig_t *rig = start(4);
    for (int source = 0; source < 2; source++)
        for (int c = 1; c < 4; c++)
            memcpy(rig->path[source][c], rig->path[source][0], sizeof rig->path[source][0]);
    listen(rig, 300, 0.1f);
    const double error = test_db(rig->talker_error) - test_db(rig->talker_before);
    CHECK(error < -25.0, "microphones that are all the same: distortion %.1f dB", error);
    finish(rig);
}

static void check_quiet(void)
{
    rig_t *rig = start(4);
    listen(rig, 600, 1e-3f);
    const double error = test_db(rig->talker_error) - test_db(rig->talker_before);
    CHECK(error < -30.0, "a quiet room, -60 dB: distortion %.1f dB", error);
    finish(rig);
}

/* Largest difference of the weights' real parts from `before`. */
static double change(const rig_t *rig, const float *before)
{
    double worst = 0.0;
    for (int i = 0; i < rig->array.rows * STRIDE; i++)
        test_worst(&worst, fabs((double)rig->array.weight.re[i] - (double)before[i]));
    return worst;
}

/* The weights stay while the residual echo is expected to dominate, and in digital silence. */
static void check_held(void)
{
    rig_t *rig = start(2);
    const size_t bytes = sizeof(float) * 4 * STRIDE;
    listen(rig, 200, 0.5f);
    float *before = test_memory(bytes);
    memcpy(before, rig->array.weight.re, bytes);
    for (int k = 0; k < STRIDE; k++)
        rig->echo[k] = 1e3f;
    listen(rig, 50, 2.0f);
    CHECK(change(rig, before) == 0.0, "residual echo leaves the weights as they are");
    memset(rig->echo, 0, sizeof rig->echo);
    memset(rig->re, 0, sizeof rig->re);
    memset(rig->im, 0, sizeof rig->im);
    for (int b = 0; b < 20000; b++)
        run_block(rig, 0.0f);
    CHECK(change(rig, before) == 0.0, "so does silence");
    free(before);
    finish(rig);
}

static void check_adverse(void)
{
    static const float levels[] = {0.0f, 1e-30f, 1e-12f, 320.0f};
    rig_t *rig = start(MOST_CHANNELS);
    double largest = 0.0;
    for (int b = 0; b < 2000; b++) {
        for (int c = 0; c < MOST_CHANNELS; c++)
            for (int k = 0; k < BINS; k++) {
                const float level = levels[(b / 100 + c) % 4];
                rig->re[c][k] = level * (b % 3 ? 1.0f : test_random());
                rig->im[c][k] = level * (b % 5 ? 0.0f : test_random());
            }
        run_block(rig, b / 50 % 2 ? 1.0f : 0.0f);
        for (int k = 0; k < STRIDE; k++)
            test_worst(&largest, (double)rig->power[k]);
    }
    CHECK(largest < 1e9, "adverse levels: no power above %.1e", largest);
    CHECK(isfinite(array_gain_db(&rig->array)), "nor in the gain, %.1f dB",
          (double)array_gain_db(&rig->array));
    finish(rig);
}

int main(void)
{
    check_faults();
    check_same();
    check_quiet();
    check_held();
    check_adverse();
    return test_failures != 0;
}
