/* The chain: high-pass, delay, echo canceller, noise and residual-echo suppression, gain, limiter. The only
 * place that knows their order.
 *
 *   far end ──► FIFO ──► loudspeaker's curve ──► spectra ──► delay ─┐
 *                                                   │               ▼
 *   microphone ─ high-pass ─────────────────────────┴─► echo canceller ─► suppressor ─► gain ─► limiter ─►
 * out
 *
 * Blocks of 10 ms, interleaved 16-bit samples. Every microphone channel has its own canceller and suppressor;
 * gain and limiter are shared, so that the channels keep their balance. Far-end channels are averaged into
 * one reference. One thread at a time per apm_t (the binding holds a lock). Nothing is allocated after
 * apm_init.
 */
#ifndef APMPI_APM_H
#define APMPI_APM_H

#include <stddef.h>
#include <stdint.h>

enum { APM_MAX_CHANNELS = 8, APM_MAX_DELAY_HINT_MS = 500 };

typedef struct apm apm_t;

/* Noise suppression takes at most 6, 12, 18 or 21 dB, or as much as the signal-to-noise ratio asks for. */
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
    /* 0 or 1: noise suppression and gain control ask the network of mask.h, too; else they go by
     * statistics alone */
    int learned_gain;
    float high_pass_hz;     /* 20..300: cut-off of the high-pass */
    float gain_target_dbfs; /* -40..-6: level of active speech that the gain control brings a talker to */
    float gain_max_db;      /* 0..50: by how much it amplifies at most */
    /* 0..20: how far below full scale the limiter holds every peak, whatever the gain control does */
    float headroom_db;
} apm_config_t;

/* Every feature on, everything else as it is by default. */
apm_config_t apm_everything(void);

typedef struct {
    float erle_db;            /* echo power over what is left of it, smoothed over far-end speech */
    float erl_db;             /* far-end power over echo power at the microphone */
    float delay_ms;           /* of the echo behind the far end; negative: not known yet */
    float delay_confidence;   /* 0..1 */
    float drift_ppm;          /* microphone clock over far-end clock, as compensated */
    float speech_probability; /* near-end speech in the last block, 0..1 */
    float noise_floor_dbfs;
    float snr_db;               /* talker's level over the noise; 0 until half a second of speech was heard */
    float noise_suppression_db; /* largest attenuation of noise in use, 0: none */
    float agc_gain_db;
    int converged;         /* the canceller takes 10 dB or more */
    int double_talk;       /* both ends in the last block */
    int reference_present; /* the far end was heard within the last second */
    /* how often the echo estimate of channel 0 came to add power instead of taking it */
    int divergences;
    int microphone_clipping; /* full-scale samples within the last second */
    /* the talker stays below the gain control's target even with the largest gain */
    int microphone_too_quiet;
} apm_stats_t;

/* rate_hz: 8000, 16000, 32000 or 48000; channels: 1..APM_MAX_CHANNELS, of the microphone. */
int apm_valid(int rate_hz, int channels);
size_t apm_size(int rate_hz, int channels);
/* memory: apm_size() bytes, aligned to 64. */
apm_t *apm_init(void *memory, int rate_hz, int channels, const apm_config_t *config);
void apm_reset(apm_t *apm);
/* New settings from the next block on; nothing learned is lost, and no click is made. */
void apm_configure(apm_t *apm, const apm_config_t *config);
/* What the caller knows of the delay, 0..APM_MAX_DELAY_HINT_MS: where to begin looking, no more. */
void apm_set_delay_hint(apm_t *apm, int delay_ms);

/* rate_hz/100 frames that the loudspeaker will play; not changed. They belong to the microphone's by their
 * number: those that come up to 0.3 s late take their places, where silence stood in for them. A far end that
 * gives no more at a time than it does otherwise has paused. */
void apm_render(apm_t *apm, const int16_t *frames, int channels);
/* rate_hz/100 frames from the microphone, processed in place. */
void apm_capture(apm_t *apm, int16_t *frames);

/* What was learned (echo path, delay, noise, gain) as bytes, for a chain of the same rate and channels in a
 * later run. apm_save copies: for between two blocks. apm_seal then makes the bytes valid and needs no apm_t:
 * for another thread's time. */
size_t apm_state_size(apm_t *apm);
void apm_save(apm_t *apm, unsigned char *state);
void apm_seal(unsigned char *state, size_t bytes);

typedef enum {
    APM_STATE_GOOD,
    APM_STATE_FOREIGN, /* not a saved state */
    APM_STATE_SHAPE,   /* of another rate or channel count */
    APM_STATE_LAYOUT,  /* of a version that learns other things */
    APM_STATE_DAMAGED, /* too short, too long, or changed after it was sealed */
    APM_STATE_ODD,     /* well sealed, but with values that nothing learns */
} apm_state_t;

/* rate_hz and channels of a state; both 0 if it is none. */
void apm_state_shape(const unsigned char *state, size_t bytes, int *rate_hz, int *channels);
/* Goes on from a state; changes nothing if that is refused. Blocks that are still under way (FIFO,
 * overlaps) are kept. */
apm_state_t apm_restore(apm_t *apm, const unsigned char *state, size_t bytes);

void apm_stats(const apm_t *apm, apm_stats_t *stats);
/* Delay of the near end through the chain; the same whatever the flags. */
int apm_latency_samples(int rate_hz);

#endif
