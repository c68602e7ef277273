"""An empty file that exists while sound flows: `sound` in the folder that systemd gave the service
(RuntimeDirectory=).

READY=1 means no more than that the service runs: without its microphone it waits, without limit. What depends
on sound, such as the check of an update or a light, watches this file (PathExists= of systemd.path(5),
inotify).
"""

import contextlib
import logging
import os
from pathlib import Path

from apmpi.units import FRAMES_PER_S

# 1 s of uninterrupted sound: a card that gives a few frames and stands still has not shown that it works.
FRAMES_MIN = FRAMES_PER_S
# Time without a frame after which a card counts as lost (apmpi.cards.pcm).
STILL_MAX_S = 0.5


def place() -> Path | None:
    """Return the file's path, None if systemd gave no folder for it."""
    folders = os.environ.get("RUNTIME_DIRECTORY", "")
    return Path(folders.split(":")[0]) / "sound" if folders else None


class SoundMark:
    """The file. For the reporter's thread.

    is_there   sound flows
    """

    def __init__(self, path: Path) -> None:
        """Remove the file of a run that was killed."""
        self.path = path
        self.is_there = True
        self._frames = self._first_frame = 0
        self._moved_s = 0.0
        self.remove()

    def look(self, now_s: float, frames: int, parked: str) -> None:
        """Make or remove the file, given the count of frames and what device is waited for ("": none)."""
        if frames != self._frames:
            self._frames, self._moved_s = frames, now_s
        if parked or now_s - self._moved_s > STILL_MAX_S:
            self._first_frame = frames
            self.remove()
        elif frames - self._first_frame >= FRAMES_MIN and not self.is_there:
            self._make()

    def remove(self) -> None:
        """Remove the file if it exists."""
        if self.is_there:
            self.is_there = False
            with contextlib.suppress(OSError):  # a folder that has gone has no file
                self.path.unlink(missing_ok=True)

    def _make(self) -> None:
        try:
            self.path.touch()
        except OSError as error:
            logging.getLogger(__name__).warning("%s: cannot be made (%s)", self.path, error.strerror)
        else:
            self.is_there = True
