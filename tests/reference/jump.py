"""Model of native/aec/jump.c: the peak of the whitened cross-correlation of an echo with its estimate.

The smoothed coherence transform: G. Carter, A. Nuttall, P. Cable, Proc. IEEE 61 (1973).
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("aec/jump.h", "aec/jump.c")


class Side:
    """Cross-spectra of one signal's newest block with two earlier of the other, (lag in blocks, bins)."""

    def __init__(self, bins: int) -> None:
        self.newest = np.zeros(bins)
        self.cross, self.past = np.zeros((C.JUMP_BLOCKS, bins), complex), np.zeros((C.JUMP_BLOCKS, bins))

    def compare(self, newest: Signal, past: Signal, hop: int, weight: float) -> None:
        bins = self.cross.shape[1]
        now = np.fft.rfft(np.concatenate([np.zeros(hop), newest[-hop:]]))[:bins]
        frames = [past[(C.JUMP_BLOCKS - 1 - lag) * hop :][: 2 * hop] for lag in range(C.JUMP_BLOCKS)]
        then = np.fft.rfft(frames, axis=1)[:, :bins]
        self.newest = C.KEEP * self.newest + weight * np.abs(now) ** 2
        self.cross = C.KEEP * self.cross + weight * now * np.conj(then)
        self.past = (
            C.KEEP * self.past + weight * np.abs(then) ** 2 / 2.0
        )  # the frame has twice as many samples

    def correlation(self, counts: np.ndarray, hop: int) -> Signal:
        """Return the correlation by lag in samples, 0 .. C.JUMP_BLOCKS * hop - 1; 1 for identical signals."""
        spectrum = np.zeros((C.JUMP_BLOCKS, hop + 1), complex)
        white = counts * self.cross / np.sqrt(self.newest * self.past + C.TINY)
        spectrum[:, 1 : white.shape[1]] = white[:, 1:]
        peaks = np.fft.irfft(spectrum, 2 * hop, axis=1)[:, :hop]
        return np.asarray(peaks.ravel() * hop / np.sum(counts))


class Jump:
    def __init__(self, hop: int) -> None:
        self.hop, self.bins = hop, min(hop, C.JUMP_BINS)
        self.echo, self.mic = np.zeros((C.JUMP_BLOCKS + 1) * hop), np.zeros((C.JUMP_BLOCKS + 1) * hop)
        self.usual_mic = self.usual_error = 0.0
        self._end(C.REST_BLOCKS)

    def _end(self, rest_blocks: int) -> None:
        self.later, self.earlier = Side(self.bins), Side(self.bins)
        self.weight = self.blocks = self.evidence = 0.0
        self.searched_blocks, self.rest_blocks = 0, rest_blocks

    def process(self, mic: Signal, echo: Signal, error_power: Signal) -> int:
        """Return the samples by which the echo is later than estimated; 0 while none is clear."""
        self.mic = np.concatenate([self.mic[self.hop :], mic])
        self.echo = np.concatenate([self.echo[self.hop :], echo])
        energy, estimated, error = (float(np.sum(x**2)) for x in (mic, echo, mic - echo))
        if not self.searched_blocks:
            suspected = (
                not self.rest_blocks
                and self.usual_error < C.REDUCED * self.usual_mic
                and error > C.UNUSUAL * self.usual_error
                and error > C.STAYS * max(energy, estimated)
                and estimated > C.ESTIMATED * error
            )
            self.rest_blocks = max(0, self.rest_blocks - 1)
            if not suspected:
                self.usual_mic += C.USUAL_RATE * (energy - self.usual_mic)
                self.usual_error += C.USUAL_RATE * (error - self.usual_error)
                return 0
            self.usual_power = error_power[: self.bins]
        self.searched_blocks += 1
        weight = 1.0 / (energy + estimated + C.FAINT * self.usual_mic)
        self.weight, self.blocks = C.KEEP * self.weight + weight, C.KEEP * self.blocks + 1.0
        self.later.compare(self.mic, self.echo, self.hop, weight)
        self.earlier.compare(self.echo, self.mic, self.hop, weight)
        if self.searched_blocks < C.FIRST_BLOCKS:
            return 0
        lag, height = self._clear_peak()
        width = self.hop // 10
        early = self.searched_blocks < C.DRY_BLOCKS
        stays = lag is not None and abs(lag) <= width and (height > C.SAME or not early)
        moved = lag is not None and abs(lag) > width and not early
        if stays or moved or self.searched_blocks == C.MOST_BLOCKS:
            self._end(C.SHORT_REST_BLOCKS if stays or moved else C.REST_BLOCKS)
        return lag if moved and lag is not None else 0

    def _clear_peak(self) -> tuple[int | None, float]:
        counts = self.earlier.newest > C.AUDIBLE * self.weight * self.usual_power
        counts[0] = False
        if np.sum(counts) < C.LEAST_BINS:
            return None, 0.0
        later, earlier = (side.correlation(counts, self.hop) for side in (self.later, self.earlier))
        heights = np.concatenate([later, earlier])
        lags = np.concatenate([np.arange(len(later)), -np.arange(len(earlier))])
        best = int(np.argmax(heights))
        height, lag = float(heights[best]), int(lags[best])
        chance = C.CHANCE / np.sqrt(self.blocks * np.sum(counts))
        following = float(np.max(heights[np.abs(lags - lag) > self.hop // 10]))
        high = (height - chance) / chance, (height - following) / ((C.LEAD - 1.0) * following)
        self.evidence = float(np.prod(np.clip(high, 0.0, 1.0))) * (abs(lag) > self.hop // 10)
        return lag if height > max(chance, C.LEAD * following) else None, height
