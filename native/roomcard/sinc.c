#include "roomcard/sinc.h"

#include <math.h>
#include <pthread.h>

enum { PHASES = 1024 }; /* error of linear interpolation between them: (pi / PHASES)^2 / 8 = -118 dB */

/* Side lobes at -90 dB; the transition then begins at 0.8 of the Nyquist frequency. */
#define KAISER_BETA 9.0

static float table[PHASES + 1][SINC_TAPS];

static double bessel_i0(double x)
{
    double term = 1.0, sum = 1.0;
    for (int k = 1; term > 1e-12 * sum; k++) {
        term *= (x / (2 * k)) * (x / (2 * k));
        sum += term;
    }
    return sum;
}

static void fill_table(void)
{
    for (int phase = 0; phase <= PHASES; phase++) {
        for (int tap = 0; tap < SINC_TAPS; tap++) {
            const double t = tap - (SINC_HALF - 1) - (double)phase / PHASES;
            const double u = t / SINC_HALF;
            const double window = fabs(u) < 1.0
                                      ? bessel_i0(KAISER_BETA * sqrt(1.0 - u * u)) / bessel_i0(KAISER_BETA)
                                      : 0.0;
            table[phase][tap] = (float)(t == 0.0 ? 1.0 : window * sin(M_PI * t) / (M_PI * t));
        }
    }
}

void sinc_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_table);
}

float sinc_at(const float *x, double fraction)
{
    const double position = fraction * PHASES;
    const int phase = (int)position;
    float *const low = table[phase], *const high = table[phase + 1];
    float a = 0.0f, b = 0.0f;
    for (int tap = 0; tap < SINC_TAPS; tap++) {
        a += x[tap] * low[tap];
        b += x[tap] * high[tap];
    }
    return a + (float)(position - phase) * (b - a);
}
