/* apm.h: sizes, bounds, guarded memory, exact latency, reset; every rate, every flag, one and eight
 * channels. */
#include "apm/apm.h"

#include "base/test_support.h"

static const int rates_hz[] = {8000, 16000, 32000, 48000};
enum { RATES = 4, GUARD = 4096, MOST_SAMPLES = 480 * APM_MAX_CHANNELS };

/* Memory of the exact size before a guard of known bytes. */
static unsigned char *guarded(size_t size)
{
    unsigned char *memory = aligned_alloc(ARENA_ALIGN, size + GUARD);
    memset(memory, 0xa5, size + GUARD);
    return memory;
}

static int untouched(const unsigned char *memory, size_t size)
{
    for (int i = 0; i < GUARD; i++)
        if (memory[size + (size_t)i] != 0xa5)
            return 0;
    return 1;
}

static void checks_arguments(void)
{
    int wrong = 0;
    for (int rate = -1; rate <= 96000; rate++)
        for (int channels = -1; channels <= 10; channels++) {
            const int right = (rate == 8000 || rate == 16000 || rate == 32000 || rate == 48000) &&
                              channels >= 1 && channels <= 8;
            wrong += apm_valid(rate, channels, 1) != right || apm_valid(rate, channels, 2) != right ||
                     apm_valid(rate, channels, 0) || apm_valid(rate, channels, 3);
        }
    CHECK(wrong == 0, "rates -1 to 96000, channels -1 to 10: %d judged wrongly", wrong);
}

static void fill(int16_t *frames, int count, int kind)
{
    for (int i = 0; i < count; i++)
        switch (kind % 5) {
        case 0:
            frames[i] = (int16_t)(8000.0f * test_random());
            break;
        case 1:
            frames[i] = test_random() > 0.0f ? INT16_MAX : INT16_MIN;
            break;
        case 2:
            frames[i] = 0;
            break;
        case 3:
            frames[i] = (int16_t)(i % 50 < 25 ? INT16_MIN : INT16_MAX);
            break;
        default:
            frames[i] = (int16_t)(1.9f * test_random());
            break;
        }
}

/* Flags change every 80 ms, sounds every 200 ms; far-end blocks come in bursts and get lost. The far end has
 * as many channels as the microphone. */
static void survives(int rate_hz, int channels, int references)
{
    const size_t size = apm_size(rate_hz, channels, references);
    unsigned char *memory = guarded(size);
    const apm_config_t everything = apm_everything();
    apm_t *apm = apm_init(memory, rate_hz, channels, references, &everything);
    int16_t far[MOST_SAMPLES + 16], mic[MOST_SAMPLES + 16];
    const int hop = rate_hz / 100;
    int odd = 0;
    for (int b = 0; b < 128; b++) {
        if (b % 8 == 0) {
            const int flags = b / 8;
            apm_config_t config = everything;
            config.echo_cancellation = flags & 1;
            config.noise_suppression = (apm_noise_t)(flags % 6);
            config.high_pass_filter = flags >> 2 & 1;
            config.auto_gain_control = flags >> 3 & 1;
            config.learned_gain = flags >> 4 & 1;
            config.high_pass_hz = 20.0f + 40.0f * (float)(flags % 8);
            config.gain_max_db = 10.0f * (float)(flags % 6);
            config.headroom_db = 4.0f * (float)(flags % 6);
            apm_configure(apm, &config);
            apm_set_delay_hint(apm, 3 * b);
        }
        for (int bursts = b % 10 == 0 ? 12 : b % 3; bursts > 0; bursts--) {
            fill(far, hop * channels, b / 20 + 1);
            apm_render(apm, far, channels);
        }
        fill(mic, hop * channels, b / 20);
        memset(mic + hop * channels, 0x5a, 32);
        apm_capture(apm, mic);
        for (int i = 0; i < 16; i++)
            odd += mic[hop * channels + i] != 0x5a5a;
        apm_stats_t stats;
        apm_stats(apm, &stats);
        odd += !isfinite(stats.erle_db) || !isfinite(stats.erl_db) || !isfinite(stats.noise_floor_dbfs) ||
               !isfinite(stats.agc_gain_db);
    }
    /* sound comes through again */
    apm_configure(apm, &everything);
    double power = 0.0;
    for (int b = 0; b < 40; b++) {
        for (int i = 0; i < hop * channels; i++)
            mic[i] = (int16_t)(b % 20 < 10 ? 8000.0f * test_random() : 0.0f);
        apm_capture(apm, mic);
        for (int i = 0; i < hop * channels; i++)
            power += (double)mic[i] * mic[i] / (hop * channels * 40.0);
    }
    CHECK(size % ARENA_ALIGN == 0 && untouched(memory, size) && !odd && power > 1e4,
          "%5d Hz, %d channels, %d references: %zu bytes, ends untouched, %d odd figures or samples, "
          "afterwards %.0f dBFS",
          rate_hz, channels, references, size, odd, test_db(power) - 90.3);
    free(memory);
}

/* One full-scale sample: the output's is exactly apm_latency_samples() later, with every stage that has a
 * phase switched off. */
static void is_late_by_what_it_says(int rate_hz, int low_latency)
{
    apm_config_t nothing = apm_everything(), most;
    nothing.low_latency = low_latency;
    most = nothing;
    nothing.echo_cancellation = nothing.high_pass_filter = nothing.auto_gain_control = nothing.learned_gain =
        0;
    nothing.noise_suppression = APM_NOISE_KEPT;
    most.high_pass_filter = 0;
    const int hop = rate_hz / 100, at = 3 * hop + 7;
    for (int on = 0; on < 2; on++) {
        unsigned char *memory = guarded(apm_size(rate_hz, 1, 1));
        apm_t *apm = apm_init(memory, rate_hz, 1, 1, on ? &most : &nothing);
        int16_t block[480];
        int peak = 0, where = -1;
        for (int b = 0; b < 8; b++) {
            for (int i = 0; i < hop; i++)
                block[i] = b * hop + i == at ? 20000 : 0;
            apm_capture(apm, block);
            for (int i = 0; i < hop; i++)
                if (abs(block[i]) > peak) {
                    peak = abs(block[i]);
                    where = b * hop + i;
                }
        }
        const double late_ms = 1000.0 * (where - at) / rate_hz;
        CHECK(where - at == apm_latency_samples(apm) && late_ms == (low_latency ? 2.25 : 6.0),
              "%5d Hz: a click is %d samples late, %.2f ms", rate_hz, where - at, late_ms);
        free(memory);
    }
}

/* A used and reset chain at another address gives the same samples as a new one. */
static void starts_anew(int rate_hz)
{
    const int hop = rate_hz / 100;
    const size_t size = apm_size(rate_hz, 2, 1);
    const apm_config_t everything = apm_everything();
    unsigned char *memory[2] = {guarded(size), guarded(size + ARENA_ALIGN)};
    apm_t *fresh = apm_init(memory[0], rate_hz, 2, 1, &everything),
          *used = apm_init(memory[1] + ARENA_ALIGN, rate_hz, 2, 1, &everything);
    int16_t far[480], mic[2][960];
    int different = 0;
    for (int b = -40; b < 60; b++) {
        fill(far, hop, 0);
        fill(mic[0], 2 * hop, 0);
        memcpy(mic[1], mic[0], sizeof mic[0]);
        apm_render(used, far, 1);
        apm_capture(used, mic[1]);
        if (b < 0)
            continue;
        if (b == 0) {
            apm_reset(used);
            continue;
        }
        apm_render(fresh, far, 1);
        apm_capture(fresh, mic[0]);
        different += memcmp(mic[0], mic[1], sizeof(int16_t) * 2 * (size_t)hop) != 0;
    }
    CHECK(!different, "%5d Hz: %d of 59 blocks differ after a reset and at another address", rate_hz,
          different);
    free(memory[0]), free(memory[1]);
}

/* Two loudspeakers that play the same: sample for sample the output of a chain with one reference. */
static void is_one_reference_while_alike(int rate_hz)
{
    const int hop = rate_hz / 100;
    const apm_config_t everything = apm_everything();
    unsigned char *memory[2] = {guarded(apm_size(rate_hz, 1, 1)), guarded(apm_size(rate_hz, 1, 2))};
    apm_t *one = apm_init(memory[0], rate_hz, 1, 1, &everything),
          *two = apm_init(memory[1], rate_hz, 1, 2, &everything);
    int16_t far[480], both[2 * 480], last[480] = {0}, mic[2][480];
    int different = 0;
    for (int b = 0; b < 300; b++) {
        fill(far, hop, 0);
        for (int i = 0; i < hop; i++) {
            both[2 * i] = both[2 * i + 1] = far[i];
            mic[0][i] = mic[1][i] = (int16_t)(last[i] / 2 + (int)(30.0f * test_random()));
        }
        memcpy(last, far, sizeof last);
        apm_render(one, far, 1);
        apm_render(two, both, 2);
        apm_capture(one, mic[0]);
        apm_capture(two, mic[1]);
        different += memcmp(mic[0], mic[1], sizeof(int16_t) * (size_t)hop) != 0;
    }
    CHECK(!different, "%5d Hz, two loudspeakers alike: %d of 300 blocks differ from those of one", rate_hz,
          different);
    free(memory[0]), free(memory[1]);
}

/* A chain of 1 or 2 references after an echo of as many loudspeakers. */
static apm_t *echo_heard(unsigned char *memory, int rate_hz, int channels, int references)
{
    enum { HEARD_BLOCKS = 120 };
    const apm_config_t everything = apm_everything();
    apm_t *apm = apm_init(memory, rate_hz, channels, references, &everything);
    int16_t far[960], mic[MOST_SAMPLES], last[960] = {0};
    const int hop = rate_hz / 100;
    for (int b = 0; b < HEARD_BLOCKS; b++) {
        fill(far, hop * references, 0);
        for (int i = 0; i < hop * channels; i++) { /* one block late, 6 and 12 dB down */
            const int at = i / channels * references;
            mic[i] = (int16_t)(last[at] / 2 + last[at + references - 1] / 4 + (int)(30.0f * test_random()));
        }
        memcpy(last, far, sizeof last);
        apm_render(apm, far, references);
        apm_capture(apm, mic);
    }
    return apm;
}

/* Syllables of noise, up to 0.2 s each. */
static void babble(int16_t *samples, int count)
{
    for (int at = 0, end; at < count; at = end) {
        end = at + 800 + (int)(1200.0f * (1.0f + test_random()));
        const float loud = test_random() > -0.3f ? 4000.0f + 3000.0f * test_random() : 0.0f;
        for (int i = at; i < end && i < count; i++)
            samples[i] = (int16_t)(loud * test_random());
    }
}

/* Direct sound and a reflection 18 ms later, nearly as strong: in double talk the delay may be measured as
 * the reflection's, but the echo has not moved, and the learned path stays valid. */
static void takes_no_reflection_for_a_move(void)
{
    enum {
        HOP = 160,
        SECOND = 100 * HOP,
        DIRECT = 4 * HOP + 50,
        REFLECTED = 6 * HOP + 20,
        SECONDS = 12,
        TALKS = 5
    };
    static int16_t far[SECONDS * SECOND], near[SECONDS * SECOND];
    const apm_config_t everything = apm_everything();
    unsigned char *memory = guarded(apm_size(16000, 1, 1));
    apm_t *apm = apm_init(memory, 16000, 1, 1, &everything);
    apm_stats_t stats, before = {0};
    babble(far, SECONDS * SECOND);
    babble(near, SECONDS * SECOND);
    float latest_ms = 0.0f;
    for (int at = 0; at < SECONDS * SECOND; at += HOP) {
        int16_t mic[HOP];
        const int talks = at >= TALKS * SECOND;
        for (int i = at; i < at + HOP; i++)
            mic[i - at] = (int16_t)((i < REFLECTED ? 0.0f
                                                   : 0.5f * (float)far[i - DIRECT] +
                                                         0.45f * (float)far[i - REFLECTED]) +
                                    (talks ? 0.6f * (float)near[i] : 30.0f * test_random()));
        apm_render(apm, far + at, 1);
        apm_capture(apm, mic);
        apm_stats(apm, &stats);
        latest_ms = fmaxf(latest_ms, stats.delay_ms);
        if (!talks)
            before = stats;
    }
    CHECK(latest_ms >= before.delay_ms + 20.0f && stats.divergences == before.divergences,
          "a talker beside an echo and its reflection: delay measured as %.0f, then %.0f ms, the estimate "
          "added power %d times",
          (double)before.delay_ms, (double)latest_ms, stats.divergences - before.divergences);
    free(memory);
}

/* A state restored by another chain is saved by it unchanged. A state with any error is refused, and changes
 * nothing. */
/* Random bytes with a valid checksum: refused, or harmless. forged: room for a state. */
static void survives_forged_states(apm_t *apm, const unsigned char *state, unsigned char *forged, int rate_hz,
                                   int channels)
{
    const size_t bytes = apm_state_size(apm);
    int accepted = 0, odd = 0;
    int16_t mic[MOST_SAMPLES];
    for (int n = 0; n < 60; n++) {
        memcpy(forged, state, bytes);
        for (int flips = 0; flips <= n % 7; flips++)
            forged[24 + (size_t)((0.5f + 0.5f * test_random()) * (float)(bytes - 25))] ^=
                (unsigned char)(1 << (n + flips) % 8);
        apm_seal(forged, bytes);
        accepted += apm_restore(apm, forged, bytes) == APM_STATE_GOOD;
        for (int b = 0; b < 3; b++) {
            fill(mic, channels * rate_hz / 100, b);
            apm_render(apm, mic, channels);
            apm_capture(apm, mic);
        }
        apm_stats_t stats;
        apm_stats(apm, &stats);
        odd += !isfinite(stats.erle_db) || !isfinite(stats.agc_gain_db);
    }
    CHECK(!odd && accepted < 60, "%5d Hz, %d channels: of 60 forged states %d taken, none with harm", rate_hz,
          channels, accepted);
}

/* A chain of one reference restores the state of one of two, and the other way round. */
static void restores_states_of_other_references(int rate_hz)
{
    const apm_config_t everything = apm_everything();
    for (int references = 1; references <= 2; references++) {
        unsigned char *memory[2] = {guarded(apm_size(rate_hz, 1, references)),
                                    guarded(apm_size(rate_hz, 1, 3 - references))};
        apm_t *apm = echo_heard(memory[0], rate_hz, 1, references),
              *other = apm_init(memory[1], rate_hz, 1, 3 - references, &everything);
        const size_t bytes = apm_state_size(apm);
        unsigned char *state = malloc(bytes);
        apm_save(apm, state);
        apm_seal(state, bytes);
        const apm_state_t verdict = apm_restore(other, state, bytes);
        apm_stats_t before, after;
        apm_stats(apm, &before);
        apm_stats(other, &after);
        CHECK(verdict == APM_STATE_GOOD && before.delay_ms >= 0.0f && before.delay_ms == after.delay_ms,
              "%5d Hz: a state of %d references, restored by a chain of %d: delay %.0f ms", rate_hz,
              references, 3 - references, (double)after.delay_ms);
        free(state), free(memory[0]), free(memory[1]);
    }
}

static void keeps_its_state(int rate_hz, int channels, int references)
{
    unsigned char *memory[2] = {guarded(apm_size(rate_hz, channels, references)),
                                guarded(apm_size(rate_hz, channels, references))};
    const apm_config_t everything = apm_everything();
    apm_t *apm = echo_heard(memory[0], rate_hz, channels, references),
          *other = apm_init(memory[1], rate_hz, channels, references, &everything);
    const size_t bytes = apm_state_size(apm);
    unsigned char *state = malloc(bytes), *again = malloc(bytes), *damaged = malloc(bytes + 1);
    apm_save(apm, state);
    apm_seal(state, bytes);

    int shape_hz, shape_channels, refused = 0, tried = 0;
    apm_state_shape(state, bytes, &shape_hz, &shape_channels);
    apm_save(other, again); /* as it is before: fresh */
    for (; tried < 200; tried++) {
        memcpy(damaged, state, bytes);
        damaged[bytes] = 0;
        const size_t where = (size_t)((0.5f + 0.5f * test_random()) * (float)(bytes - 1));
        if (tried % 3 == 0) /* one bit */
            damaged[tried < 100 ? where % 24 : where] ^= (unsigned char)(1 << tried % 8);
        else if (tried % 3 == 1) /* cut off */
            refused += apm_restore(other, damaged, tried == 1 ? 0 : where) != APM_STATE_GOOD;
        else /* something behind it */
            refused += apm_restore(other, damaged, bytes + 1) != APM_STATE_GOOD;
        if (tried % 3 == 0)
            refused += apm_restore(other, damaged, bytes) != APM_STATE_GOOD;
    }
    unsigned char *after = malloc(bytes);
    apm_save(other, after);
    CHECK(refused == tried && memcmp(after, again, bytes) == 0,
          "%5d Hz, %d channels: %d of %d damaged states refused, nothing changed", rate_hz, channels, refused,
          tried);

    const apm_state_t verdict = apm_restore(other, state, bytes);
    apm_save(other, again);
    apm_seal(again, bytes);
    CHECK(verdict == APM_STATE_GOOD && shape_hz == rate_hz && shape_channels == channels &&
              memcmp(state, again, bytes) == 0,
          "%5d Hz, %d channels: a state of %zu bytes comes back as it was", rate_hz, channels, bytes);

    survives_forged_states(other, state, damaged, rate_hz, channels);
    apm_restore(other, state, bytes);
    unsigned char *elsewhere = guarded(apm_size(8000, 2, 1));
    apm_t *stranger = apm_init(elsewhere, 8000, 2, 1, &everything);
    CHECK(apm_restore(stranger, state, bytes) == APM_STATE_SHAPE,
          "%5d Hz, %d channels: refused at 8000 Hz with 2 channels", rate_hz, channels);
    free(elsewhere), free(after), free(damaged), free(again), free(state), free(memory[0]), free(memory[1]);
}

int main(void)
{
    checks_arguments();
    for (int i = 0; i < RATES; i++) {
        survives(rates_hz[i], 1, 1);
        is_late_by_what_it_says(rates_hz[i], 0), is_late_by_what_it_says(rates_hz[i], 1);
    }
    survives(16000, 3, 1);
    survives(8000, APM_MAX_CHANNELS, 1);
    starts_anew(8000);
    starts_anew(48000);
    takes_no_reflection_for_a_move();
    keeps_its_state(16000, 1, 1);
    keeps_its_state(48000, 3, 1);
    survives(48000, 2, 2);
    survives(16000, 3, 2);
    is_one_reference_while_alike(16000);
    is_one_reference_while_alike(48000);
    keeps_its_state(16000, 1, 2);
    restores_states_of_other_references(16000);
    return test_failures != 0;
}
