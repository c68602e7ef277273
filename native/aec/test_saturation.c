/* saturation.h: the curve, and that any restored state, forged ones included, gives finite samples. */
#include "aec/saturation.h"

#include "base/test_support.h"

enum { COUNT = 160 };

static void bends_as_tanh(void)
{
    saturation_t saturation = {.overdriven = 1, .drive_square = 64.0f};
    float x[COUNT];
    double worst = 0.0;
    for (int i = 0; i < COUNT; i++)
        x[i] = (float)(i - COUNT / 2) / (COUNT / 2);
    saturation_process(&saturation, x, COUNT);
    for (int i = 0; i < COUNT; i++)
        test_worst(&worst, fabs((double)x[i] - tanh(8.0 * (i - COUNT / 2) / (COUNT / 2)) / 8.0));
    /* tanh's error over the drive, and one rounding */
    CHECK(worst < 3e-7 / 8.0 + 2e-8, "drive 8: %.1e off the curve", worst);
}

static void survives_forged_states(void)
{
    int odd = 0, bent = 0;
    for (int n = 0; n < 40; n++) {
        unsigned char bytes[64];
        const float square = n < 2 ? 0.0f : powf(10.0f, (float)n / 3.0f - 10.0f);
        saturation_t forged = {.overdriven = 1, .drive_square = square}, played;
        tape_t record = {TAPE_RECORD, bytes, 0, 0, 0}, play = {TAPE_PLAY, bytes, 0, 0, 0};
        saturation_keep(&forged, &record);
        saturation_reset(&played);
        saturation_keep(&played, &play);
        float x[COUNT];
        for (int i = 0; i < COUNT; i++)
            x[i] = test_random();
        saturation_process(&played, x, COUNT);
        for (int i = 0; i < COUNT; i++)
            odd += !isfinite(x[i]) || fabsf(x[i]) > 1.0f;
        bent += played.overdriven;
    }
    CHECK(!odd && bent > 0 && bent < 40, "40 forged drives: %d taken for overdrive, %d odd samples", bent,
          odd);
}

int main(void)
{
    bends_as_tanh();
    survives_forged_states();
    return test_failures != 0;
}
