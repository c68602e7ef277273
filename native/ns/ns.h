/* Noise and residual-echo suppression: one spectral gain for both disturbances, one channel.
 *
 * Noise: speech-presence-probability tracker after T. Gerkmann, R. Hendriks, "Unbiased MMSE-based noise power
 * estimation with low complexity and low tracking delay", IEEE TASLP 20 (2012). Where their tracker holds
 * still for long speech, the minimum of the last seconds (R. Martin, IEEE TSAP 9 (2001), without his bias
 * model) lifts it when the noise itself has risen; their cap on the probability is left out for it. Gain:
 * log-spectral amplitude of Y. Ephraim, D. Malah, IEEE Trans. ASSP 33 (1985), with their decision-directed
 * prior. At its floor, noise remains as it was, attenuated, and echo is replaced by noise of that level
 * (comfort noise). A noise that begins at once and stays (a fan) is told by its steadiness: while bands
 * hardly move for 0.4 s, what is heard is no speech. Tones and chords, whose bins fluctuate less than those
 * of noise or less than they differ from each other, are left to the minimum: they become noise after 4 to 8
 * s. Near-end speech: bands vote whether more is heard than noise and echo explain; while none is, or a mask
 * from elsewhere knows better, residual echo goes down to the floor. Where the echo canceller can be trusted,
 * a talker is spared: what little leaks through it is hidden by the voice. In the first second, and around a
 * talker who stands out clearly, a mask takes echo, but no noise; the gain goes towards a subtraction by band
 * there, or, in a quiet room, is trusted alone, with a noise that is held still. What stands clear of noise
 * and residual echo in a quiet room (a beep, music, a word's first sound) passes, whatever vote and mask take
 * it for: noise that far below is masked, so attenuating both gains nothing.
 */
#ifndef APMPI_NS_H
#define APMPI_NS_H

#include <stdint.h>

#include "base/arena.h"
#include "base/tape.h"
#include "ns/clatter.h"

enum { NS_BANDS = 16 }; /* of spectrum_band_end from 200 Hz to 7 kHz; fewer at 8 kHz */

typedef struct {
    int bins, stride;
    float window_power; /* sum of the squared analysis window: a white signal's |X|^2 over its power */
    float floor_gain;   /* linear: what is left of the noise now */
    float floor_wanted; /* where it goes */
    float *noise;       /* tracked noise power per bin */
    float *smooth;      /* smoothed input power */
    float *lowest, *lowest_next; /* minima of `smooth` over this and the coming window */
    float *clear_blocks;         /* without echo since the minimum's window began */
    float *speech;               /* power of the last frame's speech estimate, by the statistical gain */
    float *detail;               /* statistical gain of the last frame */
    float *gain;                 /* of the last frame; in between scratch of the noise tracker */
    float *rest;                 /* of the last frame: gain of all that is not echo; in between scratch */
    /* power of the last blocks; of noise and residual echo in the last */
    float band_heard[NS_BANDS], band_explained[NS_BANDS];
    /* smoothed power; its minimum, and the power's sum, in a window */
    float band_smooth[NS_BANDS], band_lowest[NS_BANDS], band_sum[NS_BANDS];
    /* Sums over blocks and bins of that window: differences of power and smoothed power, of the latter and
     * that of the next bin; what the first is at most. */
    float fluctuation, roughness, most_fluctuation;
    int steady_block; /* blocks since that window began */
    /* of the last frame from 200 Hz to 7 kHz: all, and what is expected of it */
    float heard_power, noise_power, echo_power;
    int window_block; /* blocks since the minimum's window began */
    int heard_blocks; /* saturating */
    uint32_t random;
    float speech_probability; /* of near-end speech, 0..1 */
    float talk;               /* how sure it lately was that somebody talks here, clear of the noise, 0..1 */
    float clear_talk;         /* how clearly a talker lately stood out, by a mask and the powers, 0..1 */
    float quiet_room;         /* the same for a voice so clear that there is hardly any noise */
    /* 0..1: how far the talker is spared of what residual echo and a mask would take */
    float spared;
    clatter_t clatter;
    float breadth;  /* of the last frame: mean over the bands of log(1 + heard/explained) */
    float distinct; /* 0..1: how far the last frame stands clear of noise and echo in a quiet room */
} ns_t;

/* Gains by bin, 0..1, on top of the statistical one: what keeps the talker; what keeps talker and noise.
 * And whether somebody talks, 0..1. */
typedef struct {
    const float *speech, *rest;
    float speech_probability;
} ns_mask_t;

void ns_init(ns_t *ns, int bins, int stride, float window_power, arena_t *arena);
void ns_reset(ns_t *ns);
/* Largest attenuation of noise in dB, 0..40; 0 leaves noise alone. Where sound flows already it is reached
 * within some 100 ms. */
void ns_configure(ns_t *ns, float attenuation_db);

/* Follows noise and near-end speech. power: of a block's spectrum; echo: expected power of the residual
 * echo in it; both `stride` long, per bin. */
void ns_track(ns_t *ns, const float *power, const float *echo);
/* Suppresses that spectrum in place, after ns_track. mask: NULL, or what a better judge than the vote
 * says; trust: in the echo canceller, 0..1; echo_confidence: 0..1, that there is hardly more residual echo
 * than `echo`; 1 where none can be. */
void ns_suppress(ns_t *ns, float *re, float *im, const float *power, const float *echo, const ns_mask_t *mask,
                 float trust, float echo_confidence);

/* What is worth keeping over a restart: the noise. */
void ns_keep(ns_t *ns, tape_t *tape);

#endif
