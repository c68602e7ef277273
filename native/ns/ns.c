#include "ns/ns.h"

#include <math.h>
#include <string.h>

#include "base/branchless.h"
#include "kernels/spectrum.h"

/* Noise tracker */
/* 15 dB: speech where it is present (Gerkmann & Hendriks 2012, sec. III) */
static const float PRIOR_SNR = 31.6f;
static const float NOISE_RATE = 0.1f; /* 100 ms; their 0.2 at 16 ms hops would be 0.13 */
/* noise blocks above 3 times the mean are 5 %: more is speech that the tracker missed */
static const float OUTLIER = 3.0f;
/* smoothing for the minimum: a pause of 50 ms shows, a click does not */
static const float FALL_RATE = 0.5f, RISE_RATE = 0.2f;
/* Mean of a stationary noise over the minimum of its smoothed power in MINIMUM_BLOCKS to twice that is 8 to 9
 * (measured, white); a third of it, so that a talker whose pauses a ringing room fills doesn't lift it: from
 * there the tracker finds the rest itself. */
static const float MINIMUM_BIAS = 3.0f;
enum { MINIMUM_BLOCKS = 400, FIRST_MINIMUM_BLOCKS = 20 };
/* Under an echo only words are clear of it: the minimum of fewer is theirs, not that of the pauses (of 200
 * in 300, up to 10 dB too high in double talk). */
static const float CLEAR_BLOCKS = 370.0f;
static const float QUIET_POWER = 1e-10f; /* of a sample: quantisation noise of 16 bit, (2^-15)^2 / 12 */
static const float NEVER = 1e9f;
/* A noise that has begun: mean log of a band's power over the minimum of its smoothed power is 0.6 to 1.1 for
 * steady noise (measured: white, fans, streets, rain, an airplane), above 2 for speech. */
enum { STEADY_BLOCKS = 40 };
static const float STEADY = 1.2f;
static const float STEADY_BIAS = 2.0f; /* mean over that minimum */
static const float RISEN = 0.7f;       /* ln 2: by less the tracker follows by itself */
/* A noise fills a third of the bands at least, hence the most that counts in one of them. A gliding tone
 * fills fewer, and leaks into the others through the window, 30 dB and more below. */
static const float MOST_RISEN = 2.1f, LEAKS = 1e-3f;
/* What is steady in each bin, too, is a tone or a chord: the difference of power and smoothed power over
 * their sum is 0.44 for Gaussian noise, and is taken for noise down to two thirds of that. Measured:
 * recordings of noise 0.32 and more, tones to 0.07, sweeps to 0.22, most chords to 0.27. The other chords
 * beat, but their bins differ more from their neighbours than from their past, a tenth taken off for
 * chance: so do 3 in 4 spells of music that would pass for noise, and 1 in 13 of recorded noise, most of
 * these tonal (animals, a sonar, a dryer). */
static const float FLUCTUATES = 0.3f, ROUGHER = 1.1f;

/* Gain */
/* 0.98 at 8 ms hops in the paper, less for hops of 10 ms and shorter tails of speech; less still for noise
 * where a mask quiets what flickers in pauses. A floor for the prior against musical noise (O. Cappe, IEEE
 * Trans. SAP 2 (1994)) is left out: the gain's floor does that for noise, and of an echo it would leave too
 * much. */
static const float DECISION_DIRECTED = 0.95f, MASKED_NOISE_DIRECTED = 0.9f;
static const float COMFORT_SPREAD = 1.5f; /* two uniform numbers in -1..1 have a power of 2/3 */
/* of a sample: -80 dBFS, under any microphone's own noise; what is steady there hides what is not */
static const float LEAST_COMFORT = 1e-8f;
/* 3 dB: where echo takes less, the noise that remains sounds whole */
static const float ECHO_REPLACED = 0.7f;

/* Gain of what stands out of the noise while nobody talks, chance peaks nearly all, and the vote's
 * probability from which nothing is taken for chance: weak words in noise reach it. A mask knows most of
 * those peaks; -6 dB more gives 0.2 of DNSMOS at 0 dB for 0.01 of PESQ near end alone. */
static const float UNSPOKEN = 0.25f, PERHAPS_SPOKEN = 0.25f;
static const float MASKED_UNSPOKEN = 0.5f, MASKED_PERHAPS_SPOKEN = 0.1f;

/* A mask is believed after 1 s: to a network that had heard less, talkers who began after 0.5 s lost 3.5
 * dB of their first half second, some 18. */
enum { FIRST_MASK_BLOCKS = 100 };
/* Decimal logs of heard over explained power, 7 and 18 dB, between which a talker comes to stand out clearly;
 * the mask's own probability of speech up to which it is no talker that does (dishes reach 0.8); and how long
 * that lasts, 0.5 s: the weak sounds between clear ones are words, too. */
static const float BARELY_CLEAR = 0.7f, CLEAR = 1.8f;
static const float HARDLY_SPEECH = 0.8f;
static const float CLEAR_DECAY = 0.98f;
/* The same for a quiet room, 26 and 32 dB, for as long as pauses between words last, but after more than the
 * onset of a noise, which a network may take for speech: there no chance peak is heard, and what is weak is
 * speech. From 22 dB on, kitchens and offices at 15 dB would count as quiet between their sounds. The noise
 * held still so far, since a voice's own power leaks into it; and by how much the prior is smoothed less. */
static const float BARELY_QUIET = 2.6f, QUIET = 3.2f, QUIET_RISE = 0.1f, QUIET_FALL = 0.005f; /* 0.1 s, 2 s */
static const float HELD_STILL = 0.9f, QUIETLY_LESS_DIRECTED = 0.08f;
/* Decimal logs of heard over explained power, 22 and 26 dB, between which what is heard comes to pass
 * where nothing clatters. What stands 30 dB out must lose nothing from its onset on, and the first block
 * that counts may hold less than half of its power. In recorded kitchens, cafes and offices at 15 dB nothing
 * but the talker exceeds the noise by 20 dB. */
static const float BARELY_DISTINCT = 2.2f, DISTINCT = 2.6f;
enum { AUDIBLE_FIRST_BIN = 2 }; /* 100 Hz: below are hum and rumble */
/* Around a clear talker in noise the gain goes two thirds of the way to what spectral subtraction leaves of a
 * band's power, smoothed over 15 ms, by 6 dB at most: the bins' gains, each its own chance, lose weak sounds
 * and words' ends. With the oversubtraction of M. Berouti, R. Schwartz, J. Makhoul, ICASSP 1979, at good SNR.
 */
static const float BAND_RATE = 0.5f, OVERSUBTRACTION = 1.5f, BAND_SHARE = 0.65f, BAND_CHANGE = 2.0f;

/* Residual echo peaks about 3 dB above what is expected (measured on loudspeakers with distortion and in
 * rooms of 0.3 to 1 s). Under a talker who is spared, 10 dB less than what is expected is feared: taking more
 * takes the voice. */
static const float ECHO_CAUTION = 2.0f, SPARING_CAUTION = 0.1f;
/* What is heard 15 dB above the expected echo is none (a loud word that distorts leaks 8 dB more, and peaks):
 * a mask may only take as much of it. To some talkers a network answers like to an echo where hardly any is
 * expected, and took 10 dB of them. */
static const float SURPRISING_ECHO = 30.0f;

/* Who talks is spared: sooner than a word ends, but not for a loudspeaker's bark, and for as long as pauses
 * between words last; from a vote that chance seldom reaches. */
static const float TALK_RISE = 0.1f, TALK_FALL = 0.007f; /* 100 ms, 1.4 s */
static const float PERHAPS_TALK = 0.2f, SURE_TALK = 0.6f;
/* of the feared echo, whose margins are 8 dB in all: what a voice must hide to be spared */
static const float HIDDEN = 0.33f;

/* Near-end speech: mean over bands of log(1 + heard/explained), in which noise and echo alone give 0.3 to
 * 0.5 and speech 1.5 and more */
enum { BANDS_FIRST_BIN = 4, BANDS_LAST_BIN = 140 }; /* 200 Hz to 7 kHz */
static const float NOISE_MARGIN = 2.0f;
static const float NO_SPEECH_VOTE = 0.5f, SPEECH_VOTE = 1.5f;
static const float SPEECH_BY_CHANCE = 0.08f; /* by vote and mask, under a residual echo */
/* 10 ms, 50 ms: the end of a word is part of it */
static const float ATTACK_RATE = 0.7f, RELEASE_RATE = 0.2f;

static const float FLOOR_RATE = 0.1f;     /* 100 ms: another level is heard as a fade */
static const float FLOOR_REACHED = 1e-3f; /* 0.01 dB */

void ns_init(ns_t *ns, int bins, int stride, float window_power, arena_t *arena)
{
    ns->bins = bins;
    ns->stride = stride;
    ns->window_power = window_power;
    const size_t n = (size_t)stride;
    ns->noise = arena_floats(arena, n);
    ns->smooth = arena_floats(arena, n);
    ns->lowest = arena_floats(arena, n);
    ns->lowest_next = arena_floats(arena, n);
    ns->clear_blocks = arena_floats(arena, n);
    ns->speech = arena_floats(arena, n);
    ns->detail = arena_floats(arena, n);
    ns->gain = arena_floats(arena, n);
    ns->rest = arena_floats(arena, n);
    if (arena->base)
        ns_reset(ns);
}

static void begin_steady_window(ns_t *ns)
{
    for (int band = 0; band < NS_BANDS; band++) {
        ns->band_lowest[band] = NEVER;
        ns->band_sum[band] = 0.0f;
    }
    ns->fluctuation = ns->roughness = ns->most_fluctuation = 0.0f;
    ns->steady_block = 0;
}

void ns_reset(ns_t *ns)
{
    for (int k = 0; k < ns->stride; k++) {
        ns->noise[k] = QUIET_POWER * ns->window_power;
        ns->smooth[k] = ns->speech[k] = ns->clear_blocks[k] = 0.0f;
        ns->lowest[k] = ns->lowest_next[k] = NEVER;
        ns->gain[k] = 1.0f;
    }
    for (int band = 0; band < NS_BANDS; band++)
        ns->band_smooth[band] = ns->band_heard[band] = ns->band_explained[band] = 0.0f;
    begin_steady_window(ns);
    ns->heard_power = ns->noise_power = ns->echo_power = 0.0f;
    ns->floor_gain = ns->floor_wanted;
    ns->window_block = ns->heard_blocks = 0;
    ns->random = 1;
    ns->speech_probability = ns->talk = ns->clear_talk = ns->quiet_room = ns->spared = 0.0f;
    clatter_reset(&ns->clatter);
    ns->breadth = ns->distinct = 0.0f;
}

void ns_configure(ns_t *ns, float attenuation_db)
{
    ns->floor_wanted = powf(10.0f, -attenuation_db / 20.0f);
    if (!ns->heard_blocks)
        ns->floor_gain = ns->floor_wanted;
}

static inline int lesser_int(int a, int b) { return a < b ? a : b; }

static inline float follow(float state, float now, float rise, float fall)
{
    return state + (now > state ? rise : fall) * (now - state);
}

/* out = probability of speech in a bin and its two neighbours (speech is seldom in one bin alone). */
static void find_presence(const ns_t *ns, const float *restrict power, float *restrict out)
{
    const float per_bin = -PRIOR_SNR / (1.0f + PRIOR_SNR) / 3.0f;
    const float *restrict noise = ns->noise;
    float *restrict posterior = ns->gain;
    const int last = ns->bins - 1;
    for (int k = 0; k < ns->stride; k++)
        posterior[k] = power[k] / noise[k];
    for (int k = 1; k < last; k++)
        out[k] = per_bin * (posterior[k - 1] + posterior[k] + posterior[k + 1]);
    out[0] = per_bin * (2.0f * posterior[0] + posterior[1]);
    for (int k = last; k < ns->stride; k++)
        out[k] = per_bin * (posterior[last - 1] + 2.0f * posterior[last]);
    kernels()->exp(ns->stride, out, out);
    for (int k = 0; k < ns->stride; k++)
        out[k] = 1.0f / (1.0f + (1.0f + PRIOR_SNR) * out[k]);
}

/* Nothing can be told of the noise under an echo: seen = the smoothed power where there is none, NEVER
 * elsewhere. */
static void find_clear(int count, const float *restrict power, const float *restrict echo, float rise,
                       float fall, float *restrict smooth, float *restrict seen)
{
    for (int k = 0; k < count; k++) {
        smooth[k] = follow(smooth[k], power[k], rise, fall);
        seen[k] = ECHO_CAUTION * echo[k] <= 0.5f * smooth[k] ? smooth[k] : NEVER;
    }
}

static void follow_minimum(int count, const float *restrict seen, float *restrict lowest,
                           float *restrict lowest_next, float *restrict clear_blocks)
{
    for (int k = 0; k < count; k++) {
        lowest[k] = lesser(lowest[k], seen[k]);
        lowest_next[k] = lesser(lowest_next[k], seen[k]);
        clear_blocks[k] += seen[k] < NEVER ? 1.0f : 0.0f;
    }
}

/* Up to OUTLIER times the noise at `rate` where there is no speech; never below `bias` times the minimum,
 * nor below `quiet`. */
static void follow_noise(int count, const float *restrict power, const float *restrict presence,
                         const float *restrict seen, const float *restrict lowest, float rate, float bias,
                         float quiet, float *restrict noise)
{
    for (int k = 0; k < count; k++) {
        const float news = lesser(power[k], OUTLIER * noise[k]) - noise[k];
        const float tracked = noise[k] + rate * (1.0f - presence[k]) * news,
                    least = bias * (lowest[k] < NEVER ? lowest[k] : 0.0f);
        const float lifted = greater(greater(tracked, least), quiet);
        noise[k] = seen[k] < NEVER ? lifted : noise[k];
    }
}

static void track_noise(ns_t *ns, const float *power, const float *echo)
{
    const int bins = ns->bins, settled = ns->heard_blocks >= FIRST_MINIMUM_BLOCKS;
    const float rise = ns->heard_blocks ? RISE_RATE : 1.0f, fall = ns->heard_blocks ? FALL_RATE : 1.0f;
    const float rate = NOISE_RATE * (1.0f - ns->speech_probability) * (1.0f - HELD_STILL * ns->quiet_room);
    float *presence = ns->detail, *seen = ns->rest;
    find_presence(ns, power, presence);
    find_clear(bins, power, echo, rise, fall, ns->smooth, seen);
    follow_minimum(bins, seen, ns->lowest, ns->lowest_next, ns->clear_blocks);
    follow_noise(bins, power, presence, seen, ns->lowest, rate, settled ? MINIMUM_BIAS : 0.0f,
                 QUIET_POWER * ns->window_power, ns->noise);
    if (++ns->window_block == MINIMUM_BLOCKS) {
        ns->window_block = 0;
        for (int k = 0; k < bins; k++) {
            if (ns->clear_blocks[k] >= CLEAR_BLOCKS)
                ns->lowest[k] = ns->lowest_next[k];
            ns->lowest_next[k] = NEVER;
            ns->clear_blocks[k] = 0.0f;
        }
    }
    ns->heard_blocks += ns->heard_blocks < FIRST_MASK_BLOCKS;
}

/* Of a frame, by band. */
typedef struct {
    int count;
    float heard[NS_BANDS], noise[NS_BANDS], echo[NS_BANDS];
} bands_t;

static int bands_end(const ns_t *ns) { return ns->bins < BANDS_LAST_BIN ? ns->bins : BANDS_LAST_BIN; }

static float echo_caution(const ns_t *ns)
{
    return ECHO_CAUTION + ns->spared * (SPARING_CAUTION - ECHO_CAUTION);
}

static void sum_bands(ns_t *ns, const float *power, const float *echo, bands_t *bands)
{
    const int end = bands_end(ns);
    ns->heard_power = ns->noise_power = ns->echo_power = 0.0f;
    bands->count = 0;
    for (int at = BANDS_FIRST_BIN; at < end; bands->count++) {
        const int next = lesser_int(spectrum_band_end(at), end);
        float heard = 0.0f, noise = 0.0f, feared = 0.0f;
        for (; at < next; at++) {
            heard += power[at];
            noise += ns->noise[at];
            feared += echo[at];
        }
        ns->heard_power += bands->heard[bands->count] = heard;
        ns->noise_power += bands->noise[bands->count] = noise;
        ns->echo_power += bands->echo[bands->count] = ECHO_CAUTION * feared;
        ns->band_heard[bands->count] += BAND_RATE * (heard - ns->band_heard[bands->count]);
        ns->band_explained[bands->count] = noise + bands->echo[bands->count];
    }
}

/* Noise and its minima rise to a floor, but not where less is heard. */
static void lift_bin(ns_t *ns, int k, float lowest)
{
    const float least = lesser(ns->smooth[k], lowest);
    ns->noise[k] = greater(ns->noise[k], lesser(ns->smooth[k], STEADY_BIAS * STEADY_BIAS * lowest));
    ns->lowest[k] = greater(ns->lowest[k], least);
    ns->lowest_next[k] = greater(ns->lowest_next[k], least);
}

/* In each band to that of the band; what lies outside of them comes along with what is heard there. The
 * room is not quiet any more. */
static void lift_noise(ns_t *ns)
{
    const int end = bands_end(ns);
    for (int k = 0; k < ns->bins; k++)
        if (k < BANDS_FIRST_BIN || k >= end)
            lift_bin(ns, k, ns->smooth[k] / (STEADY_BIAS * STEADY_BIAS));
    for (int band = 0, at = BANDS_FIRST_BIN, next; at < end; band++) {
        next = lesser_int(spectrum_band_end(at), end);
        const float lowest = ns->band_lowest[band] / (float)(next - at);
        for (; at < next; at++)
            lift_bin(ns, at, lowest);
    }
    ns->quiet_room = 0.0f;
}

/* Before the smoothed power has followed. */
static void sum_fluctuation(ns_t *ns, const float *restrict power)
{
    const float *restrict smooth = ns->smooth;
    const int end = bands_end(ns);
    float fluctuation = 0.0f, roughness = 0.0f, most = 0.0f;
    for (int k = BANDS_FIRST_BIN; k < end; k++) {
        fluctuation += fabsf(power[k] - smooth[k]);
        roughness += fabsf(smooth[k] - smooth[k - 1]);
        most += power[k] + smooth[k];
    }
    ns->fluctuation += fluctuation;
    ns->roughness += roughness;
    ns->most_fluctuation += most;
}

static void find_new_noise(ns_t *ns, const bands_t *bands)
{
    const float tiny = QUIET_POWER * ns->window_power;
    for (int band = 0; band < bands->count; band++) {
        const float heard = bands->heard[band] + tiny;
        ns->band_smooth[band] = follow(ns->band_smooth[band], heard, RISE_RATE, FALL_RATE);
        ns->band_lowest[band] = lesser(ns->band_lowest[band], ns->band_smooth[band]);
        ns->band_sum[band] += heard;
    }
    if (ns->echo_power > 0.5f * ns->heard_power) /* nothing can be told of the noise under an echo */
        begin_steady_window(ns);
    else if (++ns->steady_block == STEADY_BLOCKS) {
        float moved = 0.0f, risen = 0.0f, strongest = 0.0f;
        for (int band = 0; band < bands->count; band++)
            strongest = greater(strongest, ns->band_sum[band]);
        for (int band = 0; band < bands->count; band++) {
            moved += logf(ns->band_sum[band] / (STEADY_BLOCKS * ns->band_lowest[band]));
            const float over = STEADY_BIAS * ns->band_lowest[band] / (bands->noise[band] + tiny);
            if (ns->band_sum[band] > LEAKS * strongest)
                risen += lesser(MOST_RISEN, logf(over));
        }
        const float tonal = greater(ROUGHER * ns->roughness, FLUCTUATES * ns->most_fluctuation);
        const int fluctuates = ns->fluctuation > tonal;
        if (fluctuates && moved < STEADY * (float)bands->count && risen > RISEN * (float)bands->count)
            lift_noise(ns);
        begin_steady_window(ns);
    }
}

static void vote_on_speech(ns_t *ns, const bands_t *bands)
{
    float votes = 0.0f;
    for (int band = 0; band < bands->count; band++)
        votes += log1pf(bands->heard[band] / (NOISE_MARGIN * bands->noise[band] + bands->echo[band]));
    ns->breadth = votes / (float)bands->count;
    const float speech = ramp(ns->breadth, NO_SPEECH_VOTE, SPEECH_VOTE);
    ns->speech_probability = follow(ns->speech_probability, speech, ATTACK_RATE, RELEASE_RATE);
}

/* -1..1, uniform: the linear congruence of Numerical Recipes, sec. 7.1 */
static float noise_sample(ns_t *ns)
{
    ns->random = ns->random * 1664525u + 1013904223u;
    return (float)(int32_t)ns->random * (1.0f / 2147483648.0f);
}

void ns_track(ns_t *ns, const float *power, const float *echo)
{
    bands_t bands;
    sum_fluctuation(ns, power);
    track_noise(ns, power, echo);
    sum_bands(ns, power, echo, &bands);
    find_new_noise(ns, &bands);
    vote_on_speech(ns, &bands);
}

/* ns->detail = the log-spectral gain; ns->speech = what it leaves, for the next block's prior. */
static void find_detail(ns_t *ns, const float *restrict power, const float *restrict echo,
                        float noise_directed, int suppress_noise)
{
    const float tiny = QUIET_POWER * ns->window_power * 1e-3f, noise_share = suppress_noise ? 1.0f : 0.0f,
                caution = echo_caution(ns);
    const float *restrict noise = ns->noise;
    float *restrict speech = ns->speech, *restrict posterior = ns->gain, *restrict wiener = ns->detail;
    for (int k = 0; k < ns->stride; k++) {
        const float feared = caution * echo[k], inverse = 1.0f / (noise_share * noise[k] + feared + tiny);
        const float directed = noise_directed + (DECISION_DIRECTED - noise_directed) * feared * inverse;
        posterior[k] = power[k] * inverse;
        const float prior = directed * speech[k] * inverse +
                            (1.0f - directed) * greater(posterior[k] - 1.0f, 0.0f);
        wiener[k] = prior / (1.0f + prior);
    }
    kernels()->log_spectral_gain(ns->stride, wiener, posterior, wiener);
    for (int k = 0; k < ns->bins; k++)
        speech[k] = wiener[k] * wiener[k] * power[k];
}

/* 0..1: whether somebody talks, by the vote and the mask. */
static float talking(const ns_t *ns, const ns_mask_t *mask)
{
    return ns->speech_probability * (mask ? mask->speech_probability : 1.0f);
}

/* ns->detail becomes the statistical gain, which takes all of an echo while nobody speaks here; ns->rest =
 * what keeps all that is not echo. */
static void judge_echo(ns_t *ns, const float *restrict echo, const ns_mask_t *mask)
{
    const float *restrict noise = ns->noise;
    float *restrict detail = ns->detail, *restrict rest = ns->rest;
    const float silent = (1.0f - ns->spared) * (1.0f - ramp(talking(ns, mask), SPEECH_BY_CHANCE, 1.0f)),
                caution = echo_caution(ns);
    for (int k = 0; k < ns->bins; k++) {
        const float noise_share = noise[k] / (caution * echo[k] + noise[k]);
        detail[k] *= 1.0f - (1.0f - noise_share) * silent;
        rest[k] = sqrtf(noise_share);
    }
}

/* How far what is heard stands out of what explains it: decimal log. */
static float excess(const ns_t *ns, float explained)
{
    const float known = explained + QUIET_POWER * ns->window_power;
    return log10f((ns->heard_power + known) / known);
}

/* Only as far as the canceller is trusted, and only a voice that stands out of what leaks: it hides that. */
static void spare_talker(ns_t *ns, const ns_mask_t *mask, float trust)
{
    const float clear = ramp(excess(ns, ns->noise_power + HIDDEN * ns->echo_power), BARELY_CLEAR, CLEAR);
    ns->talk = follow(ns->talk, talking(ns, mask) * clear, TALK_RISE, TALK_FALL);
    ns->spared = trust * ramp(ns->talk, PERHAPS_TALK, SURE_TALK);
}

/* How clearly somebody talks, or lately did. */
static void follow_talker(ns_t *ns, const ns_mask_t *mask)
{
    const float speech = mask && ns->heard_blocks >= FIRST_MASK_BLOCKS
                             ? ramp(mask->speech_probability, HARDLY_SPEECH, 1.0f)
                             : 0.0f;
    const float over = excess(ns, ns->noise_power + ns->echo_power);
    ns->clear_talk = greater(speech * ramp(over, BARELY_CLEAR, CLEAR), CLEAR_DECAY * ns->clear_talk);
    ns->quiet_room = follow(ns->quiet_room, speech * ramp(over, BARELY_QUIET, QUIET), QUIET_RISE, QUIET_FALL);
}

/* From 100 Hz to half the rate. banded: the sum over the bands. */
static float audible_sum(const ns_t *ns, float banded, const float *x)
{
    const float low = spectrum_sum(x, AUDIBLE_FIRST_BIN, BANDS_FIRST_BIN);
    return low + banded + spectrum_sum(x, bands_end(ns), ns->bins);
}

/* ns->distinct = how far what is heard stands clear of noise and expected echo in a room without clatter.
 * Without a mask nothing is counted as clatter, since the vote takes clicks for speech and nothing is
 * taken from them. */
static void find_distinct(ns_t *ns, const float *power, const float *echo, const ns_mask_t *mask,
                          float echo_confidence)
{
    const float tiny = QUIET_POWER * ns->window_power;
    const float no_speech = mask ? 1.0f - mask->speech_probability : 0.0f;
    clatter_process(&ns->clatter, ns->breadth, logf(ns->heard_power + ns->noise_power + tiny), no_speech);
    const float heard = audible_sum(ns, ns->heard_power, power);
    const float noise = audible_sum(ns, ns->noise_power, ns->noise);
    const float explained = noise + ns->echo_power + ECHO_CAUTION * audible_sum(ns, 0.0f, echo) + tiny;
    const float clear = ramp(log10f(1.0f + heard / explained), BARELY_DISTINCT, DISTINCT);
    ns->distinct = clear * echo_confidence * (1.0f - clatter_share(&ns->clatter));
}

/* 0..1: how far a mask may take what is no talker, instead of echo alone. Not in the first second, nor from a
 * talker who is spared or lately stood out clearly: there it eats more of the voice (0.04 of DNSMOS's SIG at
 * 15 dB) than of the noise. */
static float mask_share(const ns_t *ns)
{
    if (ns->heard_blocks < FIRST_MASK_BLOCKS)
        return 0.0f;
    return (1.0f - ns->spared) * (1.0f - ns->clear_talk) * (1.0f - ns->quiet_room) * (1.0f - ns->distinct);
}

/* ns->detail goes towards what subtraction leaves of each band, as far as somebody talks clearly in noise. */
static void even_out(ns_t *ns, const float *restrict power)
{
    const int end = bands_end(ns);
    const float in_noise = ns->clear_talk * (1.0f - ns->quiet_room) * (1.0f - ns->distinct);
    const float share = BAND_SHARE * (1.0f - ns->spared) * in_noise;
    const float tiny = QUIET_POWER * ns->window_power * 1e-3f;
    float *restrict detail = ns->detail, *restrict left = ns->gain;
    for (int k = 0; k < end; k++)
        left[k] = detail[k] * detail[k] * power[k];
    for (int band = 0, at = BANDS_FIRST_BIN, next; at < end; band++) {
        next = lesser_int(spectrum_band_end(at), end);
        const float heard = ns->band_heard[band];
        const float wanted = greater(heard - OVERSUBTRACTION * ns->band_explained[band],
                                     ns->floor_gain * ns->floor_gain * heard);
        const float ratio = sqrtf((wanted + tiny) / (spectrum_sum(left, at, next) + tiny));
        const float change = 1.0f + share * (lesser(BAND_CHANGE, greater(1.0f / BAND_CHANGE, ratio)) - 1.0f);
        for (; at < next; at++)
            detail[at] = lesser(1.0f, change * detail[at]);
    }
}

/* Gain of all that the noise does not explain, where noise is to be taken: chance peaks while nobody
 * talks. */
static float chance_gain(const ns_t *ns, int masked)
{
    const float unspoken = masked ? MASKED_UNSPOKEN : UNSPOKEN,
                perhaps = masked ? MASKED_PERHAPS_SPOKEN : PERHAPS_SPOKEN;
    const float gain = unspoken + (1.0f - unspoken) * lesser(1.0f, ns->speech_probability / perhaps);
    return gain + greater(ns->quiet_room, ns->distinct) * (1.0f - gain);
}

/* ns->gain = the statistical gain and the mask, not below the noise's floor; where no echo is, nothing is
 * taken for one. */
static void combine(ns_t *ns, const float *restrict power, const float *restrict echo, const ns_mask_t *mask,
                    int suppress_noise)
{
    const float *restrict detail = ns->detail;
    float *restrict gain = ns->gain, *restrict rest = ns->rest;
    const float quiet = QUIET_POWER * ns->window_power, believed = suppress_noise ? mask_share(ns) : 0.0f;
    const float chance = suppress_noise ? chance_gain(ns, mask != NULL) : 1.0f;
    for (int k = 0; k < ns->bins; k++) {
        const float possible_echo = lesser(1.0f, SURPRISING_ECHO * greater(echo[k] - quiet, 0.0f) /
                                                     (power[k] + quiet));
        const float not_echo = mask ? 1.0f - possible_echo * (1.0f - ns->spared) * (1.0f - mask->rest[k])
                                    : 1.0f;
        rest[k] = lesser(rest[k], not_echo);
        gain[k] = detail[k] * chance * (mask ? not_echo + believed * (mask->speech[k] - not_echo) : 1.0f);
        gain[k] = greater(gain[k], ns->floor_gain * rest[k]);
    }
}

/* Where echo is taken away, noise of the floor's level fills up what is missing; everywhere noise that is
 * hardly heard, so that nothing comes and goes there. Never more than was there. */
static void comfort(ns_t *ns, float *restrict re, float *restrict im, const float *restrict power)
{
    const float floor_power = ns->floor_gain * ns->floor_gain;
    const float least = LEAST_COMFORT * ns->window_power;
    const float *restrict gain = ns->gain, *restrict noise = ns->noise;
    float *restrict level = ns->rest;
    for (int k = 0; k < ns->bins; k++) {
        const float least_here = lesser(least, power[k]),
                    floor = level[k] < ECHO_REPLACED ? floor_power * noise[k] : 0.0f;
        level[k] = sqrtf(COMFORT_SPREAD *
                         greater(greater(floor, least_here) - gain[k] * gain[k] * power[k], 0.0f));
    }
    for (int k = 0; k < ns->bins; k++)
        if (level[k] > 0.0f) {
            re[k] += level[k] * noise_sample(ns);
            im[k] += level[k] * noise_sample(ns);
        }
}

void ns_suppress(ns_t *ns, float *re, float *im, const float *power, const float *echo, const ns_mask_t *mask,
                 float trust, float echo_confidence)
{
    ns->floor_gain += FLOOR_RATE * (ns->floor_wanted - ns->floor_gain);
    if (fabsf(ns->floor_gain - ns->floor_wanted) < FLOOR_REACHED)
        ns->floor_gain = ns->floor_wanted;
    const int suppress_noise = ns->floor_gain < 1.0f;
    spare_talker(ns, mask, trust);
    find_detail(ns, power, echo,
                mask ? MASKED_NOISE_DIRECTED - QUIETLY_LESS_DIRECTED * ns->quiet_room : DECISION_DIRECTED,
                suppress_noise);
    follow_talker(ns, mask);
    find_distinct(ns, power, echo, mask, echo_confidence);
    judge_echo(ns, echo, mask);
    if (mask && suppress_noise)
        even_out(ns, power);
    combine(ns, power, echo, mask, suppress_noise);
    kernels()->multiply(ns->stride, re, ns->gain, re);
    kernels()->multiply(ns->stride, im, ns->gain, im);
    comfort(ns, re, im, power);
}

void ns_keep(ns_t *ns, tape_t *tape)
{
    /* up to white noise at full scale */
    tape_floats(tape, ns->noise, (size_t)ns->bins, QUIET_POWER * ns->window_power, ns->window_power);
}
