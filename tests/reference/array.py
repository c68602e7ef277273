"""Model of native/array: a multichannel Wiener filter over the spectra of all microphones in this block and
in the one before, with the presence probability of M. Souden et al., IEEE TASLP 18 (2010), for one direction.
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal
from scipy.special import expit

C = c_constants("kernels/levels.h", "array/array.h", "array/array.c")
Spectra = np.ndarray  # complex; a channel or a row of the filter is the last axis, bins the first


class Array:
    """`weight` (bins, rows) is that of the next block: beam = sum over rows of weight * spectrum."""

    def __init__(self, channels: int, bins: int, window_power: float) -> None:
        rows = C.ARRAY_BLOCKS * channels
        self.channels, self.bins, self.quiet = channels, bins, C.QUANTISATION_POWER * window_power
        self.reference, self.blocks, self.better_blocks = 0, 0, 0
        self.spectra = np.zeros((bins, rows), complex)
        self.speech, self.noise = (np.zeros((bins, rows, rows), complex) for _ in range(2))
        self.speech_blocks, self.noise_blocks = np.full(bins, C.NO_BLOCKS), np.full(bins, C.NO_BLOCKS)
        self.evidence, self.prior = np.zeros(bins), np.zeros(bins)
        self.weight = np.zeros((bins, rows), complex)
        self.weight[:, 0] = 1.0
        self.reference_noise = self.beam_noise = 0.0

    def put(self, spectra: Spectra) -> Spectra:
        """Take the spectra (bins, channels) of a block. Return the beam, (bins)."""
        self.spectra = np.concatenate([spectra, self.spectra[:, : self.channels]], axis=1)
        return np.asarray(np.sum(self.weight * self.spectra, axis=1))

    def learn(self, echo: Signal, speech_probability: float) -> None:
        """Update the weights. echo: expected power of the residual echo in the beam, by bin."""
        power = np.abs(np.sum(self.weight * self.spectra, axis=1)) ** 2
        presence = np.clip(speech_probability, C.LEAST_PRESENCE, C.MOST_PRESENCE)
        evidence = np.minimum(power * self.evidence, C.MOST_EVIDENCE)
        probability = expit(evidence + self.prior + np.log(presence / (1.0 - presence)))
        probability *= min(1.0, speech_probability / C.SPOKEN)
        free = echo <= C.ARRAY_MOST_ECHO * power
        self._follow_gain(power, free * (1.0 - probability))
        now = np.sum(np.abs(self.spectra[:, : self.channels]) ** 2, axis=1)
        learned = free & (now > self.quiet)
        self._average(learned * probability, learned * (1.0 - probability))
        self._choose_reference()
        self._solve()

    def gain_db(self) -> float:
        return float(
            10.0 * np.log10(max((self.reference_noise + self.quiet) / (self.beam_noise + self.quiet), 1.0))
        )

    def _follow_gain(self, power: Signal, rest: Signal) -> None:
        before = np.sum(rest * np.abs(self.spectra[:, self.reference]) ** 2)
        self.reference_noise += C.GAIN_RATE * (before - self.reference_noise)
        self.beam_noise += C.GAIN_RATE * (np.sum(rest * power) - self.beam_noise)

    def _average(self, near: Signal, rest: Signal) -> None:
        product = self.spectra[:, :, None] * np.conj(self.spectra[:, None, :])
        self.speech_blocks = np.minimum(self.speech_blocks + near, C.SPEECH_MEMORY)
        self.noise_blocks = np.minimum(self.noise_blocks + rest, C.NOISE_MEMORY)
        self.speech += (near / self.speech_blocks)[:, None, None] * (product - self.speech)
        self.noise += (rest / self.noise_blocks)[:, None, None] * (product - self.noise)

    def _quality(self) -> Signal:
        compared = slice(C.FIRST_BIN, min(self.bins, C.LAST_BIN))
        speech, noise = (
            np.einsum("kii->ki", x)[compared, : self.channels].real.sum(0) for x in (self.speech, self.noise)
        )
        if self.blocks < C.LOUDNESS_BLOCKS:
            return np.asarray(speech + noise)
        clear = speech - noise > noise
        return np.asarray(np.where(clear, (speech - noise) ** 2 / (noise + self.quiet), 0.0))

    def _choose_reference(self) -> None:
        quality, first = self._quality(), self.blocks < C.LOUDNESS_BLOCKS
        best = int(np.argmax(quality))
        better = quality[best] > (C.LOUDER if first else C.BETTER) * quality[self.reference]
        self.blocks += first
        self.better_blocks = self.better_blocks + 1 if better else 0
        if self.better_blocks > (0 if first else C.BETTER_BLOCKS):
            self.reference, self.better_blocks = best, 0
            self.reference_noise = self.beam_noise = 0.0

    def _solve(self) -> None:
        reference, rows = self.reference, np.arange(self.spectra.shape[1])
        matrix = self.speech + (C.NOISE_WEIGHT - C.NOISE_SHARE) * self.noise
        heard, rest = (np.einsum("kii->ki", x).real for x in (self.speech, self.noise))
        loading = C.LOADING * heard + C.NOISE_LOADING * rest + self.quiet
        matrix[:, rows, rows] += C.NOISE_WEIGHT * loading
        column = (self.speech - C.NOISE_SHARE * self.noise)[:, :, reference]
        column[:, reference] += loading[:, reference]
        solution = np.linalg.solve(matrix, column[:, :, None])[:, :, 0]
        power = np.maximum(column[:, reference].real, C.LEAST_SHARE * heard[:, reference] + self.quiet)
        left = np.sum(np.conj(solution) * column, axis=1).real / power
        part = np.clip(left, 0.0, C.MOST_SPEECH)
        scale, kept = C.NOISE_WEIGHT / (1.0 - part), np.clip(left, C.LEAST_SPEECH, 1.0)
        ratio = 1.0 + np.clip(part * scale, C.LEAST_RATIO, C.MOST_RATIO)
        known = (self.speech_blocks > C.ENOUGH_BLOCKS) & (self.noise_blocks > C.ENOUGH_BLOCKS)
        self.evidence = np.where(known, (scale * kept) ** 2 / (power * ratio), 0.0)
        self.prior = np.where(known, -np.log(ratio), 0.0)
        own = 1.0 * (rows == reference)
        missing = np.clip(1.0 - left / kept, 0.0, 1.0)
        weight = np.conj(solution) / kept[:, None] + missing[:, None] * own
        self.weight = np.where(known[:, None], weight, own)
