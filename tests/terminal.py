"""A program in a terminal of a given size, with a readable screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from pathlib import Path

import pyte
import pytest


class Terminal:
    """text   all that the program has written, control characters included"""

    def __init__(self, *command: str | Path, columns: int = 80, rows: int = 24) -> None:
        self.text = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        # The size is set before the program reads it.
        self._terminal, other_end = pty.openpty()
        fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._pid = os.fork()
        if self._pid == 0:
            os.login_tty(other_end)
            environment = os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
            for name in ("LINES", "COLUMNS"):  # they would hide the terminal's own size
                environment.pop(name, None)
            os.execve(command[0], list(map(str, command)), environment)
        os.close(other_end)

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    def wait_for(self, pattern: str, timeout_s: float = 10.0) -> re.Match[str]:
        """Wait until the screen's text matches."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            self._read(0.1)
            if match := re.search(pattern, "\n".join(self.lines()), re.MULTILINE):
                return match
        pytest.fail(f"no {pattern!r} on the screen:\n" + "\n".join(self.lines()), pytrace=False)

    def resize(self, columns: int, rows: int) -> None:
        """Resize the screen, as a terminal's window does."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def ended(self, timeout_s: float = 10.0) -> int:
        """Wait for the program's end and return its exit status."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            self._read(0.05)
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._read(0.05)
                os.close(self._terminal)
                return os.waitstatus_to_exitcode(status)
        pytest.fail("it does not end:\n" + "\n".join(self.lines()), pytrace=False)

    def _read(self, timeout_s: float) -> None:
        with contextlib.suppress(OSError):  # the end, on Linux
            while select.select([self._terminal], [], [], timeout_s)[0]:
                part = os.read(self._terminal, 65536)
                if not part:
                    return
                self.text += part
                self._stream.feed(part)
                timeout_s = 0.0
