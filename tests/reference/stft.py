"""Model of native/kernels/stft.c: frames of 2*hop samples every hop, of which hop/2 overlap in the output.

The analysis window is a quarter sine over the first 3/4 of the frame and a quarter cosine over the last
quarter. Its product with the synthesis window is a raised-cosine crossfade of hop/2, a constant hop/2, and
the crossfade back; the first quarter of the frame is not used.
"""

from __future__ import annotations

import numpy as np
from reference.signals import Signal


def windows(hop: int) -> tuple[Signal, Signal]:
    """Analysis and synthesis window, 2*hop samples each."""
    fade = hop // 2
    rise = np.sin(np.pi / 2 * (np.arange(3 * fade) + 0.5) / (3 * fade))
    fall = np.cos(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    analysis = np.concatenate([rise, fall])
    product = np.concatenate([np.zeros(fade), fall[::-1] ** 2, np.ones(fade), fall**2])
    return analysis, product / analysis


class Stft:
    """Filter bank of one channel; the caller multiplies the spectrum between analyse and synthesise."""

    def __init__(self, hop: int) -> None:
        self.hop = hop
        self.analysis, self.synthesis = windows(hop)
        self.history = np.zeros(2 * hop)
        self.overlap = np.zeros(hop // 2)

    def analyse(self, block: Signal) -> np.ndarray:
        """Spectrum (hop + 1 bins) of the last two blocks."""
        self.history = np.concatenate([self.history[self.hop :], block])
        return np.fft.rfft(self.history * self.analysis)

    def synthesise(self, spectrum: np.ndarray) -> Signal:
        """Return one finished block, hop/2 samples late."""
        fade = self.hop // 2
        frame = np.fft.irfft(spectrum, 2 * self.hop) * self.synthesis
        out = frame[fade : 3 * fade].copy()
        out[:fade] += self.overlap
        self.overlap = frame[3 * fade :]
        return out
