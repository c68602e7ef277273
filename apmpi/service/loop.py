"""The loop where all meet: every 10 ms one frame from the microphone, one from the far end, one to each
output.

    microphone ─► far end ─► speaker ─► process_reverse_stream, process_stream ─► output
      sets the pace             └───── both due at a fixed time after the frame came in ─────┘

The microphone's card sets the pace. Nothing else is waited for: a far end without sound is silence, files are
read and written by threads of their own, and the reporter (report.py) does the talking. What is played
leaves its card a fixed time after the microphone's frame of the same number came in. So the delay that the
canceller sees never changes, not even through an xrun: whatever was lost, the next frame goes where it
belongs. Devices that go away and come back, and those on other clocks, are the endpoints' business
(apmpi.cards.live, apmpi.cards.sync): here they only give nothing for a while.

With a WAV file as microphone there is no card and no pace: all endpoints are files, and frames follow each
other as fast as they are processed.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from apmpi.api.apm import KERNELS, AudioProcessingModule
from apmpi.api.frame import AudioFrame
from apmpi.cards.clock import Timebase
from apmpi.cards.downmix import Downmix
from apmpi.cards.files import FileFarEnd, FileMicrophone, FileSink, ReadAhead, WriteBehind
from apmpi.cards.formats import picked, repeated
from apmpi.cards.latency import FrameTimes, LatencyLog
from apmpi.cards.live import FarEnd, Microphone, Player
from apmpi.cards.pcm import Capture, Playback
from apmpi.cards.slot import Card, Caretaker, Slot
from apmpi.cards.sync import Follower
from apmpi.cards.wav import WavSink, WavSource
from apmpi.errors import EndpointError
from apmpi.service import learned
from apmpi.service.feed import Feed
from apmpi.service.instruments import Board
from apmpi.settings import Endpoint, Settings
from apmpi.units import FRAME_NS, FRAMES_PER_S, NS_PER_S

NS_PER_MS = 1e6

# A frame is played when it has been recorded (10 ms), and this part of a card's buffer later: how late the
# loop may wake up. With the 4 periods of the default 8 ms, while the microphone's buffer has 30 ms of room.
MARGIN_PART = 5
# With low_latency a card tells of its samples four times in a frame, so its queue need not hold more than the
# loop may be late by, processing included: all that 10 ms and the chain's 6 ms leave of 18 ms.
LOW_LATENCY_MARGIN_NS = 1_900_000
LOW_LATENCY_BLOCK_PARTS = 4
# The canceller is asked for its state 10 times a second: often for a person, seldom for the processor.
STATS_EVERY_FRAMES = 10

# Far end, microphone and output of one frame (interleaved int16) and its latency. Called on the audio
# thread: it may only store.
Tap = Callable[[bytes, bytes, bytes, FrameTimes], None]

# A frame in the channels of the device it goes to, from what was processed and what that was made from.
Remix = Callable[[bytes, bytes], bytes]


class Loop:
    """The endpoints, the processing, and the way of a frame through them.

    live                      a card sets the pace
    board, latency, xruns(), slips()   what the reporter sees of it
    feed                      the sound, for those who look on
    """

    def __init__(
        self,
        settings: Settings,
        config_path: Path | None,
        stack: contextlib.ExitStack,
        tap: Tap | None,
        timebase: Timebase,
    ) -> None:
        """Opens the endpoints; `stack` closes them. Raises EndpointError."""
        self.live = settings.microphone.device is not None
        self._settings = settings
        self._config_path = config_path
        self._stack = stack
        self._tap = tap
        self._time = timebase
        self._files: list[FileSink] = []
        self._downmixes: dict[str, Downmix] = {}
        self._cards = Caretaker(timebase)
        stack.callback(self._cards.close)
        self._helpers: list[threading.Thread] = [self._cards]

        self._margin_ns = FRAME_NS * settings.periods // MARGIN_PART
        if settings.low_latency:
            self._margin_ns = LOW_LATENCY_MARGIN_NS
        self._playout_ns = FRAME_NS + self._margin_ns
        # All that the chain allocates, it allocates with its first frame: let that be none of the
        # microphone's.
        rate_hz, block_samples = settings.sample_rate_hz, settings.sample_rate_hz // FRAMES_PER_S
        far_channels = settings.far_end.channels if settings.far_end else 1
        self._pick_near = settings.microphone.channels, settings.near_channels
        self._pick_far = settings.microphone.channels, settings.reference_channels
        self._near = AudioFrame.create(rate_hz, len(settings.near_channels), block_samples)
        self._far = AudioFrame.create(rate_hz, far_channels, block_samples)
        self._silence = self._far.data.tobytes()
        self._apm = AudioProcessingModule(**asdict(settings.features), **asdict(settings.tuning))
        self._process(self._silence, self._near.data.tobytes())
        self._apm.reset()
        if settings.stream_delay_ms is not None:
            self._apm.set_stream_delay_ms(settings.stream_delay_ms)

        with self._said_where("microphone", settings.microphone):
            self._microphone = self._open_microphone(settings.microphone)
        self._far_end = self._speaker = self._output = None
        if settings.far_end and not settings.far_end.microphone_channels:
            with self._said_where("far_end", settings.far_end):
                self._far_end = self._open_far_end(settings.far_end)
        if settings.speaker:
            with self._said_where("speaker", settings.speaker):
                self._speaker = self._open_sink("speaker", settings.speaker)
            numbers = [channel + 1 for channel in range(far_channels)]
            self._far_to_speaker = self._remix("far end", numbers, settings.speaker.channels, every=True)
        if settings.output:
            with self._said_where("output", settings.output):
                self._output = self._open_sink("output", settings.output)
            numbers = [channel + 1 for channel in settings.near_channels]
            self._near_to_output = self._remix("microphone", numbers, settings.output.channels, every=False)

        self.feed = Feed()
        self.board = Board(settings=settings, applied=settings)
        capacity_frames = int(settings.report_interval_s * FRAMES_PER_S) + 2 * FRAMES_PER_S
        self.latency = LatencyLog(capacity_frames, self._apm.latency_ms)

    def channels(self) -> dict[str, int]:
        """Of the signals that the feed has."""
        near = self._near.num_channels
        return {"far_end": self._far.num_channels, "microphone": near, "output": near}

    def xruns(self) -> dict[str, int]:
        """By endpoint, since the start."""
        return self._cards.xruns()

    def slips(self) -> int:
        """How often a card was put back in step with the microphone's by leaving out sound or adding
        silence."""
        return sum(end.place.slips for end in self._followed().values())

    def drift_ppm(self) -> dict[str, float]:
        """How much faster than the microphone's the clock of each other card is, if it is another clock."""
        found = {}
        for key, end in self._followed().items():
            if (ppm := end.follower.ppm) is not None:
                found[key] = -ppm if key == "far_end" else ppm
        return found

    def description(self) -> str:
        """What runs, in one line."""
        settings = self._settings
        names = []
        for key in ("microphone", "far_end", "speaker", "output"):
            endpoint: Endpoint | None = getattr(settings, key)
            if endpoint is not None:
                names.append(f"{key} {endpoint.device or endpoint.file or 'by a channel of the microphone'}")
        return f"running at {settings.sample_rate_hz} Hz: {', '.join(names)}; {KERNELS} kernels"

    def snapshot(self) -> learned.Learned:
        """What the next run should know; from any thread."""
        clocks = {key: end.follower.ppm for key, end in self._followed().items()}
        drift_ppm = {key: ppm for key, ppm in clocks.items() if ppm is not None}
        return learned.Learned(self._apm.save_state(), self._settings, drift_ppm)

    def go_on_from(self, before: learned.Learned) -> None:
        """Before run(). Raises ValueError."""
        self._apm.load_state(before.chain)
        for key, end in self._followed().items():
            end.follower = self._follower(getattr(self._settings, key), before.drift_ppm.get(key, 0.0))

    def run(self, seconds: float | None) -> str | None:
        """Frames until the end. Returns None, or the problem that ended it; files are complete either way."""
        problem = None
        for thread in self._helpers:  # only now: real-time scheduling is inherited
            thread.start()
        try:
            self._frames(sys.maxsize if seconds is None else round(seconds * FRAMES_PER_S))
            if self.live:  # the last frames are still queued
                time.sleep(self._time.real_s((self._playout_ns + FRAME_NS) / NS_PER_S))
        except EndpointError as error:
            problem = str(error)
        for file in self._files:
            try:
                file.close()
            except EndpointError as error:
                problem = problem or str(error)
        return problem

    def _frames(self, frames_max: int) -> None:
        board, latency, microphone = self.board, self.latency, self._microphone
        others = [end for end in (self._far_end, self._speaker, self._output) if end]
        while latency.frames < frames_max and not board.stop:
            heard = microphone.read()
            board.parked = self._cards.problem()
            board.beats += 1
            if board.settings is not board.applied:
                self._apply(board.settings)
            if heard is None:
                return
            if not heard:
                for end in others:
                    end.rest()
                continue
            read_ns, captured_ns = self._time.now_ns(), microphone.captured_ns
            due_ns = captured_ns + self._playout_ns
            if microphone.restarted:
                for end in others:
                    end.realign()
            near, far = picked(heard, *self._pick_near), self._far_block(heard, captured_ns)
            if self._speaker:
                self._speaker.play(self._far_to_speaker(far, far), due_ns)
            out = self._process(far, near)
            done_ns = self._time.now_ns()
            played_ns = None
            if self._output:
                played_ns = self._output.play(self._near_to_output(out, near), due_ns)

            wait_ms = (read_ns - captured_ns) / NS_PER_MS
            processing_ms = (done_ns - read_ns) / NS_PER_MS
            queue_ms = (played_ns - done_ns) / NS_PER_MS if played_ns else 0.0
            if self._tap:
                xruns = sum(self.xruns().values())
                self._tap(
                    far,
                    near,
                    out,
                    FrameTimes(wait_ms, processing_ms, queue_ms, latency.algorithmic_ms, xruns),
                )
            self.feed.put(latency.frames, far, near, out)
            if latency.frames % STATS_EVERY_FRAMES == 0:
                board.core = self._apm.stats()
                found = [f"{name}: {mono.finding}" for name, mono in self._downmixes.items() if mono.finding]
                board.mono = "; ".join(found)
            latency.add(wait_ms, processing_ms, queue_ms)

    def _far_block(self, heard: bytes, captured_ns: int) -> bytes:
        """What is played, or what the microphone's card says is played; silence where there is nothing."""
        if self._far_end:
            return self._far_end.read(captured_ns) or self._silence
        return picked(heard, *self._pick_far) or self._silence

    def _remix(self, name: str, numbers: Sequence[int], wanted: int, *, every: bool) -> Remix:
        """Return a function that makes `wanted` channels, one or as many, of these."""
        if wanted == len(numbers):
            return lambda block, _: block
        if wanted > 1:
            return lambda block, _: repeated(block, wanted)
        self._downmixes[name] = Downmix(self._settings.sample_rate_hz, numbers, every=every)
        return self._downmixes[name].mix

    def _process(self, far: bytes, near: bytes) -> bytes:
        self._far.data[:] = memoryview(far).cast("h")
        self._near.data[:] = memoryview(near).cast("h")
        self._apm.process_reverse_stream(self._far)
        self._apm.process_stream(self._near)
        return self._near.data.tobytes()

    def _apply(self, settings: Settings) -> None:
        """What a reload changes between two frames: settings, the delay hint, devices. What was learned is
        kept."""
        self._apm.configure(**asdict(settings.features), **asdict(settings.tuning))
        if settings.stream_delay_ms not in (None, self._settings.stream_delay_ms):
            self._apm.set_stream_delay_ms(settings.stream_delay_ms)
        for key, kind in (
            ("microphone", Capture), ("far_end", Capture), ("speaker", Playback), ("output", Playback)
        ):  # fmt: skip
            endpoint: Endpoint | None = getattr(settings, key)
            if endpoint and endpoint != getattr(self._settings, key):
                self._cards.replace(key, self._opener(kind, key, endpoint))
        before, self._settings = self._settings, settings
        for key, end in self._followed().items():  # a new device is on another clock, as far as we know
            if any(getattr(settings, one) != getattr(before, one) for one in (key, "microphone")):
                end.follower = self._follower(getattr(settings, key))
        self.board.applied = settings

    # ---- opening

    def _open_microphone(self, endpoint: Endpoint) -> Microphone | FileMicrophone:
        if endpoint.device is not None:
            return Microphone(self._slot(Capture, "microphone", endpoint))
        return FileMicrophone(self._file_source(endpoint), self._time)

    def _open_far_end(self, endpoint: Endpoint) -> FarEnd | FileFarEnd:
        if endpoint.device is not None:
            slot = self._slot(Capture, "far_end", endpoint)
            return FarEnd(slot, self._follower(endpoint), self._margin_ns)
        if not self.live:
            return FileFarEnd(self._file_source(endpoint))
        ahead = ReadAhead(self._file_source(endpoint))
        self._helpers.append(ahead.thread)
        self._stack.callback(ahead.close)
        return ahead

    def _open_sink(self, key: str, endpoint: Endpoint) -> Player | FileSink:
        if endpoint.device is not None:
            slot = self._slot(Playback, key, endpoint)
            return Player(slot, self._follower(endpoint), self._time)
        assert endpoint.file is not None
        file = WavSink(endpoint.file, self._settings.sample_rate_hz, endpoint.channels)
        self._stack.callback(file.abort)  # nothing to do after close()
        sink = FileSink(file)
        if self.live:
            sink = WriteBehind(file)
            self._helpers.append(sink.thread)
        self._files.append(sink)
        return sink

    def _slot(self, kind: type[Card], key: str, endpoint: Endpoint) -> Slot[Card]:
        return self._cards.adopt(Slot(key, self._opener(kind, key, endpoint)))

    def _opener(self, kind: type[Card], key: str, endpoint: Endpoint) -> Callable[[], Card]:
        settings, device = self._settings, endpoint.device
        assert device is not None

        rate_hz = endpoint.sample_rate_hz or settings.sample_rate_hz
        parts = LOW_LATENCY_BLOCK_PARTS if settings.low_latency else 1

        def open_card() -> Card:
            return kind(key, device, rate_hz, endpoint.channels, settings.periods, self._time, parts)

        return open_card

    def _followed(self) -> dict[str, FarEnd | Player]:
        """The endpoints whose clocks are compared with the microphone's."""
        ends = {"far_end": self._far_end, "speaker": self._speaker, "output": self._output}
        return {key: end for key, end in ends.items() if isinstance(end, FarEnd | Player)}

    def _follower(self, endpoint: Endpoint, ppm: float = 0.0) -> Follower:
        settings = self._settings
        assert isinstance(self._microphone, Microphone)  # no device without one, see apmpi.settings
        pace = None if endpoint.device == settings.microphone.device else self._microphone.slot
        rates_hz = settings.sample_rate_hz, endpoint.sample_rate_hz or settings.sample_rate_hz
        if endpoint is settings.far_end:
            rates_hz = rates_hz[::-1]
        return Follower(pace, endpoint.channels, *rates_hz, ppm)

    def _file_source(self, endpoint: Endpoint) -> WavSource:
        assert endpoint.file is not None
        file = WavSource(endpoint.file, self._settings.sample_rate_hz, endpoint.channels)
        return self._stack.enter_context(file)

    @contextlib.contextmanager
    def _said_where(self, key: str, endpoint: Endpoint) -> Iterator[None]:
        """Puts file and line in front of what is wrong with an endpoint."""
        try:
            yield
        except EndpointError as error:
            named = error if endpoint.device else f"{key}.file: {error}"
            where = f"{self._config_path}:{endpoint.line}: " if self._config_path and endpoint.line else ""
            raise EndpointError(f"{where}{named}") from None
