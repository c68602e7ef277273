#include "pipewire/settings.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <spa/param/props.h>
#include <spa/pod/parser.h>
#include <spa/utils/string.h>

typedef enum { SWITCH, NOISE_LEVEL, NUMBER } setting_kind_t;

typedef struct {
    const char *name, *meaning;
    setting_kind_t kind;
    size_t offset;   /* in apm_config_t: of an int, an apm_noise_t or a float */
    float low, high; /* of a number, both allowed */
    const char *unit;
} row_t;

#define AT(member) offsetof(apm_config_t, member)

static const row_t ROWS[SETTINGS] = {
    {"echo_cancellation", "cancels the echo of what the loudspeaker plays", SWITCH, AT(echo_cancellation), 0,
     0, ""},
    {"noise_suppression", "attenuates noise such as fans, traffic and hiss", NOISE_LEVEL,
     AT(noise_suppression), 0, 0, ""},
    {"high_pass_filter", "removes rumble and handling noise below speech", SWITCH, AT(high_pass_filter), 0, 0,
     ""},
    {"auto_gain_control", "brings quiet and loud talkers to one level", SWITCH, AT(auto_gain_control), 0, 0,
     ""},
    {"learned_gain", "a small recurrent network helps to detect speech", SWITCH, AT(learned_gain), 0, 0, ""},
    {"array", "makes two and more microphones one beam towards who speaks", SWITCH, AT(array), 0, 0, ""},
    {"high_pass_hz", "cut-off (-3 dB) of high_pass_filter", NUMBER, AT(high_pass_hz), 20, 300, "Hz"},
    {"gain_target_dbfs", "level of active speech that auto_gain_control aims at", NUMBER,
     AT(gain_target_dbfs), -40, -6, "dBFS"},
    {"gain_max_db", "largest amplification by auto_gain_control", NUMBER, AT(gain_max_db), 0, 50, "dB"},
    {"headroom_db", "least distance of a peak from full scale", NUMBER, AT(headroom_db), 0, 20, "dB"},
};

/* By apm_noise_t. */
static const char *const NOISE_LEVELS[] = {"false", "low", "moderate", "high", "very_high", "auto"};
enum { NOISE_LEVEL_COUNT = sizeof NOISE_LEVELS / sizeof *NOISE_LEVELS };

static int *switch_at(apm_config_t *settings, const row_t *row)
{
    return (int *)((char *)settings + row->offset);
}

static apm_noise_t *noise_at(apm_config_t *settings, const row_t *row)
{
    return (apm_noise_t *)((char *)settings + row->offset);
}

static float *number_at(apm_config_t *settings, const row_t *row)
{
    return (float *)((char *)settings + row->offset);
}

/* ---- from text */

/* The row of that name, or NULL with a sentence. */
static const row_t *row_of(const char *name, setting_error_t error)
{
    for (const row_t *row = ROWS; row < ROWS + SETTINGS; row++) {
        if (strcmp(name, row->name) == 0)
            return row;
    }
    int used = snprintf(error, SETTING_ERROR_BYTES, "%.64s is not a setting, expected one of", name);
    for (int row = 0; row < SETTINGS; row++)
        used += snprintf(error + used, (size_t)(SETTING_ERROR_BYTES - used), "%s %s", row ? "," : "",
                         ROWS[row].name);
    return NULL;
}

static int set_switch(int *on, const row_t *row, const char *value, setting_error_t error)
{
    if (!spa_streq(value, "true") && !spa_streq(value, "false")) {
        snprintf(error, SETTING_ERROR_BYTES, "%s: %.64s given, expected true or false", row->name, value);
        return -EINVAL;
    }
    *on = spa_streq(value, "true");
    return 0;
}

static int set_noise(apm_noise_t *level, const row_t *row, const char *value, setting_error_t error)
{
    if (spa_streq(value, "true")) {
        *level = apm_everything().noise_suppression;
        return 0;
    }
    for (int known = 0; known < NOISE_LEVEL_COUNT; known++) {
        if (spa_streq(value, NOISE_LEVELS[known])) {
            *level = (apm_noise_t)known;
            return 0;
        }
    }
    snprintf(error, SETTING_ERROR_BYTES,
             "%s: %.64s given, expected true, false, low, moderate, high, very_high or auto", row->name,
             value);
    return -EINVAL;
}

static int set_number(float *number, const row_t *row, const char *value, setting_error_t error)
{
    float given;
    if (!spa_atof(value, &given) || !(given >= row->low && given <= row->high)) {
        snprintf(error, SETTING_ERROR_BYTES, "%s: %.64s given, expected a number from %g to %g %s", row->name,
                 value, (double)row->low, (double)row->high, row->unit);
        return -EINVAL;
    }
    *number = given;
    return 0;
}

int settings_set(apm_config_t *settings, const char *name, const char *value, setting_error_t error)
{
    const row_t *row = row_of(name, error);
    if (!row)
        return -EINVAL;
    switch (row->kind) {
    case SWITCH:
        return set_switch(switch_at(settings, row), row, value, error);
    case NOISE_LEVEL:
        return set_noise(noise_at(settings, row), row, value, error);
    default:
        return set_number(number_at(settings, row), row, value, error);
    }
}

int settings_set_all(apm_config_t *settings, const struct spa_dict *args, setting_error_t error)
{
    apm_config_t wanted = *settings;
    const struct spa_dict_item *item;
    if (!args)
        return 0;
    spa_dict_for_each(item, args)
    {
        const int code = settings_set(&wanted, item->key, item->value, error);
        if (code < 0)
            return code;
    }
    *settings = wanted;
    return 0;
}

/* ---- properties of a node */

/* The value as text, as aec.args would have it. */
static bool text_of(const struct spa_pod *pod, char *text, size_t bytes)
{
    bool on;
    int32_t whole;
    float number;
    double precise;
    const char *string;
    if (spa_pod_get_bool(pod, &on) == 0)
        snprintf(text, bytes, "%s", on ? "true" : "false");
    else if (spa_pod_get_int(pod, &whole) == 0)
        snprintf(text, bytes, "%d", whole);
    else if (spa_pod_get_float(pod, &number) == 0)
        spa_dtoa(text, bytes, (double)number);
    else if (spa_pod_get_double(pod, &precise) == 0)
        spa_dtoa(text, bytes, precise);
    else if (spa_pod_get_string(pod, &string) == 0)
        snprintf(text, bytes, "%s", string);
    else
        return false;
    return true;
}

int settings_set_pods(apm_config_t *settings, const struct spa_pod *pairs, setting_error_t error)
{
    struct spa_pod_parser parser;
    struct spa_pod_frame frame;
    const char *name;
    struct spa_pod *value;
    char text[64];
    int refused = 0;
    spa_pod_parser_pod(&parser, pairs);
    if (spa_pod_parser_push_struct(&parser, &frame) < 0)
        return 0;
    while (spa_pod_parser_get_string(&parser, &name) >= 0 && spa_pod_parser_get_pod(&parser, &value) >= 0) {
        if (strchr(name, '.') || !text_of(value, text, sizeof text))
            continue;
        refused += settings_set(settings, name, text, error) < 0;
    }
    return refused;
}

static void describe_values(const row_t *row, struct spa_pod_builder *builder)
{
    apm_config_t settings = apm_everything();
    switch (row->kind) {
    case SWITCH:
        spa_pod_builder_add(builder, SPA_PROP_INFO_type, SPA_POD_CHOICE_Bool(*switch_at(&settings, row)), 0);
        break;
    case NOISE_LEVEL:
        spa_pod_builder_add(builder, SPA_PROP_INFO_type,
                            SPA_POD_String(NOISE_LEVELS[*noise_at(&settings, row)]), 0);
        break;
    default:
        spa_pod_builder_add(builder, SPA_PROP_INFO_type,
                            SPA_POD_CHOICE_RANGE_Float((double)*number_at(&settings, row), (double)row->low,
                                                       (double)row->high),
                            0);
    }
}

void settings_describe(int row, struct spa_pod_builder *builder)
{
    struct spa_pod_frame frame;
    spa_pod_builder_push_object(builder, &frame, SPA_TYPE_OBJECT_PropInfo, SPA_PARAM_PropInfo);
    spa_pod_builder_add(builder, SPA_PROP_INFO_name, SPA_POD_String(ROWS[row].name),
                        SPA_PROP_INFO_description, SPA_POD_String(ROWS[row].meaning), 0);
    describe_values(&ROWS[row], builder);
    spa_pod_builder_add(builder, SPA_PROP_INFO_params, SPA_POD_Bool(true), 0);
    spa_pod_builder_pop(builder, &frame);
}

void settings_list(const apm_config_t *settings, struct spa_pod_builder *builder)
{
    apm_config_t copy = *settings;
    for (const row_t *row = ROWS; row < ROWS + SETTINGS; row++) {
        spa_pod_builder_string(builder, row->name);
        switch (row->kind) {
        case SWITCH:
            spa_pod_builder_bool(builder, *switch_at(&copy, row));
            break;
        case NOISE_LEVEL:
            spa_pod_builder_string(builder, NOISE_LEVELS[*noise_at(&copy, row)]);
            break;
        default:
            spa_pod_builder_float(builder, *number_at(&copy, row));
        }
    }
}
