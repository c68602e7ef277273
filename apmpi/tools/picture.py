"""Plots shared by `apmpi demo` and `apmpi report`. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apmpi.units import FRAMES_PER_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Samples = NDArray[np.float64]

# Colour range of the spectrograms; a full-scale sine is 0 dBFS. The lower end is the self-noise of a good
# microphone.
BOTTOM_DBFS, TOP_DBFS = -110, -30
# Speech has little energy above.
TOP_KHZ = 10
# More columns than the picture has pixels would cost time only.
COLUMNS_MAX = 4000


def draw_spectrogram(axes: Axes, samples: Samples, rate_hz: int, title: str) -> AxesImage:
    """Draw levels in dBFS with a Hann window of 1024 samples at 48 kHz: 21 ms, 47 Hz."""
    window = np.hanning(round(rate_hz * 1024 / 48000))
    step = max(rate_hz // FRAMES_PER_S, len(samples) // COLUMNS_MAX)
    padded = np.concatenate([samples, np.zeros(max(len(window) - len(samples), 0))])
    blocks = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::step]
    amplitude = np.abs(np.fft.rfft(blocks * window)) / (window.sum() / 2)
    level_db = 20 * np.log10(amplitude.T + 1e-7)
    duration_s, half_khz = len(samples) / rate_hz, rate_hz / 2000
    image = axes.imshow(
        level_db,
        origin="lower",
        aspect="auto",
        extent=(0, duration_s, 0, half_khz),
        cmap="magma",
        vmin=BOTTOM_DBFS,
        vmax=TOP_DBFS,
    )
    axes.set(title=title, ylabel="frequency (kHz)", ylim=(0, min(TOP_KHZ, half_khz)))
    axes.tick_params(labelbottom=False)
    return image


def level_dbfs(samples: Samples, frame_samples: int, window_frames: int) -> Samples:
    """Return the level of each frame in dBFS, smoothed by a Hann window of `window_frames`."""
    frames = samples[: len(samples) // frame_samples * frame_samples].reshape(-1, frame_samples)
    # Zeros count as half a step of 16 bits, the least level that the format can represent.
    power = np.mean(frames**2, axis=1) + (0.5 / 32768) ** 2
    window = np.hanning(window_frames + 2)[1:-1]
    weights = np.convolve(np.ones_like(power), window, "same")  # the window is cut at both ends
    return np.asarray(10 * np.log10(np.convolve(power, window, "same") / weights))
