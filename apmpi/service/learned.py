"""What was learned in one run, kept for the next: the echo path and all else of
`AudioProcessingModule.save_state()`, and how far each card's clock is off.

    <magic> <CRC-32 of the rest>\\n
    {"devices": {...}, "drift_ppm": {...}}\\n
    the module's state

Whoever reads it takes it away, and it is written again after FIRST_SAVE_S of sound: a state that makes the
program fail is met once, not at every restart. A run that fails leaves nothing behind; one that is stopped
before that time puts back what it has taken, unchanged.
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
# Of the line about devices and clocks: eight endpoints and settings of a few hundred bytes each.
ABOUT_MAX_BYTES = 16 * 1024
FIRST_SAVE_S, SAVE_EVERY_S = 10.0, 60.0
# Sound may lag behind the time by some frames.
MISSING_MIN_S = 0.1
# A disk that does not answer must not hold up the end: systemd waits 5 s (TimeoutStopSec).
CLOSE_TIMEOUT_S = 2.0
# The largest there can be is some 0.8 MB: 8 channels at 48 kHz.
SIZE_MAX_BYTES = 4 * 1024 * 1024
# Where systemd lets the service write, by `keep_learned`.
PLACES = {"ram": "RUNTIME_DIRECTORY", "disk": "STATE_DIRECTORY"}
# What can differ between two runs without making the echo another one.
HARMLESS = {
    *("features", "tuning", "output", "stream_delay_ms"),
    *("report_interval_s", "keep_learned", "socket", "metrics"),
}


class LearnedError(ValueError):
    """What was kept can't be used; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Learned:
    """chain: of save_state(); settings: those it was learned with; drift_ppm: by endpoint."""

    chain: bytes
    settings: Settings
    drift_ppm: Mapping[str, float] = field(default_factory=dict)


def place(settings: Settings) -> Path | None:
    """The file, or None: not wanted, or systemd gave no folder for it."""
    folders = os.environ.get(PLACES.get(settings.keep_learned, ""), "")
    return Path(folders.split(":")[0]) / "learned" if folders else None


def save(path: Path, learned: Learned) -> None:
    """All or nothing, also when the power fails meanwhile. Raises OSError."""
    about = {"devices": _devices(learned.settings), "drift_ppm": dict(learned.drift_ppm)}
    content = json.dumps(about).encode() + b"\n" + learned.chain
    replace(path, b"%s %08x\n" % (MAGIC, zlib.crc32(content)) + content)


def take(path: Path, settings: Settings) -> Learned | None:
    """What was kept there for `settings`; it is gone from there afterwards. None if nothing was.

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
    """At most SIZE_MAX_BYTES and one more. Raises OSError, also for what is no file: a pipe never ends."""
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
    """Return a damaged file's value, fit for a sentence."""
    return text[:40] if text.isprintable() else ascii(text[:40])


def _devices(settings: Settings) -> dict[str, str]:
    """What the echo depends on, in words."""
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
    """Saves what `snapshot` gives, every minute and at the end, once there has been sound for FIRST_SAVE_S.
    A disk that blocks holds up this thread alone."""

    def __init__(
        self,
        path: Path,
        snapshot: Callable[[], Learned],
        sound_s: Callable[[], float],
        before: Learned | None,
        warn: Callable[[str], None],
        begin: Callable[[], None],
    ) -> None:
        """`sound_s` gives how much sound there has been in this run, `before` is what it began with, `warn`
        takes a sentence, `begin` is called first in the new thread."""
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
        """Saves once more, or removes what was saved unless `keep`: a run that failed may have failed by what
        it had learned. Waits for that, but not for ever."""
        self._keep = keep
        self._closing.set()
        self.join(CLOSE_TIMEOUT_S)
        if self.is_alive():
            self._warn(f"{self._path}: the disk does not answer, what was learned last is lost")

    def run(self) -> None:
        self._begin()
        try:
            self._save_until_closed()
        except Exception:  # what can't be saved is no good start either
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
        """All that the next run will find; None: nothing."""
        try:
            if state:
                save(self._path, state)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"{self._path}: what was learned cannot be kept ({error.strerror})")
