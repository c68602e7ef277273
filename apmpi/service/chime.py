"""Two short rising tones through the loudspeaker, once, when sound has flowed for the first time after the
computer's start.

They are added to the far end, so that they are part of the canceller's reference and their echo is cancelled
as any other. A file beside that of flowing sound (apmpi.service.sound_mark) outlives a restart of the service
and not one of the computer.
"""

import logging
import math
from array import array
from pathlib import Path

from apmpi.units import FRAMES_PER_S

NAME = "chimed"
# E5 and A5, a fourth: above the cut-off of small loudspeakers.
TONES_HZ = (659.26, 880.0)
# Of each tone; 0.15 s.
TONE_FRAMES = 15
# RMS: quiet speech, since nobody has set the volume yet.
LEVEL_DBFS = -30.0
# Raised cosine: without it the tones would click.
FADE_S = 0.01
FULL_SCALE = 32768


def is_due(mark: Path) -> bool:
    """Return whether sound flows for the first time since the computer's start. `mark` is SoundMark's."""
    try:
        mark.with_name(NAME).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError as error:
        # Else each restart of the service would chime.
        logging.getLogger(__name__).warning("%s: no chime (%s)", mark.with_name(NAME), error.strerror)
        return False
    return True


class Chime:
    """The tones, frame by frame. Made by the reporter's thread, for the audio thread."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        """Compute all frames: `channels` interleaved, alike."""
        count = sample_rate_hz // FRAMES_PER_S
        tones = [sample for tone_hz in TONES_HZ for sample in _tone(tone_hz, sample_rate_hz)]
        self._frames = [
            array("h", (sample for sample in tones[at : at + count] for _ in range(channels)))
            for at in range(0, len(tones), count)
        ]

    def over(self, far: bytes) -> bytes:
        """Return the frame with the next 10 ms of the tones, as it is when they have ended."""
        if not self._frames:
            return far
        tones = self._frames.pop(0)
        if not far.strip(b"\0"):  # as after most starts
            return tones.tobytes()
        sums = map(sum, zip(array("h", far), tones, strict=True))
        return array("h", (min(max(x, -FULL_SCALE), FULL_SCALE - 1) for x in sums)).tobytes()


def _tone(tone_hz: float, sample_rate_hz: int) -> list[int]:
    """Return TONE_FRAMES frames of a tone that fades in and out, one channel."""
    count = sample_rate_hz // FRAMES_PER_S * TONE_FRAMES
    peak = FULL_SCALE * math.sqrt(2) * 10 ** (LEVEL_DBFS / 20)

    def sample(n: int) -> int:
        edge = min(1.0, min(n, count - 1 - n) / (FADE_S * sample_rate_hz))
        fade = 0.5 - 0.5 * math.cos(math.pi * edge)
        return round(peak * fade * math.sin(2 * math.pi * tone_hz * n / sample_rate_hz))

    return [sample(n) for n in range(count)]
