#include "cards/formats.h"

#include <string.h>

#include "base/branchless.h"

int format_bytes(format_t format)
{
    static const int bytes[] = {[FORMAT_S16] = 2, [FORMAT_S32] = 4, [FORMAT_S24_3] = 3, [FORMAT_FLOAT] = 4};
    return bytes[format];
}

/* The upper 16 of 32 bits, rounded. */
static int16_t upper_half(int32_t x)
{
    const int32_t rounded = (x >> 16) + ((x >> 15) & 1);
    return (int16_t)(rounded < INT16_MAX ? rounded : INT16_MAX);
}

void format_to_int16(format_t format, const unsigned char *raw, int count, int16_t *out)
{
    if (format == FORMAT_S16) {
        memcpy(out, raw, sizeof *out * (size_t)count);
        return;
    }
    for (int i = 0; i < count; i++) {
        if (format == FORMAT_FLOAT) {
            float x;
            memcpy(&x, raw + 4 * i, sizeof x);
            out[i] = sample_to_int16(x);
        } else if (format == FORMAT_S24_3) {
            const unsigned char *at = raw + 3 * i;
            out[i] = upper_half(
                (int32_t)((uint32_t)at[2] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[0] << 8));
        } else {
            int32_t x;
            memcpy(&x, raw + 4 * i, sizeof x);
            out[i] = upper_half(x);
        }
    }
}

void format_from_int16(format_t format, const int16_t *in, int count, unsigned char *raw)
{
    if (format == FORMAT_S16) {
        memcpy(raw, in, sizeof *in * (size_t)count);
        return;
    }
    for (int i = 0; i < count; i++) {
        if (format == FORMAT_FLOAT) {
            const float x = (float)in[i] * (1.0f / 32768.0f);
            memcpy(raw + 4 * i, &x, sizeof x);
        } else if (format == FORMAT_S24_3) {
            raw[3 * i] = 0;
            memcpy(raw + 3 * i + 1, in + i, sizeof *in);
        } else {
            const int32_t x = (int32_t)((uint32_t)(uint16_t)in[i] << 16);
            memcpy(raw + 4 * i, &x, sizeof x);
        }
    }
}
