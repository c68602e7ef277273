"""Stream: the chain for microphone and far end in chunks of any length, at any rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from apmpi.agents.barge_in import BargeIn, BargeInDetector
from apmpi.api.apm import AudioProcessingModule
from apmpi.api.frame import AudioFrame
from apmpi.cards.resampler import Resampler
from apmpi.settings import (
    CHANNELS_MAX,
    CHANNELS_MIN,
    DEVICE_RATE_MAX_HZ,
    DEVICE_RATE_MIN_HZ,
    SAMPLE_RATES_HZ,
)
from apmpi.units import FRAMES_PER_S, SAMPLE_BYTES

ALL_FEATURES = dict.fromkeys(
    ("echo_cancellation", "noise_suppression", "high_pass_filter", "auto_gain_control"), True
)


class Stream:
    """AudioProcessingModule for interleaved int16 in chunks of any length, at 8 to 192 kHz.

    The chain runs at the smallest of its rates that is not below the microphone's (24 kHz: 32 kHz). A chunk
    comes back with as many samples as it had. What cannot be processed yet (a part of 10 ms, and what the
    resamplers hold back) is silence at the beginning of the stream and delay from then on: none for chunks of
    whole 10 ms at one of the chain's rates.

    module   the chain, for its figures and settings; its features are on but for those given

    on_barge_in is called with a BargeIn whenever near_end_active or echo_free has changed, in process().
    Raises EndpointError at the first chunk that needs a resampler if libsamplerate is missing.
    """

    def __init__(self, on_barge_in: Callable[[BargeIn], None] | None = None, **features: Any) -> None:
        self.module = AudioProcessingModule(**{**ALL_FEATURES, **features})
        self._detector = BargeInDetector()
        self._on_barge_in = on_barge_in
        self._microphone: _Inlet | None = None
        self._far: _Inlet | None = None
        self._back: Resampler | None = None
        self._out = bytearray()

    @property
    def barge_in(self) -> BargeIn:
        """State after the last 10 ms."""
        return self._detector.state

    def process(self, samples: bytes, rate_hz: int, channels: int) -> bytes:
        """Return a chunk of the microphone processed. Another rate or number of channels begins anew.

        Raises:
            ValueError: rate or number of channels out of range, or a chunk that is no whole number of samples
                of all channels; nothing is changed in that case.
        """
        _check("microphone", samples, rate_hz, channels)
        if self._microphone is None or self._microphone.shape != (rate_hz, channels):
            chain_rate_hz = next((rate for rate in SAMPLE_RATES_HZ if rate >= rate_hz), SAMPLE_RATES_HZ[-1])
            self._microphone = _Inlet(rate_hz, channels, chain_rate_hz)
            self._back = Resampler(chain_rate_hz, rate_hz, channels, Resampler.SINC_MEDIUM_QUALITY)
            self._far = None
            self._out.clear()
        assert self._back is not None
        for frame in self._microphone.frames(samples):
            self.module.process_stream(frame)
            if self._detector.update(self.module.stats(), 1 / FRAMES_PER_S) and self._on_barge_in:
                self._on_barge_in(self.barge_in)
            self._out += self._back.process(bytes(frame.data))
        missing = max(len(samples) - len(self._out), 0)
        self._out[:0] = bytes(missing)
        processed = bytes(self._out[: len(samples)])
        del self._out[: len(samples)]
        return processed

    def play(self, samples: bytes, rate_hz: int, channels: int) -> None:
        """Take a chunk that the loudspeaker is about to play; before the microphone's first it is ignored.

        Raises ValueError as process().
        """
        _check("far end", samples, rate_hz, channels)
        if self._microphone is None:
            return
        if self._far is None or self._far.shape != (rate_hz, channels):
            self._far = _Inlet(rate_hz, channels, self._microphone.chain_rate_hz)
        for frame in self._far.frames(samples):
            self.module.process_reverse_stream(frame)


class _Inlet:
    """Chunks of one stream as frames of the chain."""

    def __init__(self, rate_hz: int, channels: int, chain_rate_hz: int) -> None:
        self.shape = (rate_hz, channels)
        self.chain_rate_hz = chain_rate_hz
        self._resampler = Resampler(rate_hz, chain_rate_hz, channels, Resampler.SINC_MEDIUM_QUALITY)
        self._samples = chain_rate_hz // FRAMES_PER_S
        self._frame_bytes = self._samples * channels * SAMPLE_BYTES
        self._waiting = bytearray()

    def frames(self, samples: bytes) -> Iterator[AudioFrame]:
        self._waiting += self._resampler.process(samples)
        while len(self._waiting) >= self._frame_bytes:
            data = self._waiting[: self._frame_bytes]
            del self._waiting[: self._frame_bytes]
            yield AudioFrame(data, self.chain_rate_hz, self.shape[1], self._samples)


def _check(whose: str, samples: bytes, rate_hz: int, channels: int) -> None:
    low, high = DEVICE_RATE_MIN_HZ, DEVICE_RATE_MAX_HZ
    if not low <= rate_hz <= high:
        raise ValueError(f"{whose}: {rate_hz} Hz given, expected {low} to {high} Hz")
    if not CHANNELS_MIN <= channels <= CHANNELS_MAX:
        raise ValueError(f"{whose}: {channels} channels given, expected {CHANNELS_MIN} to {CHANNELS_MAX}")
    if len(samples) % (channels * SAMPLE_BYTES):
        raise ValueError(
            f"{whose}: {len(samples)} bytes given, expected whole samples of {channels * SAMPLE_BYTES} bytes"
        )
