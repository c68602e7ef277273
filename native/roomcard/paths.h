/* The loudspeakers and microphones of a card, and the impulse response between each pair of them.
 *
 * Without ALSA. The responses come from a WAV file or are generated: a direct sound whose delay and level
 * follow from the pair's distance, and a decaying tail of noise that is the pair's own.
 */
#ifndef APMPI_ROOMCARD_PATHS_H
#define APMPI_ROOMCARD_PATHS_H

#include "roomcard/room.h"
#include "roomcard/wav.h"

typedef struct {
    int loudspeakers, microphones; /* 1..ROOM_LOUDSPEAKERS_MAX, 1..ROOM_MICROPHONES_MAX */
    /* 1: as it should be; -1: inverted; 0: dead */
    float loudspeaker_gain[ROOM_LOUDSPEAKERS_MAX], microphone_gain[ROOM_MICROPHONES_MAX];
    const wav_t *file; /* channel l * microphones + m: loudspeaker l to microphone m; not loaded: none */
} paths_t;

/* Multiplies by `gain` those that `list` names: "loudspeaker2 microphone1", counted from 1, separated by
 * blanks. -EINVAL with a sentence in `error` that begins with `option`. */
int paths_scale(paths_t *paths, const char *option, const char *list, float gain, room_error_t error);

/* Length of every response in samples, at least 1. */
int paths_taps(const paths_t *paths, unsigned rate_hz);

/* taps[paths_taps()]: the response from a loudspeaker to a microphone, counted from 0, with both gains. */
void paths_response(const paths_t *paths, int loudspeaker, int microphone, unsigned rate_hz, float *taps);

#endif
