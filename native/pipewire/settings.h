/* The settings of the echo-cancel plugin: features and tuning of the chain, by their names in a
 * configuration file of apmpi.
 *
 * PipeWire gives them as text in `aec.args` when the module is loaded, and as properties of the module's
 * nodes while it runs. apmpi/settings.py has the same rows; a test compares the two. */
#ifndef APMPI_PIPEWIRE_SETTINGS_H
#define APMPI_PIPEWIRE_SETTINGS_H

#include <spa/pod/builder.h>
#include <spa/pod/pod.h>
#include <spa/utils/dict.h>

#include "apm/apm.h"

enum { SETTINGS = 10, SETTING_ERROR_BYTES = 512 };

/* A sentence that names the setting, the value given and what was expected. */
typedef char setting_error_t[SETTING_ERROR_BYTES];

/* Changes one setting. 0, or -EINVAL with a sentence in `error`; `settings` is then unchanged. */
int settings_set(apm_config_t *settings, const char *name, const char *value, setting_error_t error);
/* Changes all that `args` names, or none. NULL: no arguments. */
int settings_set_all(apm_config_t *settings, const struct spa_dict *args, setting_error_t error);

/* Name and value pairs of a property's struct (SPA_PROP_params): takes those that are settings and valid.
 * Names with a dot are other properties of the node and are skipped. Returns the number of refused ones;
 * `error` then explains the last of them. */
int settings_set_pods(apm_config_t *settings, const struct spa_pod *pairs, setting_error_t error);

/* Adds the description of setting `row`, 0..SETTINGS-1, as a SPA_TYPE_OBJECT_PropInfo. */
void settings_describe(int row, struct spa_pod_builder *builder);
/* Adds a name and a value for each setting. */
void settings_list(const apm_config_t *settings, struct spa_pod_builder *builder);

#endif
