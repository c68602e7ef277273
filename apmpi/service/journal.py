"""Where words go: to the journal and to systemd when this is a service, to standard error in a terminal.

Nobody waits here for a reader. An entry that the journal does not take is left out and counted; an event that
comes too often is said less often, with how many were held back. May be called from any thread but the audio
thread.
"""

import contextlib
import enum
import functools
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Protocol

# A terminal's line is read while it changes.
LIVE_LINE_S = 0.5
# Of one event so many are said in so many seconds: a loose plug must not fill the journal.
BURST_ENTRIES, BURST_S = 5, 30.0

STDERR = 2
JOURNAL_SOCKET = "/run/systemd/journal/socket"


class Event(enum.Enum):
    """What is said, with its MESSAGE_ID (in systemd/apmpi.catalog too) and its priority (syslog)."""

    STARTED = "7e49ee7e82cd4ceda39fcac244c34a66", 5
    STOPPED = "acce15f3a4c247f0ba3ffb70adefbcb0", 5
    FIGURES = "3296f0870c8748d2858faedcc104b2a3", 6
    XRUN = "63654467293d425dafb709c35ad3e749", 4
    RELOADED = "aab1ec01371b4ac182a4011c7f7e3cd1", 5
    RELOAD_FAILED = "0f989861912744d1ac3ae22ed3893f67", 3
    ENDPOINT_FAILED = "8a490739a8584a689b9b76b5b3e20067", 3
    NOT_PERMITTED = "55e766fadd004446b7e76db2a9c9d080", 4
    PARKED = "b0a54101503d491abc65e1ded02fbc03", 4
    RESUMED = "c15c72f1bf6947899be577e1bfaae3a5", 5
    CONTINUED = "04be75cc710543cdaef7563f8613a959", 5
    STARTED_ANEW = "d030671e8d5a402ebe5ea0294ae5b177", 4
    MICROPHONE_LEVEL = "8b31eb86f89549a4a8712f75b2168559", 4
    CHANNELS = "351b1ff5219a46f0a8016d9d7b42a0ec", 5
    WARNING = "34781a29b95a4175b754063fb055fa2b", 4

    def __init__(self, message_id: str, priority: int) -> None:
        self.message_id = message_id
        self.priority = priority


class Report(Protocol):
    """Figures, in the two forms in which they are shown."""

    def sentence(self) -> str: ...
    def line(self) -> str: ...
    def fields(self) -> dict[str, str]: ...


class Voice(Protocol):
    """Speaks."""

    interval_s: float  # between two show()

    def say(self, event: Event, message: str, values: Mapping[str, str]) -> None: ...
    def show(self, report: Report, final: bool) -> None: ...


class Journal:
    """Structured entries in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), one datagram
    each. Not through systemd-python: its `send` holds the interpreter while journald does not read."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._left_out = 0

    def say(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        if self._left_out:
            message += f" ({self._left_out} earlier entries were left out: the journal did not take them)"
        entry = {
            "MESSAGE": message,
            "MESSAGE_ID": event.message_id,
            "PRIORITY": str(event.priority),
            "SYSLOG_IDENTIFIER": "apmpi",
            **values,
        }
        try:
            _sender().sendto(b"".join(map(_journal_field, entry, entry.values())), JOURNAL_SOCKET)
        except OSError:
            self._left_out += 1
        else:
            self._left_out = 0

    def show(self, report: Report, final: bool) -> None:
        self.say(Event.FIGURES, report.sentence(), report.fields())


def _journal_field(name: str, value: str) -> bytes:
    """With its length in front: a value may then hold anything."""
    try:
        data = value.encode(errors="surrogateescape")  # a file's name may hold bytes that are no text
    except UnicodeEncodeError:
        data = value.encode(errors="backslashreplace")
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


class Terminal:
    """Standard error: one line that changes, or where that can't be, a line per interval."""

    def __init__(self, interval_s: float) -> None:
        self._live = os.isatty(STDERR)
        self._fd = _without_waiting(STDERR) if self._live else STDERR
        self._open_line = False
        self.interval_s = min(interval_s, LIVE_LINE_S) if self._live else interval_s

    def say(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        # Names of devices and processes come from outside: a control character in one would act here.
        plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
        self._write(f"{self._end_line()}apmpi: {plain}\n")

    def show(self, report: Report, final: bool) -> None:
        line = report.line()
        if not self._live:
            self._write(f"{line}\n")
            return
        self._write("\r\x1b[K" + (f"{line}\n" if final else line[: _columns()]))
        self._open_line = not final

    def _end_line(self) -> str:
        ended, self._open_line = self._open_line, False
        return "\n" if ended else ""

    def _write(self, text: str) -> None:
        """Leaves it out if nobody reads: a terminal that was stopped (Ctrl-S), a pipe that is full. One that
        has gone is no reason to stop."""
        # Not through sys.stderr: what it could not write would make the end of the program an error.
        with contextlib.suppress(OSError):
            if select.select([], [self._fd], [], 0)[1]:
                os.write(self._fd, text.encode(errors="backslashreplace"))


def _without_waiting(terminal_fd: int) -> int:
    """Return a descriptor of the same terminal whose writes never wait: a terminal may have room for a part
    of a line only. The given one is shared with the shell, which would not expect that of it."""
    try:
        return os.open(os.ttyname(terminal_fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return terminal_fd


def _columns() -> int | None:
    """Return the terminal's columns; None if it does not know, or has gone."""
    try:
        return os.get_terminal_size(STDERR).columns or None
    except OSError:
        return None


# What can happen again and again without anybody's doing.
REPEATED = {Event.PARKED, Event.RESUMED, Event.WARNING}


class Calm:
    """A voice that does not repeat itself for ever: of each of these events at most BURST_ENTRIES in BURST_S.
    Of those held back, the last is said when there is time again, with their number."""

    def __init__(self, voice: Voice) -> None:
        self.interval_s = voice.interval_s
        self._voice = voice
        self._said_s: dict[Event, deque[float]] = {event: deque(maxlen=BURST_ENTRIES) for event in REPEATED}
        self._held: dict[Event, tuple[int, str, Mapping[str, str]]] = {}
        self._lock = threading.Lock()

    def say(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        if event not in REPEATED:
            self._voice.say(event, message, values)
            return
        with self._lock:
            said_s, now_s = self._said_s[event], time.monotonic()
            if len(said_s) == BURST_ENTRIES and now_s - said_s[0] < BURST_S:
                held = self._held[event][0] if event in self._held else 0
                self._held[event] = held + 1, message, values
                return
            said_s.append(now_s)
            held = self._held.pop(event)[0] if event in self._held else 0
        if held:
            message += f" ({held} suppressed since the last)"
        self._voice.say(event, message, values)

    def show(self, report: Report, final: bool) -> None:
        self._voice.show(report, final)

    def catch_up(self, *, at_once: bool = False) -> None:
        """Says what was held back long enough; to be called now and then, and at the end."""
        now_s = time.monotonic()
        with self._lock:
            due = [event for event in self._held if at_once or now_s - self._said_s[event][0] >= BURST_S]
            entries = [(event, *self._held.pop(event)) for event in due]
            for event in due:
                self._said_s[event].append(now_s)
        for event, held, message, values in entries:
            more = f" (the last of {held} that were suppressed)" if held > 1 else ""
            self._voice.say(event, message + more, values)


def voice(interval_s: float) -> Calm:
    """The journal for a service, otherwise the terminal."""
    return Calm(Journal(interval_s) if stderr_is_journal() else Terminal(interval_s))


def stderr_is_journal() -> bool:
    """Whether journald reads our standard error: then it would be rude not to speak its language."""
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


@contextlib.contextmanager
def warnings_said_by(voice: Voice) -> Iterator[None]:
    """What apmpi's modules log goes the way of all other words."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            voice.say(Event.WARNING, record.getMessage(), {})

    logger, handler = logging.getLogger("apmpi"), Handler()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def notify(*assignments: str) -> bool:
    """Send systemd one datagram, if it started us (sd_notify(3)): each of `assignments` is a line NAME=value.

    Returns whether nothing is left to do: False if systemd does not read at present. Never waits for that.
    Not through systemd-python: that holds the interpreter while it waits.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return True
    if address.startswith("@"):  # abstract name
        address = "\0" + address[1:]
    # A name that holds a line break must not begin an assignment of its own.
    lines = [assignment.replace("\n", " ") for assignment in assignments]
    try:
        _sender().sendto("\n".join(lines).encode(errors="backslashreplace"), address)
    except OSError as error:
        logging.getLogger(__name__).warning("systemd does not hear us: %s", error.strerror)
        return False
    return True


@functools.cache
def _sender() -> socket.socket:
    """Kept open: one for each message could not be had while the process is out of file descriptors."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
