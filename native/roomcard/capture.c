#include "roomcard/capture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "roomcard/noise.h"
#include "roomcard/sinc.h"

enum { CHUNK = 256 }; /* card samples interpolated at a time, on the stack */

void capture_free(capture_t *capture)
{
    for (int m = 0; m < ROOM_MICROPHONES_MAX; m++) {
        microphone_free(capture->microphone[m]);
        capture->microphone[m] = NULL;
    }
}

/* out: `count` samples of the source from card position `position`. */
static void read_source(const capture_t *capture, capture_source_t source, int64_t position, float *out,
                        int count)
{
    if (source.kind == CAPTURE_REFERENCE)
        speaker_read(capture->card, source.number, position, out, count);
    else
        microphone_read(capture->microphone[source.number], position, out, count);
}

/* ppm 0: reads the frames up to the next stall, which lie next to each other. Returns how many. */
static int read_aligned(const capture_t *capture, capture_source_t source, int64_t frame, float *out,
                        int count)
{
    const int64_t position = (int64_t)run_position(capture->run, frame);
    int part = 1;
    while (part < count && (int64_t)run_position(capture->run, frame + part) == position + part)
        part++;
    read_source(capture, source, position, out, part);
    return part;
}

/* ppm not 0: reads the card samples around all frames up to the next stall longer than CHUNK at once, since
 * sample by sample the echo takes most of a fast card's time. Returns how many frames. */
static int read_resampled(const capture_t *capture, capture_source_t source, int64_t frame, float *out,
                          int count)
{
    float around[CHUNK + SINC_TAPS];
    const int64_t first = (int64_t)run_position(capture->run, frame);
    int64_t last = first;
    int part = 0;
    for (int64_t next = first; part < count && next < first + CHUNK; part++) {
        last = next;
        next = (int64_t)run_position(capture->run, frame + part + 1);
    }
    read_source(capture, source, first - (SINC_HALF - 1), around, (int)(last - first) + SINC_TAPS);
    for (int i = 0; i < part; i++) {
        const double position = run_position(capture->run, frame + i), whole = floor(position);
        out[i] = sinc_at(around + ((int64_t)whole - first), position - whole);
    }
    return part;
}

void capture_read(const capture_t *capture, capture_source_t source, int64_t frame, float *out, int count)
{
    if (source.kind == CAPTURE_NOTHING) {
        memset(out, 0, sizeof *out * (size_t)count);
        return;
    }
    for (int done = 0; done < count;) {
        const int64_t next = frame + done;
        done += capture->run->ratio == 1.0 ? read_aligned(capture, source, next, out + done, count - done)
                                           : read_resampled(capture, source, next, out + done, count - done);
    }
    if (source.kind != CAPTURE_MICROPHONE || capture->noise_rms == 0.0f)
        return;
    for (int i = 0; i < count; i++)
        out[i] += capture->noise_rms * noise_at((uint32_t)source.number, capture->run->start + frame + i);
}
