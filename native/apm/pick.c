#include "apm/pick.h"

#include <string.h>

/* Per block: time constant of the covariance, 1 s of sound. */
static const float COVARIANCE_RATE = 0.01f;
/* Least power of a block's channels, summed, that counts as sound: -60 dBFS. */
static const float LEAST_POWER = 1e-6f;
/* Share of the power that a pair may leave unexplained: -20 dB, what a canceller leaves while it converges.
 */
static const float LEAST_LEFT = 0.01f;
/* What another pair leaves of that to be better: 6 dB, so that the pick does not alternate. */
static const float BETTER = 0.25f;
/* Determinant of a pair's correlation below which the two count as one signal: a correlation of 0.9999. */
static const float LEAST_DETERMINANT = 2e-4f;
/* Blocks of sound between two decisions: 0.1 s. */
enum { DECISION_BLOCKS = 10 };

void pick_reset(pick_t *pick) { *pick = (pick_t){.left = 0, .right = 1}; }

static float product(int count, const int16_t *frames, int channels, int a, int b)
{
    float sum = 0.0f;
    for (int i = 0; i < count; i++)
        sum += (float)frames[i * channels + a] * (float)frames[i * channels + b];
    return sum / (32768.0f * 32768.0f * (float)count);
}

static float covariance(const pick_t *pick, int a, int b)
{
    return a < b ? pick->covariance[b][a] : pick->covariance[a][b];
}

/* Power of channel c that follows from a and b by the least-squares sum of the two. */
static float explained(const pick_t *pick, int a, int b, int c)
{
    const float aa = covariance(pick, a, a), bb = covariance(pick, b, b), ab = covariance(pick, a, b),
                ac = covariance(pick, a, c), bc = covariance(pick, b, c);
    const float determinant = aa * bb - ab * ab;
    if (determinant > LEAST_DETERMINANT * aa * bb)
        return (bb * ac * ac - 2.0f * ab * ac * bc + aa * bc * bc) / determinant;
    if (aa >= bb)
        return aa > 0.0f ? ac * ac / aa : 0.0f;
    return bc * bc / bb;
}

/* Power of all channels that does not follow from a and b. */
static float left_by(const pick_t *pick, int a, int b)
{
    float left = 0.0f;
    for (int c = 0; c < pick->channels; c++)
        left += covariance(pick, c, c) - explained(pick, a, b, c);
    return left;
}

static void decide(pick_t *pick)
{
    float total = 0.0f, least = left_by(pick, pick->left, pick->right);
    for (int c = 0; c < pick->channels; c++)
        total += covariance(pick, c, c);
    if (least <= LEAST_LEFT * total)
        return;
    least *= BETTER;
    for (int a = 0; a < pick->channels; a++)
        for (int b = a + 1; b < pick->channels; b++) {
            const float left = left_by(pick, a, b);
            if (left < least) {
                least = left;
                pick->left = a;
                pick->right = b;
            }
        }
}

void pick_process(pick_t *pick, int count, const int16_t *frames, int channels)
{
    if (channels != pick->channels) {
        pick_reset(pick);
        pick->channels = channels;
        pick->right = channels > 1;
    }
    if (channels <= 2)
        return;
    float now[PICK_CHANNELS][PICK_CHANNELS], power = 0.0f;
    for (int a = 0; a < channels; a++) {
        now[a][a] = product(count, frames, channels, a, a);
        power += now[a][a];
    }
    if (power < LEAST_POWER)
        return;
    for (int a = 0; a < channels; a++)
        for (int b = 0; b <= a; b++) {
            if (b < a)
                now[a][b] = product(count, frames, channels, a, b);
            pick->covariance[a][b] += COVARIANCE_RATE * (now[a][b] - pick->covariance[a][b]);
        }
    if (++pick->sound_blocks % DECISION_BLOCKS == 0)
        decide(pick);
}
