#include "roomcard/echo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = ECHO_BLOCK, FFT_SIZE = 2 * BLOCK, BINS = BLOCK + 1 };

typedef struct {
    float re[BINS], im[BINS];
} spectrum_t;

struct echo {
    int taps;
    int partitions;        /* blocks of taps after the first one */
    float head[BLOCK];     /* taps 0..BLOCK-1 */
    spectrum_t *filter;    /* [partitions], taps from BLOCK on, each zero padded to FFT_SIZE */
    spectrum_t *past;      /* [partitions], spectra of (block before, block), a ring */
    int newest;            /* index in past of the last full block */
    float input[FFT_SIZE]; /* the block before, then the block being filled */
    int filled;            /* samples in the latter, 0..BLOCK-1 */
    float tail[BLOCK];     /* contribution of past blocks to the block being filled */
    float cosine[FFT_SIZE / 2], sine[FFT_SIZE / 2];
};

/* --- FFT: radix 2, decimation in time, in place; the inverse swaps re and im and is not scaled --- */

static void fft(const echo_t *echo, float *re, float *im)
{
    for (unsigned i = 1, j = 0; i < FFT_SIZE; i++) {
        unsigned bit = FFT_SIZE / 2;
        for (; j & bit; bit /= 2)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            float swap = re[i];
            re[i] = re[j];
            re[j] = swap;
            swap = im[i];
            im[i] = im[j];
            im[j] = swap;
        }
    }
    for (int half = 1; half < FFT_SIZE; half *= 2) {
        const int stride = FFT_SIZE / 2 / half;
        for (int base = 0; base < FFT_SIZE; base += 2 * half) {
            for (int k = 0; k < half; k++) {
                const float c = echo->cosine[k * stride], s = echo->sine[k * stride];
                const int a = base + k, b = a + half;
                const float x = re[b] * c + im[b] * s, y = im[b] * c - re[b] * s;
                re[b] = re[a] - x;
                im[b] = im[a] - y;
                re[a] += x;
                im[a] += y;
            }
        }
    }
}

static void spectrum_of(const echo_t *echo, const float time[FFT_SIZE], spectrum_t *out)
{
    float re[FFT_SIZE], im[FFT_SIZE] = {0};
    memcpy(re, time, sizeof re);
    fft(echo, re, im);
    memcpy(out->re, re, sizeof out->re);
    memcpy(out->im, im, sizeof out->im);
}

/* --- set-up --- */

echo_t *echo_create(const float *impulse_response, int taps)
{
    echo_t *echo = calloc(1, sizeof *echo);
    if (!echo)
        return NULL;
    echo->taps = taps;
    echo->partitions = (taps - 1) / BLOCK;
    memcpy(echo->head, impulse_response, sizeof(float) * (size_t)(taps < BLOCK ? taps : BLOCK));
    for (int k = 0; k < FFT_SIZE / 2; k++) {
        const double angle = 2.0 * M_PI * k / FFT_SIZE;
        echo->cosine[k] = (float)cos(angle);
        echo->sine[k] = (float)sin(angle);
    }
    if (echo->partitions == 0)
        return echo;

    echo->filter = calloc((size_t)echo->partitions, sizeof *echo->filter);
    echo->past = calloc((size_t)echo->partitions, sizeof *echo->past);
    if (!echo->filter || !echo->past) {
        echo_free(echo);
        return NULL;
    }
    for (int p = 0; p < echo->partitions; p++) {
        float time[FFT_SIZE] = {0};
        const int first = (p + 1) * BLOCK, count = taps - first < BLOCK ? taps - first : BLOCK;
        for (int i = 0; i < count; i++)
            time[i] = impulse_response[first + i] / (float)FFT_SIZE; /* the inverse FFT's scale */
        spectrum_of(echo, time, &echo->filter[p]);
    }
    return echo;
}

void echo_free(echo_t *echo)
{
    if (!echo)
        return;
    free(echo->filter);
    free(echo->past);
    free(echo);
}

void echo_reset(echo_t *echo)
{
    if (echo->partitions > 0)
        memset(echo->past, 0, sizeof *echo->past * (size_t)echo->partitions);
    memset(echo->input, 0, sizeof echo->input);
    memset(echo->tail, 0, sizeof echo->tail);
    echo->newest = 0;
    echo->filled = 0;
}

/* --- processing --- */

/* Starts the next block: computes the contribution of all full blocks to it. */
static void next_block(echo_t *echo)
{
    if (echo->partitions > 0) {
        echo->newest = (echo->newest + 1) % echo->partitions;
        spectrum_of(echo, echo->input, &echo->past[echo->newest]);

        spectrum_t sum = {0};
        for (int p = 0; p < echo->partitions; p++) {
            const spectrum_t *h = &echo->filter[p];
            const spectrum_t *x = &echo->past[(echo->newest - p + echo->partitions) % echo->partitions];
            for (int k = 0; k < BINS; k++) {
                sum.re[k] += x->re[k] * h->re[k] - x->im[k] * h->im[k];
                sum.im[k] += x->re[k] * h->im[k] + x->im[k] * h->re[k];
            }
        }
        float re[FFT_SIZE], im[FFT_SIZE];
        for (int k = 0; k < BINS; k++) {
            re[k] = sum.re[k];
            im[k] = sum.im[k];
        }
        for (int k = BINS; k < FFT_SIZE; k++) {
            re[k] = sum.re[FFT_SIZE - k];
            im[k] = -sum.im[FFT_SIZE - k];
        }
        fft(echo, im, re);
        memcpy(echo->tail, re + BLOCK, sizeof echo->tail); /* overlap-save: the first half is circular */
    }
    memcpy(echo->input, echo->input + BLOCK, sizeof(float) * BLOCK);
    echo->filled = 0;
}

void echo_process(echo_t *echo, const float *in, float *out, int count)
{
    const int head_taps = echo->taps < BLOCK ? echo->taps : BLOCK;
    while (count > 0) {
        const int part = BLOCK - echo->filled < count ? BLOCK - echo->filled : count;
        float *now = echo->input + BLOCK + echo->filled;
        memcpy(now, in, sizeof *in * (size_t)part);
        memcpy(out, echo->tail + echo->filled, sizeof *out * (size_t)part);
        for (int tap = 0; tap < head_taps; tap++) {
            const float h = echo->head[tap];
            for (int i = 0; i < part; i++)
                out[i] += h * now[i - tap];
        }
        in += part;
        out += part;
        count -= part;
        echo->filled += part;
        if (echo->filled == BLOCK)
            next_block(echo);
    }
}
