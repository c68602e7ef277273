"""Automatic gain: a logarithmic average of the level of speech, followed at bounded speed."""

from __future__ import annotations

import numpy as np
from reference.signals import Signal

BLOCK_S = 0.01
SYLLABLE_S = 0.1
LEVEL_S = 0.7
RISE_DB_PER_S, FALL_DB_PER_S = 15.0, 60.0
SPEECH = 0.6
QUIETEST_DBFS = -65.0
LOWEST_DB, HIGHEST_DB = -20.0, 32.0


class Agc:
    def __init__(self, target_dbfs: float) -> None:
        self.target_dbfs = target_dbfs
        self.block_power = 0.0
        self.level_dbfs = target_dbfs
        self.heard_s = 0.0
        self.gain_db = 0.0
        self.last_gain = 1.0

    def process(self, x: Signal, speech_probability: float, enabled: bool) -> Signal:
        """One block, (samples, channels)."""
        power = float(np.mean(x**2))
        if speech_probability > SPEECH:
            self.block_power += BLOCK_S / SYLLABLE_S * (power - self.block_power)
        else:
            self.block_power = 0.0  # what was noise or echo is not the beginning of a word
        dbfs = 10.0 * np.log10(max(power, self.block_power) + 1e-12)
        if speech_probability > SPEECH and dbfs > QUIETEST_DBFS:
            self.heard_s += BLOCK_S
            # an even average of the first words, an exponential one later
            rate = max(BLOCK_S / LEVEL_S, BLOCK_S / self.heard_s)
            self.level_dbfs += speech_probability * rate * (dbfs - self.level_dbfs)
            if enabled:
                wanted = np.clip(self.target_dbfs - self.level_dbfs, LOWEST_DB, HIGHEST_DB)
                self.gain_db += np.clip(
                    wanted - self.gain_db, -FALL_DB_PER_S * BLOCK_S, RISE_DB_PER_S * BLOCK_S
                )
        if not enabled:
            self.gain_db -= np.clip(self.gain_db, -FALL_DB_PER_S * BLOCK_S, FALL_DB_PER_S * BLOCK_S)
        gain = 10.0 ** (self.gain_db / 20.0)
        ramp = self.last_gain + (gain - self.last_gain) * np.arange(1, len(x) + 1) / len(x)
        self.last_gain = gain
        return x * ramp[:, None]
