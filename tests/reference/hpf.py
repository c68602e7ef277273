"""High-pass: second-order Butterworth by the bilinear transform (R. Bristow-Johnson, Audio EQ Cookbook)."""

from __future__ import annotations

import numpy as np
from reference.signals import Signal
from scipy.signal import lfilter


def coefficients(rate_hz: int, cutoff_hz: float) -> tuple[Signal, Signal]:
    """b and a of H(z) = (b0 + b1/z + b2/z^2) / (1 + a1/z + a2/z^2)."""
    w = 2.0 * np.pi * cutoff_hz / rate_hz
    alpha = np.sin(w) / (2.0 * np.sqrt(0.5))
    b = np.array([1.0, -2.0, 1.0]) * (1.0 + np.cos(w)) / 2.0
    a = np.array([1.0 + alpha, -2.0 * np.cos(w), 1.0 - alpha])
    return b / a[0], a / a[0]


def process(x: Signal, rate_hz: int, cutoff_hz: float = 80.0) -> Signal:
    b, a = coefficients(rate_hz, cutoff_hz)
    return np.asarray(lfilter(b, a, x))
