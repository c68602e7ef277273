/* Capture without ALSA: the microphones' and the loudspeakers' signals on the stream's clock, and the
 * microphones' noise.
 */
#ifndef APMPI_ROOMCARD_CAPTURE_H
#define APMPI_ROOMCARD_CAPTURE_H

#include "roomcard/card.h"
#include "roomcard/microphone.h"
#include "roomcard/timeline.h"

typedef enum {
    CAPTURE_MICROPHONE,
    CAPTURE_REFERENCE, /* a loudspeaker's input, before clip and delay */
    CAPTURE_NOTHING,   /* silence */
} capture_kind_t;

typedef struct {
    capture_kind_t kind;
    int number; /* of the microphone or loudspeaker, counted from 0 */
} capture_source_t;

typedef struct {
    const card_t *card;
    const run_t *run;
    microphone_t *microphone[ROOM_MICROPHONES_MAX]; /* owned; NULL beyond the last */
    float noise_rms;                                /* of each microphone; 0: none */
} capture_t;

void capture_free(capture_t *capture);

/* out: `count` frames of the source from frame `frame` of the stream, which must have passed. */
void capture_read(const capture_t *capture, capture_source_t source, int64_t frame, float *out, int count);

#endif
