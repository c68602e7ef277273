#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int read_text(const char *id, snd_config_t *node, char **out, char error[ROOM_ERROR_SIZE])
{
    const char *text; /* lives as long as the configuration */
    if (snd_config_get_string(node, &text) < 0 || *text == '\0') {
        snprintf(error, ROOM_ERROR_SIZE, "%s: expected a text in quotes", id);
        return -EINVAL;
    }
    free(*out);
    *out = strdup(text);
    return *out ? 0 : -ENOMEM;
}

static int read_number(const char *id, snd_config_t *node, double low, double high, double *out,
                       char error[ROOM_ERROR_SIZE])
{
    if (snd_config_get_ireal(node, out) < 0) {
        snprintf(error, ROOM_ERROR_SIZE, "%s: expected a number from %g to %g", id, low, high);
        return -EINVAL;
    }
    if (!(*out >= low && *out <= high)) {
        snprintf(error, ROOM_ERROR_SIZE, "%s: %g, expected a number from %g to %g", id, *out, low, high);
        return -EINVAL;
    }
    return 0;
}

/* The name becomes part of a file's name. */
static bool good_card_name(const char *name)
{
    size_t length = strlen(name);
    return length <= 64 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == length;
}

static int known_format(const char *name)
{
    static const snd_pcm_format_t known[] = {SND_PCM_FORMAT_S16_LE, SND_PCM_FORMAT_S24_3LE,
                                             SND_PCM_FORMAT_S32_LE, SND_PCM_FORMAT_FLOAT_LE};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, snd_pcm_format_name(known[i])) == 0)
            return (int)known[i];
    }
    return -1;
}

int options_read(struct options *options, snd_config_t *config, enum room_direction direction,
                 char error[ROOM_ERROR_SIZE])
{
    double ppm[2] = {0.0, 0.0};
    *options = (struct options){.speed = 1.0, .noise_dbfs = (double)-INFINITY, .only_format = -1};

    const struct {
        const char *id;
        char **text; /* else a number */
        double *number, low, high;
    } known[] = {
        {"card", &options->card, NULL, 0, 0},
        {"impulse_response", &options->impulse_response, NULL, 0, 0},
        {"delay_ms", NULL, &options->delay_ms, 0, ROOM_DELAY_MAX_MS},
        {"clip_db", NULL, &options->clip_db, 0, 40},
        {"near", &options->near, NULL, 0, 0},
        {"noise_dbfs", NULL, &options->noise_dbfs, -120, 0},
        {"playback_ppm", NULL, &ppm[ROOM_PLAYBACK], -10000, 10000},
        {"capture_ppm", NULL, &ppm[ROOM_CAPTURE], -10000, 10000},
        {"speed", NULL, &options->speed, 0.1, 1000},
        {"faults", &options->fault_list, NULL, 0, 0},
        {"record", &options->record, NULL, 0, 0},
        {"format", &options->format, NULL, 0, 0},
        {"reference", NULL, &options->reference, 0, 1},
    };
    enum { KNOWN = sizeof known / sizeof known[0] };

    snd_config_iterator_t at, next;
    snd_config_for_each(at, next, config)
    {
        snd_config_t *node = snd_config_iterator_entry(at);
        const char *id;
        if (snd_config_get_id(node, &id) < 0 || strcmp(id, "type") == 0 || strcmp(id, "comment") == 0 ||
            strcmp(id, "hint") == 0)
            continue;
        int k = 0;
        while (k < KNOWN && strcmp(id, known[k].id) != 0)
            k++;
        if (k == KNOWN) {
            int length = snprintf(error, ROOM_ERROR_SIZE, "%.64s: unknown option, expected one of", id);
            for (k = 0; k < KNOWN; k++)
                length += snprintf(error + length, ROOM_ERROR_SIZE - (size_t)length, " %s", known[k].id);
            return -EINVAL;
        }
        int code = known[k].text ? read_text(id, node, known[k].text, error)
                                 : read_number(id, node, known[k].low, known[k].high, known[k].number, error);
        if (code < 0)
            return code;
    }
    if (!options->card) {
        snprintf(error, ROOM_ERROR_SIZE, "card: missing, expected the name that playback and capture share");
        return -EINVAL;
    }
    if (!good_card_name(options->card)) {
        snprintf(error, ROOM_ERROR_SIZE, "card: \"%.80s\", expected 1 to 64 letters, digits, '-', '_' or '.'",
                 options->card);
        return -EINVAL;
    }
    if (options->format) {
        options->only_format = known_format(options->format);
        if (options->only_format < 0) {
            snprintf(error, ROOM_ERROR_SIZE,
                     "format: \"%.40s\", expected S16_LE, S24_3LE, S32_LE or FLOAT_LE", options->format);
            return -EINVAL;
        }
    }
    options->ppm = ppm[direction];
    options->interpolators = (ppm[ROOM_PLAYBACK] != 0.0) + (ppm[ROOM_CAPTURE] != 0.0);
    return faults_parse(&options->faults, options->fault_list ? options->fault_list : "", direction, error);
}

void options_free(struct options *options)
{
    free(options->card);
    free(options->impulse_response);
    free(options->near);
    free(options->record);
    free(options->fault_list);
    free(options->format);
}
