#define _GNU_SOURCE /* F_OFD_SETLK */
#include "roomcard/card.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CARD_MAGIC 0x4d4f4f5249504d41u /* "AMPIROOM" */

/* To be raised whenever the layout of card_header_t changes. */
#define CARD_VERSION 3u

#define NS_PER_MS INT64_C(1000000)

#define CARD_BYTES (sizeof(card_header_t) + ROOM_LOUDSPEAKERS_MAX * CARD_RING_FRAMES * sizeof(float))

/* --- membership: a card exists as long as a process that has opened it --- */

typedef struct member {
    char path[128];
    struct stat file;
    int fd; /* holds the shared lock; open until the process ends */
    pid_t process;
    struct member *next;
} member_t;

/* The cards this process has joined. */
static member_t *members;
static pthread_mutex_t members_lock = PTHREAD_MUTEX_INITIALIZER;

static int make_card(int fd, card_kind_t kind)
{
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)CARD_BYTES) < 0)
        return -errno;
    /* Allocated now: a full /dev/shm is an error here instead of a SIGBUS later. */
    const int code = posix_fallocate(fd, 0, (off_t)CARD_BYTES);
    if (code != 0)
        return -code;
    card_header_t *header = mmap(NULL, sizeof *header, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED)
        return -errno;
    header->version = CARD_VERSION;
    header->size_bytes = (uint32_t)CARD_BYTES;
    header->epoch_ns = monotonic_ns() / NS_PER_MS * NS_PER_MS;
    header->speed = kind.speed;
    header->loudspeakers = (uint32_t)kind.loudspeakers;
    card_clock_advance(&header->clock, monotonic_ns() - header->epoch_ns);
    atomic_store(&header->near_start, CARD_NOT_CAPTURED);
    atomic_thread_fence(memory_order_release);
    header->magic = CARD_MAGIC;
    munmap(header, sizeof *header);
    return 0;
}

static bool is_made(int fd)
{
    uint64_t magic = 0;
    return pread(fd, &magic, sizeof magic, 0) == sizeof magic && magic == CARD_MAGIC;
}

static int lock_file(int fd, int operation)
{
    int code;
    do
        code = flock(fd, operation);
    while (code < 0 && errno == EINTR);
    return code < 0 ? -errno : 0;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Advances the card's clock as long as this process lives. */
static int keep_running(int fd)
{
    card_header_t *header = mmap(NULL, sizeof *header, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED)
        return -errno;
    /* card_open() refuses the file of another version, with a sentence. */
    return header->version == CARD_VERSION ? card_clock_watch(&header->clock, header->epoch_ns) : 0;
}

/* Takes the process's shared lock on the card and makes the card new if no other process has it. -EAGAIN: the
 * file has been removed, open the card again. */
static int join_card(const char *path, const struct stat *file, card_kind_t kind)
{
    for (const member_t *m = members; m; m = m->next) {
        if (same_file(&m->file, file))
            return 0;
    }
    member_t *member = calloc(1, sizeof *member);
    const int fd = shm_open(path, O_RDWR | O_CREAT, 0600);
    int code = !member ? -ENOMEM : fd < 0 ? -errno : 0;
    do {
        if (code == 0 && lock_file(fd, LOCK_EX | LOCK_NB) == 0)
            code = make_card(fd, kind);
        if (code == 0)
            code = lock_file(fd, LOCK_SH); /* waits for a process that is making the card */
    } while (code == 0 && !is_made(fd) &&
             lock_file(fd, LOCK_UN) == 0); /* it ended before the card was made: try again */

    if (code == 0 && fstat(fd, &member->file) < 0)
        code = -errno;
    if (code == 0 && (member->file.st_nlink == 0 || !same_file(&member->file, file)))
        code = -EAGAIN; /* its last process has just removed it */
    if (code == 0 && member->file.st_size == (off_t)CARD_BYTES)
        code = keep_running(fd);
    if (code < 0) {
        free(member);
        if (fd >= 0)
            close(fd);
        return code;
    }
    snprintf(member->path, sizeof member->path, "%s", path);
    member->fd = fd;
    member->process = getpid();
    member->next = members;
    members = member;
    return 0;
}

/* Removes the card at exit of its last process (the library is linked so that it is not unloaded before).
 * After a crash the next process to open the card makes it new. */
__attribute__((destructor)) static void leave_cards(void)
{
    for (const member_t *m = members; m; m = m->next) {
        const bool forked = m->process != getpid(); /* then the lock belongs to the parent */
        if (!forked && lock_file(m->fd, LOCK_EX | LOCK_NB) == 0)
            shm_unlink(m->path);
    }
}

/* --- opening --- */

static int lock_direction(int fd, int command, room_direction_t direction, short *holder)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = direction, .l_len = 1};
    const int code = fcntl(fd, command, &lock);
    if (holder)
        *holder = lock.l_type;
    return code < 0 ? -errno : 0;
}

/* Opens and locks the shared file; the caller closes *fd in any case. */
static int open_file(const char *path, room_direction_t direction, card_kind_t kind, int *fd)
{
    struct stat file;
    *fd = shm_open(path, O_RDWR | O_CREAT, 0600);
    if (*fd < 0 || fstat(*fd, &file) < 0)
        return -errno;
    if (file.st_uid != geteuid())
        return -EACCES;
    int code = lock_direction(*fd, F_OFD_SETLK, direction, NULL);
    if (code < 0)
        return code == -EAGAIN || code == -EACCES ? -EBUSY : code;
    pthread_mutex_lock(&members_lock);
    code = join_card(path, &file, kind);
    pthread_mutex_unlock(&members_lock);
    return code;
}

int card_open(card_t *card, const char *name, room_direction_t direction, card_kind_t kind,
              room_error_t error)
{
    char path[sizeof members->path];
    snprintf(path, sizeof path, "/apmpi-room-%u-%s", (unsigned)geteuid(), name);

    int fd, code;
    while ((code = open_file(path, direction, kind, &fd)) == -EAGAIN)
        close(fd);

    struct stat file;
    card_header_t *header = MAP_FAILED;
    if (code == 0 && (fstat(fd, &file) < 0 || file.st_size != (off_t)CARD_BYTES))
        code = -EPROTO;
    if (code == 0) {
        header = mmap(NULL, CARD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (header == MAP_FAILED)
            code = -errno;
        else if (header->version != CARD_VERSION || header->size_bytes != CARD_BYTES)
            code = -EPROTO;
    }
    if (code == 0 && header->speed != kind.speed)
        code = room_fail(error, -EINVAL, "speed: %g, but the card \"%s\" runs at speed %g already",
                         kind.speed, name, header->speed);
    else if (code == 0 && header->loudspeakers != (uint32_t)kind.loudspeakers)
        code = room_fail(error, -EINVAL, "loudspeakers: %d, but the card \"%s\" has %u already",
                         kind.loudspeakers, name, header->loudspeakers);
    else if (code == -EPROTO)
        room_fail(error, code, "card: /dev/shm%s is in use by another version of this plugin", path);
    else if (code < 0 && code != -EBUSY)
        room_fail(error, code, "card: /dev/shm%s: %s", path, strerror(-code));
    if (code < 0) {
        if (header != MAP_FAILED)
            munmap(header, CARD_BYTES);
        if (fd >= 0)
            close(fd);
        return code;
    }
    *card = (card_t){fd, direction, header};
    atomic_store(&header->rate_hz[direction], 0);
    return 0;
}

void card_close(card_t *card)
{
    atomic_store(&card->header->rate_hz[card->direction], 0);
    munmap(card->header, CARD_BYTES);
    close(card->fd); /* gives up the direction's lock */
}

/* --- clock and rate --- */

/* The clock of a card with speed > 1 advances in steps of this length, as hardware does. If a sample lasts no
 * longer than alsa-lib needs to read the pointer, each reading finds a new sample, and a read that need not
 * wait does not return before its buffer is full. Seen at speed 8 and 16 kHz, 8 us a sample; 30 us are well
 * above that and 0.3 ms of card time at speed 10. */
#define FAST_STEP_NS 30000

static int64_t step_ns(const card_t *card) { return card->header->speed > 1.0 ? FAST_STEP_NS : 1; }

double card_now_s(const card_t *card)
{
    const card_header_t *header = card->header;
    const int64_t step = step_ns(card),
                  ns = card_clock_now_ns(&header->clock, monotonic_ns() - header->epoch_ns) / step * step;
    return (double)ns * 1e-9 * card->header->speed;
}

int64_t card_monotonic_ns(const card_t *card, double card_s)
{
    int64_t step = step_ns(card), ns = (int64_t)ceil(card_s / card->header->speed * 1e9);
    ns = (ns + step - 1) / step * step;
    return card->header->epoch_ns + card_clock_inverse_ns(&card->header->clock, ns);
}

unsigned card_other_rate_hz(const card_t *card)
{
    room_direction_t other = card->direction == ROOM_PLAYBACK ? ROOM_CAPTURE : ROOM_PLAYBACK;
    short holder;
    if (lock_direction(card->fd, F_OFD_GETLK, other, &holder) < 0 || holder == F_UNLCK)
        return 0; /* closed or crashed, the header's value is out of date */
    return atomic_load(&card->header->rate_hz[other]);
}

/* --- the loudspeakers' signals --- */

speaker_writer_t speaker_begin(const card_t *card)
{
    return (speaker_writer_t){card->header,
                              atomic_load_explicit(&card->header->written, memory_order_relaxed)};
}

static float *ring_of(card_header_t *header, int loudspeaker)
{
    return header->speaker + loudspeaker * CARD_RING_FRAMES;
}

void speaker_put(speaker_writer_t *writer, int64_t position, const float *samples)
{
    const int64_t gap = writer->written < position - CARD_RING_FRAMES ? position - CARD_RING_FRAMES
                                                                      : writer->written;
    for (int l = 0; l < (int)writer->header->loudspeakers; l++) {
        float *ring = ring_of(writer->header, l);
        for (int64_t at = gap; at < position; at++)
            ring[at & (CARD_RING_FRAMES - 1)] = 0.0f;
        ring[position & (CARD_RING_FRAMES - 1)] = samples[l];
    }
    if (position >= writer->written)
        writer->written = position + 1;
}

void speaker_publish(const speaker_writer_t *writer)
{
    atomic_store_explicit(&writer->header->written, writer->written, memory_order_release);
}

void speaker_cut(const card_t *card, int64_t position)
{
    if (position < atomic_load_explicit(&card->header->written, memory_order_relaxed))
        atomic_store_explicit(&card->header->written, position, memory_order_release);
}

void speaker_read(const card_t *card, int loudspeaker, int64_t position, float *out, int count)
{
    const float *ring = ring_of(card->header, loudspeaker);
    const int64_t written = atomic_load_explicit(&card->header->written, memory_order_acquire);
    const int64_t oldest = written > CARD_RING_FRAMES ? written - CARD_RING_FRAMES : 0;
    for (int i = 0; i < count; i++, position++)
        out[i] = position >= oldest && position < written ? ring[position & (CARD_RING_FRAMES - 1)] : 0.0f;
}
