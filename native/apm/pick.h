/* Two of a far end's channels as left and right: of 3 to 8 those from which the others follow best.
 *
 * They seldom hold more than two independent signals: copies of a pair, sums of it, silence. Each
 * channel is then a sum of any two that differ, and so is the echo, whatever the loudspeakers. The two are
 * taken as they are: the weights of a mix would be a part of the paths, and change with it.
 *
 * The power that a pair leaves unexplained follows from the covariance of all channels, averaged over a
 * second of sound. Another pair is taken when it leaves clearly less; the canceller then learns its paths
 * anew. Left out: delays between the channels, and three or more independent signals (surround sound), of
 * which the echo is cancelled in part.
 */
#ifndef APMPI_APM_PICK_H
#define APMPI_APM_PICK_H

#include <stdint.h>

enum { PICK_CHANNELS = 8 };

typedef struct {
    int left, right; /* the channels picked, from 0 */
    int channels;    /* of the last block */
    int sound_blocks;
    float covariance[PICK_CHANNELS][PICK_CHANNELS]; /* of samples of full scale 1; [i][j] with j <= i */
} pick_t;

/* Picks the first two. */
void pick_reset(pick_t *pick);
/* Updates left and right with `count` interleaved frames of 1 to PICK_CHANNELS channels. Of a single one both
 * are that. */
void pick_process(pick_t *pick, int count, const int16_t *frames, int channels);

#endif
