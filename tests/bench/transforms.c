/* The real FFT beside FFTW3f and KissFFT, on this machine: microseconds for a transform there and back, and
 * the worst error of the spectrum relative to its RMS, against a DFT in double. Prints a line "LIBRARY SIZE
 * MICROSECONDS ERROR" for each. */
#include <fftw3.h>
#include <kissfft/kiss_fftr.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/fft.h"

enum { LARGEST = 960, ROUNDS = 20, REPEATS = 2000 };

typedef struct {
    const char *name;
    void (*prepare)(int size);
    void (*there)(void); /* from x to the library's spectrum */
    void (*back)(void);  /* from there to y; may destroy the spectrum */
    void (*spectrum)(int k, double *re, double *im);
} library_t;

static float x[LARGEST], y[LARGEST];

static fft_t fft;
static float re[LARGEST / 2 + 1], im[LARGEST / 2 + 1];
static void own_prepare(int size)
{
    arena_t arena = {0};
    fft_init(&fft, size, &arena);
    arena = (arena_t){aligned_alloc(ARENA_ALIGN, arena.used), 0};
    fft_init(&fft, size, &arena);
}
static void own_there(void) { fft_forward(&fft, x, re, im); }
static void own_back(void) { fft_inverse(&fft, re, im, y); }
static void own_spectrum(int k, double *out_re, double *out_im)
{
    *out_re = (double)re[k], *out_im = (double)im[k];
}

static fftwf_plan fftw_forward, fftw_inverse;
static fftwf_complex fftw_bins[LARGEST / 2 + 1];
static void fftw_prepare(int size)
{
    fftw_forward = fftwf_plan_dft_r2c_1d(size, x, fftw_bins, FFTW_MEASURE);
    fftw_inverse = fftwf_plan_dft_c2r_1d(size, fftw_bins, y, FFTW_MEASURE);
}
static void fftw_there(void) { fftwf_execute(fftw_forward); }
static void fftw_back(void) { fftwf_execute(fftw_inverse); }
static void fftw_spectrum(int k, double *out_re, double *out_im)
{
    *out_re = (double)fftw_bins[k][0], *out_im = (double)fftw_bins[k][1];
}

static kiss_fftr_cfg kiss_forward, kiss_inverse;
static kiss_fft_cpx kiss_bins[LARGEST / 2 + 1];
static void kiss_prepare(int size)
{
    kiss_forward = kiss_fftr_alloc(size, 0, NULL, NULL);
    kiss_inverse = kiss_fftr_alloc(size, 1, NULL, NULL);
}
static void kiss_there(void) { kiss_fftr(kiss_forward, x, kiss_bins); }
static void kiss_back(void) { kiss_fftri(kiss_inverse, kiss_bins, y); }
static void kiss_spectrum(int k, double *out_re, double *out_im)
{
    *out_re = (double)kiss_bins[k].r, *out_im = (double)kiss_bins[k].i;
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

static double error_of(const library_t *library, int size)
{
    double worst = 0.0, power = 0.0;
    for (int k = 0; k <= size / 2; k++) {
        double wanted_re = 0.0, wanted_im = 0.0, got_re, got_im;
        for (int i = 0; i < size; i++) {
            wanted_re += (double)x[i] * cos(2.0 * M_PI * (k * i % size) / size);
            wanted_im -= (double)x[i] * sin(2.0 * M_PI * (k * i % size) / size);
        }
        library->spectrum(k, &got_re, &got_im);
        worst = fmax(worst, hypot(got_re - wanted_re, got_im - wanted_im));
        power += wanted_re * wanted_re + wanted_im * wanted_im;
    }
    return worst / sqrt(power / (size / 2 + 1));
}

static void measure(const library_t *library, int size)
{
    library->prepare(size);
    unsigned random = 1;
    for (int i = 0; i < size; i++) { /* after the plan was made: measuring overwrites the arrays */
        random = random * 1664525u + 1013904223u;
        x[i] = (float)(int)random / 2147483648.0f;
    }
    double best = HUGE_VAL; /* the least of many rounds, since disturbances only add time */
    for (int round = 0; round < ROUNDS; round++) {
        const double start = now_us();
        for (int i = 0; i < REPEATS; i++) {
            library->there();
            library->back();
        }
        best = fmin(best, (now_us() - start) / REPEATS);
    }
    library->there();
    printf("%s %d %.3f %.2e\n", library->name, size, best, error_of(library, size));
}

int main(void)
{
    static const library_t libraries[] = {
        {"apmpi", own_prepare, own_there, own_back, own_spectrum},
        {"FFTW3f", fftw_prepare, fftw_there, fftw_back, fftw_spectrum},
        {"KissFFT", kiss_prepare, kiss_there, kiss_back, kiss_spectrum},
    };
    static const int sizes[] = {160, 320, 640, 960};
    for (int s = 0; s < 4; s++)
        for (int l = 0; l < 3; l++)
            measure(&libraries[l], sizes[s]);
    return 0;
}
