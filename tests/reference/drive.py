"""Drive the real module over whole signals, 10 ms at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from reference.signals import from_int16, to_int16

from apmpi import AudioFrame, AudioProcessingModule

Samples = npt.NDArray[np.int16]


@dataclass
class AnyFrame:
    """A frame of another program, valid or not: the members that a frame has, of any type."""

    data: Any
    sample_rate: Any = 16000
    num_channels: Any = 1
    samples_per_channel: Any = 160


def frame_of(block: Samples, rate_hz: int) -> AudioFrame:
    """Return a frame with its own copy of `block`: (samples,) or (samples, channels)."""
    channels = 1 if block.ndim == 1 else block.shape[1]
    return AudioFrame(bytearray(block.tobytes()), rate_hz, channels, len(block))


def process(apm: AudioProcessingModule, rate_hz: int, mic: Samples, far: Samples | None = None) -> Samples:
    """Return the output for microphone samples (n,) or (n, channels); each block's far end is given first."""
    block, out = rate_hz // 100, np.zeros_like(mic)
    for at in range(0, len(mic) - block + 1, block):
        if far is not None:
            apm.process_reverse_stream(frame_of(far[at : at + block], rate_hz))
        frame = frame_of(mic[at : at + block], rate_hz)
        apm.process_stream(frame)
        out[at : at + block] = np.frombuffer(frame.data, np.int16).reshape(mic[at : at + block].shape)
    return out


def heard(
    apm: AudioProcessingModule,
    rate_hz: int,
    mic: npt.NDArray[np.float64],
    far: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the output in float, aligned with `mic` by the module's own latency; zeros at the end."""
    out = process(apm, rate_hz, to_int16(mic), None if far is None else to_int16(far))
    late = round(apm.latency_ms * rate_hz / 1000)
    return np.concatenate([from_int16(out[late:]), np.zeros((late, *out.shape[1:]))])
