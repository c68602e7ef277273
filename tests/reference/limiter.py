"""Look-ahead limiter: peaks of a curve through the samples, minimum filter, exponential release, box filter,
delay. All channels share the gain."""

from __future__ import annotations

import numpy as np
from reference.c_constants import c_constants
from reference.signals import Signal

C = c_constants("limiter/limiter.h", "limiter/limiter.c")
REACH = C.LIMITER_REACH


def curve_taps() -> Signal:
    """The curve at 1/4, 1/2 and 3/4 between the middle ones of 2 * REACH samples: (3, 2 * REACH)."""
    t = np.arange(1, 4)[:, None] / 4.0 - np.arange(1 - REACH, REACH + 1)
    taps = np.sinc(t) * np.i0(C.SHARPNESS * np.sqrt(1.0 - (t / REACH) ** 2))
    return C.MISSED * taps / np.sum(taps, axis=1, keepdims=True)


def gains(x: Signal, rate_hz: int, headroom_db: float) -> Signal:
    """Gain of every output sample, of which sample i is x[i - rate_hz / 1000]; x: (samples, channels)."""
    lookahead = rate_hz // 1000 - REACH
    ceiling = 10.0 ** (-headroom_db / 20.0)
    # sample i of these is x[i - REACH], the newest whose curve to the next can be interpolated
    seen = np.concatenate([np.zeros((2 * REACH - 1, x.shape[1])), x])
    windows = np.lib.stride_tricks.sliding_window_view(seen, 2 * REACH, axis=0)
    curve = np.max(np.abs(windows @ curve_taps().T), axis=(1, 2))
    samples = np.max(np.abs(windows[:, :, REACH - 1]), axis=1)
    between = np.maximum(samples, curve)
    peaks = np.maximum(between, np.concatenate([[0.0], between[:-1]]))
    needed = np.minimum(1.0, ceiling / np.maximum(peaks, 1e-30))
    # gains needed by all samples in the look-ahead, the one that leaves now included
    padded = np.concatenate([np.ones(lookahead), needed])
    lowest = np.lib.stride_tricks.sliding_window_view(padded, lookahead + 1).min(axis=1)
    rate = 1.0 - np.exp(-1.0 / (C.RELEASE_S * rate_hz))
    held = np.empty(len(x))
    now = 1.0
    for i, low in enumerate(lowest):
        now = min(low, now + rate * (1.0 - now))
        if now > C.NEARLY_ONE:
            now = low
        held[i] = now
    padded = np.concatenate([np.ones(lookahead - 1), held])
    return np.lib.stride_tricks.sliding_window_view(padded, lookahead).mean(axis=1)


def process(x: Signal, rate_hz: int, headroom_db: float) -> Signal:
    """Return x (samples, channels) limited and delayed by 1 ms."""
    delay = rate_hz // 1000
    late = np.concatenate([np.zeros((delay, x.shape[1])), x])[: len(x)]
    return late * gains(x, rate_hz, headroom_db)[:, None]
