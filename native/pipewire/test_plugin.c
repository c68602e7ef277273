/* The plugin by the interface that PipeWire calls: settings by text and by properties, refused formats, a
 * cancelled echo, blocks of several and of odd lengths, a pause. */
#include <errno.h>

#include <spa/interfaces/audio/aec.h>
#include <spa/param/props.h>
#include <spa/pod/builder.h>
#include <spa/pod/parser.h>
#include <spa/support/log.h>
#include <spa/support/plugin.h>
#include <spa/utils/string.h>

#include "base/test_support.h"
#include "pipewire/settings.h"

extern int spa_handle_factory_enum(const struct spa_handle_factory **factory, uint32_t *index);

enum { RATE_HZ = 16000, BLOCK = RATE_HZ / 100, DELAY = 4 * BLOCK, CHANNELS_MAX = 2 };

/* ---- allocations: the linker sends those of the plugin and of the chain here (--wrap) */

static int allocations;
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes) { return allocations++, __real_malloc(bytes); }
void *__wrap_calloc(size_t count, size_t bytes) { return allocations++, __real_calloc(count, bytes); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return allocations++, __real_aligned_alloc(alignment, bytes);
}

/* ---- a host with a log */

static char said[1024]; /* the last line of the log */

static void keep_line(void *object, enum spa_log_level level, const struct spa_log_topic *topic,
                      const char *file, int line, const char *func, const char *format, va_list args)
{
    (void)object, (void)level, (void)topic, (void)file, (void)line, (void)func;
    vsnprintf(said, sizeof said, format, args);
}

static void keep_topic(void *object, enum spa_log_level level, const struct spa_log_topic *topic,
                       const char *file, int line, const char *func, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    keep_line(object, level, topic, file, line, func, format, args);
    va_end(args);
}

static void init_topic(void *object, struct spa_log_topic *topic)
{
    (void)object;
    topic->level = SPA_LOG_LEVEL_INFO;
    topic->has_custom_level = true;
}

static const struct spa_log_methods LOG_METHODS = {SPA_VERSION_LOG_METHODS, .logt = keep_topic,
                                                   .logtv = keep_line, .topic_init = init_topic};
static struct spa_log host_log = {.iface = {SPA_TYPE_INTERFACE_Log, SPA_VERSION_LOG, {&LOG_METHODS, NULL}},
                                  .level = SPA_LOG_LEVEL_INFO};

typedef struct {
    struct spa_handle *handle;
    struct spa_audio_aec *aec;
} loaded_t;

static loaded_t load(void)
{
    const struct spa_support support[] = {{SPA_TYPE_INTERFACE_Log, &host_log}};
    const struct spa_handle_factory *factory = NULL;
    const struct spa_interface_info *info = NULL;
    loaded_t loaded = {NULL, NULL};
    void *interface = NULL;
    uint32_t at = 0, first = 0;
    if (spa_handle_factory_enum(&factory, &at) == 1 &&
        spa_handle_factory_enum_interface_info(factory, &info, &first) == 1) {
        loaded.handle = calloc(1, spa_handle_factory_get_size(factory, NULL));
        spa_handle_factory_init(factory, loaded.handle, NULL, support, 1);
        spa_handle_get_interface(loaded.handle, info->type, &interface);
        loaded.aec = interface;
    }
    return loaded;
}

static void unload(loaded_t loaded)
{
    spa_handle_clear(loaded.handle);
    free(loaded.handle);
}

static struct spa_audio_info_raw format_of(uint32_t rate_hz, uint32_t channels)
{
    return (struct spa_audio_info_raw){
        .format = SPA_AUDIO_FORMAT_F32P, .rate = rate_hz, .channels = channels};
}

/* ---- tests */

/* Result of loading the plugin with one argument. */
static int tried(const char *name, const char *value, uint32_t rate_hz, uint32_t channels)
{
    const loaded_t plugin = load();
    const struct spa_dict_item item[] = {SPA_DICT_ITEM_INIT(name, value)};
    const struct spa_dict args = SPA_DICT_INIT_ARRAY(item);
    const struct spa_audio_info_raw format = format_of(rate_hz, channels);
    said[0] = '\0';
    const int code = spa_audio_aec_init(plugin.aec, name ? &args : NULL, &format);
    unload(plugin);
    return code;
}

static void refused(const char *name, const char *value, uint32_t rate_hz, uint32_t channels,
                    const char *sentence)
{
    const int code = tried(name, value, rate_hz, channels);
    CHECK(code == -EINVAL && strcmp(said, sentence) == 0, "%d: %s", code, said);
}

static void test_arguments(void)
{
    CHECK(tried("noise_suppression", "auto", 48000, 2) == 0, "noise_suppression = auto");
    CHECK(tried("auto_gain_control", "false", 8000, 8) == 0, "auto_gain_control = false");
    CHECK(tried("gain_max_db", "12.5", 32000, 1) == 0, "gain_max_db = 12.5");
    refused("gain_max_db", "51", 16000, 1,
            "aec.args: gain_max_db: 51 given, expected a number from 0 to 50 dB");
    refused("gain_max_db", "nan", 16000, 1,
            "aec.args: gain_max_db: nan given, expected a number from 0 to 50 dB");
    refused("echo_cancellation", "yes", 16000, 1,
            "aec.args: echo_cancellation: yes given, expected true or false");
    refused("noise_suppression", "loud", 16000, 1,
            "aec.args: noise_suppression: loud given, "
            "expected true, false, low, moderate, high, very_high or auto");
    refused("webrtc.gain_control", "true", 16000, 1,
            "aec.args: webrtc.gain_control is not a setting, expected one of "
            "echo_cancellation, noise_suppression, high_pass_filter, auto_gain_control, "
            "learned_gain, array, high_pass_hz, gain_target_dbfs, gain_max_db, headroom_db");
    refused(NULL, NULL, 44100, 1,
            "audio.rate: 44100 Hz (microphone) and 44100 Hz (far end) given, "
            "expected 8000, 16000, 32000 or 48000 Hz for both");
    refused(NULL, NULL, 48000, 9,
            "audio.position: 9 channels (microphone) and 9 (far end) given, expected 1 to 8 each");
}

#if SPA_VERSION_AUDIO_AEC_METHODS >= 3
static void test_channels(void)
{
    const loaded_t plugin = load();
    struct spa_audio_info_raw rec = format_of(RATE_HZ, 2), out = format_of(RATE_HZ, 1),
                              play = format_of(RATE_HZ, 6);
    rec.position[1] = SPA_AUDIO_CHANNEL_FR;
    CHECK(spa_audio_aec_init2(plugin.aec, NULL, &rec, &out, &play) == 0 && play.channels == 6,
          "two microphones, a far end of six channels");
    CHECK(out.channels == 2 && out.position[1] == SPA_AUDIO_CHANNEL_FR,
          "the output has the microphones' channels");
    unload(plugin);
}
#endif

/* Value of a setting among the plugin's properties, as a double; NAN: not there. */
static double property(struct spa_audio_aec *aec, const char *wanted)
{
    uint8_t buffer[1024];
    struct spa_pod_builder builder = SPA_POD_BUILDER_INIT(buffer, sizeof buffer);
    struct spa_pod_parser parser;
    struct spa_pod_frame frame;
    struct spa_pod *value;
    const char *name;
    spa_pod_builder_push_struct(&builder, &frame);
    spa_audio_aec_get_params(aec, &builder);
    spa_pod_parser_pod(&parser, spa_pod_builder_pop(&builder, &frame));
    spa_pod_parser_push_struct(&parser, &frame);
    while (spa_pod_parser_get_string(&parser, &name) >= 0 && spa_pod_parser_get_pod(&parser, &value) >= 0) {
        bool on;
        float number;
        if (spa_streq(name, wanted) && spa_pod_get_bool(value, &on) == 0)
            return on;
        if (spa_streq(name, wanted) && spa_pod_get_float(value, &number) == 0)
            return (double)number;
    }
    return (double)NAN;
}

static void test_descriptions(void)
{
    const loaded_t plugin = load();
    const int count = spa_audio_aec_enum_props(plugin.aec, 0, NULL);
    int complete = 0;
    for (int row = 0; row < count; row++) {
        uint8_t buffer[512];
        struct spa_pod_builder builder = SPA_POD_BUILDER_INIT(buffer, sizeof buffer);
        const char *name = NULL, *meaning = NULL;
        bool param = false;
        spa_audio_aec_enum_props(plugin.aec, row, &builder);
        const struct spa_pod *described = (struct spa_pod *)buffer;
        const int found = spa_pod_parse_object(
            described, SPA_TYPE_OBJECT_PropInfo, NULL, SPA_PROP_INFO_name, SPA_POD_String(&name),
            SPA_PROP_INFO_description, SPA_POD_String(&meaning), SPA_PROP_INFO_params, SPA_POD_Bool(&param));
        complete += found == 3 && param && spa_pod_find_prop(described, NULL, SPA_PROP_INFO_type) != NULL;
    }
    CHECK(count == SETTINGS && complete == count, "%d of %d settings are described", complete, count);
    unload(plugin);
}

static void test_properties(void)
{
    const loaded_t plugin = load();
    const struct spa_audio_info_raw format = format_of(RATE_HZ, 1);
    uint8_t buffer[512];
    struct spa_pod_builder builder = SPA_POD_BUILDER_INIT(buffer, sizeof buffer);
    spa_audio_aec_init(plugin.aec, NULL, &format);
    const struct spa_pod *good = spa_pod_builder_add_struct(
        &builder, SPA_POD_String("channelmix.upmix"), SPA_POD_Bool(true), SPA_POD_String("auto_gain_control"),
        SPA_POD_Bool(false), SPA_POD_String("gain_max_db"), SPA_POD_Int(6), SPA_POD_String("high_pass_hz"),
        SPA_POD_Float(120.5), SPA_POD_String("noise_suppression"), SPA_POD_String("low"));
    CHECK(spa_audio_aec_get_params(plugin.aec, NULL) == SETTINGS, "settings are properties");
    CHECK(spa_audio_aec_set_params(plugin.aec, good) == 0, "properties of any kind, foreign ones skipped");
    CHECK(property(plugin.aec, "auto_gain_control") == 0.0 && property(plugin.aec, "gain_max_db") == 6.0 &&
              property(plugin.aec, "high_pass_hz") == 120.5,
          "they are set");
    builder.state.offset = 0;
    const struct spa_pod *bad = spa_pod_builder_add_struct(&builder, SPA_POD_String("headroom_db"),
                                                           SPA_POD_Float(30.0), SPA_POD_String("gain_max_db"),
                                                           SPA_POD_Float(7.0));
    CHECK(spa_audio_aec_set_params(plugin.aec, bad) == -EINVAL &&
              strcmp(said, "properties: headroom_db: 30.000000 given, expected a number from 0 to 20 dB") ==
                  0,
          "%s", said);
    CHECK(property(plugin.aec, "headroom_db") == 1.0 && property(plugin.aec, "gain_max_db") == 7.0,
          "a refused value changes nothing, the others are set");
    unload(plugin);
}

typedef struct {
    float rec[CHANNELS_MAX][3 * BLOCK], play[CHANNELS_MAX][3 * BLOCK], out[CHANNELS_MAX][3 * BLOCK];
} block_t;

static int run_block(struct spa_audio_aec *aec, block_t *block, uint32_t n)
{
    const float *rec[CHANNELS_MAX], *play[CHANNELS_MAX];
    float *out[CHANNELS_MAX];
    for (int c = 0; c < CHANNELS_MAX; c++) {
        rec[c] = block->rec[c];
        play[c] = block->play[c];
        out[c] = block->out[c];
        memset(block->out[c], 0xff, sizeof block->out[c]); /* NaN: what is not written is found */
    }
    return spa_audio_aec_run(aec, rec, play, out, n);
}

/* Runs one call; each microphone receives half of what was played DELAY samples before. */
static int echo_block(struct spa_audio_aec *aec, block_t *block, uint32_t n)
{
    static float past[DELAY];
    static uint32_t at;
    for (uint32_t i = 0; i < n; i++, at++) {
        const float far = 0.2f * test_random();
        for (int c = 0; c < CHANNELS_MAX; c++) {
            block->play[c][i] = far;
            block->rec[c][i] = 0.5f * past[at % DELAY];
        }
        past[at % DELAY] = far;
    }
    return run_block(aec, block, n);
}

/* Reduction of the echo in dB over `blocks` calls of n samples, the worse of the channels. */
static double reduction_db(struct spa_audio_aec *aec, int blocks, uint32_t n)
{
    block_t block;
    double before = 0.0, after[CHANNELS_MAX] = {0.0};
    int refusals = 0;
    for (int b = 0; b < blocks; b++) {
        refusals += echo_block(aec, &block, n) != 0;
        before += test_power(block.rec[0], (int)n);
        for (int c = 0; c < CHANNELS_MAX; c++)
            after[c] += test_power(block.out[c], (int)n);
    }
    CHECK(refusals == 0, "%d calls of %u samples", blocks, n);
    return test_db(before) - test_db(after[0] > after[1] ? after[0] : after[1]);
}

static void test_sound(void)
{
    const loaded_t plugin = load();
    const struct spa_audio_info_raw format = format_of(RATE_HZ, CHANNELS_MAX);
    block_t block;
    allocations = 0;
    spa_audio_aec_init(plugin.aec, NULL, &format);
    CHECK(allocations > 0, "%d allocations for the chain", allocations);
    allocations = 0;
    reduction_db(plugin.aec, 300, BLOCK);
    const double learned_db = reduction_db(plugin.aec, 100, BLOCK);
    CHECK(learned_db > 30.0, "echo reduced by %.1f dB, expected 30 or more", learned_db);
    const double longer_db = reduction_db(plugin.aec, 33, 3 * BLOCK);
    CHECK(longer_db > 30.0, "by %.1f dB in calls of 30 ms", longer_db);

    CHECK(echo_block(plugin.aec, &block, BLOCK - 1) == -EINVAL, "a call of 159 samples is refused");
    CHECK(test_power(block.out[0], BLOCK - 1) + test_power(block.out[1], BLOCK - 1) == 0.0, "with silence");

    spa_audio_aec_deactivate(plugin.aec);
    CHECK(strncmp(said, "paused: converged, echo reduced by ", 35) == 0, "%s", said);
    memset(&block, 0, sizeof block);
    run_block(plugin.aec, &block, BLOCK);
    CHECK(test_power(block.out[0], BLOCK) < 1e-9, "nothing from before the pause after it");
    reduction_db(plugin.aec, 10, BLOCK); /* 0.1 s, in which the echo at first has no reference */
    const double again_db = reduction_db(plugin.aec, 90, BLOCK);
    CHECK(again_db > 30.0, "by %.1f dB then, expected 30 or more", again_db);
    CHECK(allocations == 0, "%d allocations while it runs", allocations);
    unload(plugin);
}

static void test_extreme_samples(void)
{
    const loaded_t plugin = load();
    const struct spa_audio_info_raw format = format_of(RATE_HZ, 1);
    const float odd[] = {1.0f, -1.0f, 2.5f, -2.5f, INFINITY, -INFINITY, NAN, 1e-30f};
    float rec[BLOCK], play[BLOCK], out[BLOCK];
    const float *recs[] = {rec}, *plays[] = {play};
    float *outs[] = {out};
    int finite = 1;
    spa_audio_aec_init(plugin.aec, NULL, &format);
    for (int b = 0; b < 50; b++) {
        for (int i = 0; i < BLOCK; i++)
            rec[i] = play[i] = odd[(b + i) % 8];
        spa_audio_aec_run(plugin.aec, recs, plays, outs, BLOCK);
        for (int i = 0; i < BLOCK; i++)
            finite &= fabsf(out[i]) <= 1.0f;
    }
    CHECK(finite, "full scale, infinite and NaN samples in: at most full scale out");
    unload(plugin);
}

int main(void)
{
    test_arguments();
#if SPA_VERSION_AUDIO_AEC_METHODS >= 3
    test_channels();
#endif
    test_descriptions();
    test_properties();
    test_sound();
    test_extreme_samples();
    return test_failures != 0;
}
