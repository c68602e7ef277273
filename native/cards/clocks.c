#include "cards/clocks.h"

#include <math.h>

static const double W_FINAL = 0.1; /* rad/s */
/* Range of the ratio: 1500 ppm are 2.6 cents, half of what a trained ear hears in a held note. */
static const double RATIO_MAX = 1500e-6;
/* Limit of one reading: a larger one is false (the thread was interrupted between time and position). */
static const double ERROR_MAX_S = 0.002;

static double limited(double x, double most) { return fmin(fmax(x, -most), most); }

void drift_init(drift_t *drift, double frame_s, double ppm)
{
    *drift = (drift_t){frame_s, ppm * 1e-6, 0.0, 0.0};
}

void drift_placed(drift_t *drift) { drift->since_placed_s = 0.0; }

double drift_ratio(drift_t *drift, double late_s)
{
    late_s = limited(late_s, ERROR_MAX_S);
    const double w = fmax(W_FINAL, 4.0 / (drift->since_start_s + 1.0)),
                 proportional = fmax(2.0 * w, 1.0 / (drift->since_placed_s + 0.1));
    drift->since_start_s += drift->frame_s;
    drift->since_placed_s += drift->frame_s;
    drift->integral = limited(drift->integral - w * w * late_s * drift->frame_s, DRIFT_PPM_MAX * 1e-6);
    return 1.0 + limited(drift->integral - proportional * late_s, RATIO_MAX);
}

void settling_placed(settling_t *settling) { settling->readings = 0; }

/* Adds a reading to those in ascending order. */
static void insert(settling_t *settling, double late_samples)
{
    double *readings = settling->late_samples;
    int at = settling->readings++;
    for (; at > 0 && readings[at - 1] > late_samples; at--)
        readings[at] = readings[at - 1];
    readings[at] = late_samples;
}

int settling_late_samples(settling_t *settling, double late_samples)
{
    enum { USED = SETTLING_READINGS - 2 };
    if (settling->readings == SETTLING_READINGS)
        return 0;
    insert(settling, late_samples);
    if (settling->readings < SETTLING_READINGS)
        return 0;
    double sum = 0.0, sum_of_squares = 0.0;
    for (int i = 1; i <= USED; i++) {
        sum += settling->late_samples[i];
        sum_of_squares += settling->late_samples[i] * settling->late_samples[i];
    }
    const double mean = sum / USED, variance = fmax(sum_of_squares / USED - mean * mean, 0.0);
    if (fabs(mean) < fmax(0.5, 3.0 * sqrt(variance / USED)))
        return 0;
    settling_placed(settling);
    return (int)rint(mean);
}
