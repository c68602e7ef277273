/* The card's clock: CLOCK_MONOTONIC without the time in which the machine stood still.
 *
 * A virtual machine may not run for tens of milliseconds, longer than the queue of a card in normal use
 * lasts, and no program can avoid the xrun. So the simulated card runs only while the machine does. In each
 * process that has opened a card, one thread for each processor (at most four), of the highest priority that
 * is permitted, wakes up every millisecond. While one of them is late, the clocks of the process's cards
 * stand still. A program that is itself late, because it computes, waits for a lock or is given little time,
 * does not delay those threads and has its xruns as before.
 */
#ifndef APMPI_ROOMCARD_CARD_CLOCK_H
#define APMPI_ROOMCARD_CARD_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>

/* Lies in shared memory, in one word, so that no reader waits for a writer: in the upper 32 bits the time in
 * ms since the epoch up to which the clock may run, in the lower 32 bits the time lost in standstills, in
 * units of CARD_CLOCK_LOST_UNIT_NS. All times are in ns since the clock's epoch: at most 49 days, 9.7 hours
 * of them lost. */
typedef _Atomic uint64_t card_clock_t;

enum { CARD_CLOCK_LOST_UNIT_NS = 8192 };

/* Name of the clock's threads, by which a measurement of a program excludes them. */
#define CARD_CLOCK_THREAD_NAME "room card"

/* CLOCK_MONOTONIC in ns. */
int64_t monotonic_ns(void);

/* Time without standstills; constant once `now_ns` exceeds what the last card_clock_advance() permits. */
int64_t card_clock_now_ns(const card_clock_t *clock, int64_t now_ns);
/* The value of now_ns at which the clock will show `time_ns` if the machine does not stand still before. */
int64_t card_clock_inverse_ns(const card_clock_t *clock, int64_t time_ns);
/* The machine runs at `now_ns`: permits the clock to run for another 3 ms (HORIZON_MS). */
void card_clock_advance(card_clock_t *clock, int64_t now_ns);

/* Makes this process's threads advance the clock, which has the given CLOCK_MONOTONIC epoch and must stay
 * mapped, until the process ends. With epochs of whole milliseconds, all clocks of a process stand still at
 * the same moments. 0 or -errno. Not for two threads at once. */
int card_clock_watch(card_clock_t *clock, int64_t epoch_ns);

#endif
