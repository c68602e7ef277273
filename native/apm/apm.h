/* The chain: high-pass, delay, echo canceller, noise and residual-echo suppression, gain, limiter.
 *
 *   far end ──► FIFO ──► loudspeaker's curve ──► spectra ──► delay ─┐
 *                                                   │               ▼
 *   microphone ─ high-pass ─────────────────────────┴─► canceller ─► suppressor ─► gain ─► limiter ─► output
 *
 * Blocks of 10 ms, interleaved 16-bit samples. Every microphone channel has a canceller and a suppressor of
 * its own; gain and limiter are shared, so that the balance of the channels stays. With `array` two and more
 * microphones become one beam behind their cancellers, and every channel of the output has it. The far end
 * has one reference, the mean of its channels, or two, for two loudspeakers that do not play the same. One
 * thread at a time per apm_t (the binding holds a lock). Nothing is allocated after apm_init.
 */
#ifndef APMPI_APM_H
#define APMPI_APM_H

#include <stddef.h>
#include <stdint.h>

enum { APM_MAX_CHANNELS = 8, APM_MAX_REFERENCES = 2, APM_MAX_DELAY_HINT_MS = 500 };

typedef struct apm apm_t;

/* Noise is attenuated not at all, by at most 6, 12, 18 or 21 dB, or by that of these which the
 * signal-to-noise ratio requires (ns/level.h). */
typedef enum {
    APM_NOISE_KEPT,
    APM_NOISE_LOW,
    APM_NOISE_MODERATE,
    APM_NOISE_HIGH,
    APM_NOISE_VERY_HIGH,
    APM_NOISE_AUTO
} apm_noise_t;

typedef struct {
    int echo_cancellation, high_pass_filter, auto_gain_control; /* 0 or 1 */
    apm_noise_t noise_suppression;
    /* 0 or 1: noise suppression and gain control use the network of mask.h; otherwise statistics alone */
    int learned_gain;
    int array;              /* 0 or 1: two and more microphones are one beam (array/array.h) */
    int low_latency;        /* 0 or 1, of apm_init alone: a delay of 2.25 instead of 6 ms */
    float high_pass_hz;     /* 20..300: -3 dB frequency of the high-pass */
    float gain_target_dbfs; /* -40..-6: active speech level at the gain control's output */
    float gain_max_db;      /* 0..50: the gain control's largest gain */
    float headroom_db;      /* 0..20: between the limiter's ceiling, for every peak, and full scale */
} apm_config_t;

/* Every feature on, every value at its default. */
apm_config_t apm_everything(void);

typedef struct {
    float erle_db;            /* echo return loss enhancement, averaged over far-end speech */
    float erl_db;             /* echo return loss: far-end power over echo power at the microphone */
    float delay_ms;           /* of the echo behind the far end; negative: unknown */
    float delay_confidence;   /* 0..1 */
    float drift_ppm;          /* microphone clock over far-end clock, as compensated */
    float speech_probability; /* near-end speech in the last block, 0..1 */
    float noise_floor_dbfs;
    float snr_db;               /* near-end speech over noise; 0 before 0.5 s of speech */
    float noise_suppression_db; /* largest attenuation of noise in use, 0: none */
    float agc_gain_db;
    float array_gain_db;      /* noise at one microphone over noise behind the beam; 0 without a beam */
    float direction_deg;      /* of the talker, clockwise from +y seen from above, 0..360; -1: unknown */
    int converged;            /* the canceller reduces the echo by 10 dB or more */
    int double_talk;          /* both ends were active in the last block */
    int reference_present;    /* the far end was active within the last second */
    int divergences;          /* times that the echo estimate of channel 0 began to add power */
    int microphone_clipping;  /* samples at full scale within the last second */
    int microphone_too_quiet; /* near-end speech stays below the target even with the largest gain */
    int references;           /* in use: 2 while the far end's channels differ and for 2 s after, else 1 */
} apm_stats_t;

/* rate_hz: 8000, 16000, 32000 or 48000; channels: 1..APM_MAX_CHANNELS, of the microphone; references:
 * 1..APM_MAX_REFERENCES, of the far end. */
int apm_valid(int rate_hz, int channels, int references);
size_t apm_size(int rate_hz, int channels, int references);
/* memory: apm_size() bytes, aligned to 64. */
apm_t *apm_init(void *memory, int rate_hz, int channels, int references, const apm_config_t *config);
void apm_reset(apm_t *apm);
/* New settings from the next block on, without a click; all that was learned stays. */
void apm_configure(apm_t *apm, const apm_config_t *config);
/* x to the right and y forward, seen from above, of each channel's microphone in mm, -1000..1000, no two the
 * same: from then on the direction of the talker is estimated while they are one beam. channels > 1. */
void apm_set_positions(apm_t *apm, const float (*positions_mm)[2]);
/* Delay of the echo as the caller knows it, 0..APM_MAX_DELAY_HINT_MS; used until one has been measured. */
void apm_set_delay_hint(apm_t *apm, int delay_ms);

/* rate_hz/100 frames that the loudspeaker will play; not changed. They belong to the microphone's by their
 * number. Silence stands in for missing ones, which replace it if they come up to 0.3 s late. If the far end
 * then comes in bursts no larger than before the silence, it had paused. */
void apm_render(apm_t *apm, const int16_t *frames, int channels);
/* rate_hz/100 frames from the microphone, processed in place. */
void apm_capture(apm_t *apm, int16_t *frames);

/* Learned values (echo path, delay, noise, gain) as bytes, for a chain of the same rate and channels in a
 * later run. apm_save copies, between two blocks. apm_seal then computes the checksum, without which the
 * bytes are not valid; it needs no apm_t, so another thread can do it. */
size_t apm_state_size(apm_t *apm);
void apm_save(apm_t *apm, unsigned char *state);
void apm_seal(unsigned char *state, size_t bytes);

typedef enum {
    APM_STATE_GOOD,
    APM_STATE_FOREIGN, /* not a saved state */
    APM_STATE_SHAPE,   /* of another rate or channel count */
    APM_STATE_LAYOUT,  /* of a version with other learned values */
    APM_STATE_DAMAGED, /* cut, extended or changed after apm_seal() */
    APM_STATE_ODD,     /* sealed, but with values out of the range of what can be learned */
} apm_state_t;

/* rate_hz and channels of a state; both 0 if the bytes are not one. */
void apm_state_shape(const unsigned char *state, size_t bytes, int *rate_hz, int *channels);
/* Takes over the values of a state, or changes nothing and returns why. Blocks under way (FIFO, overlaps)
 * stay. */
apm_state_t apm_restore(apm_t *apm, const unsigned char *state, size_t bytes);

void apm_stats(const apm_t *apm, apm_stats_t *stats);
/* Delay of the near end through the chain; the same whatever is switched on. */
int apm_latency_samples(const apm_t *apm);

#endif
