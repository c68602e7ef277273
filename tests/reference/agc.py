"""Automatic gain: the mean power of the last blocks of speech, brought to a target at bounded speed."""

from __future__ import annotations

from collections import deque

import numpy as np
from reference.signals import Signal

BLOCK_S = 0.01
WINDOW, ENOUGH_BLOCKS = 150, 30
QUIETEST_DBFS, LOUDEST_DBFS = -75, 0
SPEECH, OUTLIER_DB, CUT_DB = 0.6, 15, 0.8
LOWEST_GAIN_DB = -20.0
RISE_DB_PER_S, FALL_DB_PER_S = 40.0, 60.0
APPROACH_PER_S, NEARLY_THERE_DB = 8.0, 4.0
PAUSE_BLOCKS = 200
REST_DB_PER_S, WAKE_DB_PER_S, NOISE_RAISED_DB = 6.0, 400.0, 6.0
LOUDNESS_S, FAR_TOO_LOUD_DB = 0.05, 10.0
DUCK_DB_PER_S, UNDUCK_DB_PER_S = 300.0, 150.0


def decibels(power: float) -> float:
    return 10.0 * float(np.log10(power + 1e-12))


def approach(now: float, wanted: float, up_db_per_s: float, down_db_per_s: float) -> float:
    return now + float(np.clip(wanted - now, -down_db_per_s * BLOCK_S, up_db_per_s * BLOCK_S))


class Agc:
    def __init__(self, target_dbfs: float, max_gain_db: float) -> None:
        self.target_dbfs, self.max_gain_db = target_dbfs, max_gain_db
        self.levels: deque[float] = deque(maxlen=WINDOW)  # whole dB of the last blocks of speech
        self.level_dbfs = float(QUIETEST_DBFS)
        self.gain_db = self.rest_db = self.duck_db = 0.0
        self.pause_blocks = 0
        self.loudness = 0.0
        self.last_gain = 1.0

    @property
    def applied_db(self) -> float:
        return self.gain_db - self.rest_db - self.duck_db

    def process(self, x: Signal, power: float, speech_probability: float, enabled: bool) -> Signal:
        """One block with its gain, (samples, channels); power: its mean square where a voice is."""
        self.loudness += BLOCK_S / LOUDNESS_S * (power - self.loudness)
        dbfs = decibels(power)
        speaks = speech_probability > SPEECH and dbfs > QUIETEST_DBFS
        if speaks:
            self.levels.append(float(np.clip(np.round(dbfs), QUIETEST_DBFS, LOUDEST_DBFS)))
            levels = np.sort(self.levels)
            usual = levels[levels <= levels[(len(levels) + 1) // 2 - 1] + OUTLIER_DB]
            self.level_dbfs = CUT_DB + decibels(float(np.mean(10.0 ** (usual / 10.0))))
        self.pause_blocks = 0 if speaks else self.pause_blocks + 1
        pausing = self.pause_blocks >= PAUSE_BLOCKS
        if not enabled:
            self.gain_db = approach(self.gain_db, 0.0, FALL_DB_PER_S, FALL_DB_PER_S)
        elif speaks and len(self.levels) >= ENOUGH_BLOCKS:
            wanted = float(np.clip(self.target_dbfs - self.level_dbfs, LOWEST_GAIN_DB, self.max_gain_db))
            left = wanted - self.gain_db
            step = APPROACH_PER_S * BLOCK_S * min(1.0, abs(left) / NEARLY_THERE_DB) * left
            self.gain_db = approach(self.gain_db, self.gain_db + step, RISE_DB_PER_S, FALL_DB_PER_S)
        most_rest_db = max(self.gain_db - NOISE_RAISED_DB, 0.0)
        rest_db = approach(self.rest_db, most_rest_db if pausing else 0.0, REST_DB_PER_S, WAKE_DB_PER_S)
        self.rest_db = min(rest_db, most_rest_db)
        over_db = decibels(self.loudness) + self.gain_db - self.rest_db - self.target_dbfs - FAR_TOO_LOUD_DB
        duck_db = max(over_db, 0.0) if enabled else 0.0
        self.duck_db = approach(self.duck_db, duck_db, DUCK_DB_PER_S, UNDUCK_DB_PER_S)
        gain = 10.0 ** (self.applied_db / 20.0)
        ramp = self.last_gain + (gain - self.last_gain) * np.arange(1, len(x) + 1) / len(x)
        self.last_gain = gain
        return x * ramp[:, None]
