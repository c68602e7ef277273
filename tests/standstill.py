"""Record the machine's standstills: run as a program, one process for each processor.

    standstill.py PROCESSOR FILE

A virtual machine may not run for tens of milliseconds. A process of the highest priority that is permitted,
which only wakes up each millisecond, writes "time_s late_ms" to FILE when it was late by LATE_MS.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TICK_S = 0.001
# Half of the loudspeaker's default queue.
LATE_MS = 2.0
PROCESSORS_MAX = 4


def main(processor: int, file: Path) -> None:
    parent = os.getppid()
    os.sched_setaffinity(0, {processor})
    with contextlib.suppress(PermissionError):
        highest = os.sched_param(os.sched_get_priority_max(os.SCHED_FIFO))
        os.sched_setscheduler(0, os.SCHED_FIFO, highest)
    with file.open("a", buffering=1) as notes:
        due_s = time.monotonic()
        while os.getppid() == parent:
            due_s = time.monotonic() + TICK_S
            time.sleep(TICK_S)
            late_ms = 1000 * (time.monotonic() - due_s)
            if late_ms >= LATE_MS:
                notes.write(f"{due_s:.3f} {late_ms:.1f}\n")


class Watch:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def longest_ms(self, since_s: float) -> float:
        """Return the longest standstill since a time of time.monotonic(), 0 if there was none."""
        notes = [line.split() for file in self._folder.iterdir() for line in file.read_text().splitlines()]
        return max((float(late_ms) for at_s, late_ms in notes if float(at_s) >= since_s), default=0.0)


@contextlib.contextmanager
def watch(folder: Path) -> Iterator[Watch]:
    processors = sorted(os.sched_getaffinity(0))[:PROCESSORS_MAX]
    command = [sys.executable, __file__]
    watchers = [subprocess.Popen([*command, str(number), folder / str(number)]) for number in processors]
    try:
        yield Watch(folder)
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
