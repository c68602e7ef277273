"""Entries for the journal of a service, or for standard error in a terminal.

Nothing here waits for a reader. An entry that the journal does not take is left out and counted; an event
that comes too often is written less often, with the count of those suppressed. `write` may be called from any
thread but the audio thread, `report` and `catch_up` by the reporter (apmpi.service.report).
"""

import contextlib
import enum
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Protocol

from apmpi.service.systemd import datagram_socket

# Interval at which a terminal's line changes: short enough to be followed.
LIVE_LINE_S = 0.5
# Most entries of one event in so many seconds: a loose plug must not fill the journal.
BURST_ENTRIES, BURST_S = 5, 30.0

STDERR = 2
IDENTIFIER = "apmpi"  # of the entries: journalctl -t
JOURNAL_SOCKET = "/run/systemd/journal/socket"


class Event(enum.Enum):
    """Kind of an entry, with its MESSAGE_ID, priority (syslog), and subject as in systemd/apmpi.catalog."""

    STARTED = "7e49ee7e82cd4ceda39fcac244c34a66", 5, "apmpi has opened its devices"
    STOPPED = "acce15f3a4c247f0ba3ffb70adefbcb0", 5, "apmpi has stopped"
    FIGURES = "3296f0870c8748d2858faedcc104b2a3", 6, "Figures of the last interval"
    XRUN = "63654467293d425dafb709c35ad3e749", 4, "Sound was lost in an xrun"
    RELOADED = "aab1ec01371b4ac182a4011c7f7e3cd1", 5, "A new configuration is in use"
    RELOAD_FAILED = "0f989861912744d1ac3ae22ed3893f67", 3, "The configuration could not be read again"
    ENDPOINT_FAILED = "8a490739a8584a689b9b76b5b3e20067", 3, "A device or file can not be used"
    NOT_PERMITTED = "55e766fadd004446b7e76db2a9c9d080", 4, "Sound may be interrupted"
    PARKED = "b0a54101503d491abc65e1ded02fbc03", 4, "A device is waited for"
    RESUMED = "c15c72f1bf6947899be577e1bfaae3a5", 5, "All devices are back"
    CONTINUED = "04be75cc710543cdaef7563f8613a959", 5, "What was learned before is in use again"
    STARTED_ANEW = "d030671e8d5a402ebe5ea0294ae5b177", 4, "The echo is learned anew"
    MICROPHONE_LEVEL = "8b31eb86f89549a4a8712f75b2168559", 4, "The microphone's level is wrong"
    CHANNELS = "351b1ff5219a46f0a8016d9d7b42a0ec", 5, "Channels do not add up to a mono sound by themselves"
    WARNING = "34781a29b95a4175b754063fb055fa2b", 4, "Something is not as it should be"

    def __init__(self, message_id: str, priority: int, subject: str) -> None:
        self.message_id = message_id
        self.priority = priority
        self.subject = subject


class Report(Protocol):
    """Figures of an interval in the forms that the logs write (instruments.Interval)."""

    def sentence(self) -> str: ...
    def line(self) -> str: ...
    def fields(self) -> dict[str, str]: ...


class Log(Protocol):
    """Destination of entries and reports."""

    interval_s: float  # between two report()

    def write(self, event: Event, message: str, values: Mapping[str, str]) -> None: ...
    def report(self, figures: Report, final: bool) -> None: ...


class Journal:
    """Structured entries in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), one datagram
    each.

    Not through systemd-python, which only reads the journal here (history.py): its `send` holds the
    interpreter while journald does not read, so it would need a process of its own. Measured on x86-64: a
    forked one adds 15 MB (PSS; nothing is shared once the daemon's memory is locked) to the daemon's 40 MB, a
    new interpreter 7 MB and 140 ms. Its notifications would need NotifyAccess=all, its entries would have its
    process number, and without the library there would have to be a second way."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._left_out = 0

    def write(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        if self._left_out:
            message += f" ({self._left_out} earlier entries were left out: the journal did not take them)"
        entry = {
            "MESSAGE": message,
            "MESSAGE_ID": event.message_id,
            "PRIORITY": str(event.priority),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            **values,
        }
        try:
            datagram_socket().sendto(b"".join(map(_journal_field, entry, entry.values())), JOURNAL_SOCKET)
        except OSError:
            self._left_out += 1
        else:
            self._left_out = 0

    def report(self, figures: Report, final: bool) -> None:
        self.write(Event.FIGURES, figures.sentence(), figures.fields())


def _journal_field(name: str, value: str) -> bytes:
    """Return one field with its length in front, so that the value may hold any bytes."""
    try:
        data = value.encode(errors="surrogateescape")  # a file's name may hold bytes that are no text
    except UnicodeEncodeError:
        data = value.encode(errors="backslashreplace")
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


class Terminal:
    """Standard error: one line that changes, or a line per interval where it is not a terminal."""

    def __init__(self, interval_s: float) -> None:
        self._live = os.isatty(STDERR)
        self._fd = _without_waiting(STDERR) if self._live else STDERR
        self._open_line = False
        self.interval_s = min(interval_s, LIVE_LINE_S) if self._live else interval_s

    def write(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        # Names of devices and processes come from outside: a control character in one would act here.
        plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
        self._write(f"{self._end_line()}apmpi: {plain}\n")

    def report(self, figures: Report, final: bool) -> None:
        line = figures.line()
        if not self._live:
            self._write(f"{line}\n")
            return
        self._write("\r\x1b[K" + (f"{line}\n" if final else line[: _columns()]))
        self._open_line = not final

    def _end_line(self) -> str:
        ended, self._open_line = self._open_line, False
        return "\n" if ended else ""

    def _write(self, text: str) -> None:
        """Write it, or leave it out if nothing reads: a terminal that was stopped (Ctrl-S), a full pipe. A
        terminal that has gone is no reason to stop."""
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
    """Return the terminal's columns; None if they are not known, or the terminal has gone."""
    try:
        return os.get_terminal_size(STDERR).columns or None
    except OSError:
        return None


# Events that can recur without a person's doing.
REPEATED = {Event.PARKED, Event.RESUMED, Event.WARNING}


class RateLimited:
    """A log that writes at most BURST_ENTRIES of each REPEATED event in BURST_S.

    Of those suppressed, the last is written when the time is over, with their count. From several threads: a
    lock guards the counts, and is not held while the entry is written."""

    def __init__(self, log: Log) -> None:
        self.interval_s = log.interval_s
        self._log = log
        self._written_s: dict[Event, deque[float]] = {
            event: deque(maxlen=BURST_ENTRIES) for event in REPEATED
        }
        # Count, last message and its values of what is suppressed.
        self._held: dict[Event, tuple[int, str, Mapping[str, str]]] = {}
        self._lock = threading.Lock()

    def write(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        if event not in REPEATED:
            self._log.write(event, message, values)
            return
        with self._lock:
            written_s, now_s = self._written_s[event], time.monotonic()
            if len(written_s) == BURST_ENTRIES and now_s - written_s[0] < BURST_S:
                held = self._held[event][0] if event in self._held else 0
                self._held[event] = held + 1, message, values
                return
            written_s.append(now_s)
            held = self._held.pop(event)[0] if event in self._held else 0
        if held:
            message += f" ({held} suppressed since the last)"
        self._log.write(event, message, values)

    def report(self, figures: Report, final: bool) -> None:
        self._log.report(figures, final)

    def catch_up(self, *, at_once: bool = False) -> None:
        """Write what was suppressed long enough, or all of it; from time to time, and at the end."""
        now_s = time.monotonic()
        with self._lock:
            due = [event for event in self._held if at_once or now_s - self._written_s[event][0] >= BURST_S]
            entries = [(event, *self._held.pop(event)) for event in due]
            for event in due:
                self._written_s[event].append(now_s)
        for event, held, message, values in entries:
            more = f" (the last of {held} that were suppressed)" if held > 1 else ""
            self._log.write(event, message + more, values)


def open_log(interval_s: float) -> RateLimited:
    """Return the journal for a service, otherwise the terminal."""
    return RateLimited(Journal(interval_s) if stderr_is_journal() else Terminal(interval_s))


def stderr_is_journal() -> bool:
    """Return whether journald reads standard error: then entries go to it in its own protocol."""
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


@contextlib.contextmanager
def warnings_to(log: Log) -> Iterator[None]:
    """Write what apmpi's modules log as warnings of `log`."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log.write(Event.WARNING, record.getMessage(), {})

    logger, handler = logging.getLogger("apmpi"), Handler()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
