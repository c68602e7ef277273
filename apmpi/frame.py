"""AudioFrame: a block of interleaved 16-bit samples, with LiveKit's names and meaning."""

from __future__ import annotations

import io
import wave
from typing import Any


class AudioFrame:
    """Interleaved int16 samples of `num_channels` channels, `samples_per_channel` each, at `sample_rate` Hz.

    `data` may be bytes, bytearray or memoryview of at least num_channels * samples_per_channel samples. A
    writable buffer is used as it is (no copy); a read-only one is copied, because frames are processed in
    place.

    Raises:
        TypeError: data is of another type.
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
        if view.nbytes < num_channels * samples_per_channel * 2:
            raise ValueError("data length must be >= num_channels * samples_per_channel * sizeof(int16)")
        if view.nbytes % 2:
            raise ValueError("data length must be a multiple of sizeof(int16)")
        self._data = (memoryview(bytearray(view)) if view.readonly else view).cast("h")
        self._sample_rate = sample_rate
        self._num_channels = num_channels
        self._samples_per_channel = samples_per_channel
        self._userdata = {} if userdata is None else userdata

    @staticmethod
    def create(sample_rate: int, num_channels: int, samples_per_channel: int) -> AudioFrame:
        """A frame of silence."""
        return AudioFrame(
            bytearray(num_channels * samples_per_channel * 2), sample_rate, num_channels, samples_per_channel
        )

    @property
    def data(self) -> memoryview:
        """The samples, a writable memoryview of format 'h', interleaved."""
        return self._data

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
                wav.setsampwidth(2)
                wav.setframerate(self._sample_rate)
                wav.writeframes(self._data[: self._num_channels * self._samples_per_channel])
            return memory.getvalue()

    def __repr__(self) -> str:
        return (
            f"AudioFrame(sample_rate={self._sample_rate}, num_channels={self._num_channels}, "
            f"samples_per_channel={self._samples_per_channel}, duration={self.duration:.3f})"
        )
