#include "roomcard/timeline.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the schedule --- */

/* Three years. All faults added up, in samples, stay far below 2^63. */
static const double SECONDS_MAX = 1e8;

/* Reads a plain decimal number from 0 to SECONDS_MAX; strtod would also take "inf", "nan" and hexadecimal.
 * NULL when there is none. */
static const char *parse_seconds(const char *text, double *seconds)
{
    const size_t length = strspn(text, "0123456789.");
    char copy[32], *end;
    if (length == 0 || length >= sizeof copy)
        return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    *seconds = strtod(copy, &end);
    return *end == '\0' && *seconds <= SECONDS_MAX ? text + length : NULL;
}

/* One word of the option, "capture:stall@12.0+0.3". */
static bool parse_fault(const char *word, fault_t *fault, bool applies[2])
{
    static const char *const directions[] = {"playback:", "capture:", "both:"};
    static const char *const kinds[] = {[FAULT_XRUN] = "xrun@",
                                        [FAULT_UNPLUG] = "unplug@",
                                        [FAULT_REPLUG] = "replug@",
                                        [FAULT_STALL] = "stall@"};

    int d = 0, k = 0;
    while (d < 3 && strncmp(word, directions[d], strlen(directions[d])) != 0)
        d++;
    if (d == 3)
        return false;
    applies[ROOM_PLAYBACK] = d != 1;
    applies[ROOM_CAPTURE] = d != 0;
    word += strlen(directions[d]);

    while (k < 4 && strncmp(word, kinds[k], strlen(kinds[k])) != 0)
        k++;
    if (k == 4)
        return false;
    fault->kind = (fault_kind_t)k;
    fault->for_s = 0.0;
    word = parse_seconds(word + strlen(kinds[k]), &fault->at_s);
    if (word && fault->kind == FAULT_STALL)
        word = *word == '+' ? parse_seconds(word + 1, &fault->for_s) : NULL;
    return word && *word == '\0';
}

static int earlier(const void *a, const void *b)
{
    const double x = ((const fault_t *)a)->at_s, y = ((const fault_t *)b)->at_s;
    return (x > y) - (x < y);
}

int faults_parse(faults_t *faults, const char *text, room_direction_t direction, room_error_t error)
{
    faults->count = 0;
    while (true) {
        while (isspace((unsigned char)*text))
            text++;
        if (*text == '\0')
            break;
        int length = 0;
        while (text[length] && !isspace((unsigned char)text[length]))
            length++;

        char word[64];
        fault_t fault;
        bool applies[2], fits = (size_t)length < sizeof word;
        snprintf(word, sizeof word, "%.*s", length, text);
        if (!fits || !parse_fault(word, &fault, applies))
            return room_fail(error, -EINVAL,
                             "faults: \"%s\", expected capture|playback|both:xrun@T, :unplug@T, :replug@T or "
                             ":stall@T+D, T and D from 0 to %.0f seconds",
                             word, SECONDS_MAX);
        if (faults->count == FAULTS_MAX)
            return room_fail(error, -EINVAL, "faults: more than %d faults", FAULTS_MAX);
        if (applies[direction])
            faults->item[faults->count++] = fault;
        text += length;
    }
    qsort(faults->item, (size_t)faults->count, sizeof faults->item[0], earlier);
    return 0;
}

bool faults_plugged(const faults_t *faults, double now_s)
{
    bool plugged = true;
    for (int i = 0; i < faults->count && faults->item[i].at_s <= now_s; i++) {
        if (faults->item[i].kind == FAULT_UNPLUG)
            plugged = false;
        else if (faults->item[i].kind == FAULT_REPLUG)
            plugged = true;
    }
    return plugged;
}

double faults_next_unplug(const faults_t *faults, double after_s)
{
    for (int i = 0; i < faults->count; i++) {
        if (faults->item[i].kind == FAULT_UNPLUG && faults->item[i].at_s > after_s)
            return faults->item[i].at_s;
    }
    return (double)INFINITY;
}

/* --- a running stream --- */

void run_begin(run_t *run, int64_t start, double ppm, const faults_t *faults, unsigned rate_hz)
{
    run->start = start;
    run->end = INT64_MAX;
    run->end_kind = FAULT_XRUN;
    run->ratio = 1.0 + ppm * 1e-6;
    run->stalls = 0;
    int64_t free_from = start;
    for (int i = 0; i < faults->count; i++) {
        const fault_t *fault = &faults->item[i];
        int64_t at = llround(fault->at_s * rate_hz);
        if (fault->kind == FAULT_STALL) {
            const int64_t end = at + llround(fault->for_s * rate_hz);
            if (at < free_from)
                at = free_from; /* it began before the run or within another stall */
            if (end > at) {
                run->stall[run->stalls++] = (stall_t){at, end - at};
                free_from = end;
            }
        } else if (fault->kind != FAULT_REPLUG && at > start && at < run->end) {
            run->end = at;
            run->end_kind = fault->kind;
        }
    }
}

double run_position(const run_t *run, int64_t frame)
{
    double position = (double)run->start + (double)frame / run->ratio;
    for (int i = 0; i < run->stalls && position >= (double)run->stall[i].at; i++)
        position += (double)run->stall[i].length;
    return position;
}

double run_frames(const run_t *run, double position)
{
    double moving = position - (double)run->start;
    for (int i = 0; i < run->stalls; i++)
        moving -= fmin(fmax(position - (double)run->stall[i].at, 0.0), (double)run->stall[i].length);
    return fmax(moving, 0.0) * run->ratio;
}

bool run_stalled(const run_t *run, int64_t position)
{
    for (int i = 0; i < run->stalls && position >= run->stall[i].at; i++) {
        if (position < run->stall[i].at + run->stall[i].length)
            return true;
    }
    return false;
}
