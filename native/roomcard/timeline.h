/*
 * Card time: the schedule of faults, and where a running stream's frames lie on the card's time axis (see
 * room.h).
 *
 * Pure arithmetic.  Positions on the card axis are in samples (double: exact to 1e-4 samples for a week at
 * speed 20).
 */
#ifndef APMPI_ROOMCARD_TIMELINE_H
#define APMPI_ROOMCARD_TIMELINE_H

#include "room.h"

#include <stdbool.h>
#include <stdint.h>

enum fault_kind { FAULT_XRUN, FAULT_UNPLUG, FAULT_REPLUG, FAULT_STALL };

enum { FAULTS_MAX = 256 };

/* The faults of one direction, in order of time. */
struct faults {
    struct fault {
        enum fault_kind kind;
        double at_s, for_s; /* card seconds; for_s of a stall only */
    } item[FAULTS_MAX];
    int count;
};

/* Reads the faults of `direction` from the text of the option `faults`.  -EINVAL with one sentence in
 * `error`. */
int faults_parse(struct faults *faults, const char *text, enum room_direction direction,
                 char error[ROOM_ERROR_SIZE]);

/* Is the device there at card time `now_s`? */
bool faults_plugged(const struct faults *faults, double now_s);

/* The first unplugging after `after_s`, or INFINITY. */
double faults_next_unplug(const struct faults *faults, double after_s);

/* A stream from its start to its stop: frame n begins at card position run_position(n). */
struct run {
    int64_t start; /* card sample of frame 0 */
    int64_t end;   /* card sample at which the schedule ends the run, INT64_MAX if it does not ... */
    enum fault_kind end_kind; /* ... by FAULT_XRUN or FAULT_UNPLUG */
    double ratio;             /* frames per card sample, 1 + ppm / 1e6 */
    struct stall {
        int64_t at, length; /* card samples; ordered, apart, none before start */
    } stall[FAULTS_MAX];
    int stalls;
};

void run_begin(struct run *run, int64_t start, double ppm, const struct faults *faults, unsigned rate_hz);

/* Card position at which frame `frame` begins; whole when ppm is 0. */
double run_position(const struct run *run, int64_t frame);

/* The inverse, with its fraction: frames passed at card position `position`; 0 before the start. */
double run_frames(const struct run *run, double position);

/* Does the stream stand still at this position? */
bool run_stalled(const struct run *run, int64_t position);

#endif
