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

from apmpi._cards import LatencyRing
from apmpi.units import FRAME_MS


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


class LatencyLog(LatencyRing):
    """The last `capacity_frames` frames; one thread adds, another one summarises, without a lock.

    frames   number of frames added since the start; written after the frame's figures, so that a reader of
             the new count reads these figures, too
    """

    def __init__(self, capacity_frames: int, algorithmic_ms: float) -> None:
        self.algorithmic_ms = algorithmic_ms

    def summary(self, since_frame: int) -> LatencySummary | None:
        """Return the latency from frame number `since_frame` on, None without frames.

        It covers the last `capacity_frames` at most.
        """
        found = self.spreads(since_frame)
        if found is None:
            return None
        frames, spreads = found
        capture_wait, processing, playback_queue, parts = (Spread(*spread) for spread in spreads)
        wake_up, total = _later(capture_wait, -FRAME_MS), _later(parts, self.algorithmic_ms)
        return LatencySummary(
            frames, total, capture_wait, wake_up, processing, playback_queue, self.algorithmic_ms
        )


def _later(spread: Spread, by_ms: float) -> Spread:
    return Spread(spread.median_ms + by_ms, spread.p99_ms + by_ms, spread.max_ms + by_ms)
