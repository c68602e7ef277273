/* Converts 10 ms frames of noise from one clock to another, one mark before each and one after it, for the
 * instructions of a frame.
 *
 *   converter IN_RATE_HZ OUT_RATE_HZ CHANNELS FRAMES */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cards/converter.h"
#include "insncount.h"

static const double CLOCK_PPM = 50.0; /* a common difference of two crystals */

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    const int in_hz = atoi(argv[1]), out_hz = atoi(argv[2]), channels = atoi(argv[3]), frames = atoi(argv[4]),
              samples = in_hz / 100;
    const double nominal = (double)out_hz / in_hz;
    float *table = malloc(sizeof *table * converter_table_floats(nominal));
    converter_make_table(nominal, table);
    converter_t *converter = converter_init(aligned_alloc(64, converter_size(channels, samples, nominal)),
                                            channels, samples, nominal, table);
    int16_t *in = malloc(sizeof *in * (size_t)(samples * channels)),
            *out = malloc(sizeof *out * (size_t)(converter_out_max(samples, nominal) * channels));
    for (int i = 0; i < samples * channels; i++)
        in[i] = (int16_t)(i * 7919 % 20000 - 10000);
    for (int frame = 0; frame < frames; frame++) {
        syscall(MARK_SYSCALL, 0);
        converter_process(converter, in, samples, nominal * (1.0 + 1e-6 * CLOCK_PPM), out);
        syscall(MARK_SYSCALL, 1);
    }
    return 0;
}
