/* Runs the whole chain over 10 ms frames, one mark before each and one after the last, for the instructions
 * of a frame.
 *
 *   frames RATE_HZ CHANNELS FRAMES LOUDSPEAKERS MICROPHONES
 *
 * LOUDSPEAKERS: mono, alike (two that play the same) or different. MICROPHONES: single or beam, then with the
 * direction of the talker. The sound
 * makes every stage work: a noise-like far end with the syllables of speech, its echo 30 ms later (from half
 * time on, 60 ms later), a near end active every other second and loud enough to reach the limiter, and
 * noise. All four features are on. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apm/apm.h"
#include "insncount.h"

static unsigned state = 1;

static float noise(void)
{
    state = state * 1664525u + 1013904223u; /* Numerical Recipes, sec. 7.1 */
    return (float)(int)state / 2147483648.0f;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    const int different = strcmp(argv[4], "different") == 0, loudspeakers = strcmp(argv[4], "mono") ? 2 : 1;
    const int rate_hz = atoi(argv[1]), channels = atoi(argv[2]), frames = atoi(argv[3]), hop = rate_hz / 100;
    apm_config_t config = apm_everything();
    config.array = strcmp(argv[5], "beam") == 0;
    apm_t *apm = apm_init(aligned_alloc(64, apm_size(rate_hz, channels, loudspeakers)), rate_hz, channels,
                          loudspeakers, &config);
    if (config.array) {
        float line_mm[APM_MAX_CHANNELS][2] = {0};
        for (int c = 0; c < channels; c++)
            line_mm[c][0] = 35.0f * (float)c;
        apm_set_positions(apm, (const float (*)[2])line_mm);
    }
    enum { HISTORY = 8 };
    float *far = calloc((size_t)(HISTORY * hop), sizeof *far);
    int16_t *far_frame = calloc((size_t)(hop * loudspeakers), sizeof *far_frame),
            *mic_frame = calloc((size_t)(hop * channels), sizeof *mic_frame);
    for (int f = 0; f < frames; f++) {
        const float syllable = 0.05f + 0.3f * fabsf(sinf(0.07f * (float)f)),
                    talker = f / 100 % 2 ? 1.2f * fabsf(sinf(0.09f * (float)f)) : 0.0f;
        const int delay_blocks = f < frames / 2 ? 3 : 6;
        for (int i = 0; i < (HISTORY - 1) * hop; i++)
            far[i] = far[i + hop];
        for (int i = 0; i < hop; i++) {
            const int at = (HISTORY - 1) * hop + i;
            far[at] = syllable * noise();
            for (int l = 0; l < loudspeakers; l++)
                far_frame[i * loudspeakers + l] = (int16_t)(32767.0f * far[at]);
            if (different)
                far_frame[i * 2] = (int16_t)(16383.0f * (far[at] + syllable * noise()));
            const float echo = 0.5f * far[at - delay_blocks * hop] + 0.2f * far[at - delay_blocks * hop - 3];
            for (int c = 0; c < channels; c++) {
                const float heard = echo + talker * noise() + 0.001f * noise();
                mic_frame[i * channels + c] = (int16_t)(32767.0f * fminf(1.0f, fmaxf(-1.0f, heard)));
            }
        }
        syscall(MARK_SYSCALL, 0);
        apm_render(apm, far_frame, loudspeakers);
        apm_capture(apm, mic_frame);
        syscall(MARK_SYSCALL, 1);
    }
    printf("%d\n", mic_frame[0]);
    return 0;
}
