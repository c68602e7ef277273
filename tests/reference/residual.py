"""What the linear canceller leaves: leakage by band, scaled by whether the echo estimate is an echo at all.

The leakage is a regression of the error's power on the echo estimate's, weighted by the inverse square of the
error (after J.-M. Valin, IEEE TASLP 15 (2007)); it decays like a room (E. Habets et al., IEEE Signal Proc.
Letters 15 (2008)).
"""

from __future__ import annotations

import numpy as np
from reference.signals import Signal

SMOOTH_RATE, LEAK_RATE, TRUTH_RATE = 0.4, 0.02, 0.01
AUDIBLE, SURE_ERROR, PRIOR_WEIGHT = 0.1, 1e-3, 1e-3
MARGIN = 3.0
CHANCE_TRUTH, SURE_TRUTH = 0.05, 0.2
DECAY = 0.7


def band_edges(bins: int) -> list[int]:
    """Bands of 200 Hz (4 bins) up to 1 kHz, then a fifth of their frequency."""
    edges = [0]
    while edges[-1] < bins:
        edges.append(edges[-1] + (4 if edges[-1] < 20 else edges[-1] // 5))
    edges[-1] = bins
    return edges


class Residual:
    def __init__(self, bins: int) -> None:
        self.edges = band_edges(bins)
        bands = len(self.edges) - 1
        self.error, self.echo, self.power = np.zeros(bins), np.zeros(bins), np.zeros(bins)
        self.cross, self.square = np.zeros(bands), np.zeros(bands)
        self.shared = self.claimed = 0.0

    def process(self, error: Signal, echo: Signal, cross: Signal, noise: Signal) -> Signal:
        """Powers of error, echo estimate and noise by bin; cross: real part of error times conj(echo)."""
        self.echo += SMOOTH_RATE * (echo - self.echo)

        # microphone times conj(echo) over echo times conj(echo), whitened by the error before this block
        weight = 1.0 / (self.error + self.echo + noise)
        self.shared += TRUTH_RATE * (float(np.sum(weight * (cross + echo))) - self.shared)
        self.claimed += TRUTH_RATE * (float(np.sum(weight * echo)) - self.claimed)
        truth = float(np.clip((self.shared + PRIOR_WEIGHT) / (self.claimed + PRIOR_WEIGHT), 0.0, 1.0))
        believed = float(np.clip((truth - CHANCE_TRUTH) / (SURE_TRUTH - CHANCE_TRUTH), 0.0, 1.0))
        self.error += SMOOTH_RATE * (error - self.error)

        heard = self.echo > AUDIBLE * noise
        safe = np.where(heard, self.echo, 1.0)
        trust = np.where(heard, self.echo / (self.error + SURE_ERROR * self.echo + noise), 0.0) ** 2
        leaked = np.maximum(self.error - noise, 0.0) / safe
        for band, (low, high) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
            within = slice(low, high)
            square = float(np.sum(trust[within]))
            if square > 0.0:
                self.cross[band] += LEAK_RATE * (float(np.sum((trust * leaked)[within])) - self.cross[band])
                self.square[band] += LEAK_RATE * (square - self.square[band])
            leak = min(1.0, (self.cross[band] + PRIOR_WEIGHT) / (self.square[band] + PRIOR_WEIGHT))
            now = MARGIN * believed * leak * np.maximum(echo[within], self.echo[within])
            self.power[within] = np.maximum(now, DECAY * self.power[within])
        return self.power
