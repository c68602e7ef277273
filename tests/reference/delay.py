"""Delay of the echo in blocks: where whitened microphone and far end are most coherent.

C. Knapp, G. Carter, IEEE Trans. ASSP 24 (1976). Spectra are those of 20 ms frames, bins of 50 Hz;
64 of them from 300 Hz on are used.
"""

from __future__ import annotations

import numpy as np

BAND = slice(6, 70)
CROSS_RATE, LEVEL_RATE = 1.0 / 50.0, 1.0 / 100.0
ACTIVE, LEAST_POWERS = 0.1, 1e-9
CHANCE, BELIEVE, SURE = 4.0, 10.0, 20.0
USUAL_CONTRAST, USUAL_LEAD, USUAL_LEAST_BLOCKS, USUAL_BLOCKS, NEIGHBOURS = 4.0, 2.0, 150, 300, 2
HEARD_BLOCKS, FIRST_BLOCKS, CHANGE_BLOCKS = 30, 10, 25
SILENCE_POWER = 160e-9


class Delay:
    def __init__(self, lags: int) -> None:
        bins = BAND.stop - BAND.start
        self.lags = lags
        self.far = np.zeros((lags, bins), complex)  # whitened, [0] is the newest
        self.cross = np.zeros((lags, bins), complex)
        self.activity = np.zeros(lags)
        self.far_power, self.mic_power = np.zeros(bins), np.zeros(bins)
        self.far_mean, self.mic_mean, self.heard_by_lag = np.zeros((3, lags))
        self.heard = 0.0
        self.score = np.zeros(lags)
        self.usual, self.usual_blocks = np.zeros(lags), 0
        self.best = self.candidate = -1
        self.persistence = 0
        self.confidence = 0.0

    def _whiten(self, spectrum: np.ndarray, power: np.ndarray) -> np.ndarray:
        rate = max(LEVEL_RATE, 1.0 / (1.0 + self.heard))  # the first blocks count alike
        power += rate * (np.abs(spectrum[BAND]) ** 2 - power)
        return spectrum[BAND] / np.sqrt(power + SILENCE_POWER)

    def push(self, far: np.ndarray) -> None:
        """The next far-end block's spectrum."""
        self.far = np.roll(self.far, 1, axis=0)
        self.far[0] = self._whiten(far, self.far_power)
        self.activity = np.roll(self.activity, 1)
        self.activity[0] = np.mean(np.abs(self.far[0]) ** 2)
        if self.activity[0] > ACTIVE:
            self.heard = min(self.heard + 1.0, 1.0 / LEVEL_RATE)

    def slip(self, blocks: int) -> None:
        """A far-end block more (1) or less (-1) than microphone blocks: every lag moves."""
        for by_lag in (self.cross, self.far_mean, self.mic_mean, self.heard_by_lag, self.score, self.usual):
            by_lag[:] = np.roll(by_lag, blocks, axis=0)
            by_lag[0 if blocks > 0 else -1] = 0.0
        self.best, self.candidate = (
            lag if lag < 0 or not 0 <= lag + blocks < self.lags else lag + blocks
            for lag in (self.best, self.candidate)
        )

    def process(self, mic: np.ndarray) -> None:
        """The microphone block that belongs to the newest far-end block."""
        white_mic = self._whiten(mic, self.mic_power)
        mic_now = float(np.mean(np.abs(white_mic) ** 2))
        if np.max(self.activity) < ACTIVE:
            return
        heard = self.activity > ACTIVE  # a pause at a lag tells nothing about it
        cross = self.cross + CROSS_RATE * (np.conj(self.far) * white_mic - self.cross)
        self.cross = np.where(heard[:, None], cross, self.cross)
        for average, now in (
            (self.far_mean, self.activity),
            (self.mic_mean, mic_now),
            (self.heard_by_lag, 1.0),
        ):
            average += np.where(heard, CROSS_RATE * (now - average), 0.0)
        powers = np.maximum(self.far_mean * self.mic_mean, LEAST_POWERS)
        score = np.mean(np.abs(self.cross) ** 2, axis=1) / powers * self.heard_by_lag**2
        self.score = np.where(heard, score, self.score)
        best = int(np.argmax(self.score))
        mean = (np.sum(self.score) + 1e-6) / self.lags
        contrast = self.score[best] / mean
        self.confidence = float(np.clip((contrast - CHANCE) / (SURE - CHANCE), 0.0, 1.0))
        heard_enough = self.heard >= HEARD_BLOCKS
        stands_out = contrast > BELIEVE and heard_enough
        self.persistence = self.persistence + 1 if best == self.candidate and stands_out else 0
        self.candidate = best
        usual = self._usual_lag(mean) if heard_enough else -1
        if self.persistence >= (FIRST_BLOCKS if self.best < 0 else CHANGE_BLOCKS):
            if abs(best - self.best) > NEIGHBOURS:
                self.usual_blocks = 0
            self.best = best
        elif usual >= 0 and self.persistence == 0 and abs(usual - self.best) > NEIGHBOURS:
            self.best = usual

    def _usual_lag(self, mean: float) -> int:
        """The lag that has led for seconds; -1 if none has."""
        self.usual_blocks = min(self.usual_blocks + 1, USUAL_BLOCKS)
        self.usual += (np.minimum(self.score / mean, SURE) - self.usual) / self.usual_blocks
        lead = int(np.argmax(self.usual))
        others = np.abs(np.arange(self.lags) - lead) > NEIGHBOURS
        needed = max(USUAL_CONTRAST, USUAL_LEAD * float(np.max(self.usual[others])))
        leads = self.usual[lead] > needed and self.usual_blocks >= USUAL_LEAST_BLOCKS
        return lead if leads else -1
