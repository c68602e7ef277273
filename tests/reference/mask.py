"""The learned mask: a recurrent network over power ratios by band.

Dense layers and a gated recurrent unit (K. Cho et al., EMNLP 2014, in the form whose reset gate acts behind
the recurrent weights), with the weights of native/mask/weights.h.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

WEIGHTS = Path(__file__).parents[2] / "native" / "mask" / "weights.h"
C = c_constants("kernels/levels.h", "mask/mask.h", "mask/mask.c", "kernels/dense.c")
BANDS, LAST_BIN = C.MASK_BANDS, C.MASK_LAST_BIN


def _layers() -> dict[str, tuple[Signal, Signal, Signal]]:
    """Weights (outputs, inputs), scale and bias of each layer, by name."""
    found = dict(re.findall(r"static const \w+ (\w+)\[\] = \{([^}]*)\}", WEIGHTS.read_text()))
    arrays = {
        name: np.array([float(x.strip().rstrip("f")) for x in text.split(",")])
        for name, text in found.items()
    }
    layers = {}
    for name in ("FIRST", "INPUT_GATES", "STATE_GATES", "LAST"):
        scale, bias = arrays[f"{name}_SCALE"], arrays[f"{name}_BIAS"]
        layers[name] = (arrays[f"{name}_WEIGHT"].reshape(len(scale), -1), scale, bias)
    return layers


def _sigmoid(x: Signal) -> Signal:
    return 1.0 / (1.0 + np.exp(-x))


class Mask:
    def __init__(self, bins: int, window_power: float) -> None:
        self.bins = bins
        self.quiet_power = C.QUANTISATION_POWER * window_power * (bins - 1) / C.TRAINED_HOP
        self.layers = _layers()
        self.units = len(self.layers["FIRST"][2])
        self.state = np.zeros(self.units)
        self.held_probability = 0.0
        edges = [0]
        while len(edges) <= BANDS:
            edges.append(edges[-1] + (4 if edges[-1] < 20 else edges[-1] // 5))
        self.edges = np.array(edges)

    def features(
        self, error: Signal, echo: Signal, cross: Signal, residual: Signal, noise: Signal, far: Signal
    ) -> Signal:
        """Four log ratios and a coherence, band by band; 0 for bands above half the rate."""
        features = np.zeros((5, BANDS))
        for band, (low, high) in enumerate(
            zip(self.edges, np.minimum(self.edges[1:], self.bins), strict=False)
        ):
            if low + 1 >= self.bins:
                break
            quiet = self.quiet_power * (high - low)
            e, y, r, n, x = (float(np.sum(p[low:high])) + quiet for p in (error, echo, residual, noise, far))
            ratios = np.log([e / n, e / r, y / e, x / e])
            features[:4, band] = np.clip(C.RATIO_SCALE * ratios, -C.RATIO_LIMIT, C.RATIO_LIMIT)
            features[4, band] = 2.0 * float(np.sum(cross[low:high])) / (e + y)
        return features.ravel()

    def _layer(self, name: str, x: Signal) -> Signal:
        weight, scale, bias = self.layers[name]
        step = np.max(np.abs(x)) / C.LARGEST
        rounded = np.rint(x / step) if step > 0 else np.zeros_like(x)
        return bias + scale * step * (weight[:, : len(x)] @ rounded)

    def process(self, *powers: Signal) -> tuple[Signal, Signal, float]:
        """Gains by bin that keep speech, and all but echo; speech probability."""
        hidden = np.tanh(self._layer("FIRST", self.features(*powers)))
        inward, back = self._layer("INPUT_GATES", hidden), self._layer("STATE_GATES", self.state)
        n = self.units
        reset, keep = (_sigmoid(inward[i : i + n] + back[i : i + n]) for i in (0, n))
        candidate = np.tanh(inward[2 * n :] + reset * back[2 * n :])
        self.state = candidate + keep * (self.state - candidate)
        out = _sigmoid(self._layer("LAST", np.concatenate([hidden, self.state])))
        centres = (self.edges[:-1] + self.edges[1:] - 1) / 2
        speech, rest = (
            np.interp(np.arange(self.bins), centres, out[i * BANDS : (i + 1) * BANDS]) for i in range(2)
        )
        probability = float(out[-1])
        self.held_probability = max(probability, C.SPEECH_HOLD_DECAY * self.held_probability)
        speech[LAST_BIN:] += self.held_probability * (1.0 - speech[LAST_BIN:])
        return speech, rest, probability
