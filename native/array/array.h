/* Beam of several microphones: one spectrum, in which the near-end talker is as at the reference microphone
 * and sound from elsewhere is weaker.
 *
 * A multichannel Wiener filter (S. Doclo, M. Moonen, IEEE Trans. Signal Proc. 50 (2002)) over the spectra of
 * all microphones in this block and in the one before (J. Benesty, J. Chen, E. Habets, "Speech enhancement in
 * the STFT domain", 2011: multichannel and interframe filtering). In each bin, with the vector x of these
 * spectra, Y the average of x x^H weighted by the probability p of near-end speech, N the one weighted by
 * 1 - p, and s the reference's column of S = Y - k N:
 *
 *   w = (S + v N)^-1 s              weights; noise counts v times, a loading is added to N
 *   g = w^H s / s_ref               part of the near-end speech that they leave
 *   z = w^H x / g                   the beam; below g = 1/2, 2 w^H x + (1 - 2 g) x_ref
 *
 * As far as the noise allows w selects the reference microphone alone: in a quiet room the beam is that
 * microphone. No direction and no geometry has to be known; gains, polarities and reverberation of the
 * microphones are part of S.
 *
 * The probability is that of M. Souden, J. Chen, J. Benesty, S. Affes, IEEE TASLP 18 (2010), for near-end
 * speech of one direction, for which the beam's power is sufficient (rank 1): with x = v g / (1 - g), the
 * ratio of speech to noise behind the beam, and the suppressor's probability q of speech in the block,
 *
 *   p = 1 / (1 + (1 - q) / q (1 + x) exp(-b)),  b = |z|^2 (g v / (1 - g))^2 / (s_ref (1 + x))
 *
 * lowered where q is small.
 *
 * Tried and left out, with recorded talkers at 1 to 4 m in simulated rooms with a reverberation time of 0.3
 * to 0.6 s: a distortionless beam of rank 1 (Souden, Benesty, Affes, IEEE TASLP 18 (2010); covariance
 * whitening), which does not keep the reverberation that a frame of 20 ms cuts off and lost 2 to 3 dB of
 * SI-SDR; the current block alone, with half the gain in ESTOI; a third block, no better; the probability q
 * for all bins, or the gains of the suppressor instead of p. Two people who talk are not told apart: both are
 * near-end speech.
 *
 * How well p is known limits the gain. Circles of four in twenty such rooms, noise at 0 to 10 dB,
 * trial with a model of this file with S = Y and without the reference below g = 1/2; gain over one
 * microphone, both behind the suppressor, in SI-SDR (dB) and ESTOI:
 *
 *                                          restless noise   steady noise
 *   p                                            -           0.3   0.02
 *   q for all bins                          0.2   0.00      -0.1  -0.01
 *   the suppressor's gains, squared         0.1   0.00      -0.2   0.00
 *   1 - noise / power, by minimum statistics     -           0.4   0.02
 *   the true share of speech in a block     3.0   0.05           -
 *   the true share of speech in each bin    4.1   0.07       3.1   0.08
 *
 * With p, k the mean of the smaller half of the eigenvalues of N^-1 Y and v = 3 k: 2.2 dB and 0.08 in six of
 * the rooms with steady noise, but -0.3 dB and -0.08 in one with rustling paper; not taken.
 */
#ifndef APMPI_ARRAY_H
#define APMPI_ARRAY_H

#include "base/arena.h"

enum { ARRAY_BLOCKS = 2, ARRAY_MAX_CHANNELS = 8 };

/* Largest share of expected residual echo in the beam's power, -6 dB, with which a bin is learned. */
static const float ARRAY_MOST_ECHO = 0.25f;

/* Spectra of all channels: ARRAY_BLOCKS * channels rows of `stride` floats, those of this block first. */
typedef struct {
    float *re, *im;
} array_spectra_t;

typedef struct {
    int channels, rows; /* rows: of array_spectra_t */
    int bins, stride;   /* stride: floats of a spectrum, see spectrum_stride() */
    float quiet_power;  /* of a bin: quantisation noise */
    int reference;      /* channel whose sound of the talker the beam has */
    int blocks;         /* since the reset, saturating */
    int better_blocks;  /* for which another channel has been a better reference */
    array_spectra_t error, echo;
    array_spectra_t weight;              /* conj(w) / g */
    array_spectra_t column;              /* scratch: s */
    float *speech, *noise;               /* Y and N, see kernels/hermitian.h */
    float *speech_blocks, *noise_blocks; /* sums of p and of 1 - p, saturating: what Y and N average over */
    float *evidence, *prior;             /* b over |z|^2; -log(1 + x) */
    float *probability;                  /* p of the last block */
    float *left;                         /* scratch: g */
    float *matrix;                       /* scratch: S + v N */
    float reference_noise, beam_noise;   /* smoothed powers at the reference and behind the beam */
} array_t;

/* Of the beam in this block: power spectrum, expected power of the residual echo in it, and the probability
 * of near-end speech. */
typedef struct {
    const float *power, *echo;
    float speech_probability;
} array_input_t;

/* channels: 2..ARRAY_MAX_CHANNELS; window_power: sum of the squared analysis window. */
void array_init(array_t *array, int channels, int bins, int stride, float window_power, arena_t *arena);
/* The beam is channel 0, until a better one or the noise is known. */
void array_reset(array_t *array);

/* Moves this block's spectra to those of the block before; then all channels have to be put. */
void array_advance(array_t *array);
/* The spectrum of one channel: canceller's error, and its echo estimate. */
void array_put_error(array_t *array, int channel, const float *re, const float *im);
void array_put_echo(array_t *array, int channel, const float *re, const float *im);
/* The beam of the errors, or of the echo estimates: what the beam's echo is expected to be. */
void array_beam_error(const array_t *array, float *re, float *im);
void array_beam_echo(const array_t *array, float *re, float *im);
/* Updates averages and weights, those of the next block. Bins in which residual echo may dominate are left as
 * they are. */
void array_learn(array_t *array, const array_input_t *input);

/* Attenuation of noise by the beam against its reference microphone, in dB, 0 and more. */
float array_gain_db(const array_t *array);

#endif
