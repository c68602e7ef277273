/* The options of one `pcm.NAME { type apmpi_room ... }`, read from the ALSA configuration; room.h lists
 * them. */
#ifndef APMPI_ROOMCARD_OPTIONS_H
#define APMPI_ROOMCARD_OPTIONS_H

#include <alsa/asoundlib.h>

#include "roomcard/paths.h"
#include "roomcard/room.h"
#include "roomcard/timeline.h"

/* The card's sample formats, snd_pcm_format_t. */
enum { ROOM_FORMATS = 4 };
extern const unsigned room_formats[ROOM_FORMATS];

typedef struct {
    char *card, *impulse_response, *near, *record, *fault_list, *format; /* owned; NULL: not given */
    char *inverted, *dead;                                               /* the same */
    snd_pcm_format_t only_format;     /* SND_PCM_FORMAT_UNKNOWN: any of room_formats */
    double loudspeakers, microphones; /* whole numbers */
    double reference;                 /* 1: the last captured channels are the loudspeakers' input */
    double delay_ms, clip_db, noise_dbfs, speed; /* noise_dbfs -INFINITY: none */
    double ppm;                                  /* of the stream's own direction */
    int interpolators;                           /* directions whose ppm is not 0 */
    faults_t faults;                             /* of the stream's own direction */
} options_t;

/* -EINVAL with a sentence in `error`. Call options_free() in any case. */
int options_read(options_t *options, snd_config_t *config, room_direction_t direction, room_error_t error);
void options_free(options_t *options);

/* Fills all of `paths` but its file. -EINVAL with a sentence in `error`. */
int options_paths(const options_t *options, paths_t *paths, room_error_t error);

#endif
