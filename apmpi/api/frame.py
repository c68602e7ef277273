"""AudioFrame: interleaved 16-bit samples of some milliseconds, with LiveKit's names and meaning."""

from __future__ import annotations

import ctypes
import io
import wave
from operator import index
from typing import TYPE_CHECKING, Any, Self

from apmpi.units import SAMPLE_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Smallest and largest values. The rate is LiveKit's uint32; a WAV header has 16 bits for the channels.
SHAPE_RANGES = {
    "sample_rate": (1, 2**32 - 1),
    "num_channels": (1, 2**16 - 1),
    "samples_per_channel": (0, 2**32 - 1),
}
SAMPLE_FORMATS = ("h", "B", "b", "c")
"""Element formats that a frame's buffer may have: int16, or bytes."""


class AudioFrame:
    """Interleaved int16 samples of `num_channels` channels, `samples_per_channel` each, at `sample_rate` Hz.

    `data` may be bytes, bytearray or a contiguous memoryview (of int16 or bytes) of at least num_channels *
    samples_per_channel samples. A writable buffer is used as it is (no copy); a read-only one is copied,
    because frames are processed in place. Wherever livekit.rtc takes an AudioFrame, it takes this one, and
    reads and writes the same buffer.

    A frame can be pickled and copied; copy.copy() shares the samples, copy.deepcopy() and pickle copy them.

    Raises:
        TypeError: data is of another type, has other elements or is not contiguous; a number is no integer.
        ValueError: data is too short, or no whole number of samples; a rate or channel count below 1, or a
            negative number of samples.
    """

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        sample_rate: int,
        num_channels: int,
        samples_per_channel: int,
        *,
        userdata: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"expected bytes, bytearray, or memoryview, got {type(data)}")
        sample_rate, num_channels, samples_per_channel = _shape(
            sample_rate, num_channels, samples_per_channel
        )
        view = _as_bytes(memoryview(data))
        if view.nbytes < num_channels * samples_per_channel * SAMPLE_BYTES:
            raise ValueError("data length must be >= num_channels * samples_per_channel * sizeof(int16)")
        if view.nbytes % SAMPLE_BYTES:
            raise ValueError("data length must be a multiple of sizeof(int16)")
        self._hold(memoryview(bytearray(view)) if view.readonly else view)
        self._sample_rate = sample_rate
        self._num_channels = num_channels
        self._samples_per_channel = samples_per_channel
        self._userdata = {} if userdata is None else userdata

    def _hold(self, data: memoryview) -> None:
        """Takes writable bytes as the samples."""
        self._data = data  # in bytes, and under this name, which LiveKit's own classes read
        self._samples = data.cast("h")

    @staticmethod
    def create(sample_rate: int, num_channels: int, samples_per_channel: int) -> AudioFrame:
        """Return a frame of silence. Raises TypeError and ValueError as the constructor."""
        sample_rate, num_channels, samples_per_channel = _shape(
            sample_rate, num_channels, samples_per_channel
        )
        data = bytearray(num_channels * samples_per_channel * SAMPLE_BYTES)
        return AudioFrame(data, sample_rate, num_channels, samples_per_channel)

    @staticmethod
    def from_ndarray(samples: npt.NDArray[np.int16], sample_rate: int) -> AudioFrame:
        """Return a frame of an int16 array (samples_per_channel,) or (samples_per_channel, num_channels).

        The frame and the array share their memory. A read-only array is copied, as any read-only buffer.

        Raises:
            TypeError: not an int16 array. (Floats are not converted: their full scale is not known.)
            ValueError: not one- or two-dimensional, or not C-contiguous.
        """
        import numpy as np  # a frame needs none otherwise, and the service does without

        if not isinstance(samples, np.ndarray) or samples.dtype != np.int16:
            raise TypeError(f"expected an int16 array, got {getattr(samples, 'dtype', type(samples))}")
        if samples.ndim not in (1, 2):
            raise ValueError(
                f"array has shape {samples.shape}, "
                "expected (samples_per_channel,) or (samples_per_channel, num_channels)"
            )
        if not samples.flags.c_contiguous:
            raise ValueError("array is not C-contiguous, expected numpy.ascontiguousarray(array)")
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        return AudioFrame(samples.reshape(-1).data, sample_rate, channels, len(samples))

    def to_ndarray(self) -> npt.NDArray[np.int16]:
        """Return the samples, not copied, as a writable int16 array (samples_per_channel, num_channels)."""
        import numpy as np

        shape = (self._samples_per_channel, self._num_channels)
        return np.frombuffer(self._samples, np.int16, shape[0] * shape[1]).reshape(shape)

    @property
    def data(self) -> memoryview:
        """Interleaved samples, a writable memoryview of format 'h'."""
        return self._samples

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._sample_rate

    @property
    def num_channels(self) -> int:
        return self._num_channels

    @property
    def samples_per_channel(self) -> int:
        return self._samples_per_channel

    @property
    def duration(self) -> float:
        """Seconds."""
        return self._samples_per_channel / self._sample_rate

    @property
    def userdata(self) -> dict[str, Any]:
        """Data attached by the application."""
        return self._userdata

    def to_wav_bytes(self) -> bytes:
        """Return the frame as the bytes of a WAV file.

        Raises:
            ValueError: the channels or bytes per second exceed the fields of a WAV header.
        """
        bytes_per_s = self._sample_rate * self._num_channels * SAMPLE_BYTES
        if self._num_channels * SAMPLE_BYTES >= 2**16 or bytes_per_s >= 2**32:
            raise ValueError(
                f"to_wav_bytes: {self._num_channels} channels at {self._sample_rate} Hz, "
                "expected at most 32767 channels and 4294967295 bytes a second"
            )
        with io.BytesIO() as memory:
            with wave.open(memory, "wb") as wav:
                wav.setnchannels(self._num_channels)
                wav.setsampwidth(SAMPLE_BYTES)
                wav.setframerate(self._sample_rate)
                wav.writeframes(self._samples[: self._num_channels * self._samples_per_channel])
            return memory.getvalue()

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes with the samples as bytes, for pickle and copy.deepcopy."""
        state = vars(self) | {"_data": bytes(self._data)}
        del state["_samples"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._hold(memoryview(bytearray(state["_data"])))

    def __copy__(self) -> Self:
        """Return another frame with the same samples in memory and the same userdata."""
        frame = type(self).__new__(type(self))
        vars(frame).update(vars(self))
        return frame

    def __repr__(self) -> str:
        return (
            f"AudioFrame(sample_rate={self._sample_rate}, num_channels={self._num_channels}, "
            f"samples_per_channel={self._samples_per_channel}, duration={self.duration:.3f})"
        )

    def _proto_info(self) -> Any:
        """Return LiveKit's description of the buffer, for its AudioSource.capture_frame, the only caller."""
        from livekit.rtc._proto import audio_frame_pb2

        return audio_frame_pb2.AudioFrameBufferInfo(
            data_ptr=ctypes.addressof(ctypes.c_char.from_buffer(self._data)),
            sample_rate=self._sample_rate,
            num_channels=self._num_channels,
            samples_per_channel=self._samples_per_channel,
        )


def _shape(*given: int) -> tuple[int, ...]:
    """Return sample_rate, num_channels and samples_per_channel as ints. Raises TypeError and ValueError."""
    shape = []
    for (name, (least, most)), figure in zip(SHAPE_RANGES.items(), given, strict=True):
        try:
            whole = index(figure)
        except TypeError:
            raise TypeError(f"{name}: got {shown(figure)}, expected a whole number") from None
        if not least <= whole <= most:
            raise ValueError(f"{name}: got {shown(whole)}, expected {least} to {most}")
        shape.append(whole)
    return tuple(shape)


def _as_bytes(view: memoryview) -> memoryview:
    """Return the same memory as bytes. Raises TypeError if it has no sample format or is not contiguous."""
    if view.format not in SAMPLE_FORMATS:
        raise TypeError(f"data has elements of format {view.format!r}, expected int16 ('h') or bytes ('B')")
    # An empty view cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(bytearray())


def shown(value: object) -> str:
    """Return repr() cut to 80 characters, for an error. An int of more than 4300 digits has no repr()."""
    try:
        text = repr(value)
    except ValueError:
        text = "a number of more than 4300 digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
