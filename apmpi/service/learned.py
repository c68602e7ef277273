"""State learned in one run, saved for the next: the echo path and all else of
`AudioProcessingModule.save_state()`, and the rate correction of each card's clock.

    <magic> <CRC-32 of the rest>\\n
    {"devices": {...}, "drift_ppm": {...}}\\n
    the module's state

The file is deleted on load and written again after FIRST_SAVE_S of sound, so that a bad state cannot cause a
crash loop. A run that fails leaves no file; one that is stopped before that time writes what it has loaded,
unchanged.
"""

import errno
import json
import os
import stat
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from apmpi.cards.clock import Drift
from apmpi.cards.replace import replace
from apmpi.figures import CLOCKS
from apmpi.service.bounded_json import JsonError, parsed
from apmpi.settings import Settings

MAGIC = b"apmpi-learned-1"
# Length of the line about devices and clocks: eight endpoints and settings of a few hundred bytes each.
ABOUT_MAX_BYTES = 16 * 1024
FIRST_SAVE_S, SAVE_EVERY_S = 10.0, 60.0
# Shortest wait for missing sound, which may lag behind the time by some frames.
MISSING_MIN_S = 0.1
# A disk that does not answer must not hold up the end: systemd waits 5 s (TimeoutStopSec).
CLOSE_TIMEOUT_S = 2.0
# The largest state has some 1.6 MB: 8 channels at 48 kHz, two loudspeakers.
SIZE_MAX_BYTES = 4 * 1024 * 1024
# Value of `keep_learned` -> variable with the folder that systemd gave the service.
PLACES = {"ram": "RUNTIME_DIRECTORY", "disk": "STATE_DIRECTORY"}
# Settings that can differ between two runs without a change of the echo path.
HARMLESS = {
    *("features", "tuning", "output", "stream_delay_ms"),
    *("report_interval_s", "keep_learned", "socket", "metrics"),
}


class LearnedError(ValueError):
    """The saved state can't be used; `str()` is the reason."""


@dataclass(frozen=True, slots=True)
class Learned:
    """State of a run.

    chain       from save_state()
    settings    in use while it was learned
    drift_ppm   rate correction by endpoint
    """

    chain: bytes
    settings: Settings
    drift_ppm: Mapping[str, float] = field(default_factory=dict)


def place(settings: Settings) -> Path | None:
    """Return the file's path, None if it is not wanted or systemd gave no folder for it."""
    folders = os.environ.get(PLACES.get(settings.keep_learned, ""), "")
    return Path(folders.split(":")[0]) / "learned" if folders else None


def save(path: Path, learned: Learned) -> None:
    """Replace the file as a whole, also when the power fails meanwhile. Raises OSError."""
    about = {"devices": _devices(learned.settings), "drift_ppm": dict(learned.drift_ppm)}
    content = json.dumps(about).encode() + b"\n" + learned.chain
    replace(path, b"%s %08x\n" % (MAGIC, zlib.crc32(content)) + content)


def take(path: Path, settings: Settings) -> Learned | None:
    """Load the state for `settings` and delete the file; return None if there is none.

    Raises LearnedError.
    """
    try:
        content = _content(path)
        path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LearnedError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > SIZE_MAX_BYTES:
        raise LearnedError(f"{path}: is larger than {SIZE_MAX_BYTES} bytes, expected less")
    try:
        return _parsed(content, settings)
    except LearnedError as error:
        raise LearnedError(f"{path}: {error}") from None


def _content(path: Path) -> bytes:
    """Return at most SIZE_MAX_BYTES + 1 bytes. Raises OSError, also if it is no file: a pipe never ends."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(SIZE_MAX_BYTES + 1)


def _parsed(content: bytes, settings: Settings) -> Learned:
    first, _, rest = content.partition(b"\n")
    if first.split(b" ")[0] != MAGIC:
        raise LearnedError("not written by this version of apmpi")
    if first != b"%s %08x" % (MAGIC, zlib.crc32(rest)):
        raise LearnedError("damaged (its checksum is wrong)")
    line, _, chain = rest.partition(b"\n")
    try:
        about = parsed(line, ABOUT_MAX_BYTES)
    except JsonError as error:
        raise LearnedError(f"not written by this version of apmpi (its second line {error})") from None
    devices, drift_ppm = about.get("devices"), about.get("drift_ppm")
    if not isinstance(devices, dict) or not isinstance(drift_ppm, dict):
        raise LearnedError("not written by this version of apmpi (it names no devices or clocks)")
    ours = _devices(settings)
    if devices != ours:
        differ = sorted(key for key in {*ours, *devices} if ours.get(key) != devices.get(key))
        raise LearnedError(f"learned with another {', '.join(map(_named, differ))}")
    for key, ppm in drift_ppm.items():
        if key not in CLOCKS or type(ppm) not in (int, float) or not abs(ppm) <= Drift.PPM_MAX:
            limit = f"expected one of {', '.join(CLOCKS)} with at most {Drift.PPM_MAX:g} ppm"
            raise LearnedError(f"drift_ppm: {_named(key)}: {_named(str(ppm))} given, {limit}")
    return Learned(chain, settings, drift_ppm)


def _named(text: str) -> str:
    """Return a value of a damaged file, short and printable, for a message."""
    return text[:40] if text.isprintable() else ascii(text[:40])


def _devices(settings: Settings) -> dict[str, str]:
    """Return the settings that the echo path depends on, as texts."""
    values = {}
    for entry in fields(Settings):
        value = getattr(settings, entry.name)
        if entry.name not in HARMLESS and value is not None:
            if entry.name in ("microphone", "speaker", "far_end"):
                value = {
                    key: part for key, part in asdict(value).items() if key != "line" and part is not None
                }
            values[entry.name] = str(value)
    return values


class Keeper(threading.Thread):
    """Saves what `snapshot` returns, every minute and at the end, once there was sound for FIRST_SAVE_S.

    A thread of its own, since a disk may block. All methods but __init__ and close run in it.
    """

    def __init__(
        self,
        path: Path,
        snapshot: Callable[[], Learned],
        sound_s: Callable[[], float],
        before: Learned | None,
        warn: Callable[[str], None],
        begin: Callable[[], None],
    ) -> None:
        """`sound_s` returns the length of the run's sound so far, `before` is the state that the run began
        with, `warn` takes a sentence, `begin` is called first in the new thread."""
        super().__init__(name="keeper", daemon=True)
        self._path = path
        self._snapshot = snapshot
        self._sound_s = sound_s
        self._before = before
        self._warn = warn
        self._begin = begin
        self._closing = threading.Event()
        self._keep = False

    def close(self, *, keep: bool) -> None:
        """Save once more with `keep`, otherwise delete the file: a run that failed may have failed by what it
        had learned. Called from the main thread, which waits up to CLOSE_TIMEOUT_S."""
        self._keep = keep
        self._closing.set()
        self.join(CLOSE_TIMEOUT_S)
        if self.is_alive():
            self._warn(f"{self._path}: the disk does not answer, what was learned last is lost")

    def run(self) -> None:
        """Save until close(); an error in the program leaves no file."""
        self._begin()
        try:
            self._save_until_closed()
        except Exception:  # a state that can't be saved is not one to start from
            self._write(None)
            raise

    def _save_until_closed(self) -> None:
        wait_s = FIRST_SAVE_S
        while not self._closing.wait(wait_s):
            if (missing_s := FIRST_SAVE_S - self._sound_s()) > 0:
                wait_s = max(missing_s, MISSING_MIN_S)
            else:
                self._write(self._snapshot())
                wait_s = SAVE_EVERY_S
        if self._keep and self._sound_s() >= FIRST_SAVE_S:
            self._write(self._snapshot())
        else:
            self._write(self._before if self._keep else None)

    def _write(self, state: Learned | None) -> None:
        """Write the state for the next run; None deletes the file."""
        try:
            if state:
                save(self._path, state)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"{self._path}: what was learned cannot be kept ({error.strerror})")
