"""What the demonstration's picture and the report's pictures have in common. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Samples = NDArray[np.float64]

# A full-scale sine reads 0 dBFS; what is below the bottom is a good microphone's own noise.
BOTTOM_DBFS, TOP_DBFS = -110, -30
# Speech has little above, and a page's width has no more columns.
TOP_KHZ = 10
COLUMNS_MAX = 4000


def draw_spectrogram(axes: Axes, samples: Samples, rate_hz: int, title: str) -> AxesImage:
    """Level of each 21 ms and 47 Hz (at 48 kHz); a full-scale sine reads 0 dBFS."""
    window = np.hanning(round(rate_hz * 1024 / 48000))
    step = max(rate_hz // 100, len(samples) // COLUMNS_MAX)
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
    """Level of each frame, smoothed over `window_frames`."""
    frames = samples[: len(samples) // frame_samples * frame_samples].reshape(-1, frame_samples)
    # Zeros are as quiet as 16 bits can tell: half a step.
    power = np.mean(frames**2, axis=1) + (0.5 / 32768) ** 2
    window = np.hanning(window_frames + 2)[1:-1]
    weights = np.convolve(np.ones_like(power), window, "same")  # less at the ends
    return np.asarray(10 * np.log10(np.convolve(power, window, "same") / weights))
