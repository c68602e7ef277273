"""The loop of the audio thread: every 10 ms one frame from the microphone, one from the far end, one to each
output.

    microphone ─► far end ─► speaker ─► chain ─► output
      sets the pace             └───────┬──────────┘
                                both due at a fixed time after the frame came in

The microphone's card sets the pace. The loop waits for nothing else: a far end without sound is silence,
files are read and written by threads of their own, and the reporter's thread reports (report.py).
A frame leaves its card a fixed time after the microphone's frame of the same number came in. So the delay
that the canceller compensates never changes, not even through an xrun: whatever was lost, the next frame is
played when it is due. Devices that are lost and come back, and those on other clocks, are handled by the
endpoints (apmpi.cards): they give no sound for a while.

With a WAV file as microphone there is no card and no pace: all endpoints are files, and frames follow each
other as fast as they are processed.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from apmpi.api.apm import KERNELS
from apmpi.cards.clock import Timebase
from apmpi.cards.downmix import Downmix
from apmpi.cards.formats import picked, repeated
from apmpi.cards.latency import FrameTimes, LatencyLog
from apmpi.errors import EndpointError
from apmpi.service.chain import LoopChain
from apmpi.service.feed import Feed
from apmpi.service.instruments import Board
from apmpi.service.learned import Learned
from apmpi.service.opening import Endpoints
from apmpi.settings import Endpoint, Settings
from apmpi.units import FRAME_NS, FRAMES_PER_S, NS_PER_S, SAMPLE_BYTES

NS_PER_MS = 1e6
# The chain's figures are published 10 times a second: often for a person, seldom for the processor.
STATS_EVERY_FRAMES = 10

# Far end, microphone and output of one frame (interleaved int16) and its latency. Called in the audio
# thread: it must not wait.
Tap = Callable[[bytes, bytes, bytes, FrameTimes], None]

# (frame, the frame that it was made from) -> the frame in the channels of the device that plays it.
Remix = Callable[[bytes, bytes], bytes]


def _picking(channels: int, wanted: tuple[int, ...]) -> Callable[[bytes], bytes]:
    """Return a function that picks the channels `wanted`, counted from 0."""
    if wanted == tuple(range(channels)):
        return bytes  # the same object
    return lambda captured: picked(captured, channels, wanted)


class Loop:
    """The chain between the endpoints, and the path of a frame through them.

    __init__, go_on_from and run are called by one thread, which run makes the audio thread.

    endpoints        open devices and files
    board, latency   published by the audio thread for the reporter and the socket's thread
    feed             the sound, for the socket's thread
    """

    def __init__(
        self,
        settings: Settings,
        config_path: Path | None,
        stack: contextlib.ExitStack,
        tap: Tap | None,
        timebase: Timebase,
    ) -> None:
        """Open the endpoints; `stack` closes them. Raises EndpointError."""
        self._settings = settings
        self._tap = tap
        self._time = timebase
        self._downmixes: dict[str, Downmix] = {}
        rate_hz, frame_samples = settings.sample_rate_hz, settings.sample_rate_hz // FRAMES_PER_S
        far_channels = settings.far_end.channels if settings.far_end else 1
        self._near_of = _picking(settings.microphone.channels, settings.near_channels)
        self._reference_of = _picking(settings.microphone.channels, settings.reference_channels)
        self._far_channels = far_channels
        # A single loudspeaker plays a mix, which is then the reference.
        self._mono_played = settings.speaker is not None and settings.speaker.channels == 1
        self._silence = bytes(SAMPLE_BYTES * frame_samples * far_channels)
        reference_channels = 1 if self._mono_played else far_channels
        parameters = asdict(settings.features) | asdict(settings.tuning)
        parameters["low_latency"] = settings.low_latency
        parameters["microphone_positions_mm"] = settings.microphone.positions_mm
        self._apm = LoopChain(rate_hz, len(settings.near_channels), reference_channels, parameters)
        if settings.stream_delay_ms is not None:
            self._apm.set_stream_delay_ms(settings.stream_delay_ms)

        self.endpoints = Endpoints(settings, config_path, stack, timebase)
        if settings.speaker:
            numbers = [channel + 1 for channel in range(far_channels)]
            self._far_to_speaker = self._remix("far end", numbers, settings.speaker.channels, every=True)
        if settings.output:
            numbers = [channel + 1 for channel in settings.near_channels]
            self._near_to_output = self._remix("microphone", numbers, settings.output.channels, every=False)
        self.feed = Feed()
        self.board = Board(settings=settings, applied=settings)
        capacity_frames = int(settings.report_interval_s * FRAMES_PER_S) + 2 * FRAMES_PER_S
        self.latency = LatencyLog(capacity_frames, self._apm.latency_ms)

    def channels(self) -> dict[str, int]:
        """Return the channel count of each signal of the feed."""
        near = len(self._settings.near_channels)
        return {"far_end": self._far_channels, "microphone": near, "output": near}

    def description(self) -> str:
        """Return one line about what runs."""
        settings = self._settings
        names = []
        for key in ("microphone", "far_end", "speaker", "output"):
            endpoint: Endpoint | None = getattr(settings, key)
            if endpoint is not None:
                names.append(f"{key} {endpoint.device or endpoint.file or 'by a channel of the microphone'}")
        return f"running at {settings.sample_rate_hz} Hz: {', '.join(names)}; {KERNELS} kernels"

    def snapshot(self) -> Learned:
        """Return what the next run can start from. From any thread."""
        return Learned(self._apm.save_state(), self._settings, self.endpoints.clocks())

    def go_on_from(self, before: Learned) -> None:
        """Start from an earlier run's snapshot; before run(). Raises ValueError."""
        self._apm.load_state(before.chain)
        self.endpoints.start_from(before.drift_ppm)

    def run(self, seconds: float | None) -> str | None:
        """Process frames until the end, in the calling thread, which becomes the audio thread.

        Returns None, or the problem that ended it; files are complete either way.
        """
        problem = None
        for thread in self.endpoints.threads:  # only now: real-time scheduling is inherited
            thread.start()
        try:
            self._frames(sys.maxsize if seconds is None else round(seconds * FRAMES_PER_S))
            if self.endpoints.live:  # the last frames are still queued
                time.sleep(self._time.real_s((self.endpoints.playout_ns + FRAME_NS) / NS_PER_S))
        except EndpointError as error:
            problem = str(error)
        file_problem = self.endpoints.close_files()
        return problem or file_problem

    def _frames(self, frames_max: int) -> None:
        """Runs in the audio thread, as all below; it waits for the microphone alone."""
        board, latency, ends = self.board, self.latency, self.endpoints
        microphone, speaker, output = ends.microphone, ends.speaker, ends.output
        others = [end for end in (ends.far_end, speaker, output) if end]
        while latency.frames < frames_max and not board.stop:
            captured = microphone.read()
            board.parked = ends.waiting()
            board.beats += 1
            if board.settings is not board.applied:
                self._apply(board.settings)
            if captured is None:
                return
            if not captured:
                for end in others:
                    end.rest()
                continue
            read_ns, captured_ns = self._time.now_ns(), microphone.captured_ns
            due_ns = captured_ns + ends.playout_ns
            if microphone.restarted:
                for end in others:
                    end.realign()
            near, far = self._near_of(captured), self._far_frame(captured, captured_ns)
            played = far
            if speaker:
                played = self._far_to_speaker(far, far)
                speaker.play(played, due_ns)
            out = self._apm.process(played if self._mono_played else far, near)
            done_ns = self._time.now_ns()
            played_ns = output.play(self._near_to_output(out, near), due_ns) if output else None

            wait_ms = (read_ns - captured_ns) / NS_PER_MS
            processing_ms = (done_ns - read_ns) / NS_PER_MS
            queue_ms = (played_ns - done_ns) / NS_PER_MS if played_ns else 0.0
            if self._tap:
                xruns = sum(ends.xruns().values())
                times = FrameTimes(wait_ms, processing_ms, queue_ms, latency.algorithmic_ms, xruns)
                self._tap(far, near, out, times)
            self.feed.put(latency.frames, far, near, out)
            if latency.frames % STATS_EVERY_FRAMES == 0:
                board.figures = self._apm.figures()
                found = [f"{name}: {mono.finding}" for name, mono in self._downmixes.items() if mono.finding]
                board.mono = "; ".join(found)
            latency.add(wait_ms, processing_ms, queue_ms)

    def _far_frame(self, captured: bytes, captured_ns: int) -> bytes:
        """Return the far end: its own endpoint's, or the reference channels of the microphone's card; silence
        where there is nothing. With the chime, when it is due."""
        if self.endpoints.far_end:
            far = self.endpoints.far_end.read(captured_ns) or self._silence
            return self.board.chime.over(far) if self.board.chime else far
        return self._reference_of(captured) or self._silence

    def _remix(self, name: str, numbers: Sequence[int], wanted: int, *, every: bool) -> Remix:
        """Return a function that makes `wanted` channels, one or as many, of these."""
        if wanted == len(numbers):
            return lambda block, _: block
        if wanted > 1:
            return lambda block, _: repeated(block, wanted)
        self._downmixes[name] = Downmix(self._settings.sample_rate_hz, numbers, every=every)
        return self._downmixes[name].mix

    def _apply(self, settings: Settings) -> None:
        """Apply a reload between two frames: settings, delay hint, devices. What was learned is kept."""
        self._apm.configure(**asdict(settings.features), **asdict(settings.tuning))
        if settings.stream_delay_ms not in (None, self._settings.stream_delay_ms):
            self._apm.set_stream_delay_ms(settings.stream_delay_ms)
        self._settings = settings
        self.endpoints.replace(settings)
        self.board.applied = settings
