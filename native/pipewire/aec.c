/* PipeWire's interface spa_audio_aec over the chain of apm/apm.h: a plugin for its module echo-cancel.
 *
 *   aec.args ─► init ─► settings ┐ under a lock,      ┌─► apm_configure
 *   properties ─► set_params ────┤ which run only     │
 *   both streams paused ─────────┘ tries              │
 *                                                     │
 *   far end, planes of float ─────► 16 bit ──► apm_render
 *   microphones, planes of float ─► 16 bit ──► apm_capture ─► planes of float
 *
 * Threads: `run` is called in PipeWire's data thread and alone touches the chain. All others are called in
 * the main thread; they leave what they want in `exchange` and read the chain's figures there. `run` never
 * waits: while the lock is held it takes the settings one block later.
 *
 * Signals are limited to full scale and rounded to 16 bits, the chain's format.
 *
 * Debian 12 has version 2 of the interface's methods, in which all streams share one format (`init`), Debian
 * 13 has version 3 (`init2`). PipeWire calls init2 with microphones, output, far end, in this order; the
 * names of its header's parameters are in another one. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <spa/interfaces/audio/aec.h>
#include <spa/support/log.h>
#include <spa/support/plugin.h>
#include <spa/utils/names.h>
#include <spa/utils/string.h>

#include "apm/apm.h"
#include "base/branchless.h"
#include "pipewire/settings.h"

enum {
    BLOCKS_PER_S = 100,
    BLOCK_MAX = 480, /* of samples: 10 ms at 48 kHz */
    ALIGNMENT = 64,  /* apm_init's */
};

static struct spa_log_topic log_topic = SPA_LOG_TOPIC(0, "spa.aec.apmpi");
#undef SPA_LOG_TOPIC_DEFAULT
#define SPA_LOG_TOPIC_DEFAULT &log_topic
#ifdef SPA_LOG_TOPIC_ENUM_DEFINE /* PipeWire 1.1: the host sets the topic's level itself */
static struct spa_log_topic *const TOPICS[] = {&log_topic};
SPA_LOG_TOPIC_ENUM_DEFINE(TOPICS, TOPICS + 1);
#endif

/* What passes between the threads, under `lock`. */
typedef struct {
    pthread_mutex_t lock;
    apm_config_t settings; /* written by the main thread */
    bool changed;          /* since `run` took them */
    bool paused;           /* since the last block */
    bool ran;              /* since the last report */
    apm_stats_t stats;     /* of the last block but one */
} exchange_t;

typedef struct {
    struct spa_handle handle; /* first: PipeWire knows this struct by it */
    struct spa_audio_aec aec;
    struct spa_log *log;
    exchange_t exchange;

    /* the data thread's, between two calls of `prepare` */
    apm_t *apm;
    unsigned char *learned; /* learned_bytes: what a pause keeps */
    size_t learned_bytes;
    uint32_t block; /* samples of 10 ms */
    uint32_t rec_channels, play_channels;
    int16_t mic[BLOCK_MAX * APM_MAX_CHANNELS], far[BLOCK_MAX * APM_MAX_CHANNELS]; /* interleaved */
} plugin_t;

/* ---- the data thread */

/* Begins with empty buffers, so that nothing from before a pause follows it, and with all that was learned.
 */
static void begin_again(plugin_t *plugin)
{
    apm_save(plugin->apm, plugin->learned);
    apm_seal(plugin->learned, plugin->learned_bytes);
    apm_reset(plugin->apm);
    apm_restore(plugin->apm, plugin->learned, plugin->learned_bytes);
}

/* Takes settings and a pause from the main thread and leaves figures for it, unless the lock is held. */
static void synchronise(plugin_t *plugin)
{
    exchange_t *shared = &plugin->exchange;
    if (pthread_mutex_trylock(&shared->lock) != 0)
        return;
    if (shared->paused)
        begin_again(plugin);
    if (shared->changed)
        apm_configure(plugin->apm, &shared->settings);
    shared->paused = shared->changed = false;
    shared->ran = true;
    apm_stats(plugin->apm, &shared->stats);
    pthread_mutex_unlock(&shared->lock);
}

static void interleave(int16_t *frames, const float *planes[], uint32_t channels, uint32_t from, uint32_t n)
{
    for (uint32_t c = 0; c < channels; c++) {
        for (uint32_t i = 0; i < n; i++)
            frames[i * channels + c] = sample_to_int16(planes[c][from + i]);
    }
}

static void separate(const int16_t *frames, float *planes[], uint32_t channels, uint32_t from, uint32_t n)
{
    for (uint32_t c = 0; c < channels; c++) {
        for (uint32_t i = 0; i < n; i++)
            planes[c][from + i] = (float)frames[i * channels + c] / 32768.0f;
    }
}

/* Processes n_samples, a multiple of 10 ms. Of anything else (the module's first block after a
 * buffer.play_delay) the output is silence, never the microphones' sound. */
static int run(void *object, const float *rec[], const float *play[], float *out[], uint32_t n_samples)
{
    plugin_t *plugin = object;
    const uint32_t block = plugin->block;
    synchronise(plugin);
    if (n_samples % block != 0) {
        for (uint32_t c = 0; c < plugin->rec_channels; c++)
            memset(out[c], 0, n_samples * sizeof(float));
        return -EINVAL;
    }
    for (uint32_t from = 0; from < n_samples; from += block) {
        interleave(plugin->far, play, plugin->play_channels, from, block);
        apm_render(plugin->apm, plugin->far, (int)plugin->play_channels);
        interleave(plugin->mic, rec, plugin->rec_channels, from, block);
        apm_capture(plugin->apm, plugin->mic);
        separate(plugin->mic, out, plugin->rec_channels, from, block);
    }
    return 0;
}

/* ---- the main thread */

static int check_format(plugin_t *plugin, const struct spa_audio_info_raw *rec,
                        const struct spa_audio_info_raw *play)
{
    if (rec->rate != play->rate || !apm_valid((int)rec->rate, 1, 1)) {
        spa_log_error(plugin->log,
                      "audio.rate: %u Hz (microphone) and %u Hz (far end) given, expected 8000, 16000, 32000 "
                      "or 48000 Hz for both",
                      rec->rate, play->rate);
        return -EINVAL;
    }
    if (!apm_valid((int)rec->rate, (int)rec->channels, 1) ||
        !apm_valid((int)rec->rate, (int)play->channels, 1)) {
        spa_log_error(
            plugin->log,
            "audio.position: %u channels (microphone) and %u (far end) given, expected 1 to %d each",
            rec->channels, play->channels, APM_MAX_CHANNELS);
        return -EINVAL;
    }
    return 0;
}

static void let_go(plugin_t *plugin)
{
    free(plugin->apm);
    free(plugin->learned);
    plugin->apm = NULL;
    plugin->learned = NULL;
}

/* Allocates all that `run` needs. */
static int prepare(plugin_t *plugin, const struct spa_dict *args, const struct spa_audio_info_raw *rec,
                   const struct spa_audio_info_raw *play)
{
    exchange_t *shared = &plugin->exchange;
    apm_config_t settings = apm_everything();
    setting_error_t error;
    if (settings_set_all(&settings, args, error) < 0) {
        spa_log_error(plugin->log, "aec.args: %s", error);
        return -EINVAL;
    }
    if (check_format(plugin, rec, play) < 0)
        return -EINVAL;
    let_go(plugin);
    const int references = play->channels > 1 ? 2 : 1;
    void *memory = aligned_alloc(ALIGNMENT, apm_size((int)rec->rate, (int)rec->channels, references));
    if (!memory)
        return -ENOMEM;
    plugin->apm = apm_init(memory, (int)rec->rate, (int)rec->channels, references, &settings);
    plugin->learned_bytes = apm_state_size(plugin->apm);
    plugin->learned = malloc(plugin->learned_bytes);
    if (!plugin->learned)
        return -ENOMEM;
    plugin->block = rec->rate / BLOCKS_PER_S;
    plugin->rec_channels = rec->channels;
    plugin->play_channels = play->channels;
    shared->settings = settings;
    shared->changed = false;
    return 0;
}

static int init(void *object, const struct spa_dict *args, const struct spa_audio_info_raw *info)
{
    return prepare(object, args, info, info);
}

#if SPA_VERSION_AUDIO_AEC_METHODS >= 3
/* Each microphone becomes one channel of the output, at its place. */
static int init2(void *object, const struct spa_dict *args, struct spa_audio_info_raw *rec,
                 struct spa_audio_info_raw *out, struct spa_audio_info_raw *play)
{
    const int code = prepare(object, args, rec, play);
    if (code == 0) {
        out->channels = rec->channels;
        memcpy(out->position, rec->position, sizeof out->position);
    }
    return code;
}
#endif

/* Logs what the canceller has achieved since the last report. */
static void report(plugin_t *plugin, const char *event)
{
    exchange_t *shared = &plugin->exchange;
    pthread_mutex_lock(&shared->lock);
    const bool ran = shared->ran;
    const apm_stats_t stats = shared->stats;
    shared->ran = false;
    pthread_mutex_unlock(&shared->lock);
    if (ran)
        spa_log_info(plugin->log, "%s: %s, echo reduced by %.0f dB, delay %.0f ms, drift %.0f ppm", event,
                     stats.converged ? "converged" : "not converged", (double)stats.erle_db,
                     (double)stats.delay_ms, (double)stats.drift_ppm);
}

/* Both streams are paused: the chain begins again when they go on. */
static int deactivate(void *object)
{
    plugin_t *plugin = object;
    exchange_t *shared = &plugin->exchange;
    report(plugin, "paused");
    pthread_mutex_lock(&shared->lock);
    shared->paused = true;
    pthread_mutex_unlock(&shared->lock);
    return 0;
}

static int enum_props(void *object, int index, struct spa_pod_builder *builder)
{
    (void)object;
    if (builder)
        settings_describe(index, builder);
    return SETTINGS;
}

static int get_params(void *object, struct spa_pod_builder *builder)
{
    const plugin_t *plugin = object;
    if (builder)
        settings_list(&plugin->exchange.settings, builder); /* written by this thread alone */
    return SETTINGS;
}

static int set_params(void *object, const struct spa_pod *params)
{
    plugin_t *plugin = object;
    exchange_t *shared = &plugin->exchange;
    apm_config_t settings = shared->settings;
    setting_error_t error;
    const int refused = settings_set_pods(&settings, params, error);
    if (refused)
        spa_log_warn(plugin->log, "properties: %s", error);
    pthread_mutex_lock(&shared->lock);
    shared->settings = settings;
    shared->changed = true;
    pthread_mutex_unlock(&shared->lock);
    return refused ? -EINVAL : 0;
}

static const struct spa_audio_aec_methods METHODS = {
    .version = SPA_VERSION_AUDIO_AEC_METHODS,
    .init = init,
    .run = run,
    .deactivate = deactivate,
    .enum_props = enum_props,
    .get_params = get_params,
    .set_params = set_params,
#if SPA_VERSION_AUDIO_AEC_METHODS >= 3
    .init2 = init2,
#endif
};

/* ---- the plugin as PipeWire loads it */

static int get_interface(struct spa_handle *handle, const char *type, void **interface)
{
    plugin_t *plugin = (plugin_t *)handle;
    if (!spa_streq(type, SPA_TYPE_INTERFACE_AUDIO_AEC))
        return -ENOENT;
    *interface = &plugin->aec;
    return 0;
}

static int clear(struct spa_handle *handle)
{
    plugin_t *plugin = (plugin_t *)handle;
    report(plugin, "stopped");
    let_go(plugin);
    pthread_mutex_destroy(&plugin->exchange.lock);
    return 0;
}

static size_t get_size(const struct spa_handle_factory *factory, const struct spa_dict *params)
{
    (void)factory, (void)params;
    return sizeof(plugin_t);
}

static int make(const struct spa_handle_factory *factory, struct spa_handle *handle,
                const struct spa_dict *info, const struct spa_support *support, uint32_t n_support)
{
    plugin_t *plugin = (plugin_t *)handle;
    (void)factory, (void)info;
    memset(plugin, 0, sizeof *plugin);
    plugin->handle = (struct spa_handle){SPA_VERSION_HANDLE, get_interface, clear};
    plugin->aec.iface = SPA_INTERFACE_INIT(SPA_TYPE_INTERFACE_AUDIO_AEC, SPA_VERSION_AUDIO_AEC, &METHODS,
                                           plugin);
    plugin->aec.name = "apmpi";
    plugin->aec.latency = "480/48000"; /* `run` gets 10 ms, or a multiple of it */
    plugin->log = spa_support_find(support, n_support, SPA_TYPE_INTERFACE_Log);
    spa_log_topic_init(plugin->log, &log_topic);
    return -pthread_mutex_init(&plugin->exchange.lock, NULL);
}

static const struct spa_interface_info INTERFACES[] = {{SPA_TYPE_INTERFACE_AUDIO_AEC}};

static int enum_interfaces(const struct spa_handle_factory *factory, const struct spa_interface_info **info,
                           uint32_t *index)
{
    (void)factory;
    if (*index > 0)
        return 0;
    *info = &INTERFACES[(*index)++];
    return 1;
}

static const struct spa_handle_factory FACTORY = {
    .version = SPA_VERSION_HANDLE_FACTORY,
    .name = SPA_NAME_AEC,
    .get_size = get_size,
    .init = make,
    .enum_interface_info = enum_interfaces,
};

SPA_EXPORT int spa_handle_factory_enum(const struct spa_handle_factory **factory, uint32_t *index)
{
    if (*index > 0)
        return 0;
    *factory = &FACTORY;
    (*index)++;
    return 1;
}
