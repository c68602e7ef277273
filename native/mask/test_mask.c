/* mask.h: echo alone is attenuated, near-end speech alone is not, at every level; silence leaves no state. */
#include "mask/mask.h"

#include "base/test_support.h"

enum { BINS = 161, STRIDE = 164, TALKER_BINS = 80 };

static const float WINDOW_POWER = 160.0f; /* about that of 16 kHz */

typedef struct {
    mask_t mask;
    void *memory;
    float power[6][STRIDE];
} rig_t;

static rig_t *start(void)
{
    rig_t *rig = test_memory(sizeof *rig);
    arena_t arena = {0};
    mask_init(&rig->mask, BINS, STRIDE, WINDOW_POWER, &arena);
    rig->memory = test_memory(arena.used);
    arena = (arena_t){rig->memory, 0};
    mask_init(&rig->mask, BINS, STRIDE, WINDOW_POWER, &arena);
    return rig;
}

/* Syllables of 150 ms in every `rhythm` blocks that swell and fade, each with its own resonance, of a voice
 * that falls by 12 dB an octave above 500 Hz. */
static float voice(int block, int rhythm, int bin)
{
    const float fall = 10.0f / (10.0f + (float)bin),
                swell = sinf(3.14159f * ((float)(block % rhythm) + 0.5f) / 15.0f);
    const float off = ((float)bin - (float)(12 + block / rhythm * 7 % 30)) / 6.0f;
    const float resonance = 0.1f + expf(-off * off);
    return block % rhythm < 15 ? swell * swell * resonance * fall * fall * (1.5f + test_random())
                               : 1e-4f * fall;
}

/* Two seconds; the mean of the speech gain over the last one and a half, in blocks and bins where the
 * talker is, or else the echo. */
static double listen(rig_t *rig, float near, float echo)
{
    const float noise = 1e-4f * fmaxf(near, echo);
    double sum = 0.0;
    int count = 0;
    for (int b = 0; b < 200; b++) {
        for (int k = 0; k < BINS; k++) {
            const float said = near * voice(b, 25, k), estimate = echo * voice(b, 37, k),
                        hiss = noise * (1.0f + 0.9f * test_random());
            const float left = 0.003f * estimate;
            rig->power[0][k] = said + left + hiss;
            rig->power[1][k] = estimate;
            rig->power[2][k] = 0.3f * test_random() * sqrtf(estimate * (said + left));
            rig->power[3][k] = 2.0f * left;
            rig->power[4][k] = noise;
            rig->power[5][k] = 2.0f * estimate;
        }
        const mask_input_t input = {rig->power[0], rig->power[1], rig->power[2],
                                    rig->power[3], rig->power[4], rig->power[5]};
        mask_process(&rig->mask, &input);
        for (int k = 0; b >= 50 && b % (near > 0.0f ? 25 : 37) < 15 && k < TALKER_BINS; k++, count++)
            sum += (double)rig->mask.speech[k];
    }
    return sum / count;
}

int main(void)
{
    rig_t *rig = start();
    for (int level_db = -40; level_db <= 0; level_db += 20) {
        const float level = powf(10.0f, (float)level_db / 10.0f);
        mask_reset(&rig->mask);
        const double alone = listen(rig, level, 0.0f), both = listen(rig, level, 0.1f * level),
                     echo = listen(rig, 0.0f, level);
        CHECK(alone > 0.5, "talker alone at %d dB: gain %.2f", level_db, alone);
        CHECK(both > 0.5, "talker over an echo 10 dB quieter: gain %.2f", both);
        CHECK(echo < 0.2, "echo alone: gain %.3f", echo);
    }

    memset(rig->power, 0, sizeof rig->power);
    const mask_input_t silence = {rig->power[0], rig->power[1], rig->power[2],
                                  rig->power[3], rig->power[4], rig->power[5]};
    for (int b = 0; b < 6000; b++)
        mask_process(&rig->mask, &silence);
    const double again = listen(rig, 1.0f, 0.0f);
    CHECK(again > 0.5, "talker after a minute of digital silence: gain %.2f", again);

    for (int i = 0; i < 6; i++)
        for (int k = 0; k < STRIDE; k++)
            rig->power[i][k] = i % 2 ? 1e30f : 1e-40f;
    double worst = 0.0;
    for (int b = 0; b < 100; b++) {
        mask_process(&rig->mask, &silence);
        for (int k = 0; k < BINS; k++)
            test_worst(&worst, fabs((double)rig->mask.speech[k] - 0.5));
    }
    CHECK(worst <= 0.5, "absurd powers: gains stay within 0..1 (%.2f from the middle)", worst);
    mask_reset(&rig->mask);
    const double after = listen(rig, 1.0f, 0.0f);
    CHECK(after > 0.5, "talker after a reset: gain %.2f", after);
    free(rig->memory), free(rig);
    return test_failures != 0;
}
