"""Drift of the microphone's clock against the far end's, from the lag of the echo behind its estimate.

Gradient after M. Pawig, G. Enzner, P. Vary, IEEE Trans. Signal Processing 58 (2010); a Kalman filter of lag
and rate closes the loop over the resampler.
"""

from __future__ import annotations

import numpy as np

MOST_PPM, FIRST_GUESS_PPM = 500.0, 150.0
ALIKE_BLOCKS = 3.0
WATCH_KEEP, BEYOND_CHANCE = 0.995, 18.4
WANDERS = np.diag([4e-10, 8e-14])  # lag and rate, of 10 ms, squared
FIRST_LAG = 4e-5
MOST_STEP = 0.5
MORE_PROOF, SETTLE_BLOCKS, TRIAL_BLOCKS, CLEARLY_WORSE = 4.0, 100, 400, 0.25
GROWS = np.array([[1.0, 1.0], [0.0, 1.0]])  # lag += rate


class Drift:
    def __init__(self, hop: int) -> None:
        self.hop = hop
        self.steering = False
        self.rate = 0.0  # samples a block
        self.first = np.diag([FIRST_LAG, (1e-6 * FIRST_GUESS_PPM) ** 2]) * hop**2
        self.covariance = self.first
        self.lag_sum = self.information = 0.0
        self.proof = BEYOND_CHANCE
        self.best_before = self.best_since = 0.0
        self.trial_blocks = 0

    def process(self, lag_sum: float, information: float, reduction: float) -> float:
        """Samples by which the far end is to fall back in the next block.

        reduction: power of the microphone over that of the error.
        """
        if self.steering and information > 0.0 and self.trial_blocks < TRIAL_BLOCKS:
            self.trial_blocks += 1
            if self.trial_blocks > SETTLE_BLOCKS:
                self.best_since = max(self.best_since, reduction)
            if self.trial_blocks == TRIAL_BLOCKS and self.best_since < CLEARLY_WORSE * self.best_before:
                proof = MORE_PROOF * self.proof
                self.__init__(self.hop)  # type: ignore[misc]
                self.proof = proof
        if not self.steering:
            if information > 0.0:
                self.best_before = max(WATCH_KEEP * self.best_before, reduction)
            self.lag_sum = WATCH_KEEP * self.lag_sum + lag_sum
            self.information = WATCH_KEEP * self.information + information
            self.steering = self.lag_sum**2 > self.proof * self.information
            return 0.0
        p = GROWS @ self.covariance @ GROWS.T + WANDERS * self.hop**2
        gain = p[:, 0] / (ALIKE_BLOCKS + information * p[0, 0])  # of lag_sum; times information: of the lag
        self.covariance = p - information * np.outer(gain, p[0])
        lag, rate = gain * lag_sum
        most = 1e-6 * MOST_PPM * self.hop
        self.rate = float(np.clip(self.rate + rate, -most, most))
        if self.covariance[1, 1] > self.first[1, 1]:
            self.covariance = self.first
        return self.rate + float(np.clip(lag, -MOST_STEP, MOST_STEP))
