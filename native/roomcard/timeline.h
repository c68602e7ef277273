/* Card time: the schedule of faults, and the positions of a running stream's frames on the card's time axis
 * (see room.h).
 *
 * Pure arithmetic. Positions on the card axis are in samples (double: exact to 1e-4 samples for a week at
 * speed 20).
 */
#ifndef APMPI_ROOMCARD_TIMELINE_H
#define APMPI_ROOMCARD_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "roomcard/room.h"

enum { FAULTS_MAX = 256 };

typedef enum { FAULT_XRUN, FAULT_UNPLUG, FAULT_REPLUG, FAULT_STALL } fault_kind_t;

typedef struct {
    fault_kind_t kind;
    double at_s, for_s; /* card seconds; for_s of a stall only */
} fault_t;

/* The faults of one direction, in order of time. */
typedef struct {
    fault_t item[FAULTS_MAX];
    int count;
} faults_t;

/* Reads the faults of `direction` from the text of the option `faults`. -EINVAL with a sentence in
 * `error`. */
int faults_parse(faults_t *faults, const char *text, room_direction_t direction, room_error_t error);

/* Whether the device is present at card time `now_s`. */
bool faults_plugged(const faults_t *faults, double now_s);

/* Card time of the first unplugging after `after_s`, or INFINITY. */
double faults_next_unplug(const faults_t *faults, double after_s);

typedef struct {
    int64_t at, length; /* card samples */
} stall_t;

/* A stream from its start to its stop. */
typedef struct {
    int64_t start;             /* card sample of frame 0 */
    int64_t end;               /* card sample at which the schedule ends the run, INT64_MAX if it does not */
    fault_kind_t end_kind;     /* the reason of that end: FAULT_XRUN or FAULT_UNPLUG */
    double ratio;              /* frames per card sample, 1 + ppm / 1e6 */
    stall_t stall[FAULTS_MAX]; /* ordered, disjoint, none before start */
    int stalls;
} run_t;

void run_begin(run_t *run, int64_t start, double ppm, const faults_t *faults, unsigned rate_hz);

/* Card position at which frame `frame` begins; whole when ppm is 0. */
double run_position(const run_t *run, int64_t frame);

/* The inverse, with its fraction: frames passed at card position `position`; 0 before the start. */
double run_frames(const run_t *run, double position);

/* Whether the stream stands still at this position. */
bool run_stalled(const run_t *run, int64_t position);

#endif
