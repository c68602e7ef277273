"""`apmpi record`: signals and figures of the running service, as files for `apmpi report` and for listening.

    call.wav     far end, microphone and output as channels of one WAV file, aligned as in the canceller: the
                 output is behind the microphone by the chain's delay (`algorithmic_ms`)
    call.jsonl   first a line about the recording, then the figures ten times a second, each with its position
                 in the sound (`seconds`), last a line about the end

The service only sends the sound (service/protocol.py); all that takes time or can fail is done here, in a
process of its own. Both files get their names when they are complete. Frames that this process was too slow
to read are silence in the file, and are counted.
"""

import contextlib
import datetime
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from apmpi.cards.replace import RECORDING_MODE, Part
from apmpi.cards.text_file import one_line
from apmpi.cards.wav import WavSink
from apmpi.errors import CommandError, EndpointError
from apmpi.figures import SIGNALS
from apmpi.service.socket_client import Figures, Subscription, figures_of
from apmpi.tools.sound_lines import SoundLines
from apmpi.units import FRAMES_PER_S, SAMPLE_BYTES

EXIT_OK, EXIT_FAILED = 0, 1
# A recording may take this much longer than its sound.
PATIENCE_S = 2.0


def statistics_path(recording: Path) -> Path:
    return recording.with_suffix(".jsonl")


def main(
    path: Path, seconds: float, megabytes: float, socket: Path | None, progress: Callable[[float], None]
) -> int:
    """Record until `seconds` are recorded, the file has `megabytes` (of 10^6 bytes), or a signal comes.

    `progress` is called with the recorded seconds. Returns the exit status: 1 if an error ended the
    recording; what was recorded before it is kept. Raises CommandError and EndpointError.
    """
    if statistics_path(path) == path:
        raise CommandError(f"{path}: would be the statistics' own name, expected NAME.wav")
    with contextlib.ExitStack() as stack:
        subscription = stack.enter_context(Subscription("sound", socket))
        stopped = stack.enter_context(_stop_signals())
        recording = _Recording(path, subscription, stack)
        frames_max = round(seconds * FRAMES_PER_S)
        frames_max = min(frames_max, int(megabytes * 1e6 / recording.frame_bytes))
        if frames_max < 1:
            raise CommandError(f"{path}: {megabytes:g} MB hold no sound, expected more")
        reason = problem = ""
        try:
            # A service that waits for a device sends no sound: the time limits the recording, too.
            end_s = time.monotonic() + frames_max / FRAMES_PER_S + PATIENCE_S
            while recording.frames < frames_max and not stopped and time.monotonic() < end_s:
                for line in subscription.next_lines():
                    recording.add(line, frames_max)
                progress(recording.frames / FRAMES_PER_S)
            reason = "stopped" if stopped else "complete"
        except EndpointError as error:
            reason = problem = str(error)
        if recording.frames == 0:
            raise CommandError(problem or f"{path}: there was no sound to record ({recording.state})")
        recording.close(reason)
    print(one_line(f"{path}: {recording.summary()}; apmpi report {path} shows it"))
    if problem:
        print(f"apmpi: {one_line(problem)}; what came before is kept", file=sys.stderr)
    return EXIT_FAILED if problem else EXIT_OK


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of ending the program."""
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in signals}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Recording:
    """The two files.

    frames        frames of 10 ms in the file
    frame_bytes   bytes of a frame, all channels together
    state         last state that the service has reported
    """

    def __init__(self, path: Path, subscription: Subscription, stack: contextlib.ExitStack) -> None:
        """Open both files; `stack` removes them if they are not completed. Raises EndpointError."""
        self.frames = 0
        self.state = "nothing came"
        self._lines = SoundLines(subscription)
        self._channels = subscription.channels
        frame_samples = subscription.sample_rate_hz // FRAMES_PER_S
        self.frame_bytes = SAMPLE_BYTES * frame_samples * sum(self._channels.values())
        self._lost_frames = 0
        self._xruns: list[int] = []
        self._sound = stack.enter_context(
            WavSink(path, subscription.sample_rate_hz, sum(self._channels.values()))
        )
        self._statistics = stack.enter_context(_LineSink(statistics_path(path)))
        started = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        about = {
            "started": started,
            "sample_rate_hz": subscription.sample_rate_hz,
            "channels": self._channels,
        }
        self._statistics.write({"recording": about})

    def add(self, line: dict[str, Any], frames_max: int) -> None:
        """Add a line of the service, up to `frames_max` frames in all. Raises EndpointError."""
        if (figures := figures_of(line)) is not None:
            self._add_figures(figures)
        elif isinstance(sound := line.get("sound"), dict):
            missing, parts = self._lines.read(sound)
            block = np.concatenate(list(parts.values()), axis=1)
            silent = min(missing, frames_max - self.frames)
            self._lost_frames += silent
            for _ in range(silent):
                self._write(bytes(self.frame_bytes))
            room = (frames_max - self.frames) * self.frame_bytes
            self._write(block.tobytes()[:room])

    def close(self, reason: str) -> None:
        """Complete both files. Raises EndpointError."""
        end = {"seconds": self._seconds, "lost_frames": self._lost_frames, "xruns": self._xrun_count()}
        with contextlib.suppress(EndpointError):  # a full disk, which has been reported already
            self._statistics.write({"end": {**end, "reason": reason}})
        self._statistics.close()
        self._sound.close()

    def summary(self) -> str:
        names = ", ".join(
            f"{name.replace('_', ' ')} {_channel_names(self._channels, name)}" for name in SIGNALS
        )
        lost = f", {self._lost_frames} frames lost" if self._lost_frames else ""
        return f"{self._seconds:.1f} s ({names}), {self._xrun_count()} xruns{lost}"

    @property
    def _seconds(self) -> float:
        return self.frames / FRAMES_PER_S

    def _xrun_count(self) -> int:
        """Xruns during the recording."""
        return max(self._xruns) - min(self._xruns) if self._xruns else 0

    def _add_figures(self, figures: Figures) -> None:
        self._statistics.write({"seconds": self._seconds, **figures})
        self.state = figures["state"]
        if isinstance(xruns := figures.get("xruns"), int):
            self._xruns.append(xruns)

    def _write(self, block: bytes) -> None:
        self._sound.write(block)
        self.frames += len(block) // self.frame_bytes


def _channel_names(channels: dict[str, int], wanted: str) -> str:
    """Return the channel or channels of a signal in the file, counted from 1."""
    first = 1
    for name, count in channels.items():
        if name == wanted:
            return f"{first}" if count == 1 else f"{first}-{first + count - 1}"
        first += count
    raise KeyError(wanted)


class _LineSink:
    """A file of JSON lines that gets its name in close(), when it is complete."""

    def __init__(self, path: Path) -> None:
        """Open a temporary file beside `path`. Raises EndpointError."""
        self._path = path
        self._whole_bytes = 0
        try:
            self._part = Part(path, RECORDING_MODE)
        except OSError as error:
            raise self._failure(error) from None

    def write(self, line: dict[str, Any]) -> None:
        """Append a line. Raises EndpointError; close() then removes what was written of the line."""
        content = json.dumps(line).encode() + b"\n"
        try:
            self._part.write(content)
        except OSError as error:
            raise self._failure(error) from None
        self._whole_bytes += len(content)

    def close(self) -> None:
        """Complete the file. Raises EndpointError."""
        try:
            self._part.file.truncate(self._whole_bytes)
            self._part.finish()
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> EndpointError:
        return EndpointError(f"{self._path}: cannot be written ({error.strerror})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._part.abort()
