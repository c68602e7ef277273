"""The signal chain as the loop uses it: frames of one shape, as bytes."""

from collections.abc import Mapping

from apmpi.api.apm import AudioProcessingModule
from apmpi.api.frame import AudioFrame
from apmpi.units import FRAMES_PER_S


class LoopChain(AudioProcessingModule):
    """An AudioProcessingModule that takes a far-end and a microphone frame in one native call."""

    def __init__(
        self, rate_hz: int, channels: int, far_channels: int, settings: Mapping[str, object]
    ) -> None:
        """`channels` and `far_channels` are those of the frames, `settings` the module's parameters.

        All memory is allocated here, by a first frame, so that no frame of the microphone waits for it.
        """
        super().__init__(**settings)  # type: ignore[arg-type]
        self._far_channels = far_channels
        frame_samples = rate_hz // FRAMES_PER_S
        self.process_reverse_stream(AudioFrame.create(rate_hz, far_channels, frame_samples))
        self.process_stream(AudioFrame.create(rate_hz, channels, frame_samples))
        self.reset()
        assert self._chain is not None
        self._native = self._chain  # never replaced while the shape of the frames stays

    def process(self, far_end: bytes, microphone: bytes) -> bytes:
        """Return the microphone's frame processed; `far_end` is about to be played. Both are int16, 10 ms."""
        return self._native.process(far_end, self._far_channels, microphone)

    def figures(self) -> Mapping[str, float]:
        """Return the figures as apmpi.api.apm.stats_of() takes them.

        Stats takes 40 thousand instructions to make, as much as a whole frame of Python: not in the audio
        thread.
        """
        return self._native.stats()
