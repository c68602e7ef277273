#include "roomcard/noise.h"

#define NOISE_SEED UINT64_C(0x61706d7069)

/* An odd number with about as many ones as zeros, so that the streams start far apart. */
#define NOISE_STREAM UINT64_C(0xD1B54A32D192ED03)

/* splitmix64's finalizer as a hash of the index; the sum of its four 16-bit parts (variance 4/12) for an
 * approximately normal distribution. */
float noise_at(uint32_t stream, int64_t index)
{
    uint64_t z = (uint64_t)index * UINT64_C(0x9E3779B97F4A7C15) + NOISE_SEED + stream * NOISE_STREAM;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    const int sum = (int)(z & 0xFFFF) + (int)(z >> 16 & 0xFFFF) + (int)(z >> 32 & 0xFFFF) + (int)(z >> 48);
    return ((float)sum / 65536.0f - 2.0f) * 1.7320508f; /* sqrt(3) */
}
