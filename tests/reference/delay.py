"""Model of native/delay/delay.c: the lag at which whitened microphone and far end are most coherent.

C. Knapp, G. Carter, IEEE Trans. ASSP 24 (1976). Spectra are those of 20 ms frames, bins of 50 Hz;
64 of them from 300 Hz on are used.
"""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants

C = c_constants("delay/delay.h", "delay/delay.c")
BAND = slice(C.BAND_LOW_HZ // C.BIN_HZ, C.BAND_HIGH_HZ // C.BIN_HZ + 2)


class Delay:
    def __init__(self, lags: int) -> None:
        bins = BAND.stop - BAND.start
        self.lags = lags
        self.far = np.zeros((lags, bins), complex)  # whitened, [0] is the newest
        self.cross = np.zeros((lags, bins), complex)
        self.activity = np.zeros(lags)
        self.far_power, self.mic_power = np.zeros(bins), np.zeros(bins)
        self.far_mean, self.mic_mean, self.fill = np.zeros((3, lags))
        self.active_blocks = 0.0
        self.score = np.zeros(lags)
        self.contrast, self.contrast_blocks = np.zeros(lags), 0
        self.best = self.candidate = C.DELAY_UNKNOWN
        self.persistence = 0
        self.confidence = 0.0

    def _whiten(self, spectrum: np.ndarray, power: np.ndarray) -> np.ndarray:
        rate = max(C.LEVEL_RATE, 1.0 / (1.0 + self.active_blocks))  # the first blocks count alike
        power += rate * (np.abs(spectrum[BAND]) ** 2 - power)
        return spectrum[BAND] / np.sqrt(power + C.SILENCE_POWER)

    def push(self, far: np.ndarray) -> None:
        """Add the spectrum of the next far-end block."""
        self.far = np.roll(self.far, 1, axis=0)
        self.far[0] = self._whiten(far, self.far_power)
        self.activity = np.roll(self.activity, 1)
        self.activity[0] = np.mean(np.abs(self.far[0]) ** 2)
        if self.activity[0] > C.ACTIVE:
            self.active_blocks = min(self.active_blocks + 1.0, 1.0 / C.LEVEL_RATE)

    def slip(self, blocks: int) -> None:
        """Move every lag for a far-end block more (1) or less (-1) than microphone blocks."""
        for by_lag in (self.cross, self.far_mean, self.mic_mean, self.fill, self.score, self.contrast):
            by_lag[:] = np.roll(by_lag, blocks, axis=0)
            by_lag[0 if blocks > 0 else C.DELAY_UNKNOWN] = 0.0
        self.best, self.candidate = (
            lag if lag == C.DELAY_UNKNOWN or not 0 <= lag + blocks < self.lags else lag + blocks
            for lag in (self.best, self.candidate)
        )

    def process(self, mic: np.ndarray) -> None:
        """Process the spectrum of the microphone block that belongs to the newest far-end block."""
        white_mic = self._whiten(mic, self.mic_power)
        mic_now = float(np.mean(np.abs(white_mic) ** 2))
        if np.max(self.activity) < C.ACTIVE:
            return
        active = self.activity > C.ACTIVE  # a pause of the far end carries no information on its lag
        cross = self.cross + C.CROSS_RATE * (np.conj(self.far) * white_mic - self.cross)
        self.cross = np.where(active[:, None], cross, self.cross)
        for average, now in (
            (self.far_mean, self.activity),
            (self.mic_mean, mic_now),
            (self.fill, 1.0),
        ):
            average += np.where(active, C.CROSS_RATE * (now - average), 0.0)
        powers = np.maximum(self.far_mean * self.mic_mean, C.LEAST_POWERS)
        score = np.mean(np.abs(self.cross) ** 2, axis=1) / powers * self.fill**2
        self.score = np.where(active, score, self.score)
        best = int(np.argmax(self.score))
        mean = (np.sum(self.score) + 1e-6) / self.lags
        contrast = self.score[best] / mean
        self.confidence = float(
            np.clip((contrast - C.CHANCE_CONTRAST) / (C.SURE_CONTRAST - C.CHANCE_CONTRAST), 0.0, 1.0)
        )
        enough = self.active_blocks >= C.LEAST_ACTIVE_BLOCKS
        stands_out = contrast > C.CANDIDATE_CONTRAST and enough
        self.persistence = self.persistence + 1 if best == self.candidate and stands_out else 0
        self.candidate = best
        long_term = self._long_term_lag(mean) if enough else C.DELAY_UNKNOWN
        if self.persistence >= (C.FIRST_BLOCKS if self.best == C.DELAY_UNKNOWN else C.CHANGE_BLOCKS):
            if abs(best - self.best) > C.NEIGHBOURS:
                self.contrast_blocks = 0
            self.best = best
        elif (
            long_term != C.DELAY_UNKNOWN
            and self.persistence == 0
            and abs(long_term - self.best) > C.NEIGHBOURS
        ):
            self.best = long_term

    def _long_term_lag(self, mean: float) -> int:
        """Return the lag that leads by contrasts averaged over seconds, DELAY_UNKNOWN if none does."""
        self.contrast_blocks = min(self.contrast_blocks + 1, C.CONTRAST_BLOCKS)
        self.contrast += (
            np.minimum(self.score / mean, C.SURE_CONTRAST) - self.contrast
        ) / self.contrast_blocks
        lead = int(np.argmax(self.contrast))
        others = np.abs(np.arange(self.lags) - lead) > C.NEIGHBOURS
        needed = max(C.LONG_CONTRAST, C.LEAD * float(np.max(self.contrast[others])))
        leads = self.contrast[lead] > needed and self.contrast_blocks >= C.LEAST_CONTRAST_BLOCKS
        return lead if leads else C.DELAY_UNKNOWN
