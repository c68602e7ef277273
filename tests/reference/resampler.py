"""Model of native/aec/resampler.c: a Hann-windowed sinc at a position that slides.

T. Laakso et al., "Splitting the unit delay", IEEE Signal Processing Magazine 13 (1996).
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("aec/resampler.h", "aec/resampler.c")


def kernel(fraction: float) -> Signal:
    """Return the kernel for the value `fraction` of a sample after tap HALF - 1."""
    t = np.arange(C.RESAMPLER_TAPS) - (C.HALF - 1) - fraction
    return np.sinc(t) * np.cos(np.pi * t / (C.RESAMPLER_TAPS + 2)) ** 2


class Resampler:
    def __init__(self, hop: int) -> None:
        self.hop = hop
        self.far = np.zeros(C.RESAMPLER_BLOCKS * hop)
        self.started = False
        self.unread, self.fraction = 0, 0.0

    def start(self, a_block_late: bool) -> None:
        self.started, self.unread = True, 0 if a_block_late else C.AHEAD

    def push(self, slide: float, far: Signal) -> list[Signal]:
        """Return 0, 1 or 2 blocks, each read later by `slide` samples than the one before."""
        self.far = np.concatenate([self.far[self.hop :], far])
        if not self.started:
            return [far]
        self.unread += self.hop
        out = []
        if self.unread >= self.hop + C.AHEAD:
            out.append(self._read(slide))
        if self.unread > 2 * self.hop:
            out.append(self._read(slide))
        return out

    def _read(self, slide: float) -> Signal:
        start = len(self.far) - self.unread - (C.HALF - 1)
        taps = np.lib.stride_tricks.sliding_window_view(self.far, C.RESAMPLER_TAPS)[start : start + self.hop]
        first, last = taps @ kernel(self.fraction), taps @ kernel(self.fraction - slide)
        self.fraction -= slide
        whole = int(np.floor(self.fraction))
        self.fraction -= whole
        self.unread -= self.hop + whole
        return first + (last - first) * np.arange(self.hop) / self.hop
