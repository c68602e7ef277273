/* limiter.h: no sample over the ceiling for any input; unity gain again afterwards; quiet sound unchanged but
 * for the delay. */
#include "limiter/limiter.h"

#include "base/test_support.h"

static const float HEADROOM_DB = 1.0f;

static limiter_t *make(int rate_hz, int channels)
{
    limiter_t measure;
    arena_t arena = {0};
    limiter_init(&measure, rate_hz, channels, &arena);
    const size_t head = arena_round(sizeof measure);
    unsigned char *memory = test_memory(head + arena.used);
    arena = (arena_t){memory + head, 0};
    limiter_init((limiter_t *)memory, rate_hz, channels, &arena);
    limiter_configure((limiter_t *)memory, HEADROOM_DB);
    return (limiter_t *)memory;
}

/* One frame through it, in place. */
static void run(limiter_t *limiter, float *frame)
{
    float *channel[8];
    for (int c = 0; c < limiter->channels; c++)
        channel[c] = frame + c;
    limiter_process(limiter, channel, 1);
}

static void holds_the_ceiling(int rate_hz, int channels)
{
    limiter_t *limiter = make(rate_hz, channels);
    const float ceiling = powf(10.0f, -HEADROOM_DB / 20.0f);
    float level = 0.1f, frame[8] = {0};
    double worst = 0.0;
    for (int i = 0; i < 4 * rate_hz; i++) {
        if (i % (rate_hz / 500) == 0) /* every 2 ms another level, up to +20 dBFS; now and then a lone peak */
            level = powf(10.0f, test_random());
        for (int c = 0; c < channels; c++)
            frame[c] = level * test_random() * (test_random() > 0.999f ? 30.0f : 1.0f);
        run(limiter, frame);
        for (int c = 0; c < channels; c++)
            test_worst(&worst, fabs((double)frame[c]));
    }
    /* the box filter adds up to 48 rounded gains: 50 * 2^-24 */
    CHECK(worst <= (double)ceiling * (1.0 + 3e-6), "%5d Hz, %d channels: highest sample %.7f, ceiling %.7f",
          rate_hz, channels, worst, (double)ceiling);
    /* ten release times of silence */
    float gain = 0.0f;
    for (int i = 0; i < rate_hz / 2 + 100; i++) {
        for (int c = 0; c < channels; c++)
            frame[c] = 0.1f;
        run(limiter, frame);
        gain = frame[0] / 0.1f;
    }
    /* e^-10 is left, and what single precision can't add any more: 2^-25 / release */
    CHECK(gain > 1.0f - 4.6e-5f - 7.2e-5f, "%5d Hz: gain %.6f half a second later", rate_hz, (double)gain);
    free(limiter);
}

static void leaves_quiet_sound_alone(int rate_hz)
{
    limiter_t *limiter = make(rate_hz, 2);
    const int late = limiter_latency_samples(rate_hz);
    float in[2][48] = {{0}}, frame[2];
    int wrong = 0;
    for (int i = 0; i < rate_hz; i++) {
        /* no curve through these is above the ceiling */
        const float x[2] = {0.43f * test_random(), 0.43f * test_random()};
        frame[0] = x[0], frame[1] = x[1];
        run(limiter, frame);
        for (int c = 0; c < 2; c++) {
            wrong += frame[c] != in[c][i % late];
            in[c][i % late] = x[c];
        }
    }
    CHECK(!wrong && late == rate_hz / 1000, "%5d Hz: %d samples late, %d samples changed", rate_hz, late,
          wrong);
    free(limiter);
}

static void keeps_the_balance(void)
{
    limiter_t *limiter = make(16000, 2);
    double worst = 0.0;
    for (int i = 0; i < 16000; i++) {
        const float x = 4.0f * test_random();
        float frame[2] = {x, -0.25f * x};
        run(limiter, frame);
        test_worst(&worst, fabs((double)(frame[1] + 0.25f * frame[0])));
    }
    CHECK(worst < 1e-7, "two channels: off balance by %.1e", worst);
    free(limiter);
}

int main(void)
{
    holds_the_ceiling(8000, 1), holds_the_ceiling(16000, 8), holds_the_ceiling(32000, 2),
        holds_the_ceiling(48000, 1);
    leaves_quiet_sound_alone(8000), leaves_quiet_sound_alone(48000);
    keeps_the_balance();
    return test_failures != 0;
}
