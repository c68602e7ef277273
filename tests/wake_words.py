"""Wake words as synthetic voices speak them, and detectors: those of Home Assistant's satellites, with the
models and thresholds of their packages.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import soundfile
from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures
from pymicro_wakeword import Model as MicroModel
from pyopen_wakeword import Model as OpenModel
from pyopen_wakeword import OpenWakeWord, OpenWakeWordFeatures
from reference.signals import Signal
from scipy.signal import resample_poly

RATE_HZ = 16000  # of both detectors
CHUNK_SAMPLES = 1280  # that openWakeWord takes at once

Samples = npt.NDArray[np.int16]
Detector = Callable[[bytes], bool]

# espeak-ng's voice, words a minute, pitch from 0 to 99. Without a room both detectors find the word of each.
VOICES = (
    ("en-us", 165, 50),
    ("en-us+m1", 150, 40),
    ("en-us-nyc", 165, 50),
    ("en-gb", 165, 50),
    ("en-gb+f3", 165, 60),
    ("en-gb+f4", 150, 65),
    ("en-gb-scotland", 165, 50),
    ("en-029", 165, 50),
)


@cache
def spoken(voice: int, phrase: str) -> Signal:
    """Return a phrase of espeak-ng without the silence around it."""
    name, words_per_minute, pitch = VOICES[voice]
    command = ["espeak-ng", "-v", name, "-s", str(words_per_minute), "-p", str(pitch), "--stdout", phrase]
    wav = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    sound, rate_hz = soundfile.read(io.BytesIO(wav))
    sound = resample_poly(sound, RATE_HZ, rate_hz)
    (loud,) = np.nonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    return np.asarray(sound[loud[0] : loud[-1] + 1])


def micro_wake_word() -> Detector:
    """Return a function that takes CHUNK_SAMPLES samples and returns True where "okay nabu" ends."""
    model, features = MicroWakeWord.from_builtin(MicroModel.OKAY_NABU), MicroWakeWordFeatures()
    return lambda chunk: any([model.process_streaming(x) for x in features.process_streaming(chunk)])


def open_wake_word() -> Detector:
    """Return the same for "hey jarvis"."""
    model, features = OpenWakeWord.from_builtin(OpenModel.HEY_JARVIS), OpenWakeWordFeatures.from_builtin()
    threshold = 0.5  # default of the package's command
    return lambda chunk: any(
        [p > threshold for x in features.process_streaming(chunk) for p in model.process_streaming(x)]
    )


DETECTORS = {"microWakeWord": ("okay nabu", micro_wake_word), "openWakeWord": ("hey jarvis", open_wake_word)}


def detections(detected: Detector, sound: Samples) -> Iterator[int]:
    """Yield the last sample of each chunk in which a wake word is detected."""
    for at in range(0, len(sound) - CHUNK_SAMPLES + 1, CHUNK_SAMPLES):
        if detected(sound[at : at + CHUNK_SAMPLES].tobytes()):
            yield at + CHUNK_SAMPLES
