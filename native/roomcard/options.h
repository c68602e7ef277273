/* The options of one `pcm.NAME { type apmpi_room ... }`, read from the ALSA configuration; room.h lists
 * them. */
#ifndef APMPI_ROOMCARD_OPTIONS_H
#define APMPI_ROOMCARD_OPTIONS_H

#include "room.h"
#include "timeline.h"

#include <alsa/asoundlib.h>

struct options {
    char *card, *impulse_response, *near, *record, *fault_list, *format; /* owned; NULL: not given */
    /* an snd_pcm_format_t; -1: any that the card knows */
    int only_format;
    double reference;                            /* 1: the last channel is the loudspeaker's wire */
    double delay_ms, clip_db, noise_dbfs, speed; /* noise_dbfs -INFINITY: none */
    double ppm;                                  /* of the stream's own direction */
    int interpolators;                           /* directions whose ppm is not 0 */
    struct faults faults;                        /* of the stream's own direction */
};

/* -EINVAL with one sentence in `error`.  Call options_free in any case. */
int options_read(struct options *options, snd_config_t *config, enum room_direction direction,
                 char error[ROOM_ERROR_SIZE]);
void options_free(struct options *options);

#endif
