"""Model of native/array/direction.h: a steered response power with phase transform on a grid."""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("kernels/levels.h", "array/array.h", "array/direction.h", "array/direction.c")


class Direction:
    """`degrees` is the direction after the last block; positions_mm (channels, 2); bins: those in use."""

    def __init__(self, positions_mm: np.ndarray, bins: int, window_power: float) -> None:
        self.bins, self.quiet = C.FIRST_BIN + np.arange(bins), C.QUANTISATION_POWER * window_power
        self.pairs = np.tril_indices(len(positions_mm), -1)
        angle = 2.0 * np.pi * np.arange(C.DIRECTION_GRID) / C.DIRECTION_GRID
        towards = np.stack([np.sin(angle), np.cos(angle)])
        paths = (positions_mm[self.pairs[0]] - positions_mm[self.pairs[1]]) @ towards / C.SOUND_MM_PER_S
        turns = paths.T[:, :, None] * C.BIN_HZ * self.bins
        self.steering = np.exp(-2j * np.pi * turns)  # directions, pairs, bins
        # Of the line through the microphones, if they are in one: the direction of most variance.
        _, extents, axes = np.linalg.svd(positions_mm - positions_mm.mean(axis=0))
        normal = axes[1] * np.sign(axes[1] @ [1e-9, 1.0]) * (extents[1] < 1e-6 * extents[0])
        self.behind = normal @ towards < -C.ON_LINE
        self.average = np.zeros(self.steering.shape[1:], complex)
        self.power = np.zeros(C.DIRECTION_GRID)
        self.next = self.blocks = self.age_blocks = 0
        self.speech_blocks, self.degrees = 0.0, C.DIRECTION_UNKNOWN

    def process(self, spectra: np.ndarray, power: Signal, echo: Signal, noise: Signal, speech: float) -> None:
        """Take a block: spectra (channels, bins), powers of the beam, the probability of speech."""
        speech *= self.blocks == C.WARM_UP_BLOCKS and speech > C.SPOKEN
        x = spectra[:, self.bins]
        unit = x / np.sqrt(np.abs(x) ** 2 + self.quiet)
        clear = (echo <= C.ARRAY_MOST_ECHO * power) & (noise <= C.MOST_NOISE * power)
        weight = np.where(clear[self.bins], 1.0, C.LEFT_OUT)
        now = weight * unit[self.pairs[0]] * np.conj(unit[self.pairs[1]])
        self.average += C.RATE * speech * (now - self.average)
        half = self.next + np.arange(C.STEPS)
        for at in (half, half + C.HALF_GRID):
            self.power[at] = np.sum((self.steering[at] * self.average).real, axis=(1, 2))
        self.next += C.STEPS
        self.speech_blocks += speech
        self.blocks = min(self.blocks + 1, C.WARM_UP_BLOCKS)
        self.age_blocks = min(self.age_blocks + 1, C.HOLD_BLOCKS)
        if self.next == C.HALF_GRID:
            self._search()

    def _search(self) -> None:
        spoken = self.speech_blocks > C.LEAST_SPEECH_BLOCKS
        self.next, self.speech_blocks = 0, 0.0
        peak = int(np.argmax(np.where(self.behind, -np.inf, self.power)))
        before, highest, after = (self.power[(peak + step) % C.DIRECTION_GRID] for step in (-1, 0, 1))
        if spoken and highest - self.power.mean() > C.LEAST_PROMINENCE * self.average.size:
            bend = before - 2.0 * highest + after
            offset = np.clip(0.5 * (before - after) / bend, -0.5, 0.5) if bend < 0.0 else 0.0
            self.degrees = float((peak + offset) * 360.0 / C.DIRECTION_GRID % 360.0)
            self.age_blocks = 0
        if self.age_blocks == C.HOLD_BLOCKS:
            self.average[:] = 0.0
            self.degrees = C.DIRECTION_UNKNOWN
