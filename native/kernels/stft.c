#include "kernels/stft.h"

#include <math.h>
#include <string.h>

void stft_init(stft_t *stft, int hop, int fade, arena_t *arena)
{
    stft->hop = hop;
    stft->fade = fade;
    stft->analysis = arena_floats(arena, 2 * (size_t)hop);
    stft->synthesis = arena_floats(arena, 2 * (size_t)hop);
    stft->frame = arena_floats(arena, 2 * (size_t)hop);
    if (!arena->base)
        return;
    const int first = hop - fade, rise = 2 * hop - fade;
    for (int i = 0; i < 2 * hop; i++) {
        const double up = sin(M_PI_2 * (i + 0.5) / rise), down = cos(M_PI_2 * (i - rise + 0.5) / fade);
        const double window = i < rise ? up : down;
        const double fade_in = sin(M_PI_2 * (i - first + 0.5) / fade);
        const double product = i < first ? 0.0 : i < hop ? fade_in * fade_in : i < rise ? 1.0 : down * down;
        stft->analysis[i] = (float)window;
        stft->synthesis[i] = (float)(product / window);
    }
}

void stft_analyse(const stft_t *stft, const fft_t *fft, const float *history, float *re, float *im)
{
    for (int i = 0; i < 2 * stft->hop; i++)
        stft->frame[i] = history[i] * stft->analysis[i];
    fft_forward(fft, stft->frame, re, im);
}

void stft_synthesise(const stft_t *stft, const fft_t *fft, const float *re, const float *im, float *overlap,
                     float *out)
{
    const int hop = stft->hop, fade = stft->fade, first = hop - fade;
    fft_inverse(fft, re, im, stft->frame);
    for (int i = first; i < 2 * hop; i++)
        stft->frame[i] *= stft->synthesis[i];
    for (int i = 0; i < fade; i++)
        out[i] = overlap[i] + stft->frame[first + i];
    memcpy(out + fade, stft->frame + hop, sizeof(float) * (size_t)(hop - fade));
    memcpy(overlap, stft->frame + 2 * hop - fade, sizeof(float) * (size_t)fade);
}
