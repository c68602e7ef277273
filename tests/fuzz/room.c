/* The room card's options and its schedule of faults. A line of the input is an option: its type (s, r or
 * i), its name up to a blank, its value. ALSA's own parser of text is not part of the test. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roomcard/options.h"

static void must(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static void add_option(snd_config_t *config, char *line)
{
    char *value = strchr(line, ' ');
    snd_config_t *node = NULL;
    if (!value || value == line + 1)
        return;
    *value++ = '\0';
    if (*line == 's')
        snd_config_imake_string(&node, line + 1, value);
    else if (*line == 'r')
        snd_config_imake_real(&node, line + 1, strtod(value, NULL));
    else if (*line == 'i')
        snd_config_imake_integer(&node, line + 1, strtol(value, NULL, 10));
    if (node && snd_config_add(config, node) < 0)
        snd_config_delete(node); /* given twice */
}

static int within(double value, double low, double high) { return value >= low && value <= high; }

static void follow_time(const options_t *options, int64_t start, unsigned rate_hz)
{
    static run_t run;
    run_begin(&run, start, options->ppm, &options->faults, rate_hz);
    must(run.end > start && run.stalls <= FAULTS_MAX, "a run ends after its start");
    int64_t free_from = start;
    for (int i = 0; i < run.stalls; i++) {
        must(run.stall[i].at >= free_from && run.stall[i].length > 0, "stalls follow each other");
        free_from = run.stall[i].at + run.stall[i].length;
        (void)run_stalled(&run, run.stall[i].at);
    }
    double last = -1.0;
    for (int64_t frame = 0; frame < INT64_C(1) << 40; frame = 3 * frame + 1) {
        const double position = run_position(&run, frame), frames = run_frames(&run, position);
        must(position >= last && position < 9e18 && frames >= 0.0 && frames < 9e18, "time goes on");
        last = position;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *rest = text, *line;
    room_error_t error = "";
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    snd_config_t *config;
    must(snd_config_top(&config) == 0, "there is memory");
    while ((line = strsep(&rest, "\n")))
        if (*line)
            add_option(config, line);
    for (int direction = 0; direction < 2; direction++) {
        static options_t options;
        const int code = options_read(&options, config, (room_direction_t)direction, error);
        must(code == 0 || (code < 0 && *error && strlen(error) < sizeof error), "a refusal is a sentence");
        if (code == 0) {
            must(within(options.delay_ms, 0.0, ROOM_DELAY_MAX_MS) && within(options.clip_db, 0.0, 40.0) &&
                     within(options.speed, 0.1, 1000.0) && within(options.ppm, -10000.0, 10000.0) &&
                     within(options.reference, 0.0, 1.0),
                 "options are in their ranges");
            const fault_t *fault = options.faults.item;
            for (int i = 1; i < options.faults.count; i++)
                must(fault[i].at_s >= fault[i - 1].at_s, "faults are in order");
            follow_time(&options, 0, 8000);
            follow_time(&options, INT64_C(1) << 40, ROOM_RATE_MAX_HZ);
            (void)faults_plugged(&options.faults, 10.0);
            (void)faults_next_unplug(&options.faults, 10.0);
        }
        if (code == 0) {
            paths_t paths;
            const int paths_code = options_paths(&options, &paths, error);
            must(paths_code == 0 || (paths_code == -EINVAL && *error && strlen(error) < sizeof error),
                 "a refusal is a sentence");
        }
        options_free(&options);
    }
    snd_config_delete(config);
    free(text);
    return 0;
}
