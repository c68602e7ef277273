"""Sound before and after the cancellation for the page: ten seconds, kept in memory for some minutes."""

import asyncio
import time
from pathlib import Path

from apmpi.cards.wav import wav_header
from apmpi.errors import EndpointError
from apmpi.service.socket_client import Subscription, figures_of
from apmpi.tools.sound_lines import SoundLines
from apmpi.units import FRAMES_PER_S, SAMPLE_BYTES

SECONDS = 10
# Before and after.
HEARD = ("microphone", "output")
# A service that waits for a device sends no sound: so much longer than the sound is waited for.
PATIENCE_S = 5.0
# Recorded sound is forgotten after so long: nobody is to find it later.
KEPT_S = 600.0


class Sound:
    """The last recording. For the event loop's thread."""

    def __init__(self, socket_path: Path | None) -> None:
        self._socket_path = socket_path
        self._files: dict[str, bytes] = {}
        self._forgetting: asyncio.TimerHandle | None = None
        self._recording = asyncio.Lock()

    async def record(self) -> list[str]:
        """Record, and return the names of the signals. Raises EndpointError."""
        if self._recording.locked():
            raise EndpointError("another browser records already, try again in some seconds")
        async with self._recording:
            self.forget()
            self._files = await asyncio.to_thread(recorded, self._socket_path)
        self._forgetting = asyncio.get_running_loop().call_later(KEPT_S, self.forget)
        return list(self._files)

    def file(self, signal: str) -> bytes | None:
        """Return the WAV file of a signal, None if there is none any more."""
        return self._files.get(signal)

    def forget(self) -> None:
        """Delete the recording."""
        self._files = {}
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None


class Recorder:
    """Recording of one client of the socket, for one thread.

    Frames that the client was too slow for are silence.
    """

    def __init__(self, source: Subscription) -> None:
        self.frames = 0
        self.state = "nothing came"
        self._source = source
        self._lines = SoundLines(source)
        self._frame_samples = source.sample_rate_hz // FRAMES_PER_S
        self._sound = {name: bytearray() for name in HEARD}

    def add(self, line: dict[str, object]) -> None:
        """Add a line of the service. Raises EndpointError for what is not apmpi's."""
        if (figures := figures_of(line)) is not None:
            self.state = figures["state"]
        elif isinstance(sound := line.get("sound"), dict):
            missing, parts = self._lines.read(sound)
            silent = min(missing, max(SECONDS * FRAMES_PER_S - self.frames, 0))
            for name, samples in self._sound.items():
                samples += bytes(silent * self._frame_bytes(name)) + parts[name].tobytes()
            self.frames = len(self._sound[HEARD[0]]) // self._frame_bytes(HEARD[0])

    def files(self) -> dict[str, bytes]:
        """Return a WAV file for each of HEARD."""
        return {
            name: wav_header(
                self._source.sample_rate_hz, self._source.channels[name], self.frames * self._frame_samples
            )
            + samples
            for name, samples in self._sound.items()
        }

    def _frame_bytes(self, name: str) -> int:
        return self._frame_samples * self._source.channels[name] * SAMPLE_BYTES


def recorded(socket_path: Path | None) -> dict[str, bytes]:
    """Return the service's sound of the next ten seconds, as a WAV file for each of HEARD. Raises
    EndpointError."""
    with Subscription("sound", socket_path) as source:
        recorder = Recorder(source)
        end_s = time.monotonic() + SECONDS + PATIENCE_S
        while recorder.frames < SECONDS * FRAMES_PER_S:
            if time.monotonic() > end_s:
                raise EndpointError(f"there was no sound to record ({recorder.state})")
            for line in source.next_lines():
                recorder.add(line)
        return recorder.files()
