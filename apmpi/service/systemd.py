"""Messages to systemd (sd_notify(3), Type=notify-reload); nothing here waits.

READY=1       after the first frame, or when a device is waited for; after each reload
STATUS=       with each report, and when a device is lost or back
WATCHDOG=1    while frames are finished or a device is waited for
RELOADING=1   before a reload
STOPPING=1    at the end
"""

import functools
import logging
import os
import socket
from collections import deque

# sd_watchdog_enabled(3) advises half of WatchdogSec; a quarter leaves room for a tick that comes late.
WATCHDOG_FRACTION = 0.25
# SD_LISTEN_FDS_START of sd_listen_fds(3).
PASSED_FD = 3


def notify(*assignments: str) -> bool:
    """Send systemd one datagram, if it started this process: each of `assignments` is a line NAME=value.

    Returns whether nothing is left to do: False if systemd does not read at present. From any thread but the
    audio thread. Not through systemd-python, which holds the interpreter while it waits (journal.py).
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return True
    if address.startswith("@"):  # abstract name
        address = "\0" + address[1:]
    # A name that holds a line break must not begin an assignment of its own.
    lines = [assignment.replace("\n", " ") for assignment in assignments]
    try:
        datagram_socket().sendto("\n".join(lines).encode(errors="backslashreplace"), address)
    except OSError as error:
        logging.getLogger(__name__).warning("systemd does not hear us: %s", error.strerror)
        return False
    return True


@functools.cache
def datagram_socket() -> socket.socket:
    """Return the process's socket to systemd and journald, which does not block.

    It stays open: a new one could not be had while the process is out of file descriptors."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def watchdog_s() -> float | None:
    """Return the service's WatchdogSec, None without one (sd_watchdog_enabled(3))."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(microseconds) / 1e6 if microseconds.isdigit() and meant == str(os.getpid()) else None


def passed_socket() -> socket.socket | None:
    """Return the listening socket that systemd has passed (sd_listen_fds(3)), None without one."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS", "0") == "0":
        return None
    os.set_inheritable(PASSED_FD, False)
    return socket.socket(fileno=PASSED_FD)


class Pending:
    """Messages that systemd acts upon, sent again until it has read them. For one thread."""

    def __init__(self) -> None:
        self._unread: deque[tuple[str, ...]] = deque()

    def send(self, *assignments: str) -> None:
        """Queue one datagram and send what is queued."""
        self._unread.append(assignments)
        self.retry()

    def retry(self) -> None:
        """Send what systemd has not read yet."""
        while self._unread and notify(*self._unread[0]):
            self._unread.popleft()


class Watchdog:
    """Sends WATCHDOG=1 while the audio thread makes progress. For one thread."""

    def __init__(self) -> None:
        self._period_s = watchdog_s()
        self._fed_s = 0.0
        self._fed_progress = (0, 0)

    def feed(self, now_s: float, frames: int, beats: int, *, waiting: bool) -> None:
        """Feed it if there was progress since the last time: of `beats` while a device is waited for, or else
        of `frames`."""
        before_frames, before_beats = self._fed_progress
        alive = beats != before_beats if waiting else frames != before_frames
        if self._period_s is None or not alive:
            return
        if now_s - self._fed_s >= self._period_s * WATCHDOG_FRACTION:
            notify("WATCHDOG=1")
            self._fed_s, self._fed_progress = now_s, (frames, beats)
