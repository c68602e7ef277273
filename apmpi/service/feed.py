"""Queue of sound from the audio thread to the socket's thread: neither waits, and nothing is copied."""

from collections import deque
from typing import NamedTuple

# 2 s: the taking thread comes ten times a second. A frame that finds no room is left out, which shows as a
# gap in the numbers.
CAPACITY_FRAMES = 200


class Frame(NamedTuple):
    """Far end, microphone and output of one frame, interleaved int16; `number` counts from the start."""

    number: int
    far_end: bytes
    microphone: bytes
    output: bytes


class Feed:
    """The audio thread puts, the socket's thread takes.

    wanted   set by the taking thread: whether a client subscribes; only then frames are put
    """

    def __init__(self) -> None:
        self.wanted = False
        self._frames: deque[Frame] = deque()

    def put(self, number: int, far_end: bytes, microphone: bytes, output: bytes) -> None:
        """Queue a frame. Runs in the audio thread; does not wait."""
        if self.wanted and len(self._frames) < CAPACITY_FRAMES:
            self._frames.append(Frame(number, far_end, microphone, output))

    def take(self) -> list[Frame]:
        """Return all queued frames, oldest first. For the taking thread."""
        return [self._frames.popleft() for _ in range(len(self._frames))]
