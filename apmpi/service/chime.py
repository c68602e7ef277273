"""Two short rising tones through the loudspeaker, once, when sound has flowed for the first time after the
computer's start.

They are added to the far end, so that they are part of the canceller's reference and their echo is cancelled
as any other. A file beside that of flowing sound (apmpi.service.sound_mark) outlives a restart of the service
and not one of the computer.
"""

import logging
from pathlib import Path

import numpy as np

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
    """The tones, frame by frame. For the audio thread."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        """Compute all frames: `channels` interleaved, alike."""
        count = sample_rate_hz // FRAMES_PER_S * TONE_FRAMES
        time_s = np.arange(count) / sample_rate_hz
        edge_s = np.minimum(time_s, time_s[::-1])
        fade = 0.5 - 0.5 * np.cos(np.pi * np.minimum(edge_s / FADE_S, 1))
        peak = FULL_SCALE * np.sqrt(2) * 10 ** (LEVEL_DBFS / 20)
        tones = np.concatenate([peak * fade * np.sin(2 * np.pi * tone_hz * time_s) for tone_hz in TONES_HZ])
        samples = np.repeat(np.rint(tones).astype(np.int32), channels)
        self._frames = list(samples.reshape(len(TONES_HZ) * TONE_FRAMES, -1))

    def over(self, far: bytes) -> bytes:
        """Return the frame with the next 10 ms of the tones, as it is when they have ended."""
        if not self._frames:
            return far
        mixed = np.frombuffer(far, np.int16) + self._frames.pop(0)
        frame: bytes = np.clip(mixed, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16).tobytes()
        return frame
