"""Sound for those who look on, from the audio thread to another one: nobody waits, and nothing is copied."""

from collections import deque
from typing import NamedTuple

# 2 s: the thread at the other end comes ten times a second. A frame that finds no room is left out, and the
# jump in the numbers tells how many were.
CAPACITY_FRAMES = 200


class Frame(NamedTuple):
    """Far end, microphone and output of one frame, interleaved int16; `number` counts from the start."""

    number: int
    far_end: bytes
    microphone: bytes
    output: bytes


class Feed:
    """One thread puts, one takes.

    wanted   by the taking thread: whether anybody looks on; only then anything is put
    """

    def __init__(self) -> None:
        self.wanted = False
        self._frames: deque[Frame] = deque()

    def put(self, number: int, far_end: bytes, microphone: bytes, output: bytes) -> None:
        if self.wanted and len(self._frames) < CAPACITY_FRAMES:
            self._frames.append(Frame(number, far_end, microphone, output))

    def take(self) -> list[Frame]:
        """All that there is, oldest first."""
        return [self._frames.popleft() for _ in range(len(self._frames))]
