"""Model of native/aec/residual.c: leakage by band, scaled by the confidence in the echo estimate, and
coupling of the far end's power.

Both are a regression of the error's power on that of the echo estimate, or the far end, weighted by the
inverse square of the error (after J.-M. Valin, IEEE TASLP 15 (2007)); they decay like a room (E. Habets et
al., IEEE Signal Proc. Letters 15 (2008)).
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("aec/regression.h", "aec/residual.c")


def band_edges(bins: int) -> list[int]:
    """Bands of 200 Hz (4 bins) up to 1 kHz, then a fifth of their frequency."""
    edges = [0]
    while edges[-1] < bins:
        edges.append(edges[-1] + (4 if edges[-1] < 20 else edges[-1] // 5))
    edges[-1] = bins
    return edges


class Regression:
    """Share of a source in the error, by band."""

    def __init__(self, edges: list[int], least_share: float, prior: float) -> None:
        self.edges, self.least_share, self.prior = edges, least_share, prior
        self.cross, self.square = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)

    def learn(self, source: Signal, error: Signal, noise: Signal) -> Signal:
        """Add a block; return the share by bin."""
        counts = source > C.AUDIBLE * noise
        ratio = np.where(counts, source / (error + self.least_share * source + noise), 0.0)
        left = np.maximum(error - noise, 0.0) / np.where(counts, source, 1.0)
        for band, (low, high) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
            square = float(np.sum(ratio[low:high] ** 2))
            if square > 0.0:
                cross = float(np.sum((ratio**2 * left)[low:high]))
                self.cross[band] += C.LEAK_RATE * (cross - self.cross[band])
                self.square[band] += C.LEAK_RATE * (square - self.square[band])
        share = (self.cross + self.prior * C.PRIOR_WEIGHT) / (self.square + C.PRIOR_WEIGHT)
        return np.asarray(np.repeat(share, np.diff(self.edges)))


class Residual:
    def __init__(self, bins: int) -> None:
        edges = band_edges(bins)
        self.error, self.echo, self.far, self.power = (np.zeros(bins) for _ in range(4))
        self.leakage = Regression(edges, C.LEAST_LEAKAGE, C.PRIOR_LEAKAGE)
        self.coupling = Regression(edges, C.LEAST_COUPLING, C.PRIOR_COUPLING)
        self.coherence_cross = self.coherence_power = self.convergence = 0.0

    def process(
        self, error: Signal, echo: Signal, cross: Signal, noise: Signal, far: Signal, moved: float
    ) -> Signal:
        """Return the residual echo's power by bin.

        error, echo, noise, far: powers; cross: real part of error times conj(echo); moved: likelihood, 0..1,
        that the echo has moved.
        """
        self.echo += C.SMOOTH_RATE * (echo - self.echo)
        self.far = np.maximum(far, C.DECAY * self.far)

        # microphone times conj(echo) over echo times conj(echo), whitened by the error before this block
        weight = 1.0 / (self.error + self.echo + noise)
        self.coherence_cross += C.COHERENCE_RATE * (
            float(np.sum(weight * (cross + echo))) - self.coherence_cross
        )
        self.coherence_power += C.COHERENCE_RATE * (float(np.sum(weight * echo)) - self.coherence_power)
        prior = C.PRIOR_COHERENCE * C.PRIOR_WEIGHT
        share = (self.coherence_cross + prior) / (self.coherence_power + C.PRIOR_WEIGHT)
        confidence = float(np.clip((share - C.CHANCE_SHARE) / (C.TRUE_SHARE - C.CHANCE_SHARE), 0.0, 1.0))
        self.error += C.SMOOTH_RATE * (error - self.error)

        leak = np.minimum(1.0, self.leakage.learn(self.echo, self.error, noise))
        counted = np.log(leak[self.leakage.edges[:-1]])[
            self.leakage.square > C.PRIOR_WEIGHT
        ]  # one bin a band
        mean = float(np.mean(counted)) if len(counted) else 0.0
        self.convergence = float(
            np.clip((mean - C.NOT_CONVERGED) / (C.CONVERGED - C.NOT_CONVERGED), 0.0, 1.0 - moved)
        )
        coupling = self.coupling.learn(self.far, self.error, noise)
        leaked = C.MARGIN * confidence * np.maximum(moved, leak) * np.maximum(echo, self.echo)
        now = np.maximum(leaked, C.MARGIN * coupling * self.far)
        self.power = np.maximum(now, C.DECAY * self.power)
        return self.power
