"""Look-ahead limiter: minimum filter, exponential release, box filter, delay. All channels share the gain."""

from __future__ import annotations

import numpy as np
from reference.signals import Signal

RELEASE_S = 0.05
NEARLY_ONE = 0.9998  # from here the release takes the last step at once


def gains(x: Signal, rate_hz: int, ceiling_dbfs: float) -> Signal:
    """Gain of every output sample; x: (samples, channels)."""
    lookahead = rate_hz // 1000
    ceiling = 10.0 ** (ceiling_dbfs / 20.0)
    peaks = np.max(np.abs(x), axis=1)
    needed = np.minimum(1.0, ceiling / np.maximum(peaks, 1e-30))
    # what every sample that is still inside needs, the one that leaves now included
    padded = np.concatenate([np.ones(lookahead), needed])
    lowest = np.lib.stride_tricks.sliding_window_view(padded, lookahead + 1).min(axis=1)
    rate = 1.0 - np.exp(-1.0 / (RELEASE_S * rate_hz))
    held = np.empty(len(x))
    now = 1.0
    for i, low in enumerate(lowest):
        now = min(low, now + rate * (1.0 - now))
        if now > NEARLY_ONE:
            now = low
        held[i] = now
    padded = np.concatenate([np.ones(lookahead - 1), held])
    return np.lib.stride_tricks.sliding_window_view(padded, lookahead).mean(axis=1)


def process(x: Signal, rate_hz: int, ceiling_dbfs: float) -> Signal:
    """x: (samples, channels); the output is 1 ms late."""
    lookahead = rate_hz // 1000
    late = np.concatenate([np.zeros((lookahead, x.shape[1])), x])[: len(x)]
    return late * gains(x, rate_hz, ceiling_dbfs)[:, None]
