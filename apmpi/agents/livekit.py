"""The chain as LiveKit's FrameProcessor, for the input of a room (apmpi[livekit]).

AudioInputOptions(noise_cancellation=MicrophoneProcessor())          LiveKit Agents
rtc.AudioStream(track, noise_cancellation=MicrophoneProcessor())     any program
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from livekit import rtc

from apmpi.agents.barge_in import BargeIn
from apmpi.agents.stream import Stream

logger = logging.getLogger(__name__)


class MicrophoneProcessor(rtc.FrameProcessor[rtc.AudioFrame]):
    """Echo cancellation, noise suppression, high-pass filter and gain control of one audio stream.

    Any rate of 8 to 192 kHz and any length of frames, see Stream. Echo is cancelled of what is given to
    play(); the other features need nothing. A frame that cannot be processed comes back as silence and is
    logged: LiveKit would pass on the microphone's own.

    Args:
        on_barge_in: called with a BargeIn whenever near-end speech begins or ends, and whenever echo begins
            to be, or ceases to be, left over.
        features: keywords of AudioProcessingModule; its four features are on but for those given.
    """

    def __init__(self, *, on_barge_in: Callable[[BargeIn], None] | None = None, **features: Any) -> None:
        self._make: Callable[[], Stream] = functools.partial(Stream, on_barge_in, **features)
        self._stream = self._make()
        self._enabled = True
        self._refused = ""

    @property
    def enabled(self) -> bool:
        """False: LiveKit passes the frames on as they are."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value

    @property
    def stream(self) -> Stream:
        """The chain, with its figures and settings in `module`, and the state `barge_in`."""
        return self._stream

    def play(self, frame: rtc.AudioFrame) -> None:
        """Take a frame when it is played where the microphone is, not when it is queued.

        Raises ValueError if its rate or number of channels is out of range.
        """
        self._stream.play(bytes(frame.data), frame.sample_rate, frame.num_channels)

    def _process(self, frame: rtc.AudioFrame) -> rtc.AudioFrame:
        samples, shape = bytes(frame.data), (frame.sample_rate, frame.num_channels)
        try:
            processed = self._stream.process(samples, *shape)
        except Exception as error:
            if str(error) != self._refused:
                logger.error("silence in place of the microphone: %s", error)
            self._refused = str(error)
            processed = bytes(len(samples))
        return rtc.AudioFrame(processed, *shape, frame.samples_per_channel, userdata=dict(frame.userdata))

    def _close(self) -> None:
        """Forget what was learned: the next stream has another microphone."""
        self._stream = self._make()
