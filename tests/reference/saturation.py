"""A loudspeaker's drive: where it is loud, the microphone holds less of the canceller's estimate.

A curve before the filter, learned beside it: A. Stenger, W. Kellermann, Signal Processing 80 (2000).
"""

from __future__ import annotations

import numpy as np
from reference.signals import Signal

AVERAGE_RATE, STEP, MOST_CHANGE, MOST_DRIVE, FIRST_BLOCKS = 0.005, 0.01, 0.02, 20.0, 300
OVERDRIVEN, NO_LONGER = 4.0, 2.0


def bent(x: Signal, drive: float) -> Signal:
    return np.tanh(drive * x) / drive if drive else x


class Saturation:
    def __init__(self) -> None:
        self.drive = 0.0
        self.overdriven = False
        self.heard_blocks = 0
        self.sums = np.zeros(5)

    def process(self, x: Signal) -> Signal:
        return bent(x, self.drive) if self.overdriven else x

    def learn(self, loudness: float, power: float, cross: float) -> None:
        """Of a block: the far end's mean square; power of the estimate, and of it times the error."""
        now = np.array([power, power * loudness, power * loudness**2, cross, cross * loudness])
        self.sums += AVERAGE_RATE * (now - self.sums)
        self.heard_blocks += 1
        if self.heard_blocks <= FIRST_BLOCKS:
            return
        weight, mean, square, share, product = self.sums
        slope = (weight * product - mean * share) / (weight * square - mean**2 + 1e-20)
        wanted = np.sqrt(max(0.0, self.drive**2 - STEP * slope))
        least, most = max(0.0, self.drive - MOST_CHANGE), min(MOST_DRIVE, self.drive + MOST_CHANGE)
        self.drive = float(np.clip(wanted, least, most))
        self.overdriven = self.drive > (NO_LONGER if self.overdriven else OVERDRIVEN)
