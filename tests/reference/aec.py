"""Model of native/aec/aec.c: a partitioned-block frequency-domain Kalman filter with a shadow filter.

G. Enzner, P. Vary, Signal Processing 86 (2006); F. Kuech, E. Mabande, G. Enzner, ICASSP 2014 (diagonal
covariance); two references after S. Malik, G. Enzner, IEEE Signal Processing Letters 18 (2011); two paths
after K. Ochiai et al., IEEE Trans. COM-25 (1977). Spectra hold hop + 1 bins; arrays are (references,
partitions, bins).
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("kernels/levels.h", "aec/regression.h", "aec/aec.h", "aec/aec.c")


class Filter:
    def __init__(self, references: int, partitions: int, bins: int) -> None:
        self.path = np.zeros((references, partitions, bins), complex)
        self.near_power = np.zeros(bins)
        self.energy = 0.0  # of a block's error, smoothed
        self.next_constraint = 0


class Canceller:
    """Canceller of one microphone, with its own record of the far end."""

    def __init__(self, hop: int, partitions: int, blocks: int, references: int = 1) -> None:
        self.hop, self.partitions, self.references = hop, partitions, references
        self.used = 1  # of the references: 2 while the side is in use
        bins = hop + 1
        self.far = np.zeros(
            (references, blocks, bins), complex
        )  # spectra of two blocks, [:, 0] is the newest
        self.far_samples = np.zeros((references, 2 * hop))
        self.prior = (1.0 - C.DECAY) * C.DECAY ** np.arange(partitions)[:, None]
        self.kalman = Filter(references, partitions, bins)
        self.shadow = Filter(references, min(partitions, C.AEC_SHADOW_PARTITIONS), bins)
        self.unknown = C.FIRST_VARIANCE * self.prior * np.eye(references)[:, :, None, None]
        self.covariance = np.tile(self.unknown, (1, 1, 1, bins))
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
            count = cells.shape[-2]
            old = np.arange(count) + shift
            inside = (old >= 0) & (old < count)
            return np.where(inside[:, None], cells[..., old % count, :], unknown)

        self.kalman.path, self.shadow.path = moved(self.kalman.path, 0.0), moved(self.shadow.path, 0.0)
        self.covariance = moved(self.covariance, self.unknown)

    def slip(self, blocks: int, most_blocks: int) -> None:
        """Move every lag for a far-end block more (1) or less (-1) than microphone blocks."""
        if self.delay_blocks + blocks < 0:
            self.set_delay(self.delay_blocks - blocks)
        self.delay_blocks += 0 if self.delay_blocks + blocks > most_blocks else blocks

    def delay_path(self, samples: int) -> None:
        """Delay the path within the window by 0 .. hop - 1 samples."""
        response = np.fft.irfft(self.kalman.path, 2 * self.hop)
        if samples:
            kept = response[..., : self.hop].reshape(self.references, -1)
            late = np.pad(kept, ((0, 0), (samples, 0)))[:, : self.partitions * self.hop]
            response = late.reshape(self.references, self.partitions, self.hop)
        self.kalman.path = np.fft.rfft(response, 2 * self.hop)
        self.shadow.path = self.kalman.path[:, : self.shadow.path.shape[1]].copy()
        self.shadow.energy = self.kalman.energy
        self._raise_variance(C.MOVED_VARIANCE)

    def process(
        self, far: Signal, mic: Signal, near_speech: float, paired: bool = False
    ) -> tuple[Signal, Signal]:
        """Return estimate and error of a block, and learn; far: (references, hop), middle and side, or the
        hop of a single one; near_speech: probability of near-end speech; paired: the side is in use."""
        self.near_share = 2.0 * (C.NEAR_SILENT + near_speech * (C.NEAR_SPEECH - C.NEAR_SILENT))
        x = self._window(far, paired)
        used = slice(self.used)

        _, error = self._filter(self.shadow, x, mic)
        self._follow_energy(self.shadow, error)
        head = slice(self.shadow.path.shape[1])
        explained = np.sum((self.prior * np.abs(x) ** 2)[:, head], axis=(0, 1))
        gain, _ = self._normalised(self.shadow, error, explained)
        self.shadow.path[used] += (self.prior * np.conj(x))[:, head] * gain

        echo, error = self._filter(self.kalman, x, mic)
        self._follow_energy(self.kalman, error)
        estimate = np.sum(x * self.kalman.path[used], axis=(0, 1))
        step = np.einsum("ijpk,jpk->ipk", self.covariance[used, used], np.conj(x))
        gain, weight = self._normalised(self.kalman, error, np.sum((x * step).real, axis=(0, 1)))
        self._correlate(gain, estimate, weight)
        self.kalman.path[used] += step * gain
        learned = (
            np.einsum("ipk,jpk->ijpk", step, np.conj(step)).real * weight / 2.0
        )  # 1/2: the error's half frame
        noise = np.abs(self.kalman.path[used]) ** 2 * np.eye(self.used)[:, :, None, None]
        keep = np.full((self.used, self.used, 1, 1), C.KEEP_COVARIANCE)
        keep[range(self.used), range(self.used)] = C.KEEP
        self.covariance[used, used] = keep * (self.covariance[used, used] - learned) + (1.0 - C.KEEP) * noise

        self._copy_better_path(mic)
        for which, constrained in ((self.kalman, C.KALMAN_CONSTRAINED), (self.shadow, C.SHADOW_CONSTRAINED)):
            for _ in range(constrained):
                response = np.fft.irfft(which.path[used, which.next_constraint], 2 * self.hop)
                response[:, self.hop :] = 0.0
                which.path[used, which.next_constraint] = np.fft.rfft(response)
                which.next_constraint = (which.next_constraint + 1) % which.path.shape[1]
        return echo, error

    def predict(self, far: Signal, mic: Signal, paired: bool = False) -> tuple[Signal, Signal]:
        """Return echo estimate and error of a block without learning."""
        self.lag_sum = self.lag_information = 0.0
        return self._filter(self.kalman, self._window(far, paired), mic)

    @property
    def confidence(self) -> float:
        """Confidence that the estimate is an echo, 0..1."""
        share = self.coherence_cross / (self.coherence_power + C.PRIOR_WEIGHT)
        return float(np.clip((share - C.CHANCE_SHARE) / (C.TRUE_SHARE - C.CHANCE_SHARE), 0.0, 1.0))

    def _correlate(self, gain: np.ndarray, estimate: np.ndarray, weight: Signal) -> None:
        """Update lag and coherence."""
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

    def _window(self, far: Signal, paired: bool) -> np.ndarray:
        """Append a block; return the far end's spectra in the window, (used references, partitions, bins)."""
        block = far.reshape(self.references, self.hop).copy()
        block[1:] *= paired
        if self.used > 1 + paired:
            self.covariance[0, 1] = self.covariance[1, 0] = 0.0
        self.used = 1 + paired
        self.far_samples = np.concatenate([self.far_samples[:, self.hop :], block], axis=1)
        self.far = np.roll(self.far, 1, axis=1)
        self.far[:, 0] = np.fft.rfft(self.far_samples)
        return self.far[: self.used, self.delay_blocks : self.delay_blocks + self.partitions]

    def _filter(self, which: Filter, x: np.ndarray, mic: Signal) -> tuple[Signal, Signal]:
        """Echo estimate and error by overlap-save: the second half of the circular convolution is linear."""
        spectrum = np.sum(x[:, : which.path.shape[1]] * which.path[: self.used], axis=(0, 1))
        echo = np.fft.irfft(spectrum, 2 * self.hop)[self.hop :]
        return echo, mic - echo

    def _follow_energy(self, which: Filter, error: Signal) -> None:
        which.energy += C.ENERGY_RATE * (float(np.sum(error**2)) - which.energy)

    def _normalised(self, which: Filter, error: Signal, explained: Signal) -> tuple[np.ndarray, Signal]:
        """Spectrum of the error over its expected power, and one over that power."""
        spectrum = np.fft.rfft(np.concatenate([np.zeros(self.hop), error]))
        which.near_power += C.NEAR_RATE * (np.abs(spectrum) ** 2 - which.near_power)
        weight = 1.0 / (explained + self.near_share * which.near_power + C.QUANTISATION_POWER * self.hop)
        return spectrum * weight, weight

    def _raise_variance(self, share: float) -> None:
        """The variance of each path becomes at least this share of the prior."""
        for r in range(self.references):
            self.covariance[r, r] = np.maximum(self.covariance[r, r], share * self.prior)

    def _copy_better_path(self, mic: Signal) -> None:
        """Copy the path of the clearly better filter to the other."""
        self.mic_energy += C.ENERGY_RATE * (float(np.sum(mic**2)) - self.mic_energy)
        if self.shadow.energy < C.CLEARLY_BETTER * self.kalman.energy:
            self.rescues += 1
            self.kalman.path[: self.used, self.shadow.path.shape[1] :] = 0.0
            self.kalman.path[: self.used, : self.shadow.path.shape[1]] = self.shadow.path[: self.used]
            self.kalman.energy = self.shadow.energy
            self._raise_variance(min(1.0, self.shadow.energy / (self.mic_energy + C.QUANTISATION_POWER)))
        elif self.kalman.energy < C.CLEARLY_BETTER * self.shadow.energy:
            head = self.kalman.path[: self.used, : self.shadow.path.shape[1]]
            self.shadow.path[: self.used] = head
            self.shadow.energy = self.kalman.energy
