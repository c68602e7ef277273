/* Runs every kernel of every variant between two marks (insncount.h) and prints "VARIANT KERNEL SIZE" for
 * each pair, in the same order. Sizes are those of 16 kHz: 164 bins with their padding. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "insncount.h"
#include "kernels/kernel_cases.h"

enum { BINS = 164, OUTPUTS = 96, INPUTS = 128 };

static float *sound(int count)
{
    float *x = aligned_alloc(ARENA_ALIGN, arena_round(sizeof(float) * (size_t)count));
    for (int i = 0; i < count; i++)
        x[i] = (float)(i * 7919 % 1000) / 1000.0f - 0.5f;
    return x;
}

static void bench_cases(const kernels_t *variant)
{
    const float *in[CASE_INPUTS];
    float *out[CASE_OUTPUTS];
    for (int i = 0; i < CASE_INPUTS; i++)
        in[i] = sound(BINS * CASE_ROWS);
    for (int o = 0; o < CASE_OUTPUTS; o++)
        out[o] = sound(BINS * CASE_ROWS);
    for (int i = 0; i < KERNEL_CASES; i++) {
        printf("%s %s %d\n", variant->name, kernel_cases[i].name, BINS);
        syscall(MARK_SYSCALL, 0);
        kernel_cases[i].run(variant, BINS, in, out);
        syscall(MARK_SYSCALL, 1);
    }
}

static void bench_fft(const kernels_t *variant, int size)
{
    arena_t measure = {0};
    fft_t fft;
    fft_init(&fft, size, &measure);
    arena_t arena = {aligned_alloc(ARENA_ALIGN, arena_round(measure.used)), 0};
    fft_init(&fft, size, &arena);
    float *x = sound(size), *re = sound(size / 2 + 1), *im = sound(size / 2 + 1);
    printf("%s fft_forward %d\n%s fft_inverse %d\n", variant->name, size, variant->name, size);
    syscall(MARK_SYSCALL, 0);
    variant->fft_forward(&fft, x, re, im);
    syscall(MARK_SYSCALL, 1);
    syscall(MARK_SYSCALL, 0);
    variant->fft_inverse(&fft, re, im, x);
    syscall(MARK_SYSCALL, 1);
}

static void bench_dense(const kernels_t *variant)
{
    static int8_t weight[OUTPUTS * INPUTS];
    static int8_t x[INPUTS];
    float *scale = sound(OUTPUTS), *y = sound(OUTPUTS);
    printf("%s dense %d\n", variant->name, OUTPUTS * INPUTS);
    syscall(MARK_SYSCALL, 0);
    variant->dense(OUTPUTS, INPUTS, weight, scale, x, 1.0f, y);
    syscall(MARK_SYSCALL, 1);
}

int main(void)
{
    static const int sizes[] = {160, 320, 640, 960};
    for (const kernels_t *const *variant = kernels_here(); *variant; variant++) {
        bench_cases(*variant);
        for (int s = 0; s < 4; s++)
            bench_fft(*variant, sizes[s]);
        bench_dense(*variant);
    }
    return 0;
}
