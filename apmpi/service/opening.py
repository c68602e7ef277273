"""The endpoints of a run: opened as configured, kept in step with the microphone, replaced by a reload.

Files are the only endpoints that need soundfile and numpy, a third of the memory: they are imported with the
first file.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from apmpi.cards.clock import Timebase
from apmpi.cards.live import FarEnd, Microphone, Player
from apmpi.cards.pcm import Capture, Playback
from apmpi.cards.slot import Card, Caretaker, Slot
from apmpi.cards.sync import Follower
from apmpi.errors import EndpointError
from apmpi.settings import Endpoint, Settings
from apmpi.units import FRAME_NS

if TYPE_CHECKING:
    from apmpi.cards.files import FileFarEnd, FileMicrophone, FileSink
    from apmpi.cards.wav import WavSource

# A frame is played when it has been recorded (10 ms), and this part of a card's buffer later: how late the
# loop may be, processing included. With the 4 periods of the default 4 ms: all that 10 ms and the chain's 6
# leave of 20 ms.
MARGIN_PART = 10
# A card reports its samples that many times in a frame, so its queue need hardly hold more than the margin.
PERIODS_PER_FRAME = 2
# With low_latency: all that 10 ms and the chain's 2.25 ms leave of 14 ms.
LOW_LATENCY_MARGIN_NS = 1_750_000
LOW_LATENCY_PERIODS_PER_FRAME = 4
# snd-aloop moves its samples in ticks of the kernel's clock (250 Hz), so its positions are up to a tick old.
LOOPBACK = re.compile(r"\bLoopback\b")
LOOPBACK_TICK_NS = 4_000_000

End = TypeVar("End")


class Endpoints:
    """The open endpoints. Figures may be read from any thread; all else belongs to the audio thread.

    live         a card sets the pace
    microphone, far_end, speaker, output   None where there is none
    playout_ns   time from a frame's capture to its playback, constant
    threads      helpers, to be started when the threads' scheduling is set
    """

    def __init__(
        self, settings: Settings, config_path: Path | None, stack: contextlib.ExitStack, timebase: Timebase
    ) -> None:
        """Open them; `stack` closes them. Raises EndpointError."""
        self.live = settings.microphone.device is not None
        self._settings = settings
        self._config_path = config_path
        self._stack = stack
        self._time = timebase
        self._files: list[FileSink] = []
        self._cards = Caretaker(timebase)
        stack.callback(self._cards.close)
        self.threads: list[threading.Thread] = [self._cards]
        self._margin_ns = FRAME_NS * settings.periods // MARGIN_PART
        if settings.low_latency:
            self._margin_ns = LOW_LATENCY_MARGIN_NS
        self.playout_ns = FRAME_NS + max(map(self._margin_of, (settings.speaker, settings.output)))

        self.microphone = self._located(self._open_microphone, "microphone", settings.microphone)
        far_end = None if settings.reference_channels else settings.far_end
        self.far_end = self._located(self._open_far_end, "far_end", far_end) if far_end else None
        speaker, output = settings.speaker, settings.output
        self.speaker = self._located(self._open_sink, "speaker", speaker) if speaker else None
        self.output = self._located(self._open_sink, "output", output) if output else None

    def xruns(self) -> dict[str, int]:
        """Return the count by endpoint since the start."""
        return self._cards.xruns()

    def slips(self) -> int:
        """Return how often a card was put in step with the microphone's by leaving out sound or inserting
        silence."""
        return sum(end.place.slips for end in self._followed().values())

    def drift_ppm(self) -> dict[str, float]:
        """Return by how much each other card's clock is faster than the microphone's, if it is another
        clock."""
        return {key: -ppm if key == "far_end" else ppm for key, ppm in self.clocks().items()}

    def clocks(self) -> dict[str, float]:
        """Return the rate correction of each endpoint on another clock, in ppm."""
        found = {key: end.follower.ppm for key, end in self._followed().items()}
        return {key: ppm for key, ppm in found.items() if ppm is not None}

    def start_from(self, clocks: Mapping[str, float]) -> None:
        """Begin with these corrections, from clocks() of an earlier run; before the first frame."""
        for key, end in self._followed().items():
            end.follower = self._follower(getattr(self._settings, key), clocks.get(key, 0.0))

    def waiting(self) -> str:
        """Return what device is waited for, as a sentence; "" if none is."""
        return self._cards.problem()

    def replace(self, settings: Settings) -> None:
        """Replace the devices that differ; their cards are opened by the caretaker's thread."""
        before = self._settings
        for key, kind in (
            ("microphone", Capture), ("far_end", Capture), ("speaker", Playback), ("output", Playback)
        ):  # fmt: skip
            endpoint: Endpoint | None = getattr(settings, key)
            if endpoint and endpoint != getattr(before, key):
                self._cards.replace(key, self._opener(kind, key, endpoint))
        self._settings = settings
        for key, end in self._followed().items():  # a new device is on another clock, as far as is known
            if any(getattr(settings, one) != getattr(before, one) for one in (key, "microphone")):
                end.follower = self._follower(getattr(settings, key))

    def close_files(self) -> str | None:
        """Complete the files that are written. Returns None, or the first problem."""
        problem = None
        for file in self._files:
            try:
                file.close()
            except EndpointError as error:
                problem = problem or str(error)
        return problem

    # ---- opening

    def _open_microphone(self, key: str, endpoint: Endpoint) -> Microphone | FileMicrophone:
        if endpoint.device is not None:
            return Microphone(self._slot(Capture, key, endpoint))
        from apmpi.cards.files import FileMicrophone

        return FileMicrophone(self._file_source(endpoint), self._time)

    def _open_far_end(self, key: str, endpoint: Endpoint) -> FarEnd | FileFarEnd:
        if endpoint.device is not None:
            slot = self._slot(Capture, key, endpoint)
            return FarEnd(slot, self._follower(endpoint), self._margin_of(endpoint))
        from apmpi.cards.files import FileFarEnd, ReadAhead

        if not self.live:
            return FileFarEnd(self._file_source(endpoint))
        ahead = ReadAhead(self._file_source(endpoint))
        self.threads.append(ahead.thread)
        self._stack.callback(ahead.close)
        return ahead

    def _open_sink(self, key: str, endpoint: Endpoint) -> Player | FileSink:
        if endpoint.device is not None:
            slot = self._slot(Playback, key, endpoint)
            return Player(slot, self._follower(endpoint))
        from apmpi.cards.files import FileSink, WriteBehind
        from apmpi.cards.wav import WavSink

        assert endpoint.file is not None
        file = WavSink(endpoint.file, self._settings.sample_rate_hz, endpoint.channels)
        self._stack.callback(file.abort)  # nothing to do after close()
        sink = FileSink(file)
        if self.live:
            sink = WriteBehind(file)
            self.threads.append(sink.thread)
        self._files.append(sink)
        return sink

    def _margin_of(self, endpoint: Endpoint | None) -> int:
        """Return by how much the loop may be late for an endpoint, in ns."""
        loopback = endpoint is not None and LOOPBACK.search(endpoint.device or "")
        return self._margin_ns + (LOOPBACK_TICK_NS if loopback else 0)

    def _slot(self, kind: type[Card], key: str, endpoint: Endpoint) -> Slot[Card]:
        return self._cards.adopt(Slot(key, self._opener(kind, key, endpoint)))

    def _opener(self, kind: type[Card], key: str, endpoint: Endpoint) -> Callable[[], Card]:
        """Return a function that opens the card, for the caretaker's thread."""
        settings, device = self._settings, endpoint.device
        assert device is not None

        rate_hz = endpoint.sample_rate_hz or settings.sample_rate_hz
        parts = LOW_LATENCY_PERIODS_PER_FRAME if settings.low_latency else PERIODS_PER_FRAME

        def open_card() -> Card:
            return kind(key, device, rate_hz, endpoint.channels, settings.periods, self._time, parts)

        return open_card

    def _followed(self) -> dict[str, FarEnd | Player]:
        """Return the endpoints whose clocks are compared with the microphone's."""
        ends = {"far_end": self.far_end, "speaker": self.speaker, "output": self.output}
        return {key: end for key, end in ends.items() if isinstance(end, FarEnd | Player)}

    def _follower(self, endpoint: Endpoint, ppm: float = 0.0) -> Follower:
        settings = self._settings
        assert isinstance(self.microphone, Microphone)  # no device without one, see apmpi.settings
        pace = None if endpoint.device == settings.microphone.device else self.microphone.slot
        rates_hz = settings.sample_rate_hz, endpoint.sample_rate_hz or settings.sample_rate_hz
        if endpoint is settings.far_end:
            rates_hz = rates_hz[::-1]
        return Follower(pace, endpoint.channels, *rates_hz, ppm)

    def _file_source(self, endpoint: Endpoint) -> WavSource:
        from apmpi.cards.wav import WavSource

        assert endpoint.file is not None
        file = WavSource(endpoint.file, self._settings.sample_rate_hz, endpoint.channels)
        return self._stack.enter_context(file)

    def _located(self, opened: Callable[[str, Endpoint], End], key: str, endpoint: Endpoint) -> End:
        """Return `opened(key, endpoint)`; an error gets file and line in front."""
        try:
            return opened(key, endpoint)
        except EndpointError as error:
            named = error if endpoint.device else f"{key}.file: {error}"
            where = f"{self._config_path}:{endpoint.line}: " if self._config_path and endpoint.line else ""
            raise EndpointError(f"{where}{named}") from None
