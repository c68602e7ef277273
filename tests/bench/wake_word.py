"""Wake words spoken while the loudspeaker plays, for bench.py.

    music or an answer ──► loudspeaker ──► room ──┐
                                                  ▼
    wake word ─────────────────────────► room ──► microphone ──► apmpi, WebRTC or nothing ──► detector

All is synthetic but for the music. A room, the order of the voices and the moments at which they speak depend
on the room's number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
from livekit import rtc
from reference.signals import Signal, at_level, to_int16
from scipy.signal import fftconvolve, resample_poly
from wake_words import DETECTORS, RATE_HZ, VOICES, Samples, detections, spoken

from apmpi import AudioFrame, AudioProcessingModule
from apmpi.tools import demo

FRAME_SAMPLES = RATE_HZ // 100

# Debian's asc-music: three pieces for orchestra and synthesizer, 18 minutes
MUSIC = Path("/usr/share/games/asc/music")

ROOMS = 4
WORDS = ROOMS * len(VOICES)
VOICE_TO_ECHO_DB = (0, -5, -10, -20)  # at the microphone
ROOMS_OF_MUSIC = 2  # in which all the music is heard, for false alarms
ECHO_DBFS = -22.0  # the peaks of the music stay below full scale
NOISE_DBFS = -70.0
# Drive of the far end's peaks into the loudspeaker's tanh. Distortion is 26 to 31 dB below the echo then, as
# measured: a small loudspeaker that is loud.
DRIVE = 1.0

LEAD_S = 10.0  # of far end before the first word, in which a canceller converges
SPACING_S = 4.0  # from word to word
END_S = LEAD_S + len(VOICES) * SPACING_S
LATE_S = 1.0  # after the word, in which a detection counts for it
REFRACTORY_S = 2.0  # between two detections, as in linux-voice-assistant


@cache
def music() -> Signal:
    pieces = []
    for path in sorted(MUSIC.glob("*.mp3")):
        sound, rate_hz = soundfile.read(path)
        pieces.append(resample_poly(sound.mean(axis=1), RATE_HZ, rate_hz))
    return np.concatenate(pieces)


@cache
def answer() -> Signal:
    """Return speech of an assistant, END_S long."""
    sound = demo.speech("en-us+f2", demo.FAR_TEXT, round(END_S * demo.RATE_HZ))
    return np.asarray(resample_poly(sound, RATE_HZ, demo.RATE_HZ))


def far_end(kind: str, room: int) -> Signal:
    """Return END_S of "music", another part in each room, or of an "answer"."""
    if kind == "answer":
        return answer()
    return np.roll(music(), -room * len(music()) // ROOMS)[: round(END_S * RATE_HZ)]


class Room:
    """Paths from loudspeaker and talker to the microphone."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng([number, 1])
        self.rt60_s = rng.uniform(0.2, 0.6)
        self.delay_ms = round(rng.uniform(20, 150))
        self.loudspeaker, self.talker = self._path(rng), self._path(rng)

    def _path(self, rng: np.random.Generator) -> Signal:
        """Return a direct sound, and noise that decays by 60 dB in rt60_s and is weaker by 0 to 6 dB."""
        t = np.arange(round(self.rt60_s * RATE_HZ)) / RATE_HZ
        path = rng.standard_normal(len(t)) * 10 ** (-3 * t / self.rt60_s)
        path[0] = np.sqrt(np.sum(path[1:] ** 2)) * 10 ** (rng.uniform(0, 6) / 20)
        return path

    def echo(self, far: Signal) -> Signal:
        played = np.tanh(DRIVE * far / np.abs(far).max())
        late = np.zeros(self.delay_ms * RATE_HZ // 1000)
        return at_level(np.concatenate([late, fftconvolve(played, self.loudspeaker)])[: len(far)], ECHO_DBFS)


@dataclass(frozen=True)
class Recording:
    """Signals of loudspeaker and microphone, and the words in them.

    words   samples in which a detection counts for a word
    """

    far: Samples
    mic: Samples
    without_echo: Samples
    words: list[range]
    delay_ms: int


def record(number: int, far: Signal, phrase: str = "", voice_to_echo_db: float = 0.0) -> Recording:
    """Return what the microphone of a room receives. If there is a phrase, each voice says it once."""
    room, rng = Room(number), np.random.default_rng([number, 2])
    near, words = at_level(rng.standard_normal(len(far)), NOISE_DBFS), []
    for position, voice in enumerate(rng.permutation(len(VOICES)) if phrase else []):
        word = at_level(fftconvolve(spoken(voice, phrase), room.talker), ECHO_DBFS + voice_to_echo_db)
        start = round((LEAD_S + position * SPACING_S + rng.uniform(0, 0.5)) * RATE_HZ)
        near[start : start + len(word)] += word
        words.append(range(start, start + len(word) + round(LATE_S * RATE_HZ)))
    far, mic, near = (to_int16(x) for x in (far, near + room.echo(far), near))
    return Recording(far, mic, near, words, room.delay_ms)


# ---- what processes the microphone's signal

# As configured for an assistant: all but the gain control.
FEATURES = {"echo_cancellation": True, "noise_suppression": True, "high_pass_filter": True}
MODULES = {
    "apmpi": (AudioProcessingModule, AudioFrame),
    "WebRTC": (rtc.AudioProcessingModule, rtc.AudioFrame),
}
SOURCES_OF_ECHO = ("microphone", *MODULES)
SOURCES = ("without echo", *SOURCES_OF_ECHO)


def signal_of(source: str, heard: Recording) -> Samples:
    """Return the microphone's signal, or the output of a module that is given the true delay."""
    if source not in MODULES:
        return heard.mic if source == "microphone" else heard.without_echo
    create, frame = MODULES[source]
    module, out = create(**FEATURES), []
    for at in range(0, len(heard.mic) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
        played, mic = (
            frame(bytearray(x[at : at + FRAME_SAMPLES].tobytes()), RATE_HZ, 1, FRAME_SAMPLES)
            for x in (heard.far, heard.mic)
        )
        module.process_reverse_stream(played)
        module.set_stream_delay_ms(heard.delay_ms)
        module.process_stream(mic)
        out.append(np.array(mic.data, np.int16))
    return np.concatenate(out)


# ---- counts of each source

Row = tuple[object, ...]


def found_in_room(room: int, detector: str, kind: str, voice_to_echo_db: float) -> list[int]:
    """Return how many words of a room are detected."""
    phrase, create = DETECTORS[detector]
    heard = record(room, far_end(kind, room), phrase, voice_to_echo_db)
    counts = []
    for source in SOURCES:
        detected = list(detections(create(), signal_of(source, heard)))
        counts.append(sum(any(at in word for at in detected) for word in heard.words))
    return counts


def false_alarms_in_room(room: int, detector: str) -> list[int]:
    """Return how often a word is detected while all the music plays and nobody speaks."""
    heard, create = record(room, music()), DETECTORS[detector][1]
    counts = []
    for source in SOURCES_OF_ECHO:
        detected = list(detections(create(), signal_of(source, heard)))
        gaps = np.diff(detected, prepend=-np.inf)
        counts.append(int(np.sum(gaps > REFRACTORY_S * RATE_HZ)))
    return counts


def summed(pool: Executor, rooms: int, job: Callable[..., list[int]], rows: Iterable[Row]) -> list[Row]:
    """Return the rows with the counts of a job in all rooms."""
    jobs = [(row, [pool.submit(job, room, *row) for room in range(rooms)]) for row in rows]
    return [(*row, *np.sum([room.result() for room in of_a_row], axis=0)) for row, of_a_row in jobs]


def found(pool: Executor) -> list[Row]:
    """Return rows of detector, kind of far end, voice to echo in dB and the counts."""
    return summed(pool, ROOMS, found_in_room, product(DETECTORS, ("music", "answer"), VOICE_TO_ECHO_DB))


def false_alarms(pool: Executor) -> list[Row]:
    """Return rows of detector and counts."""
    return summed(pool, ROOMS_OF_MUSIC, false_alarms_in_room, product(DETECTORS))
