/* The room card's WAV reader: any bytes are a file or are refused, and nothing outside them is read. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roomcard/wav.h"

static void must(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *bytes = malloc(size ? size : 1); /* exact size, for the sanitizer */
    if (size)
        memcpy(bytes, data, size);
    wav_t wav = {.bytes = bytes, .size = size};
    room_error_t error = "";
    const unsigned channels = 1 + size % 2;
    const int code = wav_parse(&wav, "fuzz.wav", channels, size % 4 > 1, error);
    must(code == 0 || (code < 0 && strncmp(error, "fuzz.wav: ", 10) == 0), "a refusal names the file");
    if (code == 0) {
        const int last = (int)wav.channels - 1;
        must(wav.frames > 0 && wav.data >= bytes, "a file has samples");
        for (int64_t i = 0; i < wav.frames; i += 1 + wav.frames / 1000)
            must(isfinite(wav_sample(&wav, last, i)), "samples are numbers");
        must(isfinite(wav_sample(&wav, last, wav.frames - 1)), "the last sample is there");
        must(wav_sample(&wav, 0, -1) == 0.0f, "before it is silence");
        must(wav_sample(&wav, 0, wav.frames) == 0.0f, "behind it is silence");
    }
    free(bytes);
    return 0;
}
