/* stft.h: unmodified spectra give the input, exactly `fade` late, at every rate. */
#include "kernels/stft.h"

#include "base/test_support.h"
#include "kernels/spectrum.h"

enum { BLOCKS = 20 };

static void place(fft_t *fft, stft_t *stft, int hop, int fade, arena_t *arena)
{
    fft_init(fft, 2 * hop, arena);
    stft_init(stft, hop, fade, arena);
}

static void reconstructs(int hop, int late)
{
    fft_t fft;
    stft_t stft;
    arena_t arena = {0};
    place(&fft, &stft, hop, late, &arena);
    arena = (arena_t){test_memory(arena.used), 0};
    place(&fft, &stft, hop, late, &arena);

    const int count = BLOCKS * hop;
    float *x = test_memory(sizeof(float) * (size_t)count), *y = test_memory(sizeof(float) * (size_t)count);
    float *history = test_memory(sizeof(float) * 2 * (size_t)hop),
          *overlap = test_memory(sizeof(float) * (size_t)late);
    float *re = test_memory(sizeof(float) * (size_t)spectrum_stride(hop));
    float *im = test_memory(sizeof(float) * (size_t)spectrum_stride(hop));
    for (int i = 0; i < count; i++)
        x[i] = test_random();
    for (int b = 0; b < BLOCKS; b++) {
        memmove(history, history + hop, sizeof(float) * (size_t)hop);
        memcpy(history + hop, x + b * hop, sizeof(float) * (size_t)hop);
        stft_analyse(&stft, &fft, history, re, im);
        stft_synthesise(&stft, &fft, re, im, overlap, y + b * hop);
    }
    double worst = 0.0;
    for (int i = late; i < count; i++)
        test_worst(&worst, fabs((double)(y[i] - x[i - late])));
    /* two transforms of up to 10 levels and windows of up to 2: 2^-24 * sqrt(22) * 6 sigma * 2 */
    CHECK(worst < 3.4e-6, "hop %3d: %d samples late, worst error %.1e", hop, late, worst);
    free(arena.base), free(x), free(y), free(history), free(overlap), free(re), free(im);
}

int main(void)
{
    for (int hop = 80; hop <= 480; hop += hop < 160 ? 80 : 160)
        reconstructs(hop, hop / 2), reconstructs(hop, hop / 8);
    return test_failures != 0;
}
