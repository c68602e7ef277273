#include "base/tape.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"

enum { FLOATS = 1, FLOAT = 2, INT = 3 };

/* The place of the next `bytes`; NULL while measuring. The layout is the FNV-1a hash (G. Fowler, L. Noll,
 * K.-P. Vo) of kinds and counts. */
static unsigned char *take(tape_t *tape, uint32_t kind, size_t count, size_t bytes)
{
    unsigned char *at = tape->mode == TAPE_MEASURE ? NULL : tape->bytes + tape->used;
    const uint32_t words[] = {kind, (uint32_t)count};
    for (int i = 0; i < 2; i++)
        for (int shift = 0; shift < 32; shift += 8)
            tape->layout = (tape->layout ^ (words[i] >> shift & 0xffu)) * 16777619u;
    tape->used += bytes;
    return at;
}

/* 0 for a NaN. */
static int within(float value, float low, float high) { return value >= low && value <= high; }

static float limited(float value, float low, float high)
{
    return isfinite(value) ? clamp(value, low, high) : value;
}

/* The upper 16 bits, to nearest, ties to even. */
static uint16_t rounded(float value)
{
    uint32_t word;
    if (isnan(value))
        return 0x7fc0; /* a quiet NaN: rounding carries some NaNs into the sign bit, which makes them 0 */
    memcpy(&word, &value, sizeof word);
    return (uint16_t)((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
}

static float unpacked(uint16_t kept)
{
    const uint32_t word = (uint32_t)kept << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

void tape_floats(tape_t *tape, float *values, size_t count, float low, float high)
{
    unsigned char *at = take(tape, FLOATS, count, sizeof(uint16_t) * count);
    const float least = unpacked(rounded(low)), most = unpacked(rounded(high)); /* rounding is monotonic */
    for (size_t i = 0; at && i < count; i++) {
        uint16_t kept;
        if (tape->mode == TAPE_RECORD) {
            kept = rounded(limited(values[i], low, high));
            memcpy(at + sizeof kept * i, &kept, sizeof kept);
            continue;
        }
        memcpy(&kept, at + sizeof kept * i, sizeof kept);
        if (tape->mode == TAPE_PLAY)
            values[i] = unpacked(kept);
        else
            tape->odd += !within(unpacked(kept), least, most);
    }
}

void tape_float(tape_t *tape, float *value, float low, float high)
{
    float kept;
    unsigned char *at = take(tape, FLOAT, 1, sizeof kept);
    if (tape->mode == TAPE_RECORD) {
        kept = limited(*value, low, high);
        memcpy(at, &kept, sizeof kept);
    } else if (tape->mode == TAPE_PLAY) {
        memcpy(value, at, sizeof kept);
    } else if (tape->mode == TAPE_CHECK) {
        memcpy(&kept, at, sizeof kept);
        tape->odd += !within(kept, low, high);
    }
}

void tape_int(tape_t *tape, int *value, int low, int high)
{
    int32_t kept;
    unsigned char *at = take(tape, INT, 1, sizeof kept);
    if (tape->mode == TAPE_RECORD) {
        kept = *value < low ? low : *value > high ? high : *value;
        memcpy(at, &kept, sizeof kept);
    } else if (tape->mode != TAPE_MEASURE) {
        memcpy(&kept, at, sizeof kept);
        if (tape->mode == TAPE_PLAY)
            *value = kept;
        else
            tape->odd += kept < low || kept > high;
    }
}

uint32_t tape_crc(const unsigned char *bytes, size_t count)
{
    /* By half bytes: entry n is the remainder of n for the polynomial 0xedb88320, bits reversed. */
    static const uint32_t half[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                      0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                      0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = ~0u;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ half[crc & 15u];
        crc = crc >> 4 ^ half[crc & 15u];
    }
    return ~crc;
}
