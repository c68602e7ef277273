/* fft.h against a float64 DFT: worst error relative to the RMS of the spectrum, every size in use. */
#include "kernels/fft.h"

#include "base/test_support.h"

static void check(int size)
{
    arena_t measure = {0};
    fft_t fft;
    fft_init(&fft, size, &measure);
    arena_t arena = {test_memory(measure.used), 0};
    fft_init(&fft, size, &arena);
    const int bins = size / 2 + 1;
    float *x = malloc(sizeof(float) * (size_t)size), *back = malloc(sizeof(float) * (size_t)size);
    float *re = malloc(sizeof(float) * (size_t)bins), *im = malloc(sizeof(float) * (size_t)bins);
    for (int i = 0; i < size; i++)
        x[i] = 0.5f * test_random();
    fft_forward(&fft, x, re, im);
    double worst = 0.0, power = 0.0;
    for (int k = 0; k < bins; k++) {
        double sr = 0.0, si = 0.0;
        for (int i = 0; i < size; i++) {
            sr += (double)x[i] * cos(2.0 * M_PI * k * i / size);
            si -= (double)x[i] * sin(2.0 * M_PI * k * i / size);
        }
        test_worst(&worst, hypot((double)re[k] - sr, (double)im[k] - si));
        power += sr * sr + si * si;
    }
    const double relative = worst / sqrt(power / bins);
    fft_inverse(&fft, re, im, back);
    double trip = 0.0;
    for (int i = 0; i < size; i++)
        test_worst(&trip, fabs((double)back[i] - (double)x[i]));
    /* Rounding errors grow with the root of the number of passes: 2^-24 * sqrt(7) times a small factor. */
    CHECK(relative < 2e-6 && trip < 5e-7, "fft %4d: worst error %.2e of the RMS, round trip %.2e", size,
          relative, trip);
    free(x), free(back), free(re), free(im), free(arena.base);
}

int main(void)
{
    static const int sizes[] = {160, 320, 480, 640, 960, 1280, 2880};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check(sizes[i]);
    return test_failures != 0;
}
