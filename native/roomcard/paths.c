#include "roomcard/paths.h"

#include <math.h>
#include <string.h>

#include "roomcard/noise.h"

/* --- the generated responses --- */

/* Positions in m: the microphones in a row, as on a linear array, 0.1 m before the loudspeakers' line. No
 * microphone is as far from the one loudspeaker as from the other, nor are two from one loudspeaker. */
static const double MICROPHONE_X_M[ROOM_MICROPHONES_MAX] = {0.0, 0.05, 0.1, 0.15};
static const double LOUDSPEAKER_X_M[ROOM_LOUDSPEAKERS_MAX] = {-0.1, 0.23};
static const double ROW_TO_LOUDSPEAKERS_M = 0.1;

static const double SOUND_M_PER_S = 343.0; /* at 20 degrees Celsius */
static const double DIRECT_AT_M = 0.05;    /* gain * distance: -8 dB for the nearest pair, 0.13 m */
static const double DECAY_S = 0.2;         /* of the tail, by 60 dB: a furnished small room */
static const double TAIL_GAIN = 0.25;      /* root of the energy of the tail: as one tap of -12 dB */
static const uint32_t TAIL_NOISE = 100;    /* first of the tails' streams of noise, one for each pair */

static double distance_m(int loudspeaker, int microphone)
{
    const double along_m = LOUDSPEAKER_X_M[loudspeaker] - MICROPHONE_X_M[microphone];
    /* hypot() would need glibc 2.35, newer than the wheels promise. */
    return sqrt(along_m * along_m + ROW_TO_LOUDSPEAKERS_M * ROW_TO_LOUDSPEAKERS_M);
}

static void generate(int loudspeaker, int microphone, unsigned rate_hz, float *taps, int count)
{
    const double metres = distance_m(loudspeaker, microphone);
    const int direct = (int)lround(metres / SOUND_M_PER_S * rate_hz);
    const uint32_t stream = TAIL_NOISE + (uint32_t)(loudspeaker * ROOM_MICROPHONES_MAX + microphone);
    /* Sum of 10^(-6 t / DECAY_S) over the samples: the tail's energy for noise of RMS 1. */
    const double energy = DECAY_S * rate_hz / (6.0 * log(10.0));
    for (int i = 0; i < count; i++) {
        const double envelope = pow(10.0, -3.0 * (i - direct) / (DECAY_S * rate_hz)) / sqrt(energy);
        taps[i] = i > direct ? (float)(TAIL_GAIN * envelope * (double)noise_at(stream, i)) : 0.0f;
    }
    taps[direct] = (float)(DIRECT_AT_M / metres);
}

/* A single pair without a file is a wire: one tap of 1.0. */
static bool is_wire(const paths_t *paths)
{
    return !paths->file->bytes && paths->loudspeakers * paths->microphones == 1;
}

int paths_taps(const paths_t *paths, unsigned rate_hz)
{
    if (paths->file->bytes)
        return (int)paths->file->frames;
    return is_wire(paths) ? 1 : (int)lround(DECAY_S * rate_hz);
}

void paths_response(const paths_t *paths, int loudspeaker, int microphone, unsigned rate_hz, float *taps)
{
    const int count = paths_taps(paths, rate_hz);
    const int channel = loudspeaker * paths->microphones + microphone;
    if (paths->file->bytes) {
        for (int i = 0; i < count; i++)
            taps[i] = wav_sample(paths->file, channel, i);
    } else if (is_wire(paths)) {
        taps[0] = 1.0f;
    } else {
        generate(loudspeaker, microphone, rate_hz, taps, count);
    }
    const float gain = paths->loudspeaker_gain[loudspeaker] * paths->microphone_gain[microphone];
    for (int i = 0; i < count; i++)
        taps[i] *= gain;
}

/* --- what is inverted or dead --- */

/* Returns the gain of "loudspeaker2" in `word`, or NULL when there is no such one. */
static float *named(paths_t *paths, const char *word, size_t length)
{
    static const char *const kind[] = {"loudspeaker", "microphone"};
    const int count[] = {paths->loudspeakers, paths->microphones};
    float *const gain[] = {paths->loudspeaker_gain, paths->microphone_gain};
    for (int k = 0; k < 2; k++) {
        const size_t name = strlen(kind[k]);
        const int number = length == name + 1 && strncmp(word, kind[k], name) == 0 ? word[name] - '0' : 0;
        if (number >= 1 && number <= count[k])
            return &gain[k][number - 1];
    }
    return NULL;
}

int paths_scale(paths_t *paths, const char *option, const char *list, float gain, room_error_t error)
{
    static const char blanks[] = " \t\n";
    for (const char *word = list + strspn(list, blanks); *word; word += strspn(word, blanks)) {
        const size_t length = strcspn(word, blanks);
        float *const which = named(paths, word, length);
        if (!which)
            return room_fail(error, -EINVAL,
                             "%s: \"%.*s\", expected loudspeaker1 to loudspeaker%d or microphone1 to "
                             "microphone%d",
                             option, length < 40 ? (int)length : 40, word, paths->loudspeakers,
                             paths->microphones);
        *which *= gain;
        word += length;
    }
    return 0;
}
