/* residual.h: estimates the residual echo's power, also in double talk and for an echo estimate that is no
 * echo, and decays after the echo. */
#include "aec/residual.h"

#include "base/test_support.h"
#include "kernels/spectrum.h"

enum { BINS = 161, STRIDE = 164 };

static const float NOISE = 1e-6f;

typedef struct {
    residual_t residual;
    void *memory;
    float error[STRIDE], echo[STRIDE], cross[STRIDE], noise[STRIDE], far[STRIDE];
} rig_t;

static rig_t *start(void)
{
    rig_t *rig = test_memory(sizeof *rig);
    arena_t arena = {0};
    residual_init(&rig->residual, BINS, STRIDE, &arena);
    rig->memory = test_memory(arena.used);
    arena = (arena_t){rig->memory, 0};
    residual_init(&rig->residual, BINS, STRIDE, &arena);
    for (int k = 0; k < BINS; k++)
        rig->noise[k] = NOISE;
    return rig;
}

static void process(rig_t *rig)
{
    const residual_input_t input = {rig->error, rig->echo, rig->cross, rig->noise, rig->far, 0.0f};
    residual_process(&rig->residual, &input);
}

/* Runs blocks of an echo estimate of amplitude `echo`, of which the error holds `left` times its amplitude,
 * and of a near end of amplitude `near`. Returns the mean residual power over the echo's in dB. */
static double listen(rig_t *rig, int blocks, float echo, float left, float near)
{
    double power = 0.0, reference = 0.0;
    for (int b = 0; b < blocks; b++) {
        const float level = 0.1f + fabsf(test_random()); /* syllables */
        for (int k = 0; k < BINS; k++) {
            const float yr = echo * level * test_random(), yi = echo * level * test_random();
            const float er = left * yr + near * test_random(), ei = left * yi + near * test_random();
            rig->error[k] = er * er + ei * ei + NOISE;
            rig->echo[k] = yr * yr + yi * yi;
            rig->cross[k] = er * yr + ei * yi;
        }
        process(rig);
        for (int k = 0; k < BINS; k++) {
            power += (double)rig->residual.power[k];
            reference += (double)rig->echo[k];
        }
    }
    return test_db(power) - test_db(reference);
}

/* Runs seconds of a far end in syllables without an echo estimate, whose echo has `coupled` times its
 * amplitude, and of a near end of another rhythm. Returns the mean of residual over far-end power in dB. */
static double overhear(rig_t *rig, int seconds, float coupled, float near)
{
    double power = 0.0, reference = 0.0;
    for (int b = 0; b < 100 * seconds; b++) {
        const float played = b % 30 < 20 ? 0.2f : 0.002f, said = b % 47 < 30 ? near : 0.0f;
        for (int k = 0; k < BINS; k++) {
            const float far = played * test_random(), heard = coupled * played * test_random(),
                        voice = said * test_random();
            rig->far[k] = far * far;
            rig->error[k] = heard * heard + voice * voice + NOISE;
            rig->echo[k] = rig->cross[k] = 0.0f;
        }
        process(rig);
        for (int k = 0; k < BINS; k++) {
            power += (double)rig->residual.power[k];
            reference += (double)rig->far[k];
        }
    }
    memset(rig->far, 0, sizeof rig->far);
    return test_db(power) - test_db(reference);
}

int main(void)
{
    rig_t *rig = start();
    listen(rig, 100, 0.0f, 0.0f, 1.0f);
    float most = 0.0f;
    for (int k = 0; k < STRIDE; k++)
        most = fmaxf(most, rig->residual.power[k]);
    CHECK(most == 0.0f, "no echo, loud near end: residual %.1e", (double)most);

    static const float lefts[] = {0.3f, 0.1f, 0.03f};
    for (unsigned i = 0; i < sizeof lefts / sizeof *lefts; i++) {
        residual_reset(&rig->residual);
        listen(rig, 300, 1.0f, lefts[i], 0.0f);
        const double found = listen(rig, 100, 1.0f, lefts[i], 0.0f),
                     truth = test_db((double)(lefts[i] * lefts[i]));
        /* not below what is left, and not above it by more than the margin of 5 dB and 9 dB for peaks and
         * smoothing */
        CHECK(found > truth && found < truth + 14.0, "%.0f dB of the echo are left: residual at %.1f dB",
              truth, found);
    }
    CHECK(rig->residual.convergence == 1.0f, "-30 dB are left: convergence %.2f",
          (double)rig->residual.convergence);
    const double alone = listen(rig, 100, 1.0f, 0.03f, 0.0f), both = listen(rig, 300, 1.0f, 0.03f, 1.0f);
    CHECK(both < alone + 6.0, "a near end as loud as the echo lifts it from %.1f to %.1f dB", alone, both);

    CHECK(rig->residual.convergence > 0.9f, "and in double talk: convergence %.2f",
          (double)rig->residual.convergence);

    listen(rig, 100, 1.0f, 0.1f, 0.0f);
    const float before = rig->residual.power[BINS / 2];
    listen(rig, 30, 0.0f, 0.0f, 0.0f);
    const double fallen = test_db((double)rig->residual.power[BINS / 2]) - test_db((double)before);
    CHECK(fallen < -40.0, "300 ms after the echo: %.0f dB", fallen);

    /* microphone = near end only: the error holds the whole wrong estimate with the opposite sign */
    residual_reset(&rig->residual);
    listen(rig, 400, 1.0f, -1.0f, 1.0f);
    const double chance = listen(rig, 100, 1.0f, -1.0f, 1.0f);
    CHECK(chance < -15.0, "an estimate that is no echo: residual at %.1f dB", chance);
    CHECK(rig->residual.convergence == 0.0f, "nor does it count as converged: %.2f",
          (double)rig->residual.convergence);
    const double again = (listen(rig, 300, 1.0f, 0.1f, 0.0f), listen(rig, 100, 1.0f, 0.1f, 0.0f));
    CHECK(again > -20.0, "and once it is one: residual at %.1f dB, -20 dB are left", again);

    /* an echo without an estimate, and an unrelated far end beside a near end with pauses */
    residual_reset(&rig->residual);
    const double overheard = (overhear(rig, 2, 0.1f, 0.0f), overhear(rig, 1, 0.1f, 0.0f)),
                 over = overhear(rig, 3, 0.1f, 0.1f);
    CHECK(overheard > -26.0 && overheard < -6.0, "an unpredicted echo of -20 dB: residual at %.1f dB",
          overheard);
    CHECK(over > -26.0 && over < overheard + 6.0, "and while the near end speaks: %.1f dB", over);
    residual_reset(&rig->residual);
    const double unrelated = (overhear(rig, 2, 0.0f, 0.1f), overhear(rig, 2, 0.0f, 0.1f));
    CHECK(unrelated < -30.0, "an unrelated far end: residual at %.1f dB", unrelated);
    free(rig->memory), free(rig);
    return test_failures != 0;
}
