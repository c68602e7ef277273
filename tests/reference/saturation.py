"""Model of native/aec/saturation.c: a loudspeaker's drive from the estimate's share over the loudness.

Learning a curve ahead of the filter: A. Stenger, W. Kellermann, Signal Processing 80 (2000).
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("aec/saturation.c")


def bent(x: Signal, drive: float) -> Signal:
    return np.tanh(drive * x) / drive if drive else x


class Saturation:
    def __init__(self) -> None:
        self.drive = 0.0
        self.overdriven = False
        self.far_blocks = 0
        self.sums = np.zeros(5)

    def process(self, x: Signal) -> Signal:
        return bent(x, self.drive) if self.overdriven else x

    def learn(self, loudness: float, power: float, cross: float) -> None:
        """Learn from a block: mean square of the far end, power of the estimate, and estimate times error."""
        now = np.array([power, power * loudness, power * loudness**2, cross, cross * loudness])
        self.sums += C.AVERAGE_RATE * (now - self.sums)
        self.far_blocks += 1
        if self.far_blocks <= C.FIRST_BLOCKS:
            return
        weight, mean, square, share, product = self.sums
        slope = (weight * product - mean * share) / (weight * square - mean**2 + C.TINY)
        wanted = np.sqrt(max(0.0, self.drive**2 - C.STEP * slope))
        least, most = max(0.0, self.drive - C.MOST_CHANGE), min(C.MOST_DRIVE, self.drive + C.MOST_CHANGE)
        self.drive = float(np.clip(wanted, least, most))
        self.overdriven = self.drive > (C.NO_LONGER if self.overdriven else C.OVERDRIVEN)
