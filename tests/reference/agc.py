"""Automatic gain control: the level is the mean power of the last blocks of speech; a gain of limited
speed brings it to a target."""

from __future__ import annotations

from collections import deque

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("agc/agc.h", "agc/agc.c")
LOUDEST_DBFS = C.AGC_QUIETEST_DBFS + C.AGC_LEVELS - 1


def decibels(power: float) -> float:
    return 10.0 * float(np.log10(power + C.TINY_POWER))


def approach(now: float, wanted: float, up_db_per_s: float, down_db_per_s: float) -> float:
    return now + float(np.clip(wanted - now, -down_db_per_s * C.BLOCK_S, up_db_per_s * C.BLOCK_S))


class Agc:
    def __init__(self, target_dbfs: float, max_gain_db: float) -> None:
        self.target_dbfs, self.max_gain_db = target_dbfs, max_gain_db
        self.levels: deque[float] = deque(maxlen=C.AGC_WINDOW)  # whole dB of the last blocks of speech
        self.level_dbfs = float(C.AGC_QUIETEST_DBFS)
        self.gain_db = self.rest_db = self.duck_db = 0.0
        self.pause_blocks = 0
        self.loudness = 0.0
        self.last_gain = 1.0

    @property
    def applied_db(self) -> float:
        return self.gain_db - self.rest_db - self.duck_db

    def process(self, x: Signal, power: float, speech_probability: float, enabled: bool) -> Signal:
        """Return one block (samples, channels) with its gain; power: its mean square without rumble."""
        self.loudness += C.BLOCK_S / C.LOUDNESS_S * (power - self.loudness)
        dbfs = decibels(power)
        speaks = speech_probability > C.SPEECH and dbfs > C.AGC_QUIETEST_DBFS
        if speaks:
            self.levels.append(float(np.clip(np.round(dbfs), C.AGC_QUIETEST_DBFS, LOUDEST_DBFS)))
            levels = np.sort(self.levels)
            usual = levels[levels <= levels[(len(levels) + 1) // 2 - 1] + C.OUTLIER_DB]
            self.level_dbfs = C.CUT_DB + decibels(float(np.mean(10.0 ** (usual / 10.0))))
        self.pause_blocks = 0 if speaks else self.pause_blocks + 1
        pausing = self.pause_blocks >= C.PAUSE_BLOCKS
        if not enabled:
            self.gain_db = approach(self.gain_db, 0.0, C.FALL_DB_PER_S, C.FALL_DB_PER_S)
        elif speaks and len(self.levels) >= C.ENOUGH_BLOCKS:
            wanted = float(np.clip(self.target_dbfs - self.level_dbfs, C.LOWEST_GAIN_DB, self.max_gain_db))
            left = wanted - self.gain_db
            step = C.APPROACH_PER_S * C.BLOCK_S * min(1.0, abs(left) / C.NEARLY_THERE_DB) * left
            self.gain_db = approach(self.gain_db, self.gain_db + step, C.RISE_DB_PER_S, C.FALL_DB_PER_S)
        most_rest_db = max(self.gain_db - C.NOISE_RAISED_DB, 0.0)
        rest_db = approach(self.rest_db, most_rest_db if pausing else 0.0, C.REST_DB_PER_S, C.WAKE_DB_PER_S)
        self.rest_db = min(rest_db, most_rest_db)
        over_db = decibels(self.loudness) + self.gain_db - self.rest_db - self.target_dbfs - C.FAR_TOO_LOUD_DB
        duck_db = max(over_db, 0.0) if enabled else 0.0
        self.duck_db = approach(self.duck_db, duck_db, C.DUCK_DB_PER_S, C.UNDUCK_DB_PER_S)
        gain = 10.0 ** (self.applied_db / 20.0)
        ramp = self.last_gain + (gain - self.last_gain) * np.arange(1, len(x) + 1) / len(x)
        self.last_gain = gain
        return x * ramp[:, None]
