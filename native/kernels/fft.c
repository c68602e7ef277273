#include "kernels/fft.h"

#include <math.h>

#include "kernels/kernels.h"

static fft_split_t take_split(arena_t *arena, size_t count)
{
    fft_split_t split;
    split.re = arena_floats(arena, count);
    split.im = arena_floats(arena, count);
    return split;
}

/* Writes the radices of the middle passes and a 0; left: points, a product of 3, 4 and 8. */
static void factorise(int left, int *radix)
{
    for (; left > 1; left /= *radix++)
        *radix = left % 3 == 0 ? 3 : left == 4 || left % 16 == 0 ? 4 : 8;
    *radix = 0;
}

void fft_init(fft_t *fft, int size, arena_t *arena)
{
    const int points = size / 2;
    fft->size = size;
    factorise(points / 20, fft->radix);
    const fft_split_t twiddle = take_split(arena, (size_t)points),
                      split = take_split(arena, (size_t)size / 4 + 1);
    fft->twiddle_re = twiddle.re;
    fft->twiddle_im = twiddle.im;
    fft->split_re = split.re;
    fft->split_im = split.im;
    fft->work[0] = take_split(arena, (size_t)points);
    fft->work[1] = take_split(arena, (size_t)points);
    if (!arena->base)
        return;
    int at = 0, left = points;
    for (int pass = -1; pass < 0 || fft->radix[pass]; pass++) {
        const int r = pass < 0 ? 4 : fft->radix[pass];
        for (int k = 1; k < r; k++)
            for (int p = 0; p < left / r; p++, at++) {
                const double angle = -2.0 * M_PI * p * k / left;
                fft->twiddle_re[at] = (float)cos(angle);
                fft->twiddle_im[at] = (float)sin(angle);
            }
        left /= r;
    }
    for (int k = 0; k <= size / 4; k++) {
        fft->split_re[k] = (float)cos(-2.0 * M_PI * k / size);
        fft->split_im[k] = (float)sin(-2.0 * M_PI * k / size);
    }
}

void fft_forward(const fft_t *fft, const float *x, float *re, float *im)
{
    kernels()->fft_forward(fft, x, re, im);
}
void fft_inverse(const fft_t *fft, const float *re, const float *im, float *x)
{
    kernels()->fft_inverse(fft, re, im, x);
}
