"""Sample formats and channel layouts, as conversions from and to the interleaved int16 that apmpi processes.

Little endian throughout. Conversions to int16 round, those from int16 are exact.
"""

import alsaaudio
import numpy as np
from numpy.typing import NDArray

# In the order in which they are tried: the processing has 16 bits, so that no conversion comes first.
FORMATS = {
    "S16_LE": alsaaudio.PCM_FORMAT_S16_LE,
    "S32_LE": alsaaudio.PCM_FORMAT_S32_LE,
    "S24_3LE": alsaaudio.PCM_FORMAT_S24_3LE,
    "FLOAT_LE": alsaaudio.PCM_FORMAT_FLOAT_LE,
}
FORMAT_BYTES = {"S16_LE": 2, "S32_LE": 4, "S24_3LE": 3, "FLOAT_LE": 4}


def to_int16(samples: bytes, sample_format: str) -> bytes:
    """Return samples of one of FORMATS as int16: rounded, saturated; a NaN becomes 0."""
    if sample_format == "S16_LE":
        return samples
    if sample_format == "FLOAT_LE":
        scaled = np.nan_to_num(np.frombuffer(samples, "<f4") * np.float32(32768), nan=0.0)
        return np.clip(np.rint(scaled), -32768, 32767).astype("<i2").tobytes()
    if sample_format == "S24_3LE":
        three = np.frombuffer(samples, "u1").reshape(-1, 3)
        high = np.ascontiguousarray(three[:, 1:]).view("<i2")[:, 0].astype(np.int32)
        half = three[:, 0] >> 7
    else:
        whole = np.frombuffer(samples, "<i4")
        high, half = whole >> 16, (whole >> 15) & 1
    return np.minimum(high + half, 32767).astype("<i2").tobytes()


def from_int16(samples: bytes, sample_format: str) -> bytes:
    """Return int16 as samples of one of FORMATS, without loss."""
    if sample_format == "S16_LE":
        return samples
    sixteen: NDArray[np.int16] = np.frombuffer(samples, "<i2")
    if sample_format == "FLOAT_LE":
        return (sixteen * np.float32(1 / 32768)).astype("<f4").tobytes()
    if sample_format == "S32_LE":
        return (sixteen.astype("<i4") << 16).tobytes()
    three = np.zeros((len(sixteen), 3), "u1")
    three[:, 1:] = sixteen.view("u1").reshape(-1, 2)
    return three.tobytes()


def picked(samples: bytes, channels: int, wanted: tuple[int, ...]) -> bytes:
    """Return the channels `wanted`, counted from 0, of interleaved int16 of `channels`."""
    if wanted == tuple(range(channels)):
        return samples
    return bytes(np.frombuffer(samples, dtype="<i2").reshape(-1, channels)[:, wanted].tobytes())


def repeated(samples: bytes, wanted: int) -> bytes:
    """Return mono int16 as interleaved int16 of `wanted` equal channels."""
    return np.frombuffer(samples, dtype="<i2").repeat(wanted).tobytes() if wanted > 1 else samples
