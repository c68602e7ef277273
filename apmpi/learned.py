"""What was learned in one run, kept for the next: the echo path and all else of
`AudioProcessingModule.save_state()`, and how far each card's clock is off.

    <magic> <CRC-32 of the rest>\\n
    {"devices": {...}, "drift_ppm": {...}}\\n
    the module's state

Whoever reads it takes it away, and it is written again after FIRST_SAVE_S of good running: a state that makes
the program fail is met once, not at every restart.
"""

import json
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from apmpi.config import Settings
from apmpi.replace import replace

MAGIC = b"apmpi-learned-1"
FIRST_SAVE_S, SAVE_EVERY_S = 10.0, 60.0
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
        with path.open("rb") as file:
            content = file.read(SIZE_MAX_BYTES + 1)
        path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LearnedError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return _parsed(content, settings)
    except LearnedError as error:
        raise LearnedError(f"{path}: {error}") from None


def _parsed(content: bytes, settings: Settings) -> Learned:
    first, _, rest = content.partition(b"\n")
    if first.split(b" ")[0] != MAGIC:
        raise LearnedError("not written by this version of apmpi")
    if first != b"%s %08x" % (MAGIC, zlib.crc32(rest)):
        raise LearnedError("damaged (its checksum is wrong)")
    line, _, chain = rest.partition(b"\n")
    try:
        about = json.loads(line)
        devices: dict[str, str] = about["devices"]
        drift_ppm = {str(key): float(value) for key, value in about["drift_ppm"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LearnedError("not written by this version of apmpi") from None
    ours = _devices(settings)
    if devices != ours:
        differ = sorted(key for key in {*ours, *devices} if ours.get(key) != devices.get(key))
        raise LearnedError(f"learned with another {', '.join(differ)}")
    return Learned(chain, settings, drift_ppm)


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
    """Saves what `snapshot` gives, every minute and at the end. A disk that blocks holds up this thread
    alone."""

    def __init__(
        self,
        path: Path,
        snapshot: Callable[[], Learned],
        warn: Callable[[str], None],
        begin: Callable[[], None],
    ) -> None:
        """`warn` takes a sentence, `begin` is called first in the new thread."""
        super().__init__(name="keeper", daemon=True)
        self._path = path
        self._snapshot = snapshot
        self._warn = warn
        self._begin = begin
        self._closing = threading.Event()

    def close(self) -> None:
        """Saves once more and waits for that, but not for ever."""
        self._closing.set()
        self.join(CLOSE_TIMEOUT_S)
        if self.is_alive():
            self._warn(f"{self._path}: the disk does not answer, what was learned last is lost")

    def run(self) -> None:
        self._begin()
        wait_s = FIRST_SAVE_S
        while not self._closing.wait(wait_s):
            self._save()
            wait_s = SAVE_EVERY_S
        self._save()

    def _save(self) -> None:
        try:
            save(self._path, self._snapshot())
        except OSError as error:
            self._warn(f"{self._path}: what was learned cannot be kept ({error.strerror})")
