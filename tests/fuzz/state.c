/* A saved state: what is accepted must be harmless, what is refused must change nothing.
 *
 * The first byte is the kind of the rest. 0: a state as it is. Else edits of a learned state, EDIT_BYTES
 * each: position (in 16-bit words), number of words, operation, an unused byte, and a value of 16 bits.
 * Either gets a valid checksum, without which nearly every input would be refused. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apm/apm.h"

enum { RATE_HZ = 8000, BLOCK = RATE_HZ / 100, LEARN_BLOCKS = 100, USE_BLOCKS = 12 };
enum { EDIT_BYTES = 8, SEALED_FROM = 12, HEADER_BYTES = 24 };
/* operation: set to the value; multiply by a power of two; exchange neighbours; change the value's bits */
enum { FILL, RAISE, SHUFFLE, FLIP };

static apm_t *apm, *other;
static unsigned char *learned, *before, *after, *forged;
static size_t bytes;
static uint32_t noise;

static int16_t sample(void)
{
    noise = 1664525u * noise + 1013904223u; /* Numerical Recipes, ch. 7 */
    return (int16_t)((int32_t)noise >> 19);
}

/* Noise as the far end, and its echo 20 ms later. */
static void hear(apm_t *chain, int blocks)
{
    static int16_t far[3][BLOCK];
    int16_t mic[BLOCK];
    for (int b = 0; b < blocks; b++) {
        for (int i = 0; i < BLOCK; i++)
            far[b % 3][i] = sample();
        memcpy(mic, far[(b + 1) % 3], sizeof mic);
        apm_render(chain, far[b % 3], 1);
        apm_capture(chain, mic);
    }
}

static apm_t *chain(void)
{
    const apm_config_t everything = apm_everything();
    return apm_init(aligned_alloc(64, apm_size(RATE_HZ, 1, 1)), RATE_HZ, 1, 1, &everything);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    apm = chain(), other = chain();
    noise = 1;
    hear(apm, LEARN_BLOCKS);
    bytes = apm_state_size(apm);
    learned = malloc(bytes), before = malloc(bytes), after = malloc(bytes), forged = malloc(bytes);
    apm_save(apm, learned);
    return 0;
}

static void edit(unsigned char *state, const uint8_t *how)
{
    const size_t words = (bytes - HEADER_BYTES) / 2;
    const size_t first = (how[0] | (size_t)how[1] << 8) % words, wanted = how[2] | (size_t)how[3] << 8;
    const size_t count = wanted < words - first ? wanted : words - first;
    const uint16_t value = (uint16_t)(how[6] | how[7] << 8);
    unsigned char *at = state + HEADER_BYTES + 2 * first;
    for (size_t i = 0; i < count; i++, at += 2) {
        uint16_t word, next;
        memcpy(&word, at, 2);
        switch (how[4] % 4) {
        case FILL:
            word = value;
            break;
        case RAISE: /* the exponent */
            word = (uint16_t)(word + (how[6] % 32 - 16) * 128);
            break;
        case SHUFFLE:
            if (i + 1 < count) {
                memcpy(&next, at + 2, 2);
                memcpy(at + 2, &word, 2);
                word = next;
            }
            break;
        case FLIP:
            word ^= value;
        }
        memcpy(at, &word, 2);
    }
}

static void must(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static void take(const unsigned char *state, size_t size)
{
    apm_reset(apm);
    apm_save(apm, before);
    if (apm_restore(apm, state, size) != APM_STATE_GOOD) {
        apm_save(apm, after);
        must(memcmp(before, after, bytes) == 0, "a refused state changes nothing");
        return;
    }
    noise = 1;
    hear(apm, USE_BLOCKS);
    apm_stats_t stats;
    apm_stats(apm, &stats);
    const float figures[] = {stats.erle_db,          stats.erl_db,    stats.delay_ms,
                             stats.delay_confidence, stats.drift_ppm, stats.speech_probability,
                             stats.noise_floor_dbfs, stats.snr_db,    stats.noise_suppression_db,
                             stats.agc_gain_db};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        must(isfinite(figures[i]), "figures are numbers");
    must(stats.delay_ms >= -1.0f && stats.delay_ms <= 1020.0f, "the delay is one that is searched");
    must(fabsf(stats.drift_ppm) <= 501.0f, "the drift is one that is followed");
    must(stats.agc_gain_db >= -81.0f && stats.agc_gain_db <= 51.0f, "the gain is in its range");
    must(stats.noise_floor_dbfs <= 10.0f, "the noise is that of 16 bits");
    apm_save(apm, after);
    apm_seal(after, bytes);
    must(apm_restore(other, after, bytes) == APM_STATE_GOOD, "what is saved is taken");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return -1;
    if (*data == 0) {
        unsigned char *state = malloc(size - 1 ? size - 1 : 1); /* exact size, for the sanitizer */
        memcpy(state, data + 1, size - 1);
        if (size - 1 >= SEALED_FROM)
            apm_seal(state, size - 1);
        take(state, size - 1);
        free(state);
        return 0;
    }
    memcpy(forged, learned, bytes);
    for (size_t at = 1; at + EDIT_BYTES <= size; at += EDIT_BYTES)
        edit(forged, data + at);
    apm_seal(forged, bytes);
    take(forged, bytes);
    return 0;
}
