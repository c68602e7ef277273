/* Probe of the training (training/dataset.py): runs the chain over a scene and records of every block the
 * network's features and the spectrum and statistical gains that its mask would be applied to.
 */
#include <string.h>

#include "apm/block.h"
#include "apm/internal.h"

enum { RATE_HZ = 16000, HOP = RATE_HZ / BLOCKS_PER_S, BINS = HOP + 1 };

typedef struct {
    float features[MASK_FEATURES];
    float re[BINS], im[BINS]; /* after the echo canceller */
    /* statistical gain with the noise suppressor on and off */
    float detail_both[BINS], detail_echo_only[BINS];
} row_t;

int dump_row_floats(void) { return sizeof(row_t) / sizeof(float); }

size_t dump_memory(void) { return 3 * apm_size(RATE_HZ, 1, 1); }

/* memory: dump_memory() bytes, aligned to 64. microphone is overwritten. */
void dump_scene(unsigned char *memory, const int16_t *far, int16_t *microphone, int blocks, row_t *rows)
{
    apm_config_t config = apm_everything();
    config.auto_gain_control = config.learned_gain = 0;
    const size_t size = apm_size(RATE_HZ, 1, 1);
    memset(memory, 0, 3 * size);
    apm_t *apm = apm_init(memory, RATE_HZ, 1, 1, &config);
    workspace_t *ws = &apm->workspace;
    channel_t *channel = &apm->channel[0];
    ns_t both, echo_only;
    arena_t arena = {memory + size, 0};
    ns_init(&both, BINS, ws->stride, channel->ns.window_power, &arena);
    ns_init(&echo_only, BINS, ws->stride, channel->ns.window_power, &arena);
    ns_configure(&both, NS_LEVEL_DB[NS_LEVEL_DEFAULT]);
    ns_configure(&echo_only, 0.0f);
    /* the network does not run here: its masks are ones */
    const ns_mask_t all = {channel->mask.speech, channel->mask.rest, 1.0f};
    for (int b = 0; b < blocks; b++) {
        apm_render(apm, far + b * HOP, 1);
        apm_capture(apm, microphone + b * HOP);
        stft_analyse(&ws->stft, &ws->fft, channel->error_history, ws->re, ws->im);
        memcpy(rows[b].re, ws->re, sizeof rows[b].re);
        memcpy(rows[b].im, ws->im, sizeof rows[b].im);
        const channel_input_t input = apm_channel_input(apm);
        const mask_input_t mask_input = channel_mask_input(channel, ws, &input);
        mask_features(&channel->mask, &mask_input, rows[b].features);
        ns_t *const shadows[] = {&both, &echo_only};
        float *const details[] = {rows[b].detail_both, rows[b].detail_echo_only};
        for (int i = 0; i < 2; i++) {
            memcpy(shadows[i]->noise, channel->ns.noise, sizeof(float) * BINS);
            shadows[i]->speech_probability = channel->ns.speech_probability;
            /* confidence 0: in training the network also judges what stands clear of noise and echo */
            const ns_input_t block = {
                .re = ws->re,
                .im = ws->im,
                .power = ws->error_power,
                .echo = channel->residual.power,
                .mask = &all,
            };
            ns_suppress(shadows[i], &block);
            memcpy(details[i], shadows[i]->gains.statistical, sizeof(float) * BINS);
        }
    }
}
