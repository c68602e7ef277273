/* agc.h: speech of any level reaches the target; noise and echo do not change the gain; it never jumps. */
#include "agc/agc.h"

#include "base/test_support.h"

enum { HOP = 160, CHANNELS = 2 };

static const float TARGET_DBFS = -20.0f, MAX_GAIN_DB = 32.0f, LOWEST_GAIN_DB = -20.0f;

static agc_t start(void)
{
    agc_t agc;
    agc_reset(&agc);
    agc_configure(&agc, TARGET_DBFS, MAX_GAIN_DB);
    return agc;
}

/* `seconds` of noise at `level_dbfs`; returns the gain at the end in dB, worst_step_db the largest change
 * in a block. */
static float talk(agc_t *agc, float seconds, float level_dbfs, float speech_probability, int enabled,
                  double *worst_step_db)
{
    float block[CHANNELS][HOP], *x[CHANNELS] = {block[0], block[1]};
    const float amplitude = sqrtf(3.0f) * powf(10.0f, level_dbfs / 20.0f); /* uniform noise: power a^2/3 */
    for (int b = 0; b < (int)(100.0f * seconds); b++) {
        float power = 0.0f;
        for (int c = 0; c < CHANNELS; c++)
            for (int i = 0; i < HOP; i++) {
                block[c][i] = amplitude * test_random();
                power += block[c][i] * block[c][i] / (CHANNELS * HOP);
            }
        const float before = agc->gain_db - agc->rest_db;
        agc_process(agc, x, CHANNELS, HOP, power, speech_probability, enabled);
        if (worst_step_db)
            test_worst(worst_step_db, fabs((double)(agc->gain_db - agc->rest_db - before)));
    }
    return agc->gain_db;
}

static void reaches_the_target(float level_dbfs)
{
    agc_t agc = start();
    const float wanted = fminf(fmaxf(TARGET_DBFS - level_dbfs, LOWEST_GAIN_DB), MAX_GAIN_DB);
    const float gain = talk(&agc, 5.0f, level_dbfs, 1.0f, 1, NULL);
    /* the level is 0.8 dB above the counted mean, which holds for speech, not for noise; the last dB is slow
     */
    CHECK(gain - wanted < 0.1f && gain - wanted > -1.8f,
          "talker at %5.1f dBFS: gain %5.1f dB, wanted %5.1f dB", (double)level_dbfs, (double)gain,
          (double)wanted);
}

static void learns_from_speech_alone(void)
{
    agc_t agc = start();
    const float gain = talk(&agc, 5.0f, -40.0f, 1.0f, 1, NULL);
    talk(&agc, 5.0f, -50.0f, 0.1f, 1, NULL); /* noise */
    talk(&agc, 5.0f, -10.0f, 0.2f, 1, NULL); /* residual echo of a loud one */
    talk(&agc, 5.0f, -80.0f, 1.0f, 1, NULL); /* below AGC_QUIETEST_DBFS, at any probability */
    CHECK(agc.gain_db == gain, "gain %.2f dB after speech, %.2f dB after noise, echo and silence",
          (double)gain, (double)agc.gain_db);
}

static void steps_are_small(void)
{
    agc_t agc = start();
    double rise = 0.0, fall = 0.0, back = 0.0;
    const float quiet = talk(&agc, 6.0f, -50.0f, 1.0f, 1, &rise);
    const float loud = talk(&agc, 2.5f, -15.0f, 1.0f, 1, &fall);
    CHECK(rise < 0.41, "rises by at most %.3f dB in 10 ms, to %.1f dB", rise, (double)quiet);
    CHECK(fall < 0.61 && fabsf(loud + 5.0f) < 2.5f, "falls by at most %.3f dB in 10 ms, to %.1f dB", fall,
          (double)loud);
    talk(&agc, 5.0f, -45.0f, 1.0f, 1, NULL);
    const float off = talk(&agc, 1.0f, -45.0f, 1.0f, 0, &back);
    CHECK(off == 0.0f && back < 0.61, "switched off it returns to %.1f dB in steps of at most %.3f dB",
          (double)off, back);
}

/* A step of the speech level: the gain follows within a number of seconds of speech. */
static void follows_a_step(float from_dbfs, float to_dbfs)
{
    agc_t agc = start();
    talk(&agc, 5.0f, from_dbfs, 1.0f, 1, NULL);
    /* 3 s with a third of pauses; noise has 0.8 dB less than a talker of its mean */
    const float gain = talk(&agc, 2.1f, to_dbfs, 1.0f, 1, NULL);
    CHECK(fabsf(to_dbfs + gain - TARGET_DBFS + 0.8f) < 2.0f,
          "%.0f to %.0f dBFS: the talker comes out at %.1f dBFS", (double)from_dbfs, (double)to_dbfs,
          (double)(to_dbfs + gain));
}

static void forgives_a_cough(void)
{
    agc_t agc = start();
    const float before = talk(&agc, 4.0f, -40.0f, 1.0f, 1, NULL);
    talk(&agc, 0.4f, -8.0f, 1.0f, 1, NULL); /* detected as speech by mistake */
    const float ducked = agc_gain_db(&agc);
    talk(&agc, 0.3f, -40.0f, 1.0f, 1, NULL);
    CHECK(ducked < before - 15.0f && fabsf(agc_gain_db(&agc) - before) < 1.0f,
          "a cough takes the gain from %.1f to %.1f dB, 0.3 s later it is %.1f dB", (double)before,
          (double)ducked, (double)agc_gain_db(&agc));
}

static void rests_in_a_pause(void)
{
    agc_t agc = start();
    const float talking = talk(&agc, 4.0f, -45.0f, 1.0f, 1, NULL);
    talk(&agc, 1.9f, -70.0f, 0.0f, 1, NULL);
    const float soon = agc_gain_db(&agc);
    talk(&agc, 6.0f, -70.0f, 0.0f, 1, NULL);
    const float late = agc_gain_db(&agc);
    talk(&agc, 0.06f, -45.0f, 1.0f, 1, NULL);
    CHECK(soon == talking && late < 6.01f && fabsf(agc_gain_db(&agc) - talking) < 1.0f,
          "gain %.1f dB for a talker, %.1f dB in a pause, %.1f dB after eight seconds of it, %.1f dB 60 ms "
          "into the next word",
          (double)talking, (double)soon, (double)late, (double)agc_gain_db(&agc));
}

static void reports_what_is_out_of_reach(void)
{
    agc_t agc = start();
    talk(&agc, 4.0f, -54.0f, 1.0f, 1, NULL);
    const int near = agc_out_of_reach(&agc);
    talk(&agc, 4.0f, -60.0f, 1.0f, 1, NULL);
    CHECK(!near && agc_out_of_reach(&agc),
          "a talker at -54 dBFS is in reach (%d), one at -60 dBFS is not (%d)", near, agc_out_of_reach(&agc));
}

/* A constant input while the gain changes: the samples lie on a line, also across blocks. */
static void samples_do_not_jump(void)
{
    agc_t agc = start();
    float last = 0.0f;
    double worst = 0.0;
    for (int b = 0; b < 400; b++) {
        float block[HOP], *x[1] = {block};
        for (int i = 0; i < HOP; i++)
            block[i] = 0.01f;
        agc_process(&agc, x, 1, HOP, 0.0001f, 1.0f, b < 300);
        for (int i = 0; i < HOP; i++) {
            if (b > 0)
                test_worst(&worst, fabs((double)(block[i] / last - 1.0f)));
            last = block[i];
        }
    }
    /* 4 dB, 58 %, over the samples of a block */
    CHECK(worst < 0.58 / HOP * 1.1, "from sample to sample the gain changes by at most %.5f", worst);
}

int main(void)
{
    static const float levels_dbfs[] = {-60.0f, -45.0f, -30.0f, -20.0f, -12.0f, -6.0f};
    for (unsigned i = 0; i < sizeof levels_dbfs / sizeof *levels_dbfs; i++)
        reaches_the_target(levels_dbfs[i]);
    learns_from_speech_alone();
    static const float steps_dbfs[][2] = {
        {-50.0f, -10.0f}, {-10.0f, -50.0f}, {-30.0f, -20.0f}, {-20.0f, -45.0f}};
    for (unsigned i = 0; i < sizeof steps_dbfs / sizeof *steps_dbfs; i++)
        follows_a_step(steps_dbfs[i][0], steps_dbfs[i][1]);
    forgives_a_cough();
    rests_in_a_pause();
    reports_what_is_out_of_reach();
    steps_are_small();
    samples_do_not_jump();
    return test_failures != 0;
}
