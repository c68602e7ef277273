"""Model of native/kernels/stft.c: frames of 2*hop samples every hop, of which `fade` overlap in the output.

The analysis window is a quarter sine over all but the last `fade` samples and a quarter cosine over these.
Its product with the synthesis window is a raised-cosine crossfade of `fade`, a constant, and the crossfade
back; the first hop - fade samples of the frame are not used.
"""

from __future__ import annotations

import numpy as np
from reference.signals import Signal


def windows(hop: int, fade: int | None = None) -> tuple[Signal, Signal]:
    """Analysis and synthesis window, 2*hop samples each. fade: hop/2 by default."""
    fade = fade or hop // 2
    rising = 2 * hop - fade
    rise = np.sin(np.pi / 2 * (np.arange(rising) + 0.5) / rising)
    fall = np.cos(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    analysis = np.concatenate([rise, fall])
    product = np.concatenate([np.zeros(hop - fade), fall[::-1] ** 2, np.ones(hop - fade), fall**2])
    return analysis, product / analysis


class Stft:
    """Filter bank of one channel; the caller multiplies the spectrum between analyse and synthesise."""

    def __init__(self, hop: int, fade: int | None = None) -> None:
        self.hop, self.fade = hop, fade or hop // 2
        self.analysis, self.synthesis = windows(hop, fade)
        self.history = np.zeros(2 * hop)
        self.overlap = np.zeros(self.fade)

    def analyse(self, block: Signal) -> np.ndarray:
        """Spectrum (hop + 1 bins) of the last two blocks."""
        self.history = np.concatenate([self.history[self.hop :], block])
        return np.fft.rfft(self.history * self.analysis)

    def synthesise(self, spectrum: np.ndarray) -> Signal:
        """Return one finished block, `fade` samples late."""
        frame = np.fft.irfft(spectrum, 2 * self.hop) * self.synthesis
        first, end = self.hop - self.fade, 2 * self.hop - self.fade
        out = frame[first:end].copy()
        out[: self.fade] += self.overlap
        self.overlap = frame[end:]
        return out
