#define _GNU_SOURCE /* pthread_setaffinity_np, pthread_setname_np, cpu_set_t */
#include "roomcard/card_clock.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    NS_PER_MS = 1000000,
    TICK_NS = NS_PER_MS,
    /* How far one tick lets the clock run on. More than the 0.1 ms in which an idle machine wakes a thread,
     * less than the shortest queue that an audio loop can use. */
    HORIZON_MS = 3,
    LATE_NS = 2 * TICK_NS + TICK_NS / 2, /* time without a tick after which a thread is late */
    /* Time without a tick after which a thread does not count: real-time programs occupy its processor, or
     * the processor has been taken away. */
    GONE_NS = 1000 * NS_PER_MS,
    THREADS_MAX = 4, /* a standstill of the machine affects several processors at once */
    STACK_BYTES = 64 * 1024,
};

static const uint64_t LOST_MASK = UINT32_MAX;

int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* --- the clock's word --- */

static int64_t horizon_ns(uint64_t word) { return (int64_t)(word >> 32) * NS_PER_MS; }
static int64_t lost_ns(uint64_t word) { return (int64_t)(word & LOST_MASK) * CARD_CLOCK_LOST_UNIT_NS; }

int64_t card_clock_now_ns(const card_clock_t *clock, int64_t now_ns)
{
    const uint64_t word = atomic_load(clock);
    return (now_ns < horizon_ns(word) ? now_ns : horizon_ns(word)) - lost_ns(word);
}

int64_t card_clock_inverse_ns(const card_clock_t *clock, int64_t time_ns)
{
    return time_ns + lost_ns(atomic_load(clock));
}

void card_clock_advance(card_clock_t *clock, int64_t now_ns)
{
    uint64_t before = atomic_load(clock), after;
    do {
        /* Rounded down: after a standstill the clock may be fast by less than a unit, but never goes back. */
        const int64_t lost = now_ns > horizon_ns(before)
                                 ? (now_ns - horizon_ns(before)) / CARD_CLOCK_LOST_UNIT_NS
                                 : 0;
        const int64_t horizon_ms = now_ns / NS_PER_MS + HORIZON_MS;
        if (horizon_ms < horizon_ns(before) / NS_PER_MS)
            return; /* another thread has already used a later time */
        after = (uint64_t)horizon_ms << 32 | ((before & LOST_MASK) + (uint64_t)lost);
    } while (!atomic_compare_exchange_weak(clock, &before, after));
}

/* --- this process's threads --- */

/* The clocks of this process. The list only grows, so that the threads need no lock. */
typedef struct watched {
    card_clock_t *clock;
    int64_t epoch_ns;
    struct watched *next;
} watched_t;
static _Atomic(watched_t *) watched;

static struct {
    pid_t process; /* owner of the threads: a forked process has none */
    int threads;
    atomic_flag moving; /* by one thread at a time, so that all cards stand still at the same moments */
    _Atomic int64_t ticked_ns[THREADS_MAX]; /* CLOCK_MONOTONIC of each thread's last tick */
    cpu_set_t processors[THREADS_MAX];
} watch;

static bool all_run(int64_t now_ns)
{
    for (int i = 0; i < watch.threads; i++) {
        const int64_t silent_ns = now_ns - atomic_load(&watch.ticked_ns[i]);
        if (silent_ns > LATE_NS && silent_ns < GONE_NS)
            return false;
    }
    return true;
}

static void *tick(void *index)
{
    const int own = (int)(intptr_t)index;
    struct sched_param highest = {.sched_priority = sched_get_priority_max(SCHED_FIFO)};
    /* Where real-time priority is not permitted, the thread keeps its normal one. */
    pthread_setschedparam(pthread_self(), SCHED_FIFO, &highest);
    pthread_setaffinity_np(pthread_self(), sizeof watch.processors[own], &watch.processors[own]);
    pthread_setname_np(pthread_self(), CARD_CLOCK_THREAD_NAME);
    while (true) {
        const struct timespec pause = {.tv_nsec = TICK_NS};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        int64_t now_ns = monotonic_ns();
        atomic_store(&watch.ticked_ns[own], now_ns);
        if (all_run(now_ns) && !atomic_flag_test_and_set(&watch.moving)) {
            now_ns = monotonic_ns(); /* again: another thread may have just used a later time */
            for (watched_t *each = atomic_load(&watched); each; each = each->next)
                card_clock_advance(each->clock, now_ns - each->epoch_ns);
            atomic_flag_clear(&watch.moving);
        }
    }
    return NULL;
}

/* Divides the processors that this process may use among the threads, at least one for each. */
static void share_processors(void)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    sched_getaffinity(getpid(), sizeof allowed, &allowed);
    int count = CPU_COUNT(&allowed), shared = 0;
    watch.threads = count < THREADS_MAX ? count : THREADS_MAX;
    for (int i = 0; i < THREADS_MAX; i++)
        CPU_ZERO(&watch.processors[i]);
    for (int processor = 0; processor < CPU_SETSIZE; processor++) {
        if (CPU_ISSET(processor, &allowed)) {
            CPU_SET(processor, &watch.processors[shared * watch.threads / count]);
            shared++;
        }
    }
}

static int start_threads(void)
{
    share_processors();
    atomic_flag_clear(&watch.moving);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* Small, since a program that locks its memory holds each stack in full. */
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    /* Blocked, so that the program's signals reach only its own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = 0;
    for (int i = 0; i < watch.threads && code == 0; i++) {
        pthread_t thread;
        atomic_store(&watch.ticked_ns[i], monotonic_ns());
        code = pthread_create(&thread, &attributes, tick, (void *)(intptr_t)i);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -code;
}

int card_clock_watch(card_clock_t *clock, int64_t epoch_ns)
{
    watched_t *added = malloc(sizeof *added);
    if (!added)
        return -ENOMEM;
    *added = (watched_t){clock, epoch_ns, atomic_load(&watched)};
    atomic_store(&watched, added);
    if (watch.process == getpid())
        return 0;
    watch.process = getpid();
    return start_threads();
}
