/* ns.h: noise is attenuated as configured, also after it has risen; speech and foreground sounds in a quiet
 * room pass; residual echo is replaced by noise. */
#include "ns/ns.h"

#include "base/test_support.h"

enum { BINS = 161, STRIDE = 164 };

static const float WINDOW_POWER = 160.0f; /* about that of 16 kHz */
static const double ATTENUATION_DB = 18.0;

typedef struct {
    ns_t ns;
    void *memory;
    const ns_mask_t *mask;
    float re[STRIDE], im[STRIDE], power[STRIDE], echo[STRIDE];
} rig_t;

static rig_t *start(float attenuation_db)
{
    rig_t *rig = test_memory(sizeof *rig);
    arena_t arena = {0};
    ns_init(&rig->ns, BINS, STRIDE, WINDOW_POWER, &arena);
    rig->memory = test_memory(arena.used);
    arena = (arena_t){rig->memory, 0};
    ns_init(&rig->ns, BINS, STRIDE, WINDOW_POWER, &arena);
    ns_configure(&rig->ns, attenuation_db);
    return rig;
}

static void stop(rig_t *rig) { free(rig->memory), free(rig); }

/* Nearly Gaussian, variance 1. */
static float gaussian(void) { return test_random() + test_random() + test_random(); }

/* Suppresses spectra of noise, speech (every other 200 ms, in every other 400 Hz) and residual echo of these
 * amplitudes. Returns the output's power over the input's in dB: in the speech if there is any, else of all.
 */
static double process_with(rig_t *rig, int blocks, float noise, float speech, float echo,
                           float canceller_confidence, float echo_confidence)
{
    double in = 0.0, out = 0.0;
    for (int b = 0; b < blocks; b++) {
        const int speaks = speech > 0.0f && b % 40 < 20;
        for (int k = 0; k < BINS; k++) {
            const int voiced = speaks && k / 8 % 2;
            rig->re[k] = noise * gaussian() + echo * gaussian() + (voiced ? speech * gaussian() : 0.0f);
            rig->im[k] = noise * gaussian() + echo * gaussian() + (voiced ? speech * gaussian() : 0.0f);
            rig->power[k] = rig->re[k] * rig->re[k] + rig->im[k] * rig->im[k];
            /* both parts, with the margin that residual.c gives */
            rig->echo[k] = 2.0f * 2.0f * echo * echo;
        }
        const ns_input_t input = {
            .re = rig->re,
            .im = rig->im,
            .power = rig->power,
            .echo = rig->echo,
            .mask = rig->mask,
            .canceller_confidence = canceller_confidence,
            .echo_confidence = echo_confidence,
        };
        ns_track(&rig->ns, &input);
        ns_suppress(&rig->ns, &input);
        for (int k = 0; k < BINS; k++)
            if (speech == 0.0f || (speaks && k / 8 % 2)) {
                in += (double)rig->power[k];
                out += (double)(rig->re[k] * rig->re[k] + rig->im[k] * rig->im[k]);
            }
    }
    return test_db(out) - test_db(in);
}

/* canceller_confidence stands for both confidences. */
static double process_converged(rig_t *rig, int blocks, float noise, float speech, float echo,
                                float canceller_confidence)
{
    return process_with(rig, blocks, noise, speech, echo, canceller_confidence, canceller_confidence);
}

static double process(rig_t *rig, int blocks, float noise, float speech, float echo)
{
    return process_converged(rig, blocks, noise, speech, echo, 0.0f);
}

/* Returns the noise floor, mean power of a bin. */
static double check_noise(rig_t *rig)
{
    process(rig, 300, 0.01f, 0.0f, 0.0f);
    const double quiet = process(rig, 200, 0.01f, 0.0f, 0.0f);
    /* the gain's peaks at random peaks of the noise reduce the attenuation */
    CHECK(quiet < -ATTENUATION_DB + 3.0 && quiet > -ATTENUATION_DB - 1.0, "noise: %.1f dB, asked for %.0f dB",
          quiet, -ATTENUATION_DB);
    CHECK(rig->ns.speech_probability < 0.3f, "noise: speech probability %.2f",
          (double)rig->ns.speech_probability);

    const double voice = process(rig, 400, 0.01f, 0.2f, 0.0f);
    CHECK(voice > -1.0 && voice <= 0.0, "speech 26 dB above it: %.2f dB", voice);
    process(rig, 400, 0.05f, 0.0f, 0.0f);
    const double risen = process(rig, 100, 0.05f, 0.0f, 0.0f);
    CHECK(risen < -ATTENUATION_DB + 3.0, "noise 14 dB louder than before, after four seconds: %.1f dB",
          risen);
    process(rig, 100, 0.01f, 0.0f, 0.0f);

    double noise = 0.0;
    for (int k = 0; k < BINS; k++)
        noise += (double)rig->ns.noise[k] / BINS;
    const double true_noise = 2.0 * 0.01 * 0.01;
    CHECK(fabs(test_db(noise) - test_db(true_noise)) < 3.0, "noise floor found at %.1f dB, true %.1f dB",
          test_db(noise), test_db(true_noise));
    return noise;
}

static void check_echo(rig_t *rig, double noise)
{
    process(rig, 20, 0.01f, 0.0f, 0.3f);
    const double echo = process(rig, 100, 0.01f, 0.0f, 0.3f);
    const double floor = test_db(noise) - ATTENUATION_DB - test_db(2.0 * (0.3 * 0.3 + 0.01 * 0.01));
    CHECK(echo < floor + 6.0 && echo > floor - 3.0,
          "residual echo: %.1f dB, noise's own level there would be %.1f dB", echo, floor);
    const double both = process(rig, 200, 0.01f, 0.3f, 0.03f);
    CHECK(both > -2.0, "speech 20 dB above residual echo: %.2f dB", both);

    const double attenuated = (process(rig, 600, 0.01f, 0.3f, 0.05f), process(rig, 200, 0.01f, 0.3f, 0.05f));
    CHECK(attenuated > -3.2, "speech 16 dB above residual echo that never pauses: %.2f dB", attenuated);
    process_converged(rig, 120, 0.01f, 0.3f, 0.05f, 1.0f);
    const double protected = process_converged(rig, 200, 0.01f, 0.3f, 0.05f, 1.0f);
    CHECK(protected > attenuated + 1.0, "it is attenuated by %.2f dB, after convergence by %.2f dB",
          attenuated, protected);
    process_converged(rig, 300, 0.01f, 0.0f, 0.3f, 1.0f);
    const double alone = process_converged(rig, 100, 0.01f, 0.0f, 0.3f, 1.0f);
    CHECK(alone < floor + 6.0, "residual echo alone after convergence and speech: %.1f dB", alone);

    ns_reset(&rig->ns);
    const double first = process(rig, 100, 0.01f, 0.2f, 0.0f);
    CHECK(first > -2.0, "speech in the first second, before the noise is known: %.2f dB", first);
}

static const float nothing[STRIDE];

static void check_mask_of_echo(void)
{
    rig_t *rig = start(0.0f);
    const ns_mask_t all_is_echo = {nothing, nothing, 1.0f};
    rig->mask = &all_is_echo;
    const double hardly = (process(rig, 200, 0.01f, 0.3f, 0.003f), process(rig, 200, 0.01f, 0.3f, 0.003f));
    CHECK(hardly > -2.0, "speech 40 dB above residual echo, a mask rejecting all as echo: %.2f dB", hardly);
    const double leaks = (process(rig, 200, 0.01f, 0.0f, 0.1f), process(rig, 200, 0.01f, 0.0f, 0.1f));
    CHECK(leaks < -15.0, "residual echo alone, a mask rejecting all as echo: %.1f dB", leaks);
    stop(rig);
}

static void check_foreground(void)
{
    rig_t *rig = start((float)ATTENUATION_DB);
    const ns_mask_t all_is_noise = {nothing, nothing, 0.0f};
    rig->mask = &all_is_noise;
    process_with(rig, 200, 0.001f, 0.0f, 0.0f, 0.0f, 1.0f);
    const double sound = process_with(rig, 20, 0.001f, 0.1f, 0.0f, 0.0f, 1.0f);
    CHECK(sound > -0.5, "a sound 40 dB above the noise, a mask rejecting all as noise: %.2f dB", sound);
    process_with(rig, 200, 0.001f, 0.0f, 0.0f, 0.0f, 0.0f);
    const double doubtful = process_with(rig, 20, 0.001f, 0.1f, 0.0f, 0.0f, 0.0f);
    CHECK(doubtful < -15.0, "the same where residual echo may exceed the expected: %.1f dB", doubtful);
    for (int click = 0; click < 8; click++) {
        process_with(rig, 2, 0.1f, 0.0f, 0.0f, 0.0f, 1.0f);
        process_with(rig, 10, 0.001f, 0.0f, 0.0f, 0.0f, 1.0f);
    }
    const double clicks = process_with(rig, 2, 0.1f, 0.0f, 0.0f, 0.0f, 1.0f);
    CHECK(clicks < -15.0, "the last of nine clicks 40 dB above the noise: %.1f dB", clicks);
    stop(rig);
}

static void check_off(void)
{
    rig_t *rig = start(0.0f);
    double worst = 0.0;
    for (int b = 0; b < 200; b++) {
        process(rig, 1, 0.01f, b % 2 ? 0.2f : 0.0f, 0.0f);
        for (int k = 0; k < BINS; k++)
            test_worst(&worst, fabs((double)rig->ns.gains.total[k] - 1.0));
    }
    CHECK(worst < 1e-6, "attenuation of 0 dB: the gain differs from 1 by %.1e", worst);
    stop(rig);
}

int main(void)
{
    rig_t *rig = start((float)ATTENUATION_DB);
    check_echo(rig, check_noise(rig));
    stop(rig);
    check_mask_of_echo();
    check_foreground();
    check_off();
    return test_failures != 0;
}
