/* pick.h: the two channels that all others follow from, whatever the order, the signs and the levels. */
#include "apm/pick.h"

#include "base/test_support.h"

enum { COUNT = 160, SECOND = 100 };

/* weight[channel]: of two independent signals. */
static void play(pick_t *pick, int blocks, int channels, const float weight[][2])
{
    int16_t frames[COUNT * PICK_CHANNELS];
    for (int b = 0; b < blocks; b++) {
        const float loud = b % 20 < 12 ? 8000.0f : 100.0f; /* syllables */
        for (int i = 0; i < COUNT; i++) {
            const float first = loud * test_random(), second = loud * test_random();
            for (int c = 0; c < channels; c++)
                frames[i * channels + c] = (int16_t)(weight[c][0] * first + weight[c][1] * second);
        }
        pick_process(pick, COUNT, frames, channels);
    }
}

static void expect(const char *what, const pick_t *pick, int left, int right)
{
    CHECK(pick->left == left && pick->right == right, "%s: channels %d and %d", what, pick->left + 1,
          pick->right + 1);
}

int main(void)
{
    static const float alike[8][2] = {{1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}},
                       copies[4][2] = {{1, 0}, {0, 1}, {1, 0}, {0, 1}},
                       sums[6][2] = {{1, 0}, {0, 1}, {0.7f, 0.7f}, {-0.5f, 0}, {0, -1}, {1, -1}},
                       rear[4][2] = {{0, 0}, {0, 0}, {1, 0}, {0, 0.5f}},
                       paired[4][2] = {{1, 0}, {-1, 0}, {0, 1}, {0, -1}},
                       quiet[3][2] = {{1, 0}, {1, 0}, {1, 0.01f}};
    pick_t pick;
    pick_reset(&pick);
    play(&pick, 5 * SECOND, 8, alike);
    expect("eight alike", &pick, 0, 1);
    play(&pick, 5 * SECOND, 4, copies);
    expect("copies of a pair", &pick, 0, 1);
    play(&pick, 5 * SECOND, 6, sums);
    expect("sums of a pair", &pick, 0, 1);
    play(&pick, SECOND / 2, 4, rear);
    expect("two of four silent, after 0.5 s", &pick, 2, 3);
    play(&pick, 5 * SECOND, 4, copies);
    expect("then copies: nothing is gained by another pair", &pick, 2, 3);
    play(&pick, 5 * SECOND, 4, paired);
    CHECK(pick.left < 2 && pick.right >= 2, "pairs of opposite sign: channels %d and %d", pick.left + 1,
          pick.right + 1);
    play(&pick, 5 * SECOND, 3, quiet);
    expect("a second signal 40 dB down", &pick, 0, 1);
    play(&pick, 1, 2, copies);
    expect("two channels", &pick, 0, 1);
    play(&pick, 1, 1, copies);
    expect("a single one", &pick, 0, 0);
    return test_failures != 0;
}
