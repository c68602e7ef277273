"""Clocks: the time base, and the drift of another card's clock against the microphone's.

The microphone's card sets the pace. A card on another crystal gains or loses up to 48 samples a second on it
at 48 kHz (two crystals, +-500 ppm each); uncorrected, its queue would underrun or overrun within minutes and
the delay of the echo path would seem to grow. So sound to or from such a card is converted
(native/cards/converter.h), with the ratio that `Drift` estimates from the lateness of the sound. A card that
shares the microphone's clock needs neither: `Settling` corrects its placement to the sample, once. Both are
in native/cards/clocks.h. Sound of programs and files at other rates goes through resampler.py.
"""

import time

from apmpi._cards import Drift, Settling
from apmpi.cards.resampler import Resampler

__all__ = ["Drift", "Resampler", "Settling", "Timebase"]


class Timebase:
    """Clock of the cards: CLOCK_MONOTONIC, or `speed` times as fast with a room card."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed

    def now_ns(self) -> int:
        return self.of_monotonic(time.monotonic_ns())

    def of_monotonic(self, monotonic_ns: int) -> int:
        return monotonic_ns if self.speed == 1.0 else int(monotonic_ns * self.speed)

    def real_s(self, seconds: float) -> float:
        """Return the real seconds in which `seconds` of this clock pass."""
        return seconds / self.speed
