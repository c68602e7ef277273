"""Delay of the echo in blocks: where whitened microphone and far end are most coherent.

C. Knapp, G. Carter, IEEE Trans. ASSP 24 (1976). Spectra are those of 20 ms frames, bins of 50 Hz;
64 of them from 300 Hz on are used.
"""

from __future__ import annotations

import numpy as np

BAND = slice(6, 70)
CROSS_RATE, LEVEL_RATE = 1.0 / 50.0, 1.0 / 100.0
ACTIVE = 0.1
CHANCE, BELIEVE, SURE = 4.0, 8.0, 20.0
SILENCE_POWER = 160e-9


class Delay:
    def __init__(self, lags: int) -> None:
        bins = BAND.stop - BAND.start
        self.lags = lags
        self.far = np.zeros((lags, bins), complex)  # whitened, [0] is the newest
        self.cross = np.zeros((lags, bins), complex)
        self.activity = np.zeros(lags)
        self.far_power, self.mic_power = np.zeros(bins), np.zeros(bins)
        self.far_mean = self.mic_mean = self.heard = 0.0
        self.score = np.zeros(lags)
        self.best = self.candidate = -1
        self.persistence = 0
        self.confidence = 0.0

    def process(self, far: np.ndarray, mic: np.ndarray) -> None:
        """One block's spectra."""
        rate = max(LEVEL_RATE, 1.0 / (1.0 + self.heard))
        whitened = []
        for power, spectrum in ((self.far_power, far[BAND]), (self.mic_power, mic[BAND])):
            power += rate * (np.abs(spectrum) ** 2 - power)
            whitened.append(spectrum / np.sqrt(power + SILENCE_POWER))
        far_now, mic_now = (float(np.mean(np.abs(spectrum) ** 2)) for spectrum in whitened)
        self.far = np.roll(self.far, 1, axis=0)
        self.far[0] = whitened[0]
        self.activity = np.roll(self.activity, 1)
        self.activity[0] = far_now
        if far_now > ACTIVE:
            self.heard = min(self.heard + 1.0, 1000.0)
        if np.max(self.activity) < ACTIVE:
            return
        self.far_mean += CROSS_RATE * (far_now - self.far_mean)
        self.mic_mean += CROSS_RATE * (mic_now - self.mic_mean)
        self.cross += CROSS_RATE * (np.conj(self.far) * whitened[1] - self.cross)
        self.score = np.mean(np.abs(self.cross) ** 2, axis=1) / max(self.far_mean * self.mic_mean, 1e-3)
        best = int(np.argmax(self.score))
        contrast = self.score[best] * self.lags / (np.sum(self.score) + 1e-6)
        self.confidence = float(np.clip((contrast - CHANCE) / (SURE - CHANCE), 0.0, 1.0))
        self.persistence = self.persistence + 1 if best == self.candidate and contrast > BELIEVE else 0
        self.candidate = best
        if self.persistence >= (10 if self.best < 0 else 20):
            self.best = best
