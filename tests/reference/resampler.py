"""Reads the far end onto the microphone's clock: a Hann-windowed sinc at a position that slides.

T. Laakso et al., "Splitting the unit delay", IEEE Signal Processing Magazine 13 (1996).
"""

from __future__ import annotations

import numpy as np
from reference.signals import Signal

TAPS, BLOCKS = 32, 4
AHEAD = TAPS // 2 + 1


def kernel(fraction: float) -> Signal:
    """Of the value `fraction` of a sample behind tap TAPS/2 - 1."""
    t = np.arange(TAPS) - (TAPS // 2 - 1) - fraction
    return np.sinc(t) * np.cos(np.pi * t / (TAPS + 2)) ** 2


class Resampler:
    def __init__(self, hop: int) -> None:
        self.hop = hop
        self.far = np.zeros(BLOCKS * hop)
        self.started = False
        self.unread, self.fraction = 0, 0.0

    def start(self, a_block_late: bool) -> None:
        self.started, self.unread = True, 0 if a_block_late else AHEAD

    def push(self, slide: float, far: Signal) -> list[Signal]:
        """0, 1 or 2 blocks; each falls back by `slide` samples against the far end."""
        self.far = np.concatenate([self.far[self.hop :], far])
        if not self.started:
            return [far]
        self.unread += self.hop
        out = []
        if self.unread >= self.hop + AHEAD:
            out.append(self._read(slide))
        if self.unread > 2 * self.hop:
            out.append(self._read(slide))
        return out

    def _read(self, slide: float) -> Signal:
        start = len(self.far) - self.unread - (TAPS // 2 - 1)
        taps = np.lib.stride_tricks.sliding_window_view(self.far, TAPS)[start : start + self.hop]
        first, last = taps @ kernel(self.fraction), taps @ kernel(self.fraction - slide)
        self.fraction -= slide
        whole = int(np.floor(self.fraction))
        self.fraction -= whole
        self.unread -= self.hop + whole
        return first + (last - first) * np.arange(self.hop) / self.hop
