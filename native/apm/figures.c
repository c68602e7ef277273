#include "apm/figures.h"

#include <math.h>
#include <string.h>

#include "apm/block.h"
#include "apm/internal.h"

enum {
    SPELL_BLOCKS = 10, /* of far end alone: 0.1 s without near-end speech from first to last */
    PAUSE_BLOCKS = 10, /* after near-end speech: a word's end may be too weak to be detected as speech */
};

static const float NEAR_ACTIVE = 0.5f;    /* speech probability, of double_talk */
static const float NEAR_INACTIVE = 0.35f; /* speech probability below which powers are averaged */
static const float AS_USUAL = 2.0f;       /* 3 dB more error than usual for that microphone power */
static const float AVERAGE_RATE = 0.2f;   /* per spell: a time constant of 0.5 s of far-end speech */
static const float UNUSUAL = 8.0f;        /* 9 dB: a spell counts with at most so much over the usual */

void figures_reset(figures_t *figures) { memset(figures, 0, sizeof *figures); }

int figures_converged(const figures_t *figures)
{
    return figures->average.mic + QUANTISATION_POWER >
           CHANNEL_CONVERGED * (figures->average.error + QUANTISATION_POWER);
}

static void average(float *state, float now) { *state += AVERAGE_RATE * (now - *state); }

/* Limits what a spell adds to an average of error or output, so that near-end speech that was not detected
 * does not mask the residual echo. usual: the average; now: the spell's sum. */
static float limited(const figures_t *figures, float usual, float now)
{
    const float mic = figures->average.mic;
    return mic > 0.0f ? lesser(now, UNUSUAL * figures->spell.mic * usual / mic + QUANTISATION_POWER) : now;
}

static void average_spell(figures_t *figures)
{
    powers_t *to = &figures->average;
    const powers_t *spell = &figures->spell;
    average(&to->error, limited(figures, to->error, spell->error));
    average(&to->out, limited(figures, to->out, spell->out));
    average(&to->far, spell->far);
    average(&to->echo, spell->echo);
    average(&to->mic, spell->mic);
}

static void end_spell(figures_t *figures)
{
    memset(&figures->spell, 0, sizeof figures->spell);
    figures->spell_blocks = 0;
}

void figures_process(figures_t *figures, const figures_input_t *input)
{
    powers_t *spell = &figures->spell;
    const float error = mean_square(input->error, input->count);
    /* an echo that is reduced as usual is no near end, even if the suppressor takes its rest for speech */
    const int as_usual = error * figures->average.mic <= AS_USUAL * figures->average.error * input->mic;
    if (input->speech_probability > NEAR_INACTIVE && !as_usual) {
        end_spell(figures);
        figures->pause_blocks = PAUSE_BLOCKS;
    } else if (input->far_active && figures->pause_blocks > 0) {
        figures->pause_blocks--;
    } else if (input->far_active) {
        spell->far += input->far;
        spell->echo += mean_square(input->echo, input->count);
        spell->mic += input->mic;
        spell->error += error;
        spell->out += mean_square(input->out, input->count);
        if (++figures->spell_blocks == SPELL_BLOCKS) {
            average_spell(figures);
            end_spell(figures);
        }
    }
}

static float ratio_db(float over, float under)
{
    return 10.0f * log10f((over + QUANTISATION_POWER) / (under + QUANTISATION_POWER));
}

/* Mean over the bins of the noise's power density, as a signal's power. */
static float noise_floor_dbfs(const ns_t *ns)
{
    float noise = 0.0f;
    for (int k = 0; k < ns->bins; k++)
        noise += ns->noise[k];
    return 10.0f * log10f(noise / ((float)ns->bins * ns->window_power) + QUANTISATION_POWER);
}

/* Delay of the echo in ms, -1 while it is unknown. */
static float delay_ms(const far_t *far)
{
    if (far->delay.best < 0)
        return -1.0f;
    return 1000.0f / BLOCKS_PER_S *
           ((float)far->delay.best + (float)far->resampler[0].unread / (float)far->hop);
}

void apm_stats(const apm_t *apm, apm_stats_t *stats)
{
    const channel_t *channel = &apm->channel[0];
    const powers_t *powers = &apm->figures.average;
    stats->erle_db = ratio_db(powers->mic, powers->out);
    stats->erl_db = ratio_db(powers->far, powers->echo);
    stats->delay_ms = delay_ms(&apm->far);
    stats->delay_confidence = apm->far.delay.confidence;
    stats->drift_ppm = drift_ppm(&apm->far.drift);
    stats->speech_probability = channel->speech_probability;
    stats->noise_floor_dbfs = noise_floor_dbfs(&channel->ns);
    stats->snr_db = apm->level.snr_db;
    stats->noise_suppression_db = apm_attenuation_db(apm);
    stats->agc_gain_db = agc_gain_db(&apm->agc);
    stats->array_gain_db = apm_is_beam(apm) ? array_gain_db(&apm->array) : 0.0f;
    stats->direction_deg = apm_is_beam(apm) ? apm->direction.degrees : DIRECTION_UNKNOWN;
    stats->converged = figures_converged(&apm->figures);
    stats->double_talk = apm->far_active && channel->held_speech_probability > NEAR_ACTIVE;
    stats->reference_present = apm->far.age_blocks < BLOCKS_PER_S;
    stats->divergences = channel->aec.divergences;
    stats->microphone_too_quiet = agc_out_of_reach(&apm->agc);
    stats->microphone_clipping = apm->clip_age_blocks < BLOCKS_PER_S;
    stats->references = 1 + far_is_paired(&apm->far);
}
