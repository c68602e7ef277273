/* Figures of a frame that are read seldom: a ring of latencies, and the level of a signal. */
#ifndef APMPI_CARDS_LATENCY_H
#define APMPI_CARDS_LATENCY_H

#include <stdint.h>

/* Latency of a frame by its parts, which follow each other without gap or overlap, in ms; see
 * apmpi/cards/latency.py. */
typedef enum {
    LATENCY_CAPTURE_WAIT,
    LATENCY_PROCESSING,
    LATENCY_PLAYBACK_QUEUE,
    LATENCY_PARTS
} latency_part_t;

/* Ring of the last frames. One thread adds, another one reads, without a lock: `frames` is written after the
 * frame's values, and the ring holds twice the frames that are read. */
typedef struct {
    int capacity_frames;
    int64_t frames; /* added since the start */
    float *ring_ms; /* 2 * capacity_frames * LATENCY_PARTS */
} latency_log_t;

void latency_add(latency_log_t *log, const float *parts_ms);

/* Copies a part of the frames begin_frame .. end_frame - 1, capacity_frames at most, or of LATENCY_PARTS
 * their sum. out_ms: as many values. */
void latency_copy(const latency_log_t *log, int part, int64_t begin_frame, int64_t end_frame, float *out_ms);

/* Percentiles that occurred, those of the inverted distribution function: of 100 values the 99th percentile
 * is the second largest. */
typedef struct {
    float median, p99, max;
} spread_t;

/* Sorts the values, count > 0, and returns their spread. */
spread_t spread_of(float *values, int count);

/* RMS and largest magnitude of samples, full scale 32768; both 0 without samples. */
typedef struct {
    double rms;
    int peak;
} level_t;

level_t level_of(const int16_t *samples, int count);

#endif
