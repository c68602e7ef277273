/* Sample-rate converter of a stream of interleaved int16, for a card on another clock or at another rate; the
 * ratio may change with every call.
 *
 * A windowed sinc from a table with linear interpolation between its rows (J. O. Smith, P. Gossett, "A
 * flexible sampling-rate conversion method", ICASSP 1984), with a Kaiser window (A. V. Oppenheim, R. W.
 * Schafer, "Discrete-Time Signal Processing", sec. 7.5). Flat to 0.8 of the lower rate's Nyquist frequency,
 * aliases below -90 dB from 1.09 of it on: as libsamplerate's SINC_FASTEST, which took 1400 instructions a
 * sample. Between two clocks of the same rate four output samples share two rows, so that each row is loaded
 * once for the four.
 *
 * Left out: a cut-off that follows the ratio. It is that of the nominal one; clocks differ by 0.15 % at most.
 */
#ifndef APMPI_CARDS_CONVERTER_H
#define APMPI_CARDS_CONVERTER_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int channels, taps;
    int one_rate;       /* 1: the nominal ratio is 1 */
    int stride;         /* floats of history for each channel */
    int kept;           /* samples in the history, which begins with the oldest one still needed */
    int64_t position;   /* of the next output sample in the history, in 2^-32 input samples */
    const float *table; /* rows of taps, one for each phase */
    float *history;     /* channels * stride */
    float *sound;       /* scratch: the output samples of one channel */
} converter_t;

/* A table belongs to a ratio: the number of output samples for each input sample, 1/24 to 24. Any number of
 * converters may use one. It takes some ms to make on a Cortex-A53, for 1/24 a tenth of a second. */
size_t converter_table_floats(double ratio);
void converter_make_table(double ratio, float *table);

/* Bytes for a converter that takes at most samples_max per channel in a call. */
size_t converter_size(int channels, int samples_max, double ratio);

/* memory: that many bytes, aligned to ARENA_ALIGN; table: of the ratio, which outlives the converter. */
converter_t *converter_init(void *memory, int channels, int samples_max, double ratio, const float *table);

/* Largest number of samples per channel that one call returns, at ratios up to 1 % above `ratio`. */
int converter_out_max(int samples_max, double ratio);

/* Converts `count` samples per channel, count <= samples_max. out: room for converter_out_max() of the ratio.
 * Returns the number of samples per channel in `out`. */
int converter_process(converter_t *converter, const int16_t *in, int count, double ratio, int16_t *out);

/* Time from the next output sample to the next input sample, in input samples. */
double converter_pending(const converter_t *converter);

#endif
