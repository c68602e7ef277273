#include "cards/downmix.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"

void downmix_forget(downmix_t *downmix)
{
    downmix->frames = 0;
    memset(downmix->sum, 0, sizeof downmix->sum);
    memset(downmix->clipped, 0, sizeof downmix->clipped);
}

void downmix_note_clipping(downmix_t *downmix, const int16_t *frame, int samples)
{
    for (int i = 0; i < samples; i++)
        for (int c = 0; c < downmix->channels; c++) {
            const int16_t x = frame[i * downmix->channels + c];
            downmix->clipped[c] |= x == INT16_MAX || x == INT16_MIN;
        }
}

void downmix_measure(downmix_t *downmix, const int16_t *frame, int samples)
{
    const int channels = downmix->channels, step = downmix->step, count = samples / step;
    int before[DOWNMIX_CHANNELS_MAX] = {0};
    double sum[DOWNMIX_CHANNELS_MAX * DOWNMIX_CHANNELS_MAX] = {0};
    for (int i = 0; i < count; i++) {
        float rise[DOWNMIX_CHANNELS_MAX];
        for (int c = 0; c < channels; c++) {
            int band = 0;
            for (int k = 0; k < step; k++)
                band += frame[(i * step + k) * channels + c];
            rise[c] = i ? (float)(band - before[c]) : 0.0f;
            before[c] = band;
        }
        for (int a = 0; a < channels; a++)
            for (int b = 0; b <= a; b++)
                sum[a * channels + b] += (double)(rise[a] * rise[b]);
    }
    const double scale = 1.0 / ((count - 1) * step * step);
    for (int a = 0; a < channels; a++)
        for (int b = 0; b < channels; b++) {
            const double covariance = scale * (b <= a ? sum[a * channels + b] : sum[b * channels + a]);
            downmix->last[a * channels + b] = covariance;
            downmix->sum[a * channels + b] += covariance;
        }
    downmix->frames++;
}

void downmix_mix(downmix_t *downmix, const int16_t *frame, int samples, int16_t *mono)
{
    const int channels = downmix->channels;
    float rise[DOWNMIX_CHANNELS_MAX];
    for (int c = 0; c < channels; c++)
        rise[c] = (downmix->new_weights[c] - downmix->weights[c]) / (float)(samples - 1);
    for (int i = 0; i < samples; i++) {
        float sum = 0.0f;
        for (int c = 0; c < channels; c++)
            sum += (float)frame[i * channels + c] * (downmix->weights[c] + rise[c] * (float)i);
        mono[i] = nearest_int16(clamp(sum, -32768.0f, 32767.0f));
    }
    memcpy(downmix->weights, downmix->new_weights, sizeof downmix->weights);
}
