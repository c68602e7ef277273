"""An echo that jumps in time: the peak of its cross-correlation with the estimate, whitened by both powers.

The smoothed coherence transform: G. Carter, A. Nuttall, P. Cable, Proc. IEEE 61 (1973).
"""

from __future__ import annotations

import numpy as np
from reference.signals import Signal

BLOCKS, MOST_BINS = 8, 160
WENT, STAYS, ESTIMATED, UNUSUAL, USUAL_RATE = 0.1, 0.25, 0.25, 4.0, 0.02
AUDIBLE, LEAST_BINS, FAINT, KEEP, CHANCE, SAME, LEAD = 10.0, 20, 0.01, 0.85, 5.0, 0.8, 1.5
FIRST_BLOCKS, DRY_BLOCKS, SEARCH_BLOCKS, REST_BLOCKS, SOON_BLOCKS = 4, 10, 20, 50, 4


class Side:
    """The newest block of one signal with two earlier ones of the other: (lag in blocks, bins)."""

    def __init__(self, bins: int) -> None:
        self.newest = np.zeros(bins)
        self.cross, self.past = np.zeros((BLOCKS, bins), complex), np.zeros((BLOCKS, bins))

    def compare(self, newest: Signal, past: Signal, hop: int, weight: float) -> None:
        bins = self.cross.shape[1]
        now = np.fft.rfft(np.concatenate([np.zeros(hop), newest[-hop:]]))[:bins]
        frames = [past[(BLOCKS - 1 - lag) * hop :][: 2 * hop] for lag in range(BLOCKS)]
        then = np.fft.rfft(frames, axis=1)[:, :bins]
        self.newest = KEEP * self.newest + weight * np.abs(now) ** 2
        self.cross = KEEP * self.cross + weight * now * np.conj(then)
        self.past = KEEP * self.past + weight * np.abs(then) ** 2 / 2.0  # twice as many samples

    def correlation(self, told: np.ndarray, hop: int) -> Signal:
        """By lag in samples, 0 .. BLOCKS * hop - 1; 1 for a copy."""
        spectrum = np.zeros((BLOCKS, hop + 1), complex)
        white = told * self.cross / np.sqrt(self.newest * self.past + 1e-20)
        spectrum[:, 1 : white.shape[1]] = white[:, 1:]
        peaks = np.fft.irfft(spectrum, 2 * hop, axis=1)[:, :hop]
        return np.asarray(peaks.ravel() * hop / np.sum(told))


class Jump:
    def __init__(self, hop: int) -> None:
        self.hop, self.bins = hop, min(hop, MOST_BINS)
        self.echo, self.mic = np.zeros((BLOCKS + 1) * hop), np.zeros((BLOCKS + 1) * hop)
        self.usual_mic = self.usual_error = 0.0
        self._end(REST_BLOCKS)

    def _end(self, rest_blocks: int) -> None:
        self.later, self.earlier = Side(self.bins), Side(self.bins)
        self.weight = self.blocks = self.evidence = 0.0
        self.searched_blocks, self.rest_blocks = 0, rest_blocks

    def process(self, mic: Signal, echo: Signal, error_power: Signal) -> int:
        """Samples by which the echo came to be later than estimated, 0 as long as that isn't clear."""
        self.mic = np.concatenate([self.mic[self.hop :], mic])
        self.echo = np.concatenate([self.echo[self.hop :], echo])
        heard, estimated, error = (float(np.sum(x**2)) for x in (mic, echo, mic - echo))
        if not self.searched_blocks:
            suspected = (
                not self.rest_blocks
                and self.usual_error < WENT * self.usual_mic
                and error > UNUSUAL * self.usual_error
                and error > STAYS * max(heard, estimated)
                and estimated > ESTIMATED * error
            )
            self.rest_blocks = max(0, self.rest_blocks - 1)
            if not suspected:
                self.usual_mic += USUAL_RATE * (heard - self.usual_mic)
                self.usual_error += USUAL_RATE * (error - self.usual_error)
                return 0
            self.usual_power = error_power[: self.bins]
        self.searched_blocks += 1
        weight = 1.0 / (heard + estimated + FAINT * self.usual_mic)
        self.weight, self.blocks = KEEP * self.weight + weight, KEEP * self.blocks + 1.0
        self.later.compare(self.mic, self.echo, self.hop, weight)
        self.earlier.compare(self.echo, self.mic, self.hop, weight)
        if self.searched_blocks < FIRST_BLOCKS:
            return 0
        lag, height = self._clear_peak()
        width = self.hop // 10
        early = self.searched_blocks < DRY_BLOCKS
        stays = lag is not None and abs(lag) <= width and (height > SAME or not early)
        moved = lag is not None and abs(lag) > width and not early
        if stays or moved or self.searched_blocks == SEARCH_BLOCKS:
            self._end(SOON_BLOCKS if stays or moved else REST_BLOCKS)
        return lag if moved and lag is not None else 0

    def _clear_peak(self) -> tuple[int | None, float]:
        told = self.earlier.newest > AUDIBLE * self.weight * self.usual_power
        told[0] = False
        if np.sum(told) < LEAST_BINS:
            return None, 0.0
        later, earlier = (side.correlation(told, self.hop) for side in (self.later, self.earlier))
        heights = np.concatenate([later, earlier])
        lags = np.concatenate([np.arange(len(later)), -np.arange(len(earlier))])
        best = int(np.argmax(heights))
        height, lag = float(heights[best]), int(lags[best])
        chance = CHANCE / np.sqrt(self.blocks * np.sum(told))
        following = float(np.max(heights[np.abs(lags - lag) > self.hop // 10]))
        high = (height - chance) / chance, (height - following) / ((LEAD - 1.0) * following)
        self.evidence = float(np.prod(np.clip(high, 0.0, 1.0))) * (abs(lag) > self.hop // 10)
        return lag if height > max(chance, LEAD * following) else None, height
