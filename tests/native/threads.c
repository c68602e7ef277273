/* One thread processes, one asks for the state's size and saves, as another language's binding may: the size
 * without a lock, all else with it. For the thread sanitizer, which makes the exit status 66 if there was a
 * race. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "apm/apm.h"

enum { RATE_HZ = 16000, CHANNELS = 2, BLOCK = RATE_HZ / 100, BLOCKS = 300 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static apm_t *apm;
static int done; /* under the lock */

static void *save(void *unused)
{
    size_t saved = 0;
    for (int go_on = 1; go_on; saved++) {
        const size_t bytes = apm_state_size(apm);
        unsigned char *state = malloc(bytes);
        pthread_mutex_lock(&lock);
        apm_save(apm, state);
        go_on = !done;
        pthread_mutex_unlock(&lock);
        apm_seal(state, bytes);
        free(state);
    }
    printf("%zu states saved\n", saved);
    return unused;
}

int main(void)
{
    const apm_config_t everything = apm_everything();
    void *memory = aligned_alloc(64, apm_size(RATE_HZ, CHANNELS, 1));
    apm = apm_init(memory, RATE_HZ, CHANNELS, 1, &everything);
    pthread_t saver;
    pthread_create(&saver, NULL, save, NULL);
    int16_t far[BLOCK], mic[CHANNELS * BLOCK];
    uint32_t noise = 1;
    for (int block = 0; block < BLOCKS; block++) {
        for (int i = 0; i < BLOCK; i++) {
            noise = 1664525u * noise + 1013904223u; /* Numerical Recipes, ch. 7 */
            far[i] = (int16_t)(noise >> 19);
            for (int c = 0; c < CHANNELS; c++)
                mic[CHANNELS * i + c] = far[i];
        }
        pthread_mutex_lock(&lock);
        apm_render(apm, far, 1);
        apm_capture(apm, mic);
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_lock(&lock);
    done = 1;
    pthread_mutex_unlock(&lock);
    pthread_join(saver, NULL);
    free(memory);
    return 0;
}
