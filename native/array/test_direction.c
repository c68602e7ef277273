/* direction.h: a talker all around 2 to 8 microphones is found; noise and echo are not, nor anybody without
 * places; the result is held for 3 s; adverse values are forgotten. */
#include "array/direction.h"

#include "base/test_support.h"
#include "kernels/spectrum.h"

enum { HOP = 160, BINS = HOP + 1, STRIDE = WHOLE_VECTORS(BINS), MOST_CHANNELS = 8 };

static const float WINDOW_POWER = 160.0f; /* about that of 16 kHz */
static const float PI = 3.14159265f;

typedef struct {
    direction_t direction;
    void *memory;
    int channels;
    float places_mm[MOST_CHANNELS][2];
    float re[MOST_CHANNELS][STRIDE], im[MOST_CHANNELS][STRIDE];
    float power[STRIDE], echo[STRIDE], noise[STRIDE];
} rig_t;

static rig_t *start(int channels)
{
    rig_t *rig = test_memory(sizeof *rig);
    arena_t arena = {0};
    direction_init(&rig->direction, channels, BINS, STRIDE, WINDOW_POWER, &arena);
    rig->memory = test_memory(arena.used);
    arena = (arena_t){rig->memory, 0};
    direction_init(&rig->direction, channels, BINS, STRIDE, WINDOW_POWER, &arena);
    rig->channels = channels;
    return rig;
}

static void finish(rig_t *rig)
{
    free(rig->memory);
    free(rig);
}

/* Places on a circle of 45 mm, the first in front; or 35 mm apart from left to right. */
static rig_t *start_placed(int channels, int in_line)
{
    rig_t *rig = start(channels);
    for (int c = 0; c < channels; c++) {
        const float angle = 2.0f * PI * (float)c / (float)channels;
        rig->places_mm[c][0] = in_line ? 35.0f * (float)c : 45.0f * sinf(angle);
        rig->places_mm[c][1] = in_line ? 0.0f : 45.0f * cosf(angle);
    }
    direction_place(&rig->direction, (const float (*)[2])rig->places_mm);
    return rig;
}

static void run_block(rig_t *rig, float speech_probability)
{
    const direction_input_t input = {
        rig->re[0], rig->im[0], rig->power, rig->echo, rig->noise, speech_probability,
    };
    direction_process(&rig->direction, &input);
}

/* `blocks` of a talker with decorrelated noise 10 dB below. */
static void listen(rig_t *rig, int blocks, float degrees, float level)
{
    const float x = sinf(PI * degrees / 180.0f), y = cosf(PI * degrees / 180.0f);
    for (int b = 0; b < blocks; b++) {
        for (int k = 0; k < BINS; k++) {
            const float said = PI * test_random();
            rig->power[k] = level * level;
            for (int c = 0; c < rig->channels; c++) {
                const float lead_mm = x * rig->places_mm[c][0] + y * rig->places_mm[c][1];
                const float phase = said + 2.0f * PI * 50.0f * (float)k * lead_mm / 343e3f;
                rig->re[c][k] = level * (cosf(phase) + 0.4f * test_random());
                rig->im[c][k] = level * (sinf(phase) + 0.4f * test_random());
            }
        }
        run_block(rig, 1.0f);
    }
}

static double apart(float a, float b) { return fabs(remainder((double)a - (double)b, 360.0)); }

static void check_around(int channels, int in_line)
{
    rig_t *rig = start_placed(channels, in_line);
    double worst = 0.0;
    const int first = in_line ? -70 : 0, last = in_line ? 70 : 353;
    for (int degrees = first; degrees <= last; degrees += 7) {
        direction_reset(&rig->direction);
        listen(rig, 90, (float)degrees, 0.1f);
        test_worst(&worst, apart(rig->direction.degrees, (float)degrees));
    }
    CHECK(worst < 5.0, "%d microphones in a %s: worst error %.1f degrees", channels,
          in_line ? "line" : "circle", worst);
    finish(rig);
}

static void check_line_without_back(void)
{
    rig_t *rig = start_placed(4, 1);
    listen(rig, 90, 150.0f, 0.1f);
    CHECK(apart(rig->direction.degrees, 30.0f) < 5.0, "behind a line: %.1f degrees, that in front is 30",
          (double)rig->direction.degrees);
    finish(rig);
}

static void check_unknown(void)
{
    rig_t *rig = start(4);
    listen(rig, 90, 60.0f, 0.1f);
    CHECK(rig->direction.degrees == DIRECTION_UNKNOWN, "no direction without places");
    finish(rig);
    rig = start_placed(4, 0);
    for (int k = 0; k < STRIDE; k++)
        rig->noise[k] = 0.01f;
    listen(rig, 90, 60.0f, 0.1f);
    CHECK(rig->direction.degrees == DIRECTION_UNKNOWN, "none of noise");
    memset(rig->noise, 0, sizeof rig->noise);
    for (int k = 0; k < STRIDE; k++)
        rig->echo[k] = 0.01f;
    listen(rig, 90, 60.0f, 0.1f);
    CHECK(rig->direction.degrees == DIRECTION_UNKNOWN, "none of echo");
    finish(rig);
}

static void check_held(void)
{
    rig_t *rig = start_placed(4, 0);
    listen(rig, 90, 200.0f, 0.1f);
    listen(rig, 50, 20.0f, 0.1f);
    CHECK(apart(rig->direction.degrees, 20.0f) < 5.0, "the other side after 0.5 s: %.1f degrees",
          (double)rig->direction.degrees);
    for (int b = 0; b < 285; b++)
        run_block(rig, 0.1f);
    CHECK(apart(rig->direction.degrees, 20.0f) < 5.0, "held for 2.85 s without speech");
    for (int b = 0; b < 30; b++)
        run_block(rig, 0.1f);
    CHECK(rig->direction.degrees == DIRECTION_UNKNOWN, "unknown after 3.15 s");
    finish(rig);
}

static void check_adverse(void)
{
    static const float levels[] = {0.0f, 1e-30f, 1e-12f, 320.0f, NAN};
    rig_t *rig = start_placed(MOST_CHANNELS, 0);
    int outside = 0;
    for (int b = 0; b < 1000; b++) {
        for (int c = 0; c < MOST_CHANNELS; c++)
            for (int k = 0; k < STRIDE; k++) {
                rig->re[c][k] = levels[(b / 50 + c) % 5] * test_random();
                rig->im[c][k] = b % 5 ? 0.0f : rig->re[c][k];
                rig->power[k] = levels[b / 70 % 5];
            }
        run_block(rig, b / 50 % 2 ? 1.0f : 0.0f);
        const float degrees = rig->direction.degrees;
        outside += !((degrees >= 0.0f && degrees < 360.0f) || degrees == DIRECTION_UNKNOWN);
    }
    CHECK(outside == 0, "adverse levels: %d directions outside of 0 to 360", outside);
    listen(rig, 90, 300.0f, 0.1f);
    CHECK(apart(rig->direction.degrees, 300.0f) < 5.0, "and they are forgotten: then %.1f degrees",
          (double)rig->direction.degrees);
    finish(rig);
}

int main(void)
{
    for (int channels = 2; channels <= MOST_CHANNELS; channels++)
        check_around(channels, 1);
    for (int channels = 3; channels <= MOST_CHANNELS; channels++)
        check_around(channels, 0);
    check_line_without_back();
    check_unknown();
    check_held();
    check_adverse();
    return test_failures != 0;
}
