/* Tonality: coherence of each bin with itself two blocks before, whose frame it does not overlap.
 *
 * |sum X(t) conj X(t-2)|^2 / (sum |X(t)|^2)^2 over the last 0.5 s, its mean over the bins of each band, and
 * of that the mean over the bands. The frames of noise are independent, so that the products have random
 * phases, and the result is about 1 over their number; a partial advances evenly, so that they agree, however
 * dense the chord. Longer lags separate worse. Measured, 5th to 95th percentile: 0.02 to 0.04 for white
 * noise, rain and streets, 0.03 to 0.08 for motors and for distorted guitars, 0.05 to 0.28 for one voice,
 * 0.07 to 0.34 for other music; 1 for a steady tone.
 */
#ifndef APMPI_NS_TONALITY_H
#define APMPI_NS_TONALITY_H

#include "base/arena.h"
#include "ns/bands.h"

enum {
    TONALITY_LAG = 2,                                 /* blocks */
    TONALITY_PARTS = 5,                               /* of the 0.5 s */
    TONALITY_BINS = BANDS_LAST_BIN - BANDS_FIRST_BIN, /* those of the bands */
};

/* Arrays of TONALITY_BINS values. */
typedef struct {
    float *re, *im; /* of the sum of the products */
    float *power;   /* sum */
} tonality_part_t;

typedef struct {
    float *re[TONALITY_LAG], *im[TONALITY_LAG]; /* the last blocks' spectra */
    int oldest;                                 /* of these */
    tonality_part_t parts[TONALITY_PARTS];
} tonality_t;

void tonality_init(tonality_t *tonality, arena_t *arena);
void tonality_reset(tonality_t *tonality);
/* Empties a part, 0..TONALITY_PARTS - 1. */
void tonality_clear(tonality_t *tonality, int part);
/* Adds a block to a part. */
void tonality_add(tonality_t *tonality, int part, const ns_block_t *block);
/* Returns the tonality over all parts: 0..1, up to 1.5 while a tone decays. */
float tonality_mean(const tonality_t *tonality, const ns_block_t *block);

#endif
