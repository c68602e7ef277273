"""Endpoints that are WAV files: frames of 10 ms in and out.

With a microphone that is a file, all endpoints are files, read and written by the loop itself. Beside a
microphone that is a device, a disk must not stop the audio thread: `ReadAhead` and `WriteBehind` each have a
thread of their own for the disk.
"""

import threading
import time
from collections import deque

from apmpi.cards import realtime
from apmpi.cards.clock import Timebase
from apmpi.cards.wav import WavSink, WavSource
from apmpi.errors import EndpointError
from apmpi.units import FRAMES_PER_S

# Frames that are read ahead, 2 s.
READ_AHEAD_FRAMES = 2 * FRAMES_PER_S
# Frames that wait in memory for a disk that blocks, at most 60 s.
WRITE_BEHIND_FRAMES = 60 * FRAMES_PER_S
# Sleep of the disk threads between two runs.
DISK_SLEEP_S = 0.05


class FileMicrophone:
    """A WAV file as microphone. It sets no pace: frames follow each other as fast as they are processed."""

    restarted = False

    def __init__(self, source: WavSource, timebase: Timebase) -> None:
        self.captured_ns = 0
        self._source = source
        self._time = timebase

    def read(self) -> bytes | None:
        """Return the next frame, None at the end of the file."""
        frame = self._source.read()
        self.captured_ns = self._time.now_ns()
        return frame


class Clockless:
    """The methods of a device endpoint that have no meaning for a file, which has no clock."""

    def realign(self) -> None:
        pass

    def rest(self) -> None:
        pass


class FileFarEnd(Clockless):
    """A WAV file as far end, one frame for each of a microphone that is a file."""

    def __init__(self, source: WavSource) -> None:
        self._source = source

    def read(self, captured_ns: int) -> bytes | None:
        """Return the next frame, None after the end of the file."""
        return self._source.read()


class ReadAhead(FileFarEnd):
    """A WAV file as far end, read by a thread: `read` never waits for a disk.

    thread   to be started by the caller
    """

    def __init__(self, source: WavSource) -> None:
        super().__init__(source)
        self._frames: deque[bytes] = deque()
        self._closed = False
        self._error: EndpointError | None = None
        self._fill()
        self.thread = threading.Thread(target=self._run, name="read ahead", daemon=True)

    def read(self, captured_ns: int) -> bytes | None:
        """Return the next frame; None at the end of the file, or if the disk is slower than real time."""
        if self._error:
            raise self._error
        return self._frames.popleft() if self._frames else None

    def close(self) -> None:
        self._closed = True
        if self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        realtime.give_way()
        try:
            while not self._closed and self._fill():
                time.sleep(DISK_SLEEP_S)
        except EndpointError as error:
            self._error = error

    def _fill(self) -> bool:
        """Fill the queue; return False at the end of the file."""
        while len(self._frames) < READ_AHEAD_FRAMES:
            frame = self._source.read()
            if frame is None:
                return False
            self._frames.append(frame)
        return True


class FileSink(Clockless):
    """A WAV file as speaker or output; a frame is never late for it."""

    def __init__(self, sink: WavSink) -> None:
        self._sink = sink

    def play(self, frame: bytes, due_ns: int) -> None:
        """Writes the frame. Raises EndpointError."""
        self._sink.write(frame)

    def close(self) -> None:
        """Completes the file. Raises EndpointError."""
        self._sink.close()


class WriteBehind(FileSink):
    """A WAV file as speaker or output, written by a thread: `play` never waits for a disk.

    thread   to be started by the caller
    """

    def __init__(self, sink: WavSink) -> None:
        super().__init__(sink)
        self._frames: deque[bytes] = deque()
        self._closed = False
        self._error: EndpointError | None = None
        self.thread = threading.Thread(target=self._run, name="write behind", daemon=True)

    def play(self, frame: bytes, due_ns: int) -> None:
        """Queues the frame. Raises EndpointError if an earlier one could not be written."""
        if self._error:
            raise self._error
        if len(self._frames) >= WRITE_BEHIND_FRAMES:
            seconds = WRITE_BEHIND_FRAMES // FRAMES_PER_S
            raise EndpointError(f"output files: the disk has taken nothing for {seconds} s")
        self._frames.append(frame)

    def close(self) -> None:
        """Completes the file with all that is queued. Raises EndpointError."""
        self._closed = True
        if self.thread.is_alive():
            self.thread.join()
        self._sink.close()  # frames written before an error are kept
        if self._error:
            raise self._error

    def _run(self) -> None:
        realtime.give_way()
        try:
            while not self._closed or self._frames:
                while self._frames:
                    self._sink.write(self._frames.popleft())
                time.sleep(DISK_SLEEP_S)
        except EndpointError as error:
            self._error = error
