"""A progress bar for the terminal."""

import sys
import time
from typing import Self


class Progress:
    """A progress bar on standard error; nothing is shown if that is not a terminal."""

    WIDTH = 40
    REFRESH_S = 0.1

    def __init__(self, total_s: float | None) -> None:
        """`total_s` is the length in seconds of sound, None if it is unknown: nothing is shown then."""
        self._total_s = total_s or 0.0
        self._shown = total_s is not None and sys.stderr.isatty()
        self._next_s = 0.0

    def show(self, done_s: float) -> None:
        """Show `done_s` of the total, in seconds of sound."""
        if not self._shown or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + self.REFRESH_S
        bar = "#" * round(self.WIDTH * done_s / self._total_s)
        sys.stderr.write(f"\r[{bar:<{self.WIDTH}}] {done_s:.0f} of {self._total_s:.0f} s")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")  # remove the bar
            sys.stderr.flush()
