/* Echo figures of channel 0: powers averaged over blocks in which only the far end is active, from which
 * ERLE (echo return loss enhancement), ERL (echo return loss) and convergence follow. apm_stats() is in
 * figures.c, too.
 *
 * Ten blocks make a spell. Near-end speech discards the spell under way, so that its onset, which is detected
 * late, is not averaged.
 */
#ifndef APMPI_APM_FIGURES_H
#define APMPI_APM_FIGURES_H

/* Mean squares: far end at the echo's delay, echo estimate, microphone, canceller's error, suppressor's
 * output. */
typedef struct {
    float far, echo, mic, error, out;
} powers_t;

typedef struct {
    powers_t average; /* over spells */
    powers_t spell;   /* sums over the spell under way */
    int spell_blocks; /* in it */
    int pause_blocks; /* with active far end, before the next spell begins */
} figures_t;

/* One block of channel 0. */
typedef struct {
    int count;                       /* samples of each array */
    const float *echo, *error, *out; /* echo estimate, canceller's error, suppressor's output */
    float far, mic;                  /* mean squares: far end at the echo's delay, high-passed microphone */
    int far_active;                  /* 0 or 1 */
    float speech_probability;        /* of near-end speech, 0..1 */
} figures_input_t;

void figures_reset(figures_t *figures);
void figures_process(figures_t *figures, const figures_input_t *input);
/* 1 if the canceller reduces the echo by 10 dB or more. */
int figures_converged(const figures_t *figures);

#endif
