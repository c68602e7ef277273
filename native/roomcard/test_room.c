/* The room card's parts that need no ALSA: WAV files (damaged ones included), convolution, interpolation, the
 * time axis, the card's clock, the shared card with crashing peers, the echo paths, and the microphones that
 * combine them.
 * tests/room plays and records. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/branchless.h"
#include "roomcard/card.h"
#include "roomcard/echo.h"
#include "roomcard/microphone.h"
#include "roomcard/card_clock.h"
#include "roomcard/sinc.h"
#include "roomcard/timeline.h"
#include "roomcard/wav.h"

static int failures;

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                                   \
            failures++;                                                                                      \
        }                                                                                                    \
    } while (0)

/* Not fmax: gcc 12 for arm64 crashes when it vectorises fmax here. */
static double larger(double a, double b) { return a > b ? a : b; }

static float noise(void) { return (float)rand() / (float)RAND_MAX * 2.0f - 1.0f; }

/* --- WAV --- */

static void put(unsigned char *at, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

/* A WAV file with an odd-sized chunk before its format and one after its samples; returns its size. */
static size_t make_wav(unsigned char *bytes, unsigned format, unsigned bits, unsigned channels,
                       uint32_t frames)
{
    const uint32_t fmt_bytes = format == 0xFFFE ? 40 : 16, data_bytes = frames * channels * bits / 8;
    unsigned char *p = bytes;
    memcpy(p, "RIFF\0\0\0\0WAVEjunk\3\0\0\0abc\0fmt ", 28);
    put(p += 28, fmt_bytes, 4);
    memset(p += 4, 0, fmt_bytes);
    put(p, format, 2);
    put(p + 2, channels, 2);
    put(p + 4, 16000, 4);
    put(p + 14, bits, 2);
    if (format == 0xFFFE)
        put(p + 24, bits == 32 ? 3 : 1, 2);
    memcpy(p += fmt_bytes, "data", 4);
    put(p + 4, data_bytes, 4);
    p += 8;
    for (uint32_t i = 0; i < data_bytes; i++)
        *p++ = (unsigned char)(i * 37);
    memcpy(p, "tail\2\0\0\0xy", 10);
    return (size_t)(p + 10 - bytes);
}

/* Parses an exact copy, so that the address sanitizer sees any byte read beyond it; then reads all
 * samples. */
static int parse_copy(const unsigned char *bytes, size_t size, unsigned channels)
{
    room_error_t error = "";
    wav_t wav = {.bytes = malloc(size ? size : 1), .size = size};
    memcpy(wav.bytes, bytes, size);
    const int code = wav_parse(&wav, "x.wav", channels, false, error), last = (int)channels - 1;
    if (code < 0) {
        CHECK(code == -EINVAL && strncmp(error, "x.wav: ", 7) == 0 && strlen(error) < 200);
    } else {
        CHECK(wav.frames > 0);
        for (int64_t i = -1; i <= wav.frames; i++)
            CHECK(fabsf(wav_sample(&wav, last, i)) >= 0.0f); /* no NaN */
        CHECK(wav_sample(&wav, 0, -1) == 0.0f && wav_sample(&wav, 0, wav.frames) == 0.0f);
    }
    wav_free(&wav);
    return code;
}

static void test_wav_parse(void)
{
    unsigned char good[1024], bad[1024];
    const struct {
        unsigned format, bits, channels, expected;
        bool fine;
    } kind[] = {{1, 16, 1, 1, true},  {3, 32, 1, 1, true}, {0xFFFE, 16, 1, 1, true}, {0xFFFE, 32, 1, 1, true},
                {1, 16, 8, 8, true},  {3, 32, 2, 2, true}, {1, 16, 2, 1, false},     {1, 16, 1, 2, false},
                {1, 24, 1, 1, false}, {1, 8, 1, 1, false}, {1, 32, 1, 1, false},     {3, 16, 1, 1, false},
                {1, 16, 0, 1, false}, {6, 8, 1, 1, false}, {3, 64, 1, 1, false},     {1, 0, 1, 1, false}};
    int accepted = 0, tried = 0;
    for (size_t k = 0; k < sizeof kind / sizeof kind[0]; k++) {
        const size_t size = make_wav(good, kind[k].format, kind[k].bits, kind[k].channels, 40);
        const unsigned channels = kind[k].expected;
        CHECK((parse_copy(good, size, channels) == 0) == kind[k].fine);
        for (size_t cut = 0; cut < size; cut++) {
            const int code = parse_copy(good, cut, channels);
            CHECK(code < 0 || cut >= size - 10); /* whole only without the chunk after the samples */
        }
        for (int round = 0; round < 4000; round++) {
            memcpy(bad, good, size);
            for (int changes = 1 + rand() % 6; changes > 0; changes--)
                bad[rand() % (int)(rand() % 2 ? size : 60)] = (unsigned char)(rand() % 3
                                                                                  ? rand()
                                                                                  : 255 * (rand() % 2));
            accepted += parse_copy(bad, size, channels) == 0;
            tried++;
        }
    }
    room_error_t error;
    const size_t size = make_wav(good, 1, 16, 1, 3);
    wav_t wav = {.bytes = good, .size = size};
    put(good + size - 10 - 6, 0x8000, 2);
    put(good + size - 10 - 4, 0x7FFF, 2);
    put(good + size - 10 - 2, 0xFFFF, 2);
    CHECK(wav_parse(&wav, "x", 1, false, error) == 0 && wav.rate_hz == 16000 && wav.frames == 3);
    CHECK(wav_sample(&wav, 0, 0) == -1.0f && sample_to_int16(wav_sample(&wav, 0, 1)) == 32767);
    CHECK(sample_to_int16(wav_sample(&wav, 0, 2)) == -1);
    CHECK(sample_to_int16(2.0f) == 32767 && sample_to_int16(-2.0f) == -32768);
    printf("wav: %d garbled headers, %d still a WAV file\n", tried, accepted);
}

static void test_recorder(const char *folder)
{
    char path[256];
    room_error_t error;
    recorder_t recorder = {.channels = 1};
    wav_t wav = {0};
    float ramp[1000];
    for (int i = 0; i < 1000; i++)
        ramp[i] = (float)(i + 1) / 32768.0f;
    snprintf(path, sizeof path, "%s/record.wav", folder);

    CHECK(recorder_open(&recorder, path, 48000, true, error) == 0);
    CHECK(wav_load(&wav, path, 1, false, error) == -EINVAL); /* valid, but without samples */
    CHECK(recorder_write(&recorder, 500, ramp, 1000) == 0);
    CHECK(wav_load(&wav, path, 1, false, error) == 0 && wav.frames == 1500 && wav.rate_hz == 48000);
    CHECK(sample_to_int16(wav_sample(&wav, 0, 499)) == 0 &&
          sample_to_int16(wav_sample(&wav, 0, 1499)) == 1000);
    wav_free(&wav);
    recorder_close(&recorder, 2000);
    CHECK(recorder_open(&recorder, path, 48000, false, error) == 0); /* goes on */
    CHECK(recorder_write(&recorder, 2500, ramp, 1) == 0);
    recorder_close(&recorder, 0);
    CHECK(wav_load(&wav, path, 1, false, error) == 0 && wav.frames == 2501);
    CHECK(sample_to_int16(wav_sample(&wav, 0, 500)) == 1 && sample_to_int16(wav_sample(&wav, 0, 2500)) == 1);
    wav_free(&wav);

    recorder.channels = 2;
    CHECK(recorder_open(&recorder, path, 16000, true, error) == 0);
    CHECK(recorder_write(&recorder, 100, ramp, 500) == 0); /* more than is written in one piece */
    recorder_close(&recorder, 700);
    CHECK(wav_load(&wav, path, 2, false, error) == 0 && wav.frames == 700 && wav.channels == 2);
    CHECK(wav_sample(&wav, 1, 99) == 0.0f && wav_sample(&wav, 0, 600) == 0.0f);
    for (int i = 0; i < 1000; i++)
        CHECK(sample_to_int16(wav_sample(&wav, i % 2, 100 + i / 2)) == i + 1);
    wav_free(&wav);
    CHECK(recorder_open(&recorder, "/nowhere/record.wav", 48000, true, error) == -ENOENT);
    CHECK(recorder.fd == -1 && strcmp(error, "/nowhere/record.wav: No such file or directory") == 0);
    CHECK(wav_load(&wav, "/nowhere/h.wav", 1, false, error) == -ENOENT &&
          wav_load(&wav, folder, 1, false, error) == -EINVAL);
    unlink(path);
}

/* --- convolution --- */

static void test_echo(void)
{
    enum { LENGTH = 6000, LONGEST = 4000 };
    static const int taps[] = {1, 2, 255, 256, 257, 511, 512, 513, 1000, LONGEST};
    static float h[LONGEST], x[LENGTH], y[LENGTH];
    double worst = 0.0;
    for (size_t t = 0; t < sizeof taps / sizeof taps[0]; t++) {
        double energy = 0.0;
        for (int i = 0; i < taps[t]; i++) {
            h[i] = noise();
            energy += (double)(h[i] * h[i]);
        }
        echo_t *echo = echo_create(h, taps[t]);
        for (int pass = 0; pass < 2; pass++) { /* the second one after a reset */
            for (int i = 0; i < LENGTH; i++)
                x[i] = noise();
            memcpy(y, x, sizeof y);
            for (int at = 0; at < LENGTH;) {
                int part = rand() % 3 ? rand() % 700 : rand() % 4;
                if (part > LENGTH - at)
                    part = LENGTH - at;
                echo_process(echo, y + at, y + at, part);
                at += part;
            }
            for (int i = 0; i < LENGTH; i++) {
                double direct = 0.0;
                for (int j = 0; j < taps[t] && j <= i; j++)
                    direct += (double)h[j] * (double)x[i - j];
                worst = larger(worst, fabs(direct - (double)y[i]) / sqrt(energy));
            }
            echo_reset(echo);
        }
        echo_free(echo);
    }
    /* 2^-24 for each of some 2 * 9 butterfly passes, times the peak (about 4) of x in units of its sum's
     * RMS. */
    printf("echo: worst error %.1e of the response's RMS, limit 5e-6\n", worst);
    CHECK(worst < 5e-6);
}

/* --- interpolation --- */

static void test_sinc(void)
{
    sinc_init();
    double worst = 0.0;
    for (int f = 1; f <= 40; f++) { /* up to 0.8 of the Nyquist frequency */
        const double omega = 0.8 * M_PI * f / 40;
        for (int p = 0; p < 200; p++) {
            const double fraction = (p + 0.37) / 200;
            float x[SINC_TAPS];
            for (int i = 0; i < SINC_TAPS; i++)
                x[i] = (float)cos(omega * (i - (SINC_HALF - 1)) + f);
            worst = larger(worst, fabs((double)sinc_at(x, fraction) - cos(omega * fraction + f)));
        }
    }
    float impulse[SINC_TAPS] = {[SINC_HALF - 1] = 1.0f};
    printf("sinc: worst error %.1f dB to 0.8 Nyquist, limit -84 dB\n", 20.0 * log10(worst));
    CHECK(20.0 * log10(worst) < -84.0);
    CHECK(sinc_at(impulse, 0.0) == 1.0f);
    impulse[SINC_HALF - 1] = 0.0f;
    impulse[SINC_HALF] = 1.0f;
    CHECK(fabsf(sinc_at(impulse, 0.0)) < 1e-7f);
}

/* --- time axis --- */

static void test_faults(void)
{
    static faults_t faults;
    room_error_t error;
    const char *text =
        " capture:xrun@5.0 playback:unplug@8\tplayback:replug@9.5  both:stall@0.25+0.5 both:unplug@20 ";
    CHECK(faults_parse(&faults, text, ROOM_CAPTURE, error) == 0 && faults.count == 3);
    CHECK(faults.item[0].kind == FAULT_STALL && faults.item[0].at_s == 0.25 && faults.item[0].for_s == 0.5);
    CHECK(faults_plugged(&faults, 19.99) && !faults_plugged(&faults, 20.0));
    CHECK(faults_parse(&faults, text, ROOM_PLAYBACK, error) == 0 && faults.count == 4);
    CHECK(faults_plugged(&faults, 7.9) && !faults_plugged(&faults, 8.0) && faults_plugged(&faults, 9.5));
    CHECK(faults_next_unplug(&faults, 0.0) == 8.0 && faults_next_unplug(&faults, 8.0) == 20.0);
    CHECK(isinf(faults_next_unplug(&faults, 20.0)));
    CHECK(faults_parse(&faults, "", ROOM_PLAYBACK, error) == 0 && faults.count == 0);

    static const char *const wrong[] = {"xrun@5",
                                        "capture:xrun",
                                        "capture:xrun@",
                                        "capture:xrun@-1",
                                        "capture:xrun@inf",
                                        "capture:xrun@nan",
                                        "capture:xrun@1+1",
                                        "capture:stall@1",
                                        "capture:stall@1+",
                                        "both:burn@1",
                                        "capture:xrun@1.2.3",
                                        "capture:xrun@.",
                                        "capture:xrun@0x1",
                                        "capture xrun@1",
                                        "playback:stall@1+1+1",
                                        "microphone:xrun@1",
                                        "both:xrun@100000001",
                                        "both:stall@1+9999999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        *error = '\0';
        CHECK(faults_parse(&faults, wrong[i], ROOM_CAPTURE, error) == -EINVAL &&
              strstr(error, "faults: \"") == error);
    }
    CHECK(faults_parse(&faults, "both:stall@100000000+100000000", ROOM_CAPTURE, error) == 0);
}

static void test_faults_of_random_text(void)
{
    static faults_t faults;
    static run_t run;
    room_error_t error;
    char garbage[200];
    for (int round = 0; round < 20000; round++) {
        static const char *const piece[] = {
            "both:", "capture:", "xrun@", "stall@",  "1",
            ".5",    "+",        " ",     "unplug@", "999999999999999999999999999999999999999",
            "@",     ":",        "\n",    "-"};
        *garbage = '\0';
        for (int i = rand() % 8; i > 0; i--) {
            const char *next = piece[rand() % 14];
            if (strlen(garbage) + strlen(next) < sizeof garbage)
                strcat(garbage, next);
        }
        (void)faults_parse(&faults, garbage, ROOM_CAPTURE, error);
        run_begin(&run, 0, 0.0, &faults,
                  ROOM_RATE_MAX_HZ); /* every accepted time fits into a count of samples */
        int64_t free_from = 0;
        for (int i = 0; i < run.stalls; i++) {
            CHECK(run.stall[i].at >= free_from && run.stall[i].length > 0);
            free_from = run.stall[i].at + run.stall[i].length;
        }
        CHECK(run_position(&run, 1) < 9e18);
    }
}

static void test_run(void)
{
    static faults_t faults;
    static run_t run;
    room_error_t error;
    CHECK(faults_parse(&faults,
                       "both:stall@1+0.5 both:stall@1.25+0.5 both:stall@3+0.001 both:xrun@5 both:stall@7+1",
                       ROOM_CAPTURE, error) == 0);
    run_begin(&run, 500, 0.0, &faults, 1000);
    CHECK(run.end == 5000 && run.stalls == 4); /* the first two overlap: still from 1000 to 1750 */
    CHECK(run_position(&run, 0) == 500 && run_position(&run, 499) == 999 && run_position(&run, 500) == 1750);
    CHECK(run_position(&run, 1749) == 2999 && run_position(&run, 1750) == 3001);
    CHECK(run_frames(&run, 1000) == 500 && run_frames(&run, 1500) == 500 && run_frames(&run, 1751) == 501);
    CHECK(run_frames(&run, 0) == 0 && run_stalled(&run, 1749) && !run_stalled(&run, 1750) &&
          !run_stalled(&run, 999));
    run_begin(&run, 1500, 0.0, &faults, 1000); /* starts within a stall */
    CHECK(run_position(&run, 0) == 1750 && run_frames(&run, 1750) == 0 && run_frames(&run, 1752) == 2);
    run_begin(&run, 5000, 0.0, &faults, 1000); /* that xrun is past */
    CHECK(run.end == INT64_MAX);

    double worst = 0.0, before = -1.0;
    run_begin(&run, INT64_C(48000) * 86400 * 7, 137.0, &faults, 48000);
    for (int64_t frame = 0; frame < 400000; frame += 77) {
        const double position = run_position(&run, frame);
        CHECK(position > before);
        before = position;
        worst = larger(worst, fabs(run_frames(&run, position) - (double)frame));
    }
    printf("run: frame -> position -> frame errs by %.1e samples after a week at 48 kHz\n", worst);
    CHECK(worst < 1e-4);
    CHECK(fabs(run_frames(&run, (double)run.start + 1e6) - 1000137.0) < 1e-3);
}

/* --- the card's clock --- */

static void test_card_clock(void)
{
    const int64_t ms = 1000000;
    card_clock_t clock = 0;
    card_clock_advance(&clock, 0);
    CHECK(card_clock_now_ns(&clock, 2 * ms) == 2 * ms);
    CHECK(card_clock_now_ns(&clock, 3 * ms) == 3 * ms && card_clock_now_ns(&clock, 40 * ms) == 3 * ms);

    /* 40 ms without a tick: 3 ms have passed, and time continues from there. */
    card_clock_advance(&clock, 40 * ms);
    const int64_t woken_ns = card_clock_now_ns(&clock, 40 * ms);
    CHECK(woken_ns >= 3 * ms && woken_ns < 3 * ms + CARD_CLOCK_LOST_UNIT_NS);
    CHECK(card_clock_now_ns(&clock, 41 * ms) == woken_ns + ms);
    CHECK(card_clock_inverse_ns(&clock, woken_ns + ms) == 41 * ms);

    /* A tick of another thread that comes out of order is ignored. */
    card_clock_advance(&clock, 50 * ms);
    const int64_t later_ns = card_clock_now_ns(&clock, 52 * ms);
    card_clock_advance(&clock, 45 * ms);
    CHECK(card_clock_now_ns(&clock, 52 * ms) == later_ns);

    /* An hour with a tick every millisecond, and once a second one that is 17 ms late: 3.6 s later than it
     * may be. */
    clock = 0;
    int64_t before_ns = 0, late_ns = 0;
    bool backwards = false;
    for (int64_t second = 0; second < 3600; second++) {
        for (int64_t tick = 0; tick < 1000; tick++) {
            const int64_t now_ns = second * 1000 * ms + (tick < 500 || tick >= 517 ? tick : 517) * ms;
            card_clock_advance(&clock, now_ns);
            backwards |= card_clock_now_ns(&clock, now_ns) < before_ns;
            before_ns = card_clock_now_ns(&clock, now_ns);
        }
        late_ns += (517 - 499 - 3) * ms;
    }
    const int64_t error_ns = 3599999 * ms - late_ns - before_ns;
    printf("card clock: %.3f ms lost too much in an hour of standstills\n", (double)error_ns * 1e-6);
    CHECK(!backwards && error_ns <= 0 && error_ns > -3600 * (int64_t)CARD_CLOCK_LOST_UNIT_NS);
}

/* --- the shared card --- */

static char card_path[128];
static char card_name[64];

static void make_card_name(const char *test)
{
    snprintf(card_name, sizeof card_name, "test-%s-%d", test, (int)getpid());
    snprintf(card_path, sizeof card_path, "/apmpi-room-%u-%s", (unsigned)geteuid(), card_name);
}

static const card_kind_t CARD_KIND = {.speed = 1.0, .loudspeakers = 2};

static bool open_card(card_t *card, room_direction_t direction)
{
    room_error_t error = "";
    const int code = card_open(card, card_name, direction, CARD_KIND, error);
    if (code < 0)
        printf("card_open: %d %s\n", code, error);
    return code == 0;
}

#ifndef WITHOUT_PEERS

/* Opens the card in a process of its own and plays one sample at 7; then waits to be killed, or crashes. */
static pid_t start_peer(int64_t *epoch_ns, bool crash)
{
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        card_t card;
        if (!open_card(&card, ROOM_PLAYBACK))
            _exit(1);
        speaker_writer_t writer = speaker_begin(&card);
        speaker_put(&writer, 7, (float[]){0.7f, -0.7f});
        speaker_publish(&writer);
        if (write(pipes[1], &card.header->epoch_ns, sizeof *epoch_ns) != sizeof *epoch_ns)
            _exit(1);
        if (crash)
            _exit(9);
        pause();
    }
    close(pipes[1]);
    CHECK(read(pipes[0], epoch_ns, sizeof *epoch_ns) == sizeof *epoch_ns);
    close(pipes[0]);
    return pid;
}

/* The loudspeaker's ring: gaps and what is cut are silent, a lap overwrites the one before. */
static void check_ring(const card_t *playback, const card_t *capture)
{
    float heard[10];
    speaker_writer_t writer = speaker_begin(playback);
    speaker_put(&writer, 20, (float[]){0.2f, 0.1f});
    speaker_put(&writer, 22, (float[]){0.4f, 0.3f});
    speaker_put(&writer, 23, (float[]){0.6f, 0.5f});
    speaker_publish(&writer);
    speaker_cut(playback, 23);
    speaker_read(capture, 0, 17, heard, 10);
    CHECK(heard[3] == 0.2f && heard[4] == 0.0f && heard[5] == 0.4f && heard[6] == 0.0f);
    speaker_read(capture, 1, 17, heard, 10);
    CHECK(heard[3] == 0.1f && heard[4] == 0.0f && heard[5] == 0.3f && heard[6] == 0.0f);
    writer = speaker_begin(playback);
    speaker_put(&writer, CARD_RING_FRAMES * 3 + 21, (float[]){0.8f, 0.7f});
    speaker_publish(&writer);
    speaker_read(capture, 0, 17, heard, 10);
    CHECK(heard[3] == 0.0f && heard[5] == 0.0f);
    speaker_read(capture, 0, CARD_RING_FRAMES * 3 + 17, heard, 10);
    CHECK(heard[3] == 0.0f && heard[4] == 0.8f && heard[5] == 0.0f);
}

static void test_card(void)
{
    card_t playback, capture, second;
    room_error_t error;
    int64_t peer_epoch_ns;
    make_card_name("card");

    /* A file left by something else, of a wrong and of the right size. */
    for (int size = 100; size <= 3000000; size += 2999900) {
        char *garbage = malloc((size_t)size);
        memset(garbage, 0xA5, (size_t)size);
        const int fd = shm_open(card_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        CHECK(write(fd, garbage, (size_t)size) == size);
        close(fd);
        free(garbage);
        pid_t pid = start_peer(&peer_epoch_ns, true);
        waitpid(pid, NULL, 0);
    }

    /* The peer has crashed: no process holds the card, so its content is discarded. */
    CHECK(open_card(&capture, ROOM_CAPTURE));
    const int64_t epoch_ns = capture.header->epoch_ns;
    float heard[10];
    speaker_read(&capture, 0, 0, heard, 10);
    CHECK(epoch_ns > peer_epoch_ns && heard[7] == 0.0f && card_now_s(&capture) < 1.0);
    CHECK(card_open(&second, card_name, ROOM_CAPTURE, CARD_KIND, error) == -EBUSY);
    const card_kind_t fast = {2.0, 2}, mono = {1.0, 1};
    CHECK(card_open(&second, card_name, ROOM_PLAYBACK, fast, error) == -EINVAL &&
          strncmp(error, "speed: 2", 8) == 0);
    CHECK(card_open(&second, card_name, ROOM_PLAYBACK, mono, error) == -EINVAL &&
          strncmp(error, "loudspeakers: 1", 15) == 0 && strstr(error, "has 2 already"));
    CHECK(card_other_rate_hz(&capture) == 0);

    /* A peer that joins reads and plays on the same axis; when it is killed the direction is free. */
    pid_t pid = start_peer(&peer_epoch_ns, false);
    CHECK(peer_epoch_ns == epoch_ns);
    CHECK(card_open(&second, card_name, ROOM_PLAYBACK, CARD_KIND, error) == -EBUSY);
    speaker_read(&capture, 0, 0, heard, 10);
    CHECK(heard[7] == 0.7f && heard[6] == 0.0f && heard[8] == 0.0f);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK(open_card(&playback, ROOM_PLAYBACK));
    atomic_store(&playback.header->rate_hz[ROOM_PLAYBACK], 16000);
    CHECK(card_other_rate_hz(&capture) == 16000);
    check_ring(&playback, &capture);

    /* Closing does not end the card while this process lives, nor for other processes. */
    card_close(&playback);
    CHECK(card_other_rate_hz(&capture) == 0);
    card_close(&capture);
    pid = start_peer(&peer_epoch_ns, true);
    waitpid(pid, NULL, 0);
    CHECK(peer_epoch_ns == epoch_ns);

    /* Another version of the plugin holds the card. */
    CHECK(open_card(&capture, ROOM_CAPTURE));
    capture.header->version++;
    CHECK(card_open(&second, card_name, ROOM_PLAYBACK, CARD_KIND, error) == -EPROTO &&
          strstr(error, "another version"));
    capture.header->version--;
    card_close(&capture);
    shm_unlink(card_path);
}

static void sleep_ms(long ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }

/* SIGSTOP of a process simulates a standstill of the machine for its threads: 200 ms of 300 do not pass. */
static void test_standstill(void)
{
    card_t card;
    int64_t epoch_ns;
    make_card_name("still");
    pid_t pid = start_peer(&epoch_ns, false);
    sleep_ms(50);
    kill(pid, SIGSTOP);
    sleep_ms(200);
    kill(pid, SIGCONT);
    sleep_ms(50);
    CHECK(open_card(&card, ROOM_CAPTURE));
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double shown_s = card_now_s(&card),
                 passed_s = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - (double)epoch_ns * 1e-9;
    printf("card clock: %.0f ms of %.0f ms with a standstill of 200 ms\n", 1e3 * shown_s, 1e3 * passed_s);
    CHECK(passed_s >= 0.3 && passed_s - shown_s > 0.19);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    card_close(&card);
    shm_unlink(card_path);
}

#endif

/* --- the echo paths --- */

static paths_t all_well(int loudspeakers, int microphones, const wav_t *file)
{
    return (paths_t){loudspeakers, microphones, {1.0f, 1.0f}, {1.0f, 1.0f, 1.0f, 1.0f}, file};
}

static void test_paths_scale(void)
{
    room_error_t error = "";
    const wav_t none = {0};
    paths_t paths = all_well(2, 3, &none);
    CHECK(paths_scale(&paths, "inverted", " loudspeaker2\tmicrophone3 ", -1.0f, error) == 0);
    CHECK(paths_scale(&paths, "dead", "microphone1", 0.0f, error) == 0 &&
          paths_scale(&paths, "dead", "", 0.0f, error) == 0);
    CHECK(paths.loudspeaker_gain[0] == 1.0f && paths.loudspeaker_gain[1] == -1.0f);
    CHECK(paths.microphone_gain[0] == 0.0f && paths.microphone_gain[1] == 1.0f &&
          paths.microphone_gain[2] == -1.0f);
    static const char *const wrong[] = {"microphone4",
                                        "loudspeaker3",
                                        "microphone0",
                                        "microphone",
                                        "microphone11",
                                        "Microphone1",
                                        "1",
                                        "loudspeaker-",
                                        "microphone1,microphone2",
                                        "a_word_that_is_longer_than_what_a_sentence_can_quote_of_it"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK(paths_scale(&paths, "dead", wrong[i], 0.0f, error) == -EINVAL &&
              strstr(error, "dead: \"") == error &&
              strstr(error, "expected loudspeaker1 to loudspeaker2 or microphone1 to microphone3"));
}

/* The generated responses: no two are alike, the direct sound is the largest tap and comes when the sound has
 * covered the distance; a single pair is a wire. */
static void test_generated_paths(void)
{
    enum { RATE_HZ = 16000, PAIRS = ROOM_LOUDSPEAKERS_MAX * ROOM_MICROPHONES_MAX };
    const wav_t none = {0};
    const paths_t wire = all_well(1, 1, &none),
                  paths = all_well(ROOM_LOUDSPEAKERS_MAX, ROOM_MICROPHONES_MAX, &none);
    float tap[1] = {0.0f};
    CHECK(paths_taps(&wire, RATE_HZ) == 1);
    paths_response(&wire, 0, 0, RATE_HZ, tap);
    CHECK(tap[0] == 1.0f);

    const int taps = paths_taps(&paths, RATE_HZ);
    float *responses = calloc((size_t)(PAIRS * taps), sizeof *responses);
    double largest_match = 0.0;
    for (int p = 0; p < PAIRS; p++) {
        float *response = responses + p * taps;
        paths_response(&paths, p / ROOM_MICROPHONES_MAX, p % ROOM_MICROPHONES_MAX, RATE_HZ, response);
        int first = 0;
        while (response[first] == 0.0f)
            first++;
        double energy = 0.0, late = 0.0;
        for (int i = 0; i < taps; i++) {
            CHECK(i == first || fabsf(response[i]) < response[first]);
            energy += (double)response[i] * (double)response[i];
            late += i > taps / 2 ? (double)response[i] * (double)response[i] : 0.0;
        }
        CHECK(first >= 6 && first <= 13);                              /* 0.13 to 0.27 m */
        CHECK(energy > 0.06 && energy < 0.4 && late < 0.002 * energy); /* 30 dB below after 0.1 s */
        for (int q = 0; q < p; q++) {
            double match = 0.0, other = 0.0;
            for (int i = 0; i < taps; i++) {
                match += (double)response[i] * (double)responses[q * taps + i];
                other += (double)responses[q * taps + i] * (double)responses[q * taps + i];
            }
            largest_match = larger(largest_match, fabs(match) / sqrt(energy * other));
        }
    }
    /* Pairs at the same distance share the direct sound, which is most of the energy. */
    printf("paths: correlation of two of the generated responses at most %.2f, limit 0.9\n", largest_match);
    CHECK(largest_match < 0.9);
    free(responses);
}

/* --- the microphones --- */

enum {
    LOUDSPEAKERS = 2,
    MICROPHONES = 2,
    TAPS = 700,
    DELAY = 33,
    LENGTH = 5000,
    NEAR = 900,
    NEAR_START = 1234
};

/* The echo at a microphone of the clipped x[loudspeaker][0..at], by the definition of convolution. */
static double echo_directly(const paths_t *paths, float x[][LENGTH], int microphone, int at, double clip_db)
{
    const double g = pow(10.0, clip_db / 20.0);
    double sum = 0.0;
    for (int l = 0; l < paths->loudspeakers; l++) {
        const int channel = l * paths->microphones + microphone;
        const double gain = (double)(paths->loudspeaker_gain[l] * paths->microphone_gain[microphone]);
        for (int j = 0; j < TAPS && j <= at; j++) {
            const double drive = (double)x[l][at - j];
            sum += gain * (double)wav_sample(paths->file, channel, j) *
                   (clip_db > 0.0 ? tanh(g * drive) / g : drive);
        }
    }
    return sum;
}

/* Reads microphone `number` at many positions; returns the worst error. */
static double microphone_error(const microphone_room_t *room, int number, float x[][LENGTH])
{
    static double expected[LENGTH];
    for (int i = 0; i < LENGTH; i++)
        expected[i] = echo_directly(room->paths, x, number, i - DELAY, room->clip_db) +
                      (double)(room->paths->microphone_gain[number] *
                               wav_sample(room->near, room->near->channels > 1 ? number : 0, i - NEAR_START));
    double worst = 0.0;
    microphone_t *microphone = microphone_create(room, number);
    for (int round = 0; round < 300; round++) { /* forwards, backwards, far ahead: the same samples */
        float out[200];
        const int at = round < 20 ? 100 * round : rand() % (LENGTH - 200);
        microphone_read(microphone, at, out, 200);
        for (int i = 0; i < 200; i++)
            worst = larger(worst, fabs((double)out[i] - expected[at + i]));
    }
    microphone_free(microphone);
    return worst;
}

static void test_microphone(void)
{
    static unsigned char h_bytes[4 * TAPS * LOUDSPEAKERS * MICROPHONES], near_bytes[2 * NEAR * MICROPHONES];
    static float x[LOUDSPEAKERS][LENGTH];
    card_t playback, capture;
    make_card_name("microphone");
    CHECK(open_card(&playback, ROOM_PLAYBACK) && open_card(&capture, ROOM_CAPTURE));
    wav_t h = {.bytes = h_bytes, .data = h_bytes, .frames = TAPS, .is_float = true};
    wav_t near = {.bytes = near_bytes, .data = near_bytes, .frames = NEAR};
    for (int i = 0; i < TAPS * LOUDSPEAKERS * MICROPHONES; i++) {
        const float tap = noise() / 20.0f;
        memcpy(h_bytes + 4 * i, &tap, 4);
    }
    for (int i = 0; i < NEAR * MICROPHONES; i++)
        put(near_bytes + 2 * i, (uint32_t)rand(), 2);
    speaker_writer_t writer = speaker_begin(&playback);
    for (int i = 0; i < LENGTH; i++) {
        const float samples[] = {x[0][i] = noise(), x[1][i] = noise()};
        speaker_put(&writer, i, samples);
    }
    speaker_publish(&writer);
    atomic_store(&capture.header->near_start, NEAR_START);

    for (int clip = 0; clip < 2; clip++) {
        for (int pairs = 1; pairs <= LOUDSPEAKERS * MICROPHONES; pairs += LOUDSPEAKERS * MICROPHONES - 1) {
            paths_t paths = pairs == 1 ? all_well(1, 1, &h) : all_well(LOUDSPEAKERS, MICROPHONES, &h);
            h.channels = (unsigned)pairs;
            near.channels = pairs == 1 ? 1 : MICROPHONES;
            if (pairs > 1)
                paths.loudspeaker_gain[1] = paths.microphone_gain[0] = -1.0f;
            const microphone_room_t room = {&capture, &paths, &near, 16000, DELAY, 12.0 * clip};
            for (int m = 0; m < paths.microphones; m++) {
                const double worst = microphone_error(&room, m, x);
                /* Sums of some ten thousand float products at an amplitude of 2: 2^-23 * 2 times a few
                 * roundings. */
                printf("microphone %d of %d pairs, clip %g dB: worst error %.1e of full scale, limit 4e-6\n",
                       m + 1, pairs, room.clip_db, worst);
                CHECK(worst < 4e-6);
            }
        }
    }
    card_close(&playback);
    card_close(&capture);
    shm_unlink(card_path);
}

int main(void)
{
    const unsigned seed = 1;
    srand(seed);
    printf("seed %u\n", seed);
    char folder[] = "/tmp/test_room.XXXXXX";
    CHECK(mkdtemp(folder) != NULL);

    test_wav_parse();
    test_recorder(folder);
    test_echo();
    test_sinc();
    test_faults();
    test_faults_of_random_text();
    test_run();
    test_card_clock();
#ifndef WITHOUT_PEERS
    test_card();
    test_standstill();
#endif
    test_paths_scale();
    test_generated_paths();
    test_microphone();

    rmdir(folder);
    printf(failures ? "%d failed\n" : "ok\n", failures);
    return failures != 0;
}
