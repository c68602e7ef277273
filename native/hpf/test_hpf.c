/* hpf.h: the response is Butterworth's at every rate, and a retune makes no jump. */
#include "hpf/hpf.h"

#include "base/test_support.h"

/* Amplitude of a sine after the filter, in dB. */
static double response_db(int rate_hz, double cutoff_hz, double frequency_hz)
{
    hpf_t hpf;
    hpf_init(&hpf, rate_hz, (float)cutoff_hz);
    double in_phase = 0.0, quadrature = 0.0;
    for (int i = 0; i < 2 * rate_hz; i++) {
        const double phase = 2.0 * M_PI * frequency_hz * i / rate_hz;
        float x = (float)sin(phase);
        hpf_process(&hpf, &x, 1);
        if (i >= rate_hz) { /* settled: one second, whole periods */
            in_phase += (double)x * sin(phase);
            quadrature += (double)x * cos(phase);
        }
    }
    return 20.0 * log10(2.0 * hypot(in_phase, quadrature) / rate_hz + 1e-12);
}

static void responds(int rate_hz)
{
    static const double frequencies_hz[] = {20.0, 50.0, 80.0, 150.0, 1000.0, 3000.0};
    for (unsigned i = 0; i < sizeof frequencies_hz / sizeof *frequencies_hz; i++) {
        /* the bilinear transform maps f to tan(pi f/rate) */
        const double ratio = tan(M_PI * 80.0 / rate_hz) / tan(M_PI * frequencies_hz[i] / rate_hz);
        const double wanted = -10.0 * log10(1.0 + pow(ratio, 4.0)),
                     got = response_db(rate_hz, 80.0, frequencies_hz[i]);
        CHECK(fabs(got - wanted) < 0.01, "%5d Hz: %6.2f dB at %4.0f Hz, Butterworth %6.2f dB", rate_hz, got,
              frequencies_hz[i], wanted);
    }
}

static void takes_dc_away(int rate_hz)
{
    hpf_t hpf;
    hpf_init(&hpf, rate_hz, 80.0f);
    float x = 0.0f;
    for (int i = 0; i < rate_hz; i++) {
        x = 1.0f;
        hpf_process(&hpf, &x, 1);
    }
    CHECK(fabsf(x) < 1e-4f, "%5d Hz: a constant 1 is %.1e after a second", rate_hz, (double)x);
}

static void retunes_without_a_jump(void)
{
    hpf_t hpf;
    hpf_init(&hpf, 16000, 80.0f);
    float last = 0.0f;
    double usual = 0.0, at_retune = 0.0;
    for (int i = 0; i < 32000; i++) {
        float x = (float)(0.5 + 0.3 * sin(2.0 * M_PI * 200.0 * i / 16000.0));
        if (i > 8000 && i % 1000 == 0)
            hpf_configure(&hpf, 16000, i % 2000 ? 80.0f : 120.0f);
        hpf_process(&hpf, &x, 1);
        const double step = fabs((double)(x - last));
        if (i > 4000 && i < 8000)
            test_worst(&usual, step);
        if (i > 8000 && i % 1000 == 0)
            test_worst(&at_retune, step);
        last = x;
    }
    /* the registers hold b0..b2 times the input of before: the jump is the change of b0 (1.1 %) times the
     * constant */
    CHECK(at_retune < 1.5 * usual, "retune: largest step %.4f, usual %.4f", at_retune, usual);
}

int main(void)
{
    responds(8000), responds(16000), responds(32000), responds(48000);
    takes_dc_away(8000), takes_dc_away(48000);
    retunes_without_a_jump();
    return test_failures != 0;
}
