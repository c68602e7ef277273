#include "cards/latency.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float *row(const latency_log_t *log, int64_t frame)
{
    return log->ring_ms + frame % (2 * log->capacity_frames) * LATENCY_PARTS;
}

void latency_add(latency_log_t *log, const float *parts_ms)
{
    memcpy(row(log, log->frames), parts_ms, sizeof(float) * LATENCY_PARTS);
    __atomic_store_n(&log->frames, log->frames + 1, __ATOMIC_RELEASE);
}

void latency_copy(const latency_log_t *log, int part, int64_t begin_frame, int64_t end_frame, float *out_ms)
{
    for (int64_t frame = begin_frame; frame < end_frame; frame++) {
        const float *parts_ms = row(log, frame);
        float sum_ms = 0.0f;
        for (int p = 0; p < LATENCY_PARTS; p++)
            sum_ms += parts_ms[p];
        *out_ms++ = part == LATENCY_PARTS ? sum_ms : parts_ms[part];
    }
}

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

spread_t spread_of(float *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    const int median = (count + 1) / 2 - 1, p99 = (int)((99 * (int64_t)count + 99) / 100) - 1;
    return (spread_t){values[median], values[p99], values[count - 1]};
}

level_t level_of(const int16_t *samples, int count)
{
    int64_t sum = 0;
    int peak = 0;
    for (int i = 0; i < count; i++) {
        const int x = samples[i], magnitude = x < 0 ? -x : x;
        sum += x * x;
        peak = magnitude > peak ? magnitude : peak;
    }
    return (level_t){count ? sqrt((double)sum / count) : 0.0, peak};
}
