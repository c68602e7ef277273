/* converter.h: a sine keeps its amplitude and gets no others beside it, and no sample is lost or repeated. */
#include "cards/converter.h"

#include "base/test_support.h"

enum { SECONDS = 2, FRAMES_PER_S = 100 };

static float *table_of(double ratio)
{
    float *table = test_memory(sizeof(float) * converter_table_floats(ratio));
    converter_make_table(ratio, table);
    return table;
}

static converter_t *converter_of(int channels, int samples_max, double ratio, const float *table)
{
    return converter_init(test_memory(converter_size(channels, samples_max, ratio)), channels, samples_max,
                          ratio, table);
}

/* Sums for the least-squares fit of a sine of known frequency, whose phase and amplitude are not known. */
typedef struct {
    double power, ss, sc, cc, xs, xc;
} fit_t;

static void fit_sample(fit_t *fit, double phase, double x)
{
    const double s = sin(phase), c = cos(phase);
    fit->power += x * x;
    fit->ss += s * s, fit->sc += s * c, fit->cc += c * c;
    fit->xs += x * s, fit->xc += x * c;
}

/* Part of the power that the sine explains. */
static double fit_power(const fit_t *fit)
{
    const double det = fit->ss * fit->cc - fit->sc * fit->sc,
                 a = (fit->xs * fit->cc - fit->xc * fit->sc) / det,
                 b = (fit->xc * fit->ss - fit->xs * fit->sc) / det;
    return a * fit->xs + b * fit->xc;
}

/* noise_db: level of what is not the sine in the output, relative to the sine; gain_db: that of the sine;
 * missing_samples: difference from the number of samples expected. */
typedef struct {
    double noise_db, gain_db, missing_samples;
} quality_t;

static quality_t quality_of(int in_hz, int out_hz, double ppm, double frequency_hz, int channels)
{
    const double nominal = (double)out_hz / in_hz, ratio = nominal * (1.0 + ppm * 1e-6);
    const int frame = in_hz / FRAMES_PER_S, out_max = converter_out_max(frame, nominal);
    float *table = table_of(nominal);
    converter_t *converter = converter_of(channels, frame, nominal, table);
    int16_t *in = malloc(sizeof *in * (size_t)(frame * channels)),
            *out = malloc(sizeof *out * (size_t)(out_max * channels));
    const double amplitude = 30000.0, radians = 2.0 * M_PI * frequency_hz / in_hz;
    fit_t fit = {0};
    int count = 0, given = 0;
    for (int f = 0; f < SECONDS * FRAMES_PER_S; f++) {
        for (int i = 0; i < frame; i++)
            for (int c = 0; c < channels; c++)
                in[i * channels + c] = (int16_t)lrint(amplitude * sin(radians * (f * frame + i)));
        const int samples = converter_process(converter, in, frame, ratio, out);
        for (int i = 0; i < samples; i++, given++) {
            if (f < FRAMES_PER_S)
                continue;
            fit_sample(&fit, radians * given / ratio, out[i * channels + channels - 1]);
            count++;
        }
    }
    /* the next output sample comes pending/ratio after the last input sample */
    const double expected = (SECONDS * in_hz - converter_pending(converter)) * ratio;
    const double sine = fit_power(&fit);
    free(converter), free(table), free(in), free(out);
    return (quality_t){test_db((fit.power - sine) / sine),
                       test_db(sine / count / (amplitude * amplitude / 2.0)), expected - given};
}

/* Rounding to 16 bits is 1/12 against 30000^2 / 2: -97 dB, once in the input and once in the output; the
 * table is good for -90 dB. */
static void passes(int in_hz, int out_hz, double ppm, double frequency_hz, int channels)
{
    const quality_t found = quality_of(in_hz, out_hz, ppm, frequency_hz, channels);
    CHECK(fabs(found.gain_db) < 0.01 && found.noise_db < -86.0 && fabs(found.missing_samples) < 1e-3,
          "%6d -> %6d Hz, %+5.0f ppm, %5.0f Hz: gain %+.4f dB, all else %.1f dB, %.4f samples missing", in_hz,
          out_hz, ppm, frequency_hz, found.gain_db, found.noise_db, found.missing_samples);
}

/* The quality between two clocks of the same rate: the worst of tones from 100 Hz to 0.45 of the rate, at
 * differences up to 500 ppm, the most that two crystals have. The passband, in which gains are compared, ends
 * at 0.4 of the rate. The two roundings alone are -94.3 dB. One pair of rows for each output sample instead
 * of each four gave -90.9 and 0.0008 dB. */
static void keeps_quality(int rate_hz, int channels)
{
    static const double clocks_ppm[] = {-500.0, -150.0, -50.0, 0.0, 50.0, 150.0, 500.0};
    const double tones_hz[] = {100.0,         1000.0,        0.1 * rate_hz, 0.21 * rate_hz,
                               0.3 * rate_hz, 0.4 * rate_hz, 0.45 * rate_hz};
    double noise_above_db = 0.0, ripple_db = 0.0; /* noise: above -200 dB */
    for (int p = 0; p < 7; p++)
        for (int t = 0; t < 7; t++) {
            /* no tone repeats with the frames */
            const quality_t found = quality_of(rate_hz, rate_hz, clocks_ppm[p], 0.9997 * tones_hz[t],
                                               channels);
            test_worst(&noise_above_db, found.noise_db + 200.0);
            if (tones_hz[t] <= 0.4 * rate_hz)
                test_worst(&ripple_db, fabs(found.gain_db));
        }
    CHECK(noise_above_db < 109.5 && ripple_db < 0.001,
          "%5d Hz, %d channels, +-500 ppm: all else %.2f dB at most, ripple %.4f dB", rate_hz, channels,
          noise_above_db - 200.0, ripple_db);
}

static void constant_passes(void)
{
    float *table = table_of(1.0);
    converter_t *converter = converter_of(1, 160, 1.0, table);
    int16_t in[160], out[170];
    for (int i = 0; i < 160; i++)
        in[i] = 12345;
    int same = 1;
    for (int f = 0; f < 20; f++) {
        const int samples = converter_process(converter, in, 160, 1.0007, out);
        for (int i = 0; f > 1 && i < samples; i++)
            same = same && out[i] == 12345;
    }
    CHECK(same, "a constant passes unchanged");
    free(converter), free(table);
}

/* Full scale of both signs overshoots in any filter: it is limited, not wrapped. */
static void saturates(void)
{
    float *table = table_of(1.0);
    converter_t *converter = converter_of(1, 160, 1.0, table);
    int16_t in[160], out[170];
    for (int i = 0; i < 160; i++)
        in[i] = i < 80 ? INT16_MAX : INT16_MIN;
    int least = 0, most = 0, turns = 0;
    for (int f = 0; f < 10; f++) {
        const int samples = converter_process(converter, in, 160, 1.0003, out);
        for (int i = 1; i < samples; i++) {
            least = out[i] < least ? out[i] : least;
            most = out[i] > most ? out[i] : most;
            turns += f > 0 && (out[i] < 0) != (out[i - 1] < 0);
        }
    }
    CHECK(least == INT16_MIN && most == INT16_MAX && turns <= 18, "full scale: %d to %d, %d turns", least,
          most, turns);
    free(converter), free(table);
}

int main(void)
{
    static const int rates_hz[] = {8000, 16000, 32000, 48000};
    for (int r = 0; r < 4; r++)
        for (int ppm = -1500; ppm <= 1500; ppm += 500)
            passes(rates_hz[r], rates_hz[r], ppm, 0.4 * rates_hz[r] / (1.0 + 1e-4), 1 + r % 2);
    passes(48000, 48000, 37.0, 1000.0, 8);
    passes(44100, 48000, 100.0, 15000.0, 2);
    passes(16000, 48000, 0.0, 6000.0, 1);
    passes(48000, 16000, -50.0, 6000.0, 1);
    passes(192000, 8000, 50.0, 3000.0, 1);
    passes(8000, 192000, 50.0, 3000.0, 1);
    keeps_quality(48000, 1);
    keeps_quality(16000, 2);
    constant_passes();
    saturates();
    return test_failures != 0;
}
