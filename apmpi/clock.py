"""Time: CLOCK_MONOTONIC, or a simulated card's faster one."""

import time

NS_PER_S = 1_000_000_000


class Timebase:
    """What the time is for the cards: CLOCK_MONOTONIC, unless a room card lives `speed` times as fast."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed

    def now_ns(self) -> int:
        return self.of_monotonic(time.monotonic_ns())

    def of_monotonic(self, monotonic_ns: int) -> int:
        return monotonic_ns if self._speed == 1.0 else int(monotonic_ns * self._speed)

    def real_s(self, seconds: float) -> float:
        """How long somebody must really wait for `seconds` to pass."""
        return seconds / self._speed
