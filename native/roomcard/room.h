/* The room card: a sound card in user space with a simulated room attached, a test double for hardware.
 *
 * An ALSA "ioplug" PCM of type `apmpi_room`. Any ALSA program opens it (aplay, arecord, pyalsaaudio). The
 * playback signal returns to the microphone through a loudspeaker, a bulk delay and an impulse response, with
 * near-end speech and noise added. Two loudspeakers and up to four microphones can be had, each pair of them
 * with an impulse response of its own; of one loudspeaker and one microphone:
 *
 *   playback ── mean of channels ──► clock of playback_ppm ──► soft clip ──► delay ──► impulse response ─┐
 *                                               │                                                        ▼
 *                                               └──► record                         near-end speech ──► (+)
 *                                                                                                        │
 *   capture ◄──────────────────────────────── (+) ◄─── clock of capture_ppm ◄────────────────────────────┘
 *                                              ▲
 *                                              └── noise
 *
 * Playback and capture of one `card` name and user share one room through /dev/shm/apmpi-room-UID-CARD,
 * in one process or in two. Like a real card, each direction can be opened once at a time (else EBUSY) and
 * both directions run at one rate.
 *
 *
 * Options (ALSA configuration, pcm.NAME { type apmpi_room ... }); config/room-card.conf is a commented
 * example
 *
 *   card              1..64 letters, digits, '-', '_' or '.'; required.
 *
 *   loudspeakers      1, which plays the mean of the playback channels, or 2: left plays the mean of channels
 *                     1, 3, 5, 7, right that of 2, 4, 6, 8, and both a stream of one channel. The same in all
 *                     definitions of a card. Default 1.
 *
 *   microphones       1..4. Captured channel c carries microphone c, further channels are silent; a single
 *                     microphone is on all channels. Default 1.
 *
 *   impulse_response  WAV file, loudspeaker to microphone, at most 1 s. Its rate becomes the card's only
 *                     rate. It has a channel for each pair: those of the first loudspeaker to each
 *                     microphone, then those of the second one. Default of a single pair: one tap of 1.0, the
 *                     loudspeaker's signal unchanged; of several: generated (paths.c), with a delay, a level
 *                     and a decay of 0.2 s that are each pair's own.
 *
 *   inverted          "loudspeaker2 microphone1 ...": those that are wired with the wrong polarity,
 *   dead              and those that give nothing; of a dead microphone the noise remains. Default: none.
 *
 *   delay_ms          0..1000, bulk delay before the impulse response, rounded to whole samples. Default 0.
 *                     At least 16 samples for each direction with a ppm other than 0, the look-ahead of its
 *                     interpolator.
 *
 *   clip_db           0..40, drive g = 10^(clip_db / 20) into the loudspeaker, y = tanh(g x) / g. 0 = linear,
 *                     default.
 *
 *   near              WAV file, near-end speech, the same at each microphone or a channel for each; its rate
 *                     becomes the only one. It begins with the first sample ever captured from the card and
 *                     runs on card time: the part that coincides with an overrun is lost. Silence after its
 *                     end.
 *
 *   noise_dbfs        -120..0, white noise of that RMS (0 dBFS = RMS of 1.0), the same in each run,
 *                     another one at each microphone. Default: none.
 *
 *   playback_ppm      -10000..10000, clock error of that direction: it counts rate (1 + ppm / 1e6) frames in
 *   capture_ppm       a second of card time. Default 0.
 *
 *   speed             0.1..1000, card seconds in one second of CLOCK_MONOTONIC. Default 1.
 *
 *   faults            "DIRECTION:FAULT@SECONDS ...", separated by blanks; direction capture, playback or
 *                     both; SECONDS 0..1e8:
 *
 *                       xrun@T     an overrun or underrun at T, if that direction runs then
 *
 *                       unplug@T   ENODEV for every call, opening included; a handle that was open stays
 *                                  invalid, as with a USB card (alsa-lib's snd_pcm_avail() alone cannot
 *                                  report it: read the state)
 *
 *                       replug@T   can be opened again
 *
 *                       stall@T+D  the pointer stands still for D seconds: no data, no error, nothing skipped
 *
 *   record            WAV file (16 bit) of the signal that playback sent to each loudspeaker, before the
 *                     clip: sample k was played at card time k / rate, silence where nothing was queued.
 *                     Valid at every moment. A card's first playback stream empties the file, later ones
 *                     continue it.
 *
 *   format            S16_LE, S24_3LE, S32_LE or FLOAT_LE: the only one that the card offers.
 *                     Default: all of them.
 *
 *   reference         1: of more captured channels than loudspeakers the last ones are the loudspeakers' own
 *                     input at that moment, as on cards with a hardware reference. Default 0.
 *
 * WAV files are mono unless stated, 16-bit PCM or 32-bit float. Relative paths start at the program's working
 * directory. A wrong option is one sentence on ALSA's error channel (standard error) and -EINVAL from
 * snd_pcm_open().
 *
 *
 * The time axis
 *
 * Card time 0 is the moment in which the first process opens the card. It continues while any process lives
 * that ever opened the card: closing and opening again does not restart it, so that a daemon that reopens
 * meets the rest of the fault schedule. When the last of them has ended, by exit or by crash, the next open
 * makes a new card at time 0 (a card whose processes all ended by exit leaves nothing in /dev/shm). While the
 * machine stands still, so does card time (card_clock.h).
 *
 * Card time is counted in samples: c = card seconds * rate. A stream that starts at c starts on the next
 * whole sample, s; with ppm 0 its frame n lies exactly at s + n. The hardware pointer of either direction is
 * the number of frames that have passed completely. With ppm 0 on both sides the frame played at c therefore
 * arrives, sample exact, in the frames captured at c + delay + k, weighted by the impulse response's tap k,
 * whenever either stream was started. With ppm not 0 the signal is resampled between the axes by a windowed
 * sinc (sinc.h states its error), so that drift is real. A stall moves all later frames of its direction by
 * its length, rounded to whole samples.
 *
 * Overruns and underruns are real: the pointer answers -EPIPE once stop_threshold is reached (by default, one
 * buffer), the state becomes XRUN, prepare and start recover. Time stamps are CLOCK_MONOTONIC.
 *
 * Limits: S16_LE, S24_3LE, S32_LE, FLOAT_LE; 1..8 channels; 8000, 16000, 32000, 48000 Hz; periods from 32
 * bytes; buffers up to 256 KiB.
 */
#ifndef APMPI_ROOMCARD_ROOM_H
#define APMPI_ROOMCARD_ROOM_H

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

typedef enum { ROOM_PLAYBACK, ROOM_CAPTURE } room_direction_t;

/* Longest impulse response, bulk delay and ALSA buffer. Their sum bounds the distance between the newest
 * played and the oldest still needed sample, see CARD_RING_FRAMES in card.h. */
#define ROOM_IMPULSE_RESPONSE_MAX_S 1.0
#define ROOM_DELAY_MAX_MS 1000.0
#define ROOM_BUFFER_MAX_BYTES (256u * 1024u)
#define ROOM_RATE_MAX_HZ 48000

enum { ROOM_LOUDSPEAKERS_MAX = 2, ROOM_MICROPHONES_MAX = 4 };

/* Functions that return int return 0 or a negative errno, unless their comment says otherwise. Those with an
 * `error` write one sentence into it, for the user. */
typedef char room_error_t[512];

/* Writes the sentence and returns the code. */
__attribute__((format(printf, 3, 4))) static inline int room_fail(room_error_t error, int code,
                                                                  const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(error, sizeof(room_error_t), format, values);
    va_end(values);
    return code;
}

#endif
