"""Recording: an open microphone, and the source of its processed frames."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apmpi.api.apm import AudioProcessingModule
from apmpi.api.frame import AudioFrame
from apmpi.api.stream import Stream
from apmpi.api.track import Samples
from apmpi.cards.pcm import Capture
from apmpi.cards.resampler import Resampler
from apmpi.cards.slot import Slot
from apmpi.settings import STREAM_DELAY_MAX_MS
from apmpi.units import FRAMES_PER_S, NS_PER_S

NS_PER_MS = 1e6
# Smallest change of the delay, in ms, that is passed to the canceller. It tracks smaller ones by itself, and
# a new hint would disturb it.
DELAY_CHANGE_MIN_MS = 5


class MicrophoneSource:
    """Processed 10 ms frames of the microphone, for one reader or several that share them.

        async for frame in capture.source: ...                       # in this program
        LocalAudioTrack.create_audio_track("mic", capture.source)    # published by LiveKit

    Attributes:
        sample_rate: Hz.
        num_channels: of every frame.
        dropped: frames that were not read in time; a new frame replaces the oldest one.
    """

    def __init__(
        self, sample_rate: int, num_channels: int, capacity: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.sample_rate = sample_rate
        self.num_channels = num_channels
        self.dropped = 0
        self._capacity = capacity
        self._loop = loop
        self._frames: deque[AudioFrame] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self._rtc_source: Any = None
        self._feeding: asyncio.Task[None] | None = None

    def __aiter__(self) -> MicrophoneSource:
        return self

    async def __anext__(self) -> AudioFrame:
        """Return the next frame. Ends with the capture; raises RuntimeError if the device failed."""
        while not self._frames:
            if self._error:
                raise RuntimeError(str(self._error)) from self._error
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._frames.popleft()

    async def feed(self, sink: Any) -> None:
        """Passes every frame to `sink.capture_frame`, as livekit.rtc.AudioSource has it, until the capture
        ends.

        Raises:
            RuntimeError: the device failed.
        """
        async for frame in self:
            await sink.capture_frame(frame)

    async def aclose(self) -> None:
        """Ends the feeding of a published track; the capture goes on."""
        if self._feeding:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)
            await self._rtc_source.aclose()
            self._feeding = self._rtc_source = None

    @property
    def _ffi_handle(self) -> Any:
        """Handle that LiveKit's create_audio_track reads: of a LiveKit source which this one feeds."""
        if self._rtc_source is None:
            from livekit import rtc

            self._rtc_source = rtc.AudioSource(self.sample_rate, self.num_channels, loop=self._loop)
            self._feeding = self._loop.create_task(self.feed(self._rtc_source))
        return self._rtc_source._ffi_handle

    def _arrived(self, frame: AudioFrame) -> None:
        if len(self._frames) >= self._capacity:
            self._frames.popleft()
            self.dropped += 1
        self._frames.append(frame)
        self._news.set()

    def _end(self, error: Exception | None) -> None:
        self._ended, self._error = True, error
        self._news.set()


class DelayEstimator:
    """Delay between far end and echo, measured from the cards' clocks with every frame.

    Attributes:
        delay_ms: (t_render - t_analyze) + (t_process - t_capture), the definition of WebRTC's
            set_stream_delay_ms; -1.0 before anything was played.
    """

    def __init__(self) -> None:
        self.delay_ms = -1.0
        self._output_delay_s = 0.0

    def set_output_delay(self, delay_sec: float) -> None:
        self._output_delay_s = delay_sec

    def get_output_delay(self) -> float:
        """Seconds from writing a frame to the card until its first sample is at the converter; 0.0 before
        the first frame."""
        return self._output_delay_s


@dataclass
class InputCapture:
    """An open microphone.

    Attributes:
        source: the processed frames.
        input_stream: the ALSA endpoint; its `xruns` counts how often sound was lost before it could be read.
        task: ends with the capture, raises RuntimeError if the device failed; cancelled, it ends the capture.
        apm: for its stats() and configure(); None without any processing.
        delay_estimator: the measured delay; None without apm.
    """

    source: MicrophoneSource
    input_stream: Capture
    task: asyncio.Task[None]
    apm: AudioProcessingModule | None
    delay_estimator: DelayEstimator | None
    _stream: MicrophoneStream = field(repr=False)

    async def aclose(self) -> None:
        """Closes the device. Queued frames can still be read; after them the source ends."""
        await self._stream.close(self.task)
        await self.source.aclose()


class MicrophoneStream(Stream):
    """The recording direction; its methods belong to the audio thread.

    reference   converts what is played to the microphone's rate; None if the rates are equal
    """

    def __init__(
        self,
        slot: Slot[Capture],
        card: Capture,
        loop: asyncio.AbstractEventLoop,
        source: MicrophoneSource,
        apm: AudioProcessingModule | None,
        estimator: DelayEstimator | None,
        channel_index: int | None,
    ) -> None:
        super().__init__(slot, loop)
        self.slot = slot
        self.card = card
        self.apm = apm
        self.reference: Reference | None = None
        self._source = source
        self._estimator = estimator
        self._channel_index = channel_index
        self._hint_ms = -DELAY_CHANGE_MIN_MS  # the delay that the canceller was given last

    def deliver(self, recorded: bytes, far: Samples | None, out_ns: int) -> None:
        """Processes a recorded frame with the far-end frame played at that time, and passes it to the source.

        out_ns: time from recording the first sample of `recorded` to playing that of `far`, by the cards'
            clocks
        """
        samples: Samples = np.frombuffer(recorded, "<i2").reshape(-1, self.card.channels)
        if self._channel_index is not None:
            samples = samples[:, self._channel_index : self._channel_index + 1]
        frame = AudioFrame(samples.tobytes(), self.card.rate_hz, samples.shape[1], len(samples))
        if self.apm:
            if far is not None:
                self._hint_delay(out_ns)
                if self.reference:
                    far = self.reference.frame(far)
                self.apm.process_reverse_stream(AudioFrame.from_ndarray(far, self.card.rate_hz))
            self.apm.process_stream(frame)
        self.call_back(self._source._arrived, frame)

    def _hint_delay(self, out_ns: int) -> None:
        assert self.apm and self._estimator
        # Far end and microphone are processed at the same time here, so t_process - t_analyze is 0, and
        # (t_render - t_analyze) + (t_process - t_capture) becomes t_render - t_capture.
        self._estimator.delay_ms = out_ns / NS_PER_MS
        delay_ms = min(max(round(self._estimator.delay_ms), 0), STREAM_DELAY_MAX_MS)
        if abs(delay_ms - self._hint_ms) >= DELAY_CHANGE_MIN_MS:
            self.apm.set_stream_delay_ms(delay_ms)
            self._hint_ms = delay_ms

    def set_output_delay(self, delay_ns: int) -> None:
        if self._estimator:
            self._estimator.set_output_delay(delay_ns / NS_PER_S)

    def _finished(self, error: Exception | None) -> None:
        super()._finished(error)
        self._source._end(error)


class Reference:
    """Resampler of the played frames to the microphone's rate."""

    def __init__(self, channels: int, played_rate_hz: int, rate_hz: int) -> None:
        """Raises EndpointError if there is no resampler."""
        self._resampler = Resampler(played_rate_hz, rate_hz, channels)
        self._frame_samples = rate_hz // FRAMES_PER_S
        # The resampler's filter holds back 20 samples of the lower rate, at most 2.5 ms: half a frame of
        # silence in front is enough to make every frame whole.
        self._pending: Samples = np.zeros((self._frame_samples // 2, channels), np.int16)

    def frame(self, far: Samples) -> Samples:
        """Return 10 ms at the microphone's rate for 10 ms as played."""
        resampled = np.frombuffer(self._resampler.process(far.tobytes()), np.int16)
        samples = np.concatenate([self._pending, resampled.reshape(-1, far.shape[1])])
        self._pending = samples[self._frame_samples :]
        return samples[: self._frame_samples]
