"""Latency through the device per 10 ms frame, with its median, 99th percentile and maximum.

    capture_wait     oldest sample of the period at the microphone's converter -> period read: the 10 ms of
                     the period itself and the lateness of the loop
    processing       -> frame processed
    playback_queue   -> first sample of the frame at the output's converter (0 for a file)
    algorithmic      delay of the chain's output behind its input, a constant of the chain

The four follow each other without gap or overlap, so their sum is the time of a click from microphone to
output. `wake_up` is capture_wait less the constant 10 ms: the lateness of the loop for a frame that was
complete, and its variation is the loop's jitter. The converters' own delay (filters, USB packets: about 1 ms)
is not visible to ALSA and not included.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apmpi.units import FRAME_MS

PARTS = ("capture_wait", "processing", "playback_queue")


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """Latency of one frame by its parts, and the xruns of all endpoints so far."""

    capture_wait_ms: float
    processing_ms: float
    playback_queue_ms: float
    algorithmic_ms: float
    xruns: int = 0

    @property
    def total_ms(self) -> float:
        return self.capture_wait_ms + self.processing_ms + self.playback_queue_ms + self.algorithmic_ms


@dataclass(frozen=True, slots=True)
class Spread:
    """Distribution of one latency over some frames."""

    median_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Latency over a number of frames. Percentiles of the total are its own, not sums of the parts'."""

    frames: int
    total: Spread
    capture_wait: Spread
    wake_up: Spread
    processing: Spread
    playback_queue: Spread
    algorithmic_ms: float


class LatencyLog:
    """Ring of the last `capacity_frames` frames; one thread adds, another one summarises, without a lock.

    frames   number of frames added since the start; written after the frame's figures, so that a reader of
             the new count reads these figures, too
    """

    def __init__(self, capacity_frames: int, algorithmic_ms: float) -> None:
        self.algorithmic_ms = algorithmic_ms
        self.frames = 0
        # Twice the capacity: frames are not overwritten while they are summarised.
        self._ring = np.zeros((2 * capacity_frames, len(PARTS)), dtype=np.float32)
        self._capacity_frames = capacity_frames

    def add(self, capture_wait_ms: float, processing_ms: float, playback_queue_ms: float) -> None:
        self._ring[self.frames % len(self._ring)] = (capture_wait_ms, processing_ms, playback_queue_ms)
        self.frames += 1

    def summary(self, since_frame: int) -> LatencySummary | None:
        """Return the latency from frame number `since_frame` on, None without frames.

        It covers the last `capacity_frames` at most.
        """
        end = self.frames
        begin = max(since_frame, end - self._capacity_frames)
        if begin >= end:
            return None
        parts = self._ring[np.arange(begin, end) % len(self._ring)]
        capture_wait, processing, playback_queue = (_spread(part) for part in parts.T)
        wake_up = _spread(parts[:, 0] - np.float32(FRAME_MS))
        total = _spread(parts.sum(axis=1) + np.float32(self.algorithmic_ms))
        return LatencySummary(
            end - begin, total, capture_wait, wake_up, processing, playback_queue, self.algorithmic_ms
        )


def _spread(values_ms: NDArray[np.float32]) -> Spread:
    """Return percentiles that occurred: of 100 frames the 99th percentile is the second largest value."""
    low, high = np.percentile(values_ms, (50, 99), method="inverted_cdf")
    return Spread(float(low), float(high), float(values_ms.max()))
