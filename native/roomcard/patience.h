/*
 * The clock of a card that waits while the machine stands still.
 *
 * A virtual machine may not run for tens of milliseconds, longer than the queue of a card in normal use
 * lasts, and no program can avoid the xrun. So the simulated card runs only while the machine does. In each
 * process that has opened a card, one thread for each processor, of the highest priority that is permitted,
 * wakes up every millisecond. While one of them is late, the clocks of the process's cards stand still. A
 * program that is itself late, because it computes, waits for a lock or is given little time, does not delay
 * those threads and has its xruns as before.
 */
#ifndef APMPI_ROOMCARD_PATIENCE_H
#define APMPI_ROOMCARD_PATIENCE_H

#include <stdatomic.h>
#include <stdint.h>

/* Time without standstills, in shared memory. Lies in one word, so that no reader ever waits for a writer:
 * milliseconds since the epoch up to which it may run, and below them the lost time in units of LOST_UNIT_NS.
 */
typedef _Atomic uint64_t patient_clock_t;

/* By this name whoever measures a program tells its threads from the card's. */
#define PATIENCE_THREAD_NAME "room card"

/* All times in ns since the clock's epoch; at most 49 days, 9.7 hours of them lost. */
enum { LOST_UNIT_NS = 8192 };

/* Time without standstills; stands still once `now_ns` is later than the last call of patient_run permits. */
int64_t patient_now_ns(const patient_clock_t *clock, int64_t now_ns);
/* The value of now_ns at which the clock will show `time_ns` if the machine does not stand still before. */
int64_t patient_inverse_ns(const patient_clock_t *clock, int64_t time_ns);
/* The machine runs at `now_ns`: lets the clock run on for PATIENCE_MS. */
void patient_run(patient_clock_t *clock, int64_t now_ns);

/* From now on until the process ends, its threads move the clock, which has that CLOCK_MONOTONIC epoch and
 * must stay mapped. With epochs of whole milliseconds, all clocks of a process stand still at the same
 * moments. 0, or -errno. Not for two threads at once. */
int patience_watch(patient_clock_t *clock, int64_t epoch_ns);

#endif
