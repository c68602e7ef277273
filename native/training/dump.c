/* For training/dataset.py: runs the chain over a scene and writes down, block by block, what the network
 * would be told and what its gains would be applied to. Knows the chain from the inside, hence the include.
 */
#include "apm/apm.c" // NOLINT(bugprone-suspicious-include): looks into the chain, which nothing else may

enum { RATE_HZ = 16000, HOP = RATE_HZ / BLOCKS_PER_S, BINS = HOP + 1 };

typedef struct {
    float features[MASK_FEATURES];
    float re[BINS], im[BINS]; /* after the echo canceller */
    /* statistical gain with the noise suppressor on and off */
    float detail_both[BINS], detail_echo_only[BINS];
} row_t;

int dump_row_floats(void) { return sizeof(row_t) / sizeof(float); }

size_t dump_memory(void) { return 3 * apm_size(RATE_HZ, 1); }

/* memory: dump_memory() bytes, aligned to 64. microphone is overwritten. */
void dump_scene(unsigned char *memory, const int16_t *far, int16_t *microphone, int blocks, row_t *rows)
{
    apm_config_t config = apm_everything();
    config.auto_gain_control = config.learned_gain = 0;
    const size_t size = apm_size(RATE_HZ, 1);
    memset(memory, 0, 3 * size);
    apm_t *apm = apm_init(memory, RATE_HZ, 1, &config);
    channel_t *channel = &apm->channel[0];
    ns_t both, echo_only;
    arena_t arena = {memory + size, 0};
    ns_init(&both, BINS, apm->stride, channel->ns.window_power, &arena);
    ns_init(&echo_only, BINS, apm->stride, channel->ns.window_power, &arena);
    ns_configure(&both, NS_LEVEL_DB[NS_LEVEL_DEFAULT]);
    ns_configure(&echo_only, 0.0f);
    /* ones: nobody asks the network here */
    const ns_mask_t all = {channel->mask.speech, channel->mask.rest, 1.0f};
    for (int b = 0; b < blocks; b++) {
        apm_render(apm, far + b * HOP, 1);
        apm_capture(apm, microphone + b * HOP);
        stft_analyse(&apm->stft, &apm->fft, channel->error_history, apm->re, apm->im);
        memcpy(rows[b].re, apm->re, sizeof rows[b].re);
        memcpy(rows[b].im, apm->im, sizeof rows[b].im);
        const mask_input_t heard = hear(apm, channel, far_power(apm, channel), channel->residual.power);
        mask_features(&channel->mask, &heard, rows[b].features);
        ns_t *const shadows[] = {&both, &echo_only};
        float *const details[] = {rows[b].detail_both, rows[b].detail_echo_only};
        for (int i = 0; i < 2; i++) {
            memcpy(shadows[i]->noise, channel->ns.noise, sizeof(float) * BINS);
            shadows[i]->speech_probability = channel->ns.speech_probability;
            /* both confidences 0: the network judges foreground sounds, too, while it is trained */
            const ns_input_t input = {
                .re = apm->re,
                .im = apm->im,
                .power = apm->error_power,
                .echo = channel->residual.power,
                .mask = &all,
            };
            ns_suppress(shadows[i], &input);
            memcpy(details[i], shadows[i]->gains.statistical, sizeof(float) * BINS);
        }
    }
}
