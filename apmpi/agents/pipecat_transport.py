"""A Pipecat transport for this computer's microphone and loudspeaker over ALSA (apmpi[pipecat]).

transport = LocalTransport(TransportParams(audio_in_enabled=True, audio_out_enabled=True))
Pipeline([transport.input(), ..., transport.output()])
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame, StartFrame
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams

from apmpi.agents.barge_in import BargeIn, BargeInDetector
from apmpi.api.capture import InputCapture
from apmpi.api.devices import MediaDevices
from apmpi.api.frame import AudioFrame
from apmpi.api.player import OutputPlayer
from apmpi.cards.resampler import Resampler
from apmpi.settings import SAMPLE_RATES_HZ
from apmpi.units import FRAMES_PER_S, SAMPLE_BYTES

# Of a card, where the transport's own rate is none of the chain's.
CARD_RATE_HZ = 48000


class LocalTransport(BaseTransport):
    """Full duplex over MediaDevices: all that is played, a mixer included, is the canceller's reference.

    Cards may have different clocks. The transport's rates may be any of 8 to 192 kHz.

    Args:
        params: audio_in_channels and audio_out_channels must be equal.
        input_device, output_device: as those of MediaDevices; None: ALSA's "default".
        on_barge_in: called with a BargeIn whenever near-end speech begins or ends, and whenever echo begins
            to be, or ceases to be, left over.
        features: keywords of AudioProcessingModule.configure(); all features are on but for those given.

    Raises:
        ValueError: the numbers of channels differ.
    """

    def __init__(
        self,
        params: TransportParams,
        *,
        input_device: int | str | None = None,
        output_device: int | str | None = None,
        on_barge_in: Callable[[BargeIn], None] | None = None,
        **features: Any,
    ) -> None:
        super().__init__()
        if params.audio_in_channels != params.audio_out_channels:
            raise ValueError(
                f"audio_in_channels is {params.audio_in_channels} and audio_out_channels "
                f"{params.audio_out_channels}, expected the same number"
            )
        cards = _Cards(params.audio_in_channels)
        self._input = _Input(params, cards, input_device, on_barge_in, features)
        self._output = _Output(params, cards, output_device)

    def input(self) -> BaseInputTransport:
        return self._input

    def output(self) -> BaseOutputTransport:
        return self._output


class _Cards:
    """The MediaDevices that both directions share, made when the first one starts."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._devices: MediaDevices | None = None

    def devices(self, input_rate_hz: int = CARD_RATE_HZ) -> MediaDevices:
        if self._devices is None:
            self._devices = MediaDevices(input_sample_rate=input_rate_hz, num_channels=self._channels)
        return self._devices


class _Input(BaseInputTransport):
    def __init__(
        self,
        params: TransportParams,
        cards: _Cards,
        device: int | str | None,
        on_barge_in: Callable[[BargeIn], None] | None,
        features: dict[str, Any],
    ) -> None:
        super().__init__(params)
        self._cards = cards
        self._device = device
        self._on_barge_in = on_barge_in
        self._features = features
        self._capture: InputCapture | None = None
        self._recording: asyncio.Task[None] | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        if self._params.audio_in_enabled:
            rate_hz = self.sample_rate if self.sample_rate in SAMPLE_RATES_HZ else CARD_RATE_HZ
            self._capture = self._cards.devices(rate_hz).open_input(input_device=self._device)
            assert self._capture.apm
            self._capture.apm.configure(**self._features)
            self._recording = self.create_task(self._record(self._capture))
        await self.set_transport_ready(frame)

    async def cleanup(self) -> None:
        await super().cleanup()
        if self._recording:
            await self.cancel_task(self._recording)
        if self._capture:
            await self._capture.aclose()

    async def _record(self, capture: InputCapture) -> None:
        """Pass on the microphone's frames; a failed device becomes an ErrorFrame."""
        assert capture.apm
        detector, channels = BargeInDetector(), capture.source.num_channels
        resampler = Resampler(
            capture.source.sample_rate, self.sample_rate, channels, Resampler.SINC_MEDIUM_QUALITY
        )
        try:
            async for frame in capture.source:
                if detector.update(capture.apm.stats(), 1 / FRAMES_PER_S) and self._on_barge_in:
                    self._on_barge_in(detector.state)
                samples = resampler.process(bytes(frame.data))
                await self.push_audio_frame(InputAudioRawFrame(samples, self.sample_rate, channels))
        except RuntimeError as error:
            await self.push_error(str(error), exception=error, force_treat_as_permanent=True)


class _Output(BaseOutputTransport):
    def __init__(self, params: TransportParams, cards: _Cards, device: int | str | None) -> None:
        super().__init__(params)
        self._cards = cards
        self._device = device
        self._player: OutputPlayer | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        if self._params.audio_out_enabled:
            self._player = self._cards.devices().open_output(output_device=self._device)
            await self._player.start()
        await self.set_transport_ready(frame)

    async def cleanup(self) -> None:
        await super().cleanup()
        if self._player:
            await self._player.aclose()

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Play; returns when less than 200 ms are left to play."""
        if self._player is None:
            return False
        samples = len(frame.audio) // (frame.num_channels * SAMPLE_BYTES)
        await self._player.play(AudioFrame(frame.audio, frame.sample_rate, frame.num_channels, samples))
        return True
