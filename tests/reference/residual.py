"""What the linear canceller leaves: leakage by band, scaled by whether the echo estimate is an echo at all,
and what else follows the far end's power.

Both are a regression of the error's power on that of the echo estimate, or the far end, weighted by the
inverse square of the error (after J.-M. Valin, IEEE TASLP 15 (2007)); they decay like a room (E. Habets et
al., IEEE Signal Proc. Letters 15 (2008)).
"""

from __future__ import annotations

import numpy as np
from reference.signals import Signal

SMOOTH_RATE, LEAK_RATE, TRUTH_RATE = 0.4, 0.02, 0.01
AUDIBLE, SURE_ERROR, UNCOUPLED_ERROR, PRIOR_WEIGHT = 0.1, 1e-3, 1e-5, 1e-3
MARGIN = 3.0
CHANCE_TRUTH, SURE_TRUTH = 0.05, 0.2
DOUBTED, TRUSTED = -4.145, -5.526
DECAY = 0.7


def band_edges(bins: int) -> list[int]:
    """Bands of 200 Hz (4 bins) up to 1 kHz, then a fifth of their frequency."""
    edges = [0]
    while edges[-1] < bins:
        edges.append(edges[-1] + (4 if edges[-1] < 20 else edges[-1] // 5))
    edges[-1] = bins
    return edges


class Regression:
    """By band: how much of a source is in the error."""

    def __init__(self, edges: list[int], sure_error: float, prior: float) -> None:
        self.edges, self.sure_error, self.prior = edges, sure_error, prior
        self.cross, self.square = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)

    def learn(self, source: Signal, error: Signal, noise: Signal) -> Signal:
        """The share, by bin."""
        heard = source > AUDIBLE * noise
        ratio = np.where(heard, source / (error + self.sure_error * source + noise), 0.0)
        left = np.maximum(error - noise, 0.0) / np.where(heard, source, 1.0)
        for band, (low, high) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
            square = float(np.sum(ratio[low:high] ** 2))
            if square > 0.0:
                cross = float(np.sum((ratio**2 * left)[low:high]))
                self.cross[band] += LEAK_RATE * (cross - self.cross[band])
                self.square[band] += LEAK_RATE * (square - self.square[band])
        share = (self.cross + self.prior * PRIOR_WEIGHT) / (self.square + PRIOR_WEIGHT)
        return np.asarray(np.repeat(share, np.diff(self.edges)))


class Residual:
    def __init__(self, bins: int) -> None:
        edges = band_edges(bins)
        self.error, self.echo, self.far, self.power = (np.zeros(bins) for _ in range(4))
        self.leakage = Regression(edges, SURE_ERROR, 1.0)
        self.coupling = Regression(edges, UNCOUPLED_ERROR, 0.0)
        self.shared = self.claimed = self.trust = 0.0

    def process(
        self, error: Signal, echo: Signal, cross: Signal, noise: Signal, far: Signal, moved: float
    ) -> Signal:
        """Powers of error, echo estimate, noise and far end; cross: real part of error times conj(echo);
        moved: how likely the echo is elsewhere than estimated."""
        self.echo += SMOOTH_RATE * (echo - self.echo)
        self.far = np.maximum(far, DECAY * self.far)

        # microphone times conj(echo) over echo times conj(echo), whitened by the error before this block
        weight = 1.0 / (self.error + self.echo + noise)
        self.shared += TRUTH_RATE * (float(np.sum(weight * (cross + echo))) - self.shared)
        self.claimed += TRUTH_RATE * (float(np.sum(weight * echo)) - self.claimed)
        truth = float(np.clip((self.shared + PRIOR_WEIGHT) / (self.claimed + PRIOR_WEIGHT), 0.0, 1.0))
        believed = float(np.clip((truth - CHANCE_TRUTH) / (SURE_TRUTH - CHANCE_TRUTH), 0.0, 1.0))
        self.error += SMOOTH_RATE * (error - self.error)

        leak = np.minimum(1.0, self.leakage.learn(self.echo, self.error, noise))
        told = np.log(leak[self.leakage.edges[:-1]])[self.leakage.square > PRIOR_WEIGHT]  # one bin a band
        mean = float(np.mean(told)) if len(told) else 0.0
        self.trust = float(np.clip((mean - DOUBTED) / (TRUSTED - DOUBTED), 0.0, 1.0 - moved))
        coupling = self.coupling.learn(self.far, self.error, noise)
        leaked = MARGIN * believed * np.maximum(moved, leak) * np.maximum(echo, self.echo)
        now = np.maximum(leaked, MARGIN * coupling * self.far)
        self.power = np.maximum(now, DECAY * self.power)
        return self.power
