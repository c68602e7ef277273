"""Linear echo canceller: a partitioned-block frequency-domain Kalman filter, and a fast filter that helps it.

G. Enzner, P. Vary, Signal Processing 86 (2006); F. Kuech, E. Mabande, G. Enzner, ICASSP 2014 (diagonal
covariance); two paths after K. Ochiai et al., IEEE Trans. COM-25 (1977). Spectra hold hop + 1 bins; arrays
are (partitions, bins).
"""

from __future__ import annotations

import numpy as np
from reference.signals import Signal

FAST_PARTITIONS = 10
KALMAN_CONSTRAINED, FAST_CONSTRAINED = 2, 1  # partitions whose tail is cut in a block
DECAY = 10.0**-0.1  # of a path's power in 10 ms
FIRST_GUESS = 5.0
KEEP = 0.9994
NEAR_RATE, ENERGY_RATE = 0.1, 0.1
NEAR_SILENT, NEAR_SPEAKS = 1.0, 5.0
FLOOR_POWER = 1e-10
CLEARLY_BETTER = 0.5
LAG_BINS, COMPARED_BINS = 80, 160  # below 4 and 8 kHz
TRUST_RATE = 0.02
MOVED_DOUBT = 0.03
CHANCE_SHARE, TRUE_SHARE, TINY_CLAIM, FIRST_TRUST = 0.7, 0.95, 1e-3, 30.0


class Filter:
    def __init__(self, partitions: int, bins: int) -> None:
        self.path = np.zeros((partitions, bins), complex)
        self.near_power = np.zeros(bins)
        self.energy = 0.0  # of a block's error, smoothed
        self.next_constraint = 0


class Canceller:
    """One microphone with its own record of the far end."""

    def __init__(self, hop: int, partitions: int, blocks: int) -> None:
        self.hop, self.partitions = hop, partitions
        bins = hop + 1
        self.far = np.zeros((blocks, bins), complex)  # spectra of two blocks each, [0] is the newest
        self.far_samples = np.zeros(2 * hop)
        self.prior = (1.0 - DECAY) * DECAY ** np.arange(partitions)[:, None]
        self.kalman = Filter(partitions, bins)
        self.fast = Filter(min(partitions, FAST_PARTITIONS), bins)
        self.variance = np.repeat(FIRST_GUESS * self.prior, bins, axis=1)
        self.mic_energy = 0.0
        self.lag_sum = self.lag_information = 0.0
        self.shared = self.claimed = FIRST_TRUST
        self.delay_blocks = 0
        self.near_share = 0.0
        self.rescues = 0  # times that the fast filter took the lead

    def set_delay(self, blocks: int) -> None:
        """The window moves; what was learned keeps its lags, and what comes in is unknown."""
        shift, self.delay_blocks = blocks - self.delay_blocks, blocks

        def moved(cells: np.ndarray, unknown: np.ndarray | float) -> np.ndarray:
            old = np.arange(len(cells)) + shift
            inside = (old >= 0) & (old < len(cells))
            return np.where(inside[:, None], cells[old % len(cells)], unknown)

        self.kalman.path, self.fast.path = moved(self.kalman.path, 0.0), moved(self.fast.path, 0.0)
        self.variance = moved(self.variance, FIRST_GUESS * self.prior)

    def slip(self, blocks: int, most_blocks: int) -> None:
        """A far-end block more (1) or less (-1) than microphone blocks."""
        if self.delay_blocks + blocks < 0:
            self.set_delay(self.delay_blocks - blocks)
        self.delay_blocks += 0 if self.delay_blocks + blocks > most_blocks else blocks

    def delay_path(self, samples: int) -> None:
        """The echo is later by 0 .. hop - 1 samples within the window."""
        response = np.fft.irfft(self.kalman.path, 2 * self.hop)
        if samples:
            response = np.concatenate([np.zeros(samples), response[:, : self.hop].ravel()])
            response = response[: self.partitions * self.hop].reshape(self.partitions, self.hop)
        self.kalman.path = np.fft.rfft(response, 2 * self.hop)
        self.fast.path, self.fast.energy = self.kalman.path[: len(self.fast.path)].copy(), self.kalman.energy
        self.variance = np.maximum(self.variance, MOVED_DOUBT * self.prior)

    def process(self, far: Signal, mic: Signal, near_speaks: float) -> tuple[Signal, Signal]:
        """Echo estimate and error of a block. near_speaks: 0..1, how sure that is."""
        self.near_share = 2.0 * (NEAR_SILENT + near_speaks * (NEAR_SPEAKS - NEAR_SILENT))
        x = self._heard(far)
        x2 = np.abs(x) ** 2

        _, error = self._filter(self.fast, x, mic)
        self._follow_energy(self.fast, error)
        head = slice(len(self.fast.path))
        gain, _ = self._normalised(self.fast, error, np.sum((self.prior * x2)[head], axis=0))
        self.fast.path += (self.prior * np.conj(x))[head] * gain

        echo, error = self._filter(self.kalman, x, mic)
        self._follow_energy(self.kalman, error)
        estimate = np.sum(x * self.kalman.path, axis=0)
        gain, weight = self._normalised(self.kalman, error, np.sum(self.variance * x2, axis=0))
        at = slice(1, min(COMPARED_BINS, self.hop))
        bins = np.arange(at.start, at.stop)
        w = np.pi * bins / self.hop * (bins < LAG_BINS)
        cross, white = gain[at] * np.conj(estimate[at]), 0.5 * np.abs(estimate[at]) ** 2 * weight[at]
        takes_echo = self.kalman.energy < CLEARLY_BETTER * self.mic_energy
        self.lag_sum = -float(np.sum(w * cross.imag)) if takes_echo else 0.0
        self.lag_information = float(np.sum(w * w * white)) if takes_echo else 0.0
        if np.sum(white) > TINY_CLAIM:
            self.shared += TRUST_RATE * (float(np.sum(cross.real + white)) - self.shared)
            self.claimed += TRUST_RATE * (float(np.sum(white)) - self.claimed)
        self.kalman.path += self.variance * np.conj(x) * gain
        told = self.variance**2 * x2 * weight / 2.0  # 1/2: a hop of news in a frame of two
        self.variance = KEEP * (self.variance - told) + (1.0 - KEEP) * np.abs(self.kalman.path) ** 2

        self._race(mic)
        for which, constrained in ((self.kalman, KALMAN_CONSTRAINED), (self.fast, FAST_CONSTRAINED)):
            for _ in range(constrained):
                response = np.fft.irfft(which.path[which.next_constraint], 2 * self.hop)
                response[self.hop :] = 0.0
                which.path[which.next_constraint] = np.fft.rfft(response)
                which.next_constraint = (which.next_constraint + 1) % len(which.path)
        return echo, error

    def predict(self, far: Signal, mic: Signal) -> tuple[Signal, Signal]:
        """Echo estimate and error of a block of which nothing is learned."""
        self.lag_sum = self.lag_information = 0.0
        return self._filter(self.kalman, self._heard(far), mic)

    @property
    def trust(self) -> float:
        share = self.shared / (self.claimed + TINY_CLAIM)
        return float(np.clip((share - CHANCE_SHARE) / (TRUE_SHARE - CHANCE_SHARE), 0.0, 1.0))

    def _heard(self, far: Signal) -> np.ndarray:
        """Spectra of the far end in the window, (partitions, bins), once `far` has come."""
        self.far_samples = np.concatenate([self.far_samples[self.hop :], far])
        self.far = np.roll(self.far, 1, axis=0)
        self.far[0] = np.fft.rfft(self.far_samples)
        return self.far[self.delay_blocks : self.delay_blocks + self.partitions]

    def _filter(self, which: Filter, x: np.ndarray, mic: Signal) -> tuple[Signal, Signal]:
        """Overlap-save: only the second half of the circular convolution is the linear one."""
        echo = np.fft.irfft(np.sum(x[: len(which.path)] * which.path, axis=0), 2 * self.hop)[self.hop :]
        return echo, mic - echo

    def _follow_energy(self, which: Filter, error: Signal) -> None:
        which.energy += ENERGY_RATE * (float(np.sum(error**2)) - which.energy)

    def _normalised(self, which: Filter, error: Signal, explained: Signal) -> tuple[np.ndarray, Signal]:
        """The error's spectrum over its expected power, and one over that power."""
        spectrum = np.fft.rfft(np.concatenate([np.zeros(self.hop), error]))
        which.near_power += NEAR_RATE * (np.abs(spectrum) ** 2 - which.near_power)
        weight = 1.0 / (explained + self.near_share * which.near_power + FLOOR_POWER * self.hop)
        return spectrum * weight, weight

    def _race(self, mic: Signal) -> None:
        """The clearly better filter takes the other along."""
        self.mic_energy += ENERGY_RATE * (float(np.sum(mic**2)) - self.mic_energy)
        if self.fast.energy < CLEARLY_BETTER * self.kalman.energy:
            self.rescues += 1
            tail = np.zeros_like(self.kalman.path[len(self.fast.path) :])
            self.kalman.path, self.kalman.energy = np.concatenate([self.fast.path, tail]), self.fast.energy
            doubt = min(1.0, self.fast.energy / (self.mic_energy + FLOOR_POWER))
            self.variance = np.maximum(self.variance, doubt * self.prior)
        elif self.kalman.energy < CLEARLY_BETTER * self.fast.energy:
            self.fast.path = self.kalman.path[: len(self.fast.path)].copy()
            self.fast.energy = self.kalman.energy
