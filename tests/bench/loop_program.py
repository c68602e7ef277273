"""The daemon with a thread that watches it, for loop_bench.py.

loop_program.py CONFIGURATION SPEED FRAMES NOTES marks two moments for the plugin threadcount.c, FRAMES apart
and after the first SETTLED, writes a JSON object to NOTES, and ends the process.
"""

import ctypes
import json
import os
import sys
import threading
import time
from pathlib import Path

from apmpi.service import run, yaml_reader
from apmpi.service.loop import Loop

MARK_SYSCALL = 7777  # of insncount.h
SETTLED = 100  # the cards are in step
LOOK_S = 0.02


def main(configuration: str, speed: str, frames: str, notes: str) -> None:
    loops: list[Loop] = []

    class Watched(Loop):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            loops.append(self)

    def wait_for(count: int) -> tuple[int, float]:
        while not loops or loops[0].latency.frames < count:
            time.sleep(LOOK_S)
        return loops[0].latency.frames, time.monotonic()

    def watch() -> None:
        libc = ctypes.CDLL(None)
        first, began_s = wait_for(SETTLED)
        libc.syscall(MARK_SYSCALL)
        last, ended_s = wait_for(first + int(frames))
        libc.syscall(MARK_SYSCALL)
        note = {
            "frames": last - first,
            "seconds": ended_s - began_s,
            "threads": {thread.native_id: thread.name for thread in threading.enumerate()},
            "xruns": sum(loops[0].endpoints.xruns().values()),
            "maps": Path("/proc/self/maps").read_text().splitlines(),
        }
        Path(notes).write_text(json.dumps(note))
        os._exit(0)

    run.Loop = Watched  # type: ignore[misc]
    threading.Thread(target=watch, name="watch").start()
    run.run(yaml_reader.load(Path(configuration)), speed=float(speed))


if __name__ == "__main__":
    main(*sys.argv[1:])
