"""AudioFrame: a block of interleaved 16-bit samples, with LiveKit's names and meaning."""

from __future__ import annotations

import ctypes
import io
import wave
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_BYTES = 2


class AudioFrame:
    """Interleaved int16 samples of `num_channels` channels, `samples_per_channel` each, at `sample_rate` Hz.

    `data` may be bytes, bytearray or a contiguous memoryview of at least num_channels * samples_per_channel
    samples. A writable buffer is used as it is (no copy); a read-only one is copied, because frames are
    processed in place. Wherever livekit.rtc takes an AudioFrame, it takes this one, and reads and writes the
    same buffer.

    Raises:
        TypeError: data is of another type, or not contiguous.
        ValueError: data is too short, or not whole samples.
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
        view = memoryview(data).cast("B")
        if view.nbytes < num_channels * samples_per_channel * SAMPLE_BYTES:
            raise ValueError("data length must be >= num_channels * samples_per_channel * sizeof(int16)")
        if view.nbytes % SAMPLE_BYTES:
            raise ValueError("data length must be a multiple of sizeof(int16)")
        # In bytes, and under this name: LiveKit's own classes look here.
        self._data = memoryview(bytearray(view)) if view.readonly else view
        self._samples = self._data.cast("h")
        self._sample_rate = sample_rate
        self._num_channels = num_channels
        self._samples_per_channel = samples_per_channel
        self._userdata = {} if userdata is None else userdata

    @staticmethod
    def create(sample_rate: int, num_channels: int, samples_per_channel: int) -> AudioFrame:
        """A frame of silence. Raises ValueError if a count is negative."""
        data = bytearray(num_channels * samples_per_channel * SAMPLE_BYTES)
        return AudioFrame(data, sample_rate, num_channels, samples_per_channel)

    @staticmethod
    def from_ndarray(samples: npt.NDArray[np.int16], sample_rate: int) -> AudioFrame:
        """A frame over an int16 array of shape (samples_per_channel,) or (samples_per_channel, num_channels).

        The frame and the array share their memory: what is done to one is seen in the other. Only of a
        read-only array a copy is made, as of any read-only buffer.

        Raises:
            TypeError: not an int16 array. (Floats are not converted: nobody could know their full scale.)
            ValueError: not one- or two-dimensional, or not C-contiguous.
        """
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
        """The samples as a writable int16 array (samples_per_channel, num_channels) over the same memory."""
        shape = (self._samples_per_channel, self._num_channels)
        return np.frombuffer(self._samples, np.int16, shape[0] * shape[1]).reshape(shape)

    @property
    def data(self) -> memoryview:
        """The samples, a writable memoryview of format 'h', interleaved."""
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
        """Whatever the owner attaches."""
        return self._userdata

    def to_wav_bytes(self) -> bytes:
        """The frame as a WAV file in memory."""
        with io.BytesIO() as memory:
            with wave.open(memory, "wb") as wav:
                wav.setnchannels(self._num_channels)
                wav.setsampwidth(SAMPLE_BYTES)
                wav.setframerate(self._sample_rate)
                wav.writeframes(self._samples[: self._num_channels * self._samples_per_channel])
            return memory.getvalue()

    def __repr__(self) -> str:
        return (
            f"AudioFrame(sample_rate={self._sample_rate}, num_channels={self._num_channels}, "
            f"samples_per_channel={self._samples_per_channel}, duration={self.duration:.3f})"
        )

    def _proto_info(self) -> Any:
        """What LiveKit's AudioSource.capture_frame asks of a frame; only LiveKit calls it, so it is there."""
        from livekit.rtc._proto import audio_frame_pb2

        return audio_frame_pb2.AudioFrameBufferInfo(
            data_ptr=ctypes.addressof(ctypes.c_char.from_buffer(self._data)),
            sample_rate=self._sample_rate,
            num_channels=self._num_channels,
            samples_per_channel=self._samples_per_channel,
        )
