"""Model of native/aec/aec.c: a partitioned-block frequency-domain Kalman filter with a shadow filter.

G. Enzner, P. Vary, Signal Processing 86 (2006); F. Kuech, E. Mabande, G. Enzner, ICASSP 2014 (diagonal
covariance); two paths after K. Ochiai et al., IEEE Trans. COM-25 (1977). Spectra hold hop + 1 bins; arrays
are (partitions, bins).
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("kernels/levels.h", "aec/regression.h", "aec/aec.h", "aec/aec.c")


class Filter:
    def __init__(self, partitions: int, bins: int) -> None:
        self.path = np.zeros((partitions, bins), complex)
        self.near_power = np.zeros(bins)
        self.energy = 0.0  # of a block's error, smoothed
        self.next_constraint = 0


class Canceller:
    """Canceller of one microphone, with its own record of the far end."""

    def __init__(self, hop: int, partitions: int, blocks: int) -> None:
        self.hop, self.partitions = hop, partitions
        bins = hop + 1
        self.far = np.zeros((blocks, bins), complex)  # spectra of two blocks each, [0] is the newest
        self.far_samples = np.zeros(2 * hop)
        self.prior = (1.0 - C.DECAY) * C.DECAY ** np.arange(partitions)[:, None]
        self.kalman = Filter(partitions, bins)
        self.shadow = Filter(min(partitions, C.AEC_SHADOW_PARTITIONS), bins)
        self.variance = np.repeat(C.FIRST_VARIANCE * self.prior, bins, axis=1)
        self.mic_energy = 0.0
        self.lag_sum = self.lag_information = 0.0
        self.coherence_cross = self.coherence_power = C.FIRST_COHERENCE
        self.delay_blocks = 0
        self.near_share = 0.0
        self.rescues = 0  # times that the shadow filter was the better one

    def set_delay(self, blocks: int) -> None:
        """Set the window's start; the path keeps its lags, partitions that come in are unknown."""
        shift, self.delay_blocks = blocks - self.delay_blocks, blocks

        def moved(cells: np.ndarray, unknown: np.ndarray | float) -> np.ndarray:
            old = np.arange(len(cells)) + shift
            inside = (old >= 0) & (old < len(cells))
            return np.where(inside[:, None], cells[old % len(cells)], unknown)

        self.kalman.path, self.shadow.path = moved(self.kalman.path, 0.0), moved(self.shadow.path, 0.0)
        self.variance = moved(self.variance, C.FIRST_VARIANCE * self.prior)

    def slip(self, blocks: int, most_blocks: int) -> None:
        """Move every lag for a far-end block more (1) or less (-1) than microphone blocks."""
        if self.delay_blocks + blocks < 0:
            self.set_delay(self.delay_blocks - blocks)
        self.delay_blocks += 0 if self.delay_blocks + blocks > most_blocks else blocks

    def delay_path(self, samples: int) -> None:
        """Delay the path within the window by 0 .. hop - 1 samples."""
        response = np.fft.irfft(self.kalman.path, 2 * self.hop)
        if samples:
            response = np.concatenate([np.zeros(samples), response[:, : self.hop].ravel()])
            response = response[: self.partitions * self.hop].reshape(self.partitions, self.hop)
        self.kalman.path = np.fft.rfft(response, 2 * self.hop)
        self.shadow.path = self.kalman.path[: len(self.shadow.path)].copy()
        self.shadow.energy = self.kalman.energy
        self.variance = np.maximum(self.variance, C.MOVED_VARIANCE * self.prior)

    def process(self, far: Signal, mic: Signal, near_speech: float) -> tuple[Signal, Signal]:
        """Return estimate and error of a block, and learn; near_speech: probability of near-end speech."""
        self.near_share = 2.0 * (C.NEAR_SILENT + near_speech * (C.NEAR_SPEECH - C.NEAR_SILENT))
        x = self._window(far)
        x2 = np.abs(x) ** 2

        _, error = self._filter(self.shadow, x, mic)
        self._follow_energy(self.shadow, error)
        head = slice(len(self.shadow.path))
        gain, _ = self._normalised(self.shadow, error, np.sum((self.prior * x2)[head], axis=0))
        self.shadow.path += (self.prior * np.conj(x))[head] * gain

        echo, error = self._filter(self.kalman, x, mic)
        self._follow_energy(self.kalman, error)
        estimate = np.sum(x * self.kalman.path, axis=0)
        gain, weight = self._normalised(self.kalman, error, np.sum(self.variance * x2, axis=0))
        at = slice(1, min(C.COMPARED_BINS, self.hop))
        bins = np.arange(at.start, at.stop)
        w = np.pi * bins / self.hop * (bins < C.LAG_BINS)
        cross, white = gain[at] * np.conj(estimate[at]), 0.5 * np.abs(estimate[at]) ** 2 * weight[at]
        reduces_echo = self.kalman.energy < C.CLEARLY_BETTER * self.mic_energy
        self.lag_sum = -float(np.sum(w * cross.imag)) if reduces_echo else 0.0
        self.lag_information = float(np.sum(w * w * white)) if reduces_echo else 0.0
        if np.sum(white) > C.LEAST_ESTIMATE:
            self.coherence_cross += C.COHERENCE_RATE * (
                float(np.sum(cross.real + white)) - self.coherence_cross
            )
            self.coherence_power += C.COHERENCE_RATE * (float(np.sum(white)) - self.coherence_power)
        self.kalman.path += self.variance * np.conj(x) * gain
        learned = self.variance**2 * x2 * weight / 2.0  # 1/2: the error fills half of its frame
        self.variance = C.KEEP * (self.variance - learned) + (1.0 - C.KEEP) * np.abs(self.kalman.path) ** 2

        self._copy_better_path(mic)
        for which, constrained in ((self.kalman, C.KALMAN_CONSTRAINED), (self.shadow, C.SHADOW_CONSTRAINED)):
            for _ in range(constrained):
                response = np.fft.irfft(which.path[which.next_constraint], 2 * self.hop)
                response[self.hop :] = 0.0
                which.path[which.next_constraint] = np.fft.rfft(response)
                which.next_constraint = (which.next_constraint + 1) % len(which.path)
        return echo, error

    def predict(self, far: Signal, mic: Signal) -> tuple[Signal, Signal]:
        """Return echo estimate and error of a block without learning."""
        self.lag_sum = self.lag_information = 0.0
        return self._filter(self.kalman, self._window(far), mic)

    @property
    def confidence(self) -> float:
        """Confidence that the estimate is an echo, 0..1."""
        share = self.coherence_cross / (self.coherence_power + C.PRIOR_WEIGHT)
        return float(np.clip((share - C.CHANCE_SHARE) / (C.TRUE_SHARE - C.CHANCE_SHARE), 0.0, 1.0))

    def _window(self, far: Signal) -> np.ndarray:
        """Append a block; return the far end's spectra in the window, (partitions, bins)."""
        self.far_samples = np.concatenate([self.far_samples[self.hop :], far])
        self.far = np.roll(self.far, 1, axis=0)
        self.far[0] = np.fft.rfft(self.far_samples)
        return self.far[self.delay_blocks : self.delay_blocks + self.partitions]

    def _filter(self, which: Filter, x: np.ndarray, mic: Signal) -> tuple[Signal, Signal]:
        """Echo estimate and error by overlap-save: the second half of the circular convolution is linear."""
        echo = np.fft.irfft(np.sum(x[: len(which.path)] * which.path, axis=0), 2 * self.hop)[self.hop :]
        return echo, mic - echo

    def _follow_energy(self, which: Filter, error: Signal) -> None:
        which.energy += C.ENERGY_RATE * (float(np.sum(error**2)) - which.energy)

    def _normalised(self, which: Filter, error: Signal, explained: Signal) -> tuple[np.ndarray, Signal]:
        """Spectrum of the error over its expected power, and one over that power."""
        spectrum = np.fft.rfft(np.concatenate([np.zeros(self.hop), error]))
        which.near_power += C.NEAR_RATE * (np.abs(spectrum) ** 2 - which.near_power)
        weight = 1.0 / (explained + self.near_share * which.near_power + C.QUANTISATION_POWER * self.hop)
        return spectrum * weight, weight

    def _copy_better_path(self, mic: Signal) -> None:
        """Copy the path of the clearly better filter to the other."""
        self.mic_energy += C.ENERGY_RATE * (float(np.sum(mic**2)) - self.mic_energy)
        if self.shadow.energy < C.CLEARLY_BETTER * self.kalman.energy:
            self.rescues += 1
            tail = np.zeros_like(self.kalman.path[len(self.shadow.path) :])
            self.kalman.path, self.kalman.energy = (
                np.concatenate([self.shadow.path, tail]),
                self.shadow.energy,
            )
            doubt = min(1.0, self.shadow.energy / (self.mic_energy + C.QUANTISATION_POWER))
            self.variance = np.maximum(self.variance, doubt * self.prior)
        elif self.kalman.energy < C.CLEARLY_BETTER * self.shadow.energy:
            self.shadow.path = self.kalman.path[: len(self.shadow.path)].copy()
            self.shadow.energy = self.kalman.energy
