#include "roomcard/options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const unsigned room_formats[ROOM_FORMATS] = {SND_PCM_FORMAT_S16_LE, SND_PCM_FORMAT_S24_3LE,
                                             SND_PCM_FORMAT_S32_LE, SND_PCM_FORMAT_FLOAT_LE};

/* One option: a text, or a number from low to high. */
typedef struct {
    const char *id;
    char **text; /* NULL: a number */
    double *number, low, high;
} option_t;

static int read_text(const option_t *option, snd_config_t *node, room_error_t error)
{
    const char *text; /* valid as long as the configuration */
    if (snd_config_get_string(node, &text) < 0 || *text == '\0')
        return room_fail(error, -EINVAL, "%s: expected a text in quotes", option->id);
    free(*option->text);
    *option->text = strdup(text);
    return *option->text ? 0 : -ENOMEM;
}

static int read_number(const option_t *option, snd_config_t *node, room_error_t error)
{
    const double low = option->low, high = option->high;
    double *number = option->number;
    if (snd_config_get_ireal(node, number) < 0)
        return room_fail(error, -EINVAL, "%s: expected a number from %g to %g", option->id, low, high);
    if (!(*number >= low && *number <= high))
        return room_fail(error, -EINVAL, "%s: %g, expected a number from %g to %g", option->id, *number, low,
                         high);
    return 0;
}

/* Reads one node of the configuration; ALSA's own fields are skipped. */
static int read_node(const option_t *known, int count, snd_config_t *node, room_error_t error)
{
    const char *id;
    if (snd_config_get_id(node, &id) < 0 || strcmp(id, "type") == 0 || strcmp(id, "comment") == 0 ||
        strcmp(id, "hint") == 0)
        return 0;
    for (int k = 0; k < count; k++) {
        if (strcmp(id, known[k].id) == 0)
            return known[k].text ? read_text(&known[k], node, error) : read_number(&known[k], node, error);
    }
    char names[300] = "";
    for (int k = 0; k < count; k++)
        strcat(strcat(names, " "), known[k].id);
    return room_fail(error, -EINVAL, "%.64s: unknown option, expected one of%s", id, names);
}

/* The card's name becomes part of a file name. */
static bool good_card_name(const char *name)
{
    const size_t length = strlen(name);
    return length <= 64 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == length;
}

/* SND_PCM_FORMAT_UNKNOWN for a name that is not one of room_formats. */
static snd_pcm_format_t format_of(const char *name)
{
    for (int k = 0; k < ROOM_FORMATS; k++) {
        if (strcmp(name, snd_pcm_format_name((snd_pcm_format_t)room_formats[k])) == 0)
            return (snd_pcm_format_t)room_formats[k];
    }
    return SND_PCM_FORMAT_UNKNOWN;
}

/* Checks the options in their relation and fills the fields derived from them. */
static int check_options(options_t *options, room_error_t error)
{
    if (!options->card)
        return room_fail(error, -EINVAL, "card: missing, expected the name that playback and capture share");
    if (!good_card_name(options->card))
        return room_fail(error, -EINVAL, "card: \"%.80s\", expected 1 to 64 letters, digits, '-', '_' or '.'",
                         options->card);
    if (options->format) {
        options->only_format = format_of(options->format);
        if (options->only_format == SND_PCM_FORMAT_UNKNOWN)
            return room_fail(error, -EINVAL,
                             "format: \"%.40s\", expected S16_LE, S24_3LE, S32_LE or FLOAT_LE",
                             options->format);
    }
    if (options->loudspeakers != floor(options->loudspeakers))
        return room_fail(error, -EINVAL, "loudspeakers: %g, expected a whole number", options->loudspeakers);
    if (options->microphones != floor(options->microphones))
        return room_fail(error, -EINVAL, "microphones: %g, expected a whole number", options->microphones);
    return 0;
}

int options_paths(const options_t *options, paths_t *paths, room_error_t error)
{
    paths->loudspeakers = (int)options->loudspeakers;
    paths->microphones = (int)options->microphones;
    for (int l = 0; l < ROOM_LOUDSPEAKERS_MAX; l++)
        paths->loudspeaker_gain[l] = 1.0f;
    for (int m = 0; m < ROOM_MICROPHONES_MAX; m++)
        paths->microphone_gain[m] = 1.0f;
    const int code = options->inverted ? paths_scale(paths, "inverted", options->inverted, -1.0f, error) : 0;
    return code == 0 && options->dead ? paths_scale(paths, "dead", options->dead, 0.0f, error) : code;
}

int options_read(options_t *options, snd_config_t *config, room_direction_t direction, room_error_t error)
{
    double ppm[2] = {0.0, 0.0};
    *options = (options_t){.speed = 1.0,
                           .loudspeakers = 1.0,
                           .microphones = 1.0,
                           .noise_dbfs = (double)-INFINITY,
                           .only_format = SND_PCM_FORMAT_UNKNOWN};
    const option_t known[] = {
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
        {"loudspeakers", NULL, &options->loudspeakers, 1, ROOM_LOUDSPEAKERS_MAX},
        {"microphones", NULL, &options->microphones, 1, ROOM_MICROPHONES_MAX},
        {"inverted", &options->inverted, NULL, 0, 0},
        {"dead", &options->dead, NULL, 0, 0},
    };
    snd_config_iterator_t at, next;
    snd_config_for_each(at, next, config)
    {
        const int code = read_node(known, sizeof known / sizeof known[0], snd_config_iterator_entry(at),
                                   error);
        if (code < 0)
            return code;
    }
    const int code = check_options(options, error);
    if (code < 0)
        return code;
    options->ppm = ppm[direction];
    options->interpolators = (ppm[ROOM_PLAYBACK] != 0.0) + (ppm[ROOM_CAPTURE] != 0.0);
    return faults_parse(&options->faults, options->fault_list ? options->fault_list : "", direction, error);
}

void options_free(options_t *options)
{
    free(options->card);
    free(options->impulse_response);
    free(options->near);
    free(options->record);
    free(options->fault_list);
    free(options->format);
    free(options->inverted);
    free(options->dead);
}
