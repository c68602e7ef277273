"""Model of native/aec/drift.c: drift of the clocks from the lag of the echo behind its estimate.

Gradient after M. Pawig, G. Enzner, P. Vary, IEEE Trans. Signal Processing 58 (2010); a Kalman filter of lag
and rate closes the loop over the resampler.
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants

C = c_constants("aec/drift.c")
NOISE = np.diag([C.LAG_NOISE, C.RATE_NOISE])  # variance per block of lag and rate, of 10 ms, squared
GROWS = np.array([[1.0, 1.0], [0.0, 1.0]])  # lag += rate


class Drift:
    def __init__(self, hop: int) -> None:
        self.hop = hop
        self.steering = False
        self.rate = 0.0  # samples per block
        self.first = np.diag([C.FIRST_LAG, (1e-6 * C.FIRST_GUESS_PPM) ** 2]) * hop**2
        self.covariance = self.first
        self.lag_sum = self.information = 0.0
        self.threshold = C.SIGNIFICANT
        self.best_before = self.best_since = 0.0
        self.trial_blocks = 0

    def process(self, lag_sum: float, information: float, reduction: float) -> float:
        """Return the samples by which the far end is to be read later over the next block.

        reduction: power of the microphone over that of the error.
        """
        if self.steering and information > 0.0 and self.trial_blocks < C.TRIAL_BLOCKS:
            self.trial_blocks += 1
            if self.trial_blocks > C.SETTLE_BLOCKS:
                self.best_since = max(self.best_since, reduction)
            if self.trial_blocks == C.TRIAL_BLOCKS and self.best_since < C.CLEARLY_WORSE * self.best_before:
                threshold = C.RAISED * self.threshold
                self.__init__(self.hop)  # type: ignore[misc]
                self.threshold = threshold
        if not self.steering:
            if information > 0.0:
                self.best_before = max(C.DETECTION_KEEP * self.best_before, reduction)
            self.lag_sum = C.DETECTION_KEEP * self.lag_sum + lag_sum
            self.information = C.DETECTION_KEEP * self.information + information
            self.steering = self.lag_sum**2 > self.threshold * self.information
            return 0.0
        p = GROWS @ self.covariance @ GROWS.T + NOISE * self.hop**2
        gain = p[:, 0] / (C.ALIKE_BLOCKS + information * p[0, 0])  # of lag_sum; times information: of the lag
        self.covariance = p - information * np.outer(gain, p[0])
        lag, rate = gain * lag_sum
        most = 1e-6 * C.MOST_PPM * self.hop
        self.rate = float(np.clip(self.rate + rate, -most, most))
        if self.covariance[1, 1] > self.first[1, 1]:
            self.covariance = self.first
        return self.rate + float(np.clip(lag, -C.MOST_STEP, C.MOST_STEP))
