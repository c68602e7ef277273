"""The chain as Pipecat's audio filters, for a transport with microphone and loudspeaker (apmpi[pipecat]).

canceller = EchoCanceller()
LocalAudioTransportParams(
    audio_in_enabled=True, audio_in_filter=canceller.microphone,
    audio_out_enabled=True, audio_out_filter=canceller.speaker,
)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loguru import logger
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterControlFrame, FilterEnableFrame, FilterUpdateSettingsFrame

from apmpi.agents.barge_in import BargeIn
from apmpi.agents.stream import Stream


class EchoCanceller:
    """Two filters that share one chain: `microphone` processes, `speaker` gives the reference.

    The rates are those of the transport, 8 to 192 kHz, and may differ. Without `speaker` there is no echo
    cancellation, and the other features work all the same. An output filter needs Pipecat 1.14; sound that
    the transport makes itself (its mixer) does not pass it and is not in the reference.

    Args:
        on_barge_in: called with a BargeIn whenever near-end speech begins or ends, and whenever echo begins
            to be, or ceases to be, left over.
        microphone_channels, speaker_channels: audio_in_channels and audio_out_channels of the transport.
        features: keywords of AudioProcessingModule; its four features are on but for those given.
    """

    def __init__(
        self,
        *,
        on_barge_in: Callable[[BargeIn], None] | None = None,
        microphone_channels: int = 1,
        speaker_channels: int = 1,
        **features: Any,
    ) -> None:
        self.stream = Stream(on_barge_in, **features)
        self.microphone: BaseAudioFilter = _Microphone(self.stream, microphone_channels)
        self.speaker: BaseAudioFilter = _Speaker(self.stream, speaker_channels)


class _Filter(BaseAudioFilter):
    def __init__(self, stream: Stream, channels: int) -> None:
        self._stream = stream
        self._channels = channels
        self._rate_hz = 0

    async def start(self, sample_rate: int) -> None:
        self._rate_hz = sample_rate

    async def stop(self) -> None:
        """Nothing to close: what was learned serves the next run."""

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """Control frames concern the microphone's filter alone."""


class _Microphone(_Filter):
    def __init__(self, stream: Stream, channels: int) -> None:
        super().__init__(stream, channels)
        self._enabled = True

    async def start(self, sample_rate: int) -> None:
        """Raises ValueError if the rate or the number of channels is out of range, EndpointError without
        libsamplerate if the rate needs it."""
        await super().start(sample_rate)
        self._stream.process(b"", sample_rate, self._channels)

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """Enable or disable the filter, or change settings by their names in AudioProcessingModule."""
        if isinstance(frame, FilterEnableFrame):
            self._enabled = frame.enable
        elif isinstance(frame, FilterUpdateSettingsFrame):
            try:
                self._stream.module.configure(**frame.settings)
            except (TypeError, ValueError) as error:
                logger.error(f"apmpi keeps its settings: {error}")

    async def filter(self, audio: bytes) -> bytes:
        processed = self._stream.process(audio, self._rate_hz, self._channels)
        return processed if self._enabled else audio


class _Speaker(_Filter):
    async def filter(self, audio: bytes) -> bytes:
        self._stream.play(audio, self._rate_hz, self._channels)
        return audio
