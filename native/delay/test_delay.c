/* delay.h: finds every delay from 0 to 1000 ms within two seconds of far-end sound, and none where there is
 * no echo. */
#include "delay/delay.h"

#include "base/test_support.h"
#include "kernels/fft.h"

enum { RATE_HZ = 8000, HOP = 80, LAGS = 101, SECONDS = 3, COUNT = SECONDS * RATE_HZ };

/* Noise in syllables: four per second, 200 ms each. */
static void fill(float *x, int count, float amplitude)
{
    for (int i = 0; i < count; i++)
        x[i] = i % 2000 < 1600 ? amplitude * test_random() : 0.0f;
}

static void place(fft_t *fft, delay_t *delay, arena_t *arena)
{
    fft_init(fft, 2 * HOP, arena);
    delay_init(delay, LAGS, arena);
}

/* Runs the detector over far and mic. Returns the block from which `best` is right to the end; COUNT/HOP if
 * there is none. */
static int run(const float *far, const float *mic, int blocks_late, delay_t *delay, const fft_t *fft)
{
    float far_re[HOP + 1], far_im[HOP + 1], mic_re[HOP + 1], mic_im[HOP + 1];
    int found = COUNT / HOP;
    for (int b = 1; b < COUNT / HOP; b++) {
        fft_forward(fft, far + (b - 1) * HOP, far_re, far_im);
        fft_forward(fft, mic + (b - 1) * HOP, mic_re, mic_im);
        delay_push(delay, far_re, far_im);
        delay_process(delay, mic_re, mic_im);
        if (delay->best != blocks_late)
            found = COUNT / HOP;
        else if (found == COUNT / HOP)
            found = b;
    }
    return found;
}

int main(void)
{
    fft_t fft;
    delay_t delay;
    arena_t arena = {0};
    place(&fft, &delay, &arena);
    arena = (arena_t){test_memory(arena.used), 0};
    place(&fft, &delay, &arena);
    float *far = test_memory(sizeof(float) * COUNT), *mic = test_memory(sizeof(float) * COUNT);

    static const int delays_ms[] = {0, 10, 40, 90, 250, 500, 990, 1000};
    for (unsigned i = 0; i < sizeof delays_ms / sizeof *delays_ms; i++) {
        const int late = delays_ms[i] * RATE_HZ / 1000;
        fill(far, COUNT, 0.1f);
        for (int n = 0; n < COUNT; n++)
            mic[n] = (n >= late ? 0.3f * far[n - late] : 0.0f) + 0.001f * test_random();
        delay_reset(&delay);
        const int found = run(far, mic, delays_ms[i] / 10, &delay, &fft);
        CHECK(found < 100 + delays_ms[i] / 10 && delay.confidence > 0.9f,
              "%4d ms: found %4d ms after the echo's first sound, confidence %.2f", delays_ms[i],
              10 * found - delays_ms[i], (double)delay.confidence);
    }

    fill(far, COUNT, 0.1f);
    fill(mic, COUNT, 0.1f); /* unrelated noise in the same syllables, so that levels don't decide */
    delay_reset(&delay);
    run(far, mic, 0, &delay, &fft);
    CHECK(delay.best == DELAY_UNKNOWN && delay.confidence < 0.5f, "no echo: lag %d, confidence %.2f",
          delay.best, (double)delay.confidence);
    memset(far, 0, sizeof(float) * COUNT);
    delay_reset(&delay);
    run(far, mic, 0, &delay, &fft);
    CHECK(delay.best == DELAY_UNKNOWN && delay.confidence == 0.0f, "silent far end: lag %d, confidence %.2f",
          delay.best, (double)delay.confidence);
    free(arena.base), free(far), free(mic);
    return test_failures != 0;
}
