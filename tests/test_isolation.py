"""Isolation from the rest of the machine: no xrun while a fault is injected for 3 s, and the latest frame
still came in time. (A journal that does not read: test_report.py.)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import daemon
import pytest
import soundfile
from daemon import Configure

from apmpi.cards import realtime

pytestmark = pytest.mark.alone

configure = daemon.configure  # pytest finds fixtures by their names here

FAULT_FROM_S, FAULT_S = 1.5, 3.0
# 10 ms of the frame, the margin of 8 ms before the loudspeaker runs dry, and the chain's 6 ms.
LATEST_MS = 24.0

# A machine may stand still, as virtual ones do, or run other real-time programs. The room card
# waits then, but a frame that is under way becomes older. A second program of the audio thread's priority,
# which does nothing but wake up, measures by how much.
CANARY = f"""
import os, time
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param({realtime.AUDIO_PRIORITY}))
worst, due = 0.0, time.monotonic()
while True:
    due += 0.01
    time.sleep(max(due - time.monotonic(), 0))
    worst = max(worst, time.monotonic() - due)
    print(f"{{1000 * worst:.1f}}", flush=True)
"""

Fault = Callable[[], None]


def judge(path: Path, fault: str, inject: Fault, code: str = "pass", **environment: str) -> str:
    """Run the daemon after `code` for 6 s, inject the fault, and assert that no sound was lost.

    Return the daemon's output.
    """
    program = f"import sys; {code}; from apmpi.tools.cli import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", program, "run", "--config", str(path), "--seconds", "6"]
    canary = subprocess.Popen([sys.executable, "-c", CANARY], stdout=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)
    try:
        inject()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        canary.kill()
    woken_late_ms = canary.communicate()[0].split()
    if "not permitted" in said and os.geteuid() != 0:
        pytest.skip("real-time priority is not permitted to this user: without it nothing would be shown")
    assert "not permitted" not in said
    stood_still_ms = float(woken_late_ms[-1])
    last = [line for line in said.splitlines() if "at most" in line][-1]
    at_most_ms = max(float(ms) for ms in re.findall(r"at most ([\d.]+) ms", said))
    xruns = re.search(r"\d+ xruns?", last)
    assert xruns is not None
    print(f"{fault}: {xruns[0]}, latency at most {at_most_ms} ms; machine late by {stood_still_ms} ms")
    assert xruns[0] == "0 xruns"
    assert at_most_ms < LATEST_MS + stood_still_ms
    return said


def test_nothing_else_runs(configure: Configure) -> None:
    judge(configure(), "no fault", lambda: None)


def test_a_process_that_eats_every_core(configure: Configure) -> None:
    """Two processes that compute, for each core."""
    count = 2 * (os.cpu_count() or 1)

    def hog() -> None:
        time.sleep(FAULT_FROM_S)
        hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        time.sleep(FAULT_S)
        for process in hogs:
            process.kill()
            process.wait()

    judge(configure(), f"{count} busy processes on {os.cpu_count()} cores", hog)


def test_a_garbage_collection(configure: Configure) -> None:
    """Two million objects exist when the loop starts, and the collector runs ten times a second."""
    path = configure()
    path.write_text(path.read_text().replace("report_interval_s: 0.5", "report_interval_s: 0.1"))
    ballast = "ballast = [[number] for number in range(2_000_000)]"
    timed = "import gc, time; began_s = time.monotonic(); gc.collect(); print(time.monotonic() - began_s)"
    took = subprocess.run([sys.executable, "-c", f"{ballast}; {timed}"], capture_output=True, text=True)
    print(f"to collect them takes {1000 * float(took.stdout):.0f} ms")
    judge(path, "garbage collections", lambda: None, ballast)


def test_a_disk_that_blocks(configure: Configure, tmp_path: Path) -> None:
    """The disk of the recording and that of the learned state."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    library = tmp_path / "blocking_disk.so"
    source = Path(__file__).with_name("blocking_disk.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    blocked, times, state = tmp_path / "blocked", tmp_path / "times", tmp_path / "state"
    state.mkdir()

    def block() -> None:
        time.sleep(FAULT_FROM_S)
        blocked.touch()
        time.sleep(FAULT_S)
        blocked.unlink()

    judge(
        configure(),
        "blocked disk",
        block,
        "from apmpi.service import learned; learned.FIRST_SAVE_S = learned.SAVE_EVERY_S = 1.0",
        LD_PRELOAD=str(library),
        BLOCKED_WHILE=str(blocked),
        BLOCKED_TIMES=str(times),
        RUNTIME_DIRECTORY=str(state),
    )
    assert len(times.read_bytes()) >= 2, "nothing was blocked"
    assert soundfile.info(tmp_path / "clean.wav").frames == 6 * daemon.RATE_HZ, "sound was lost"
    assert (state / "learned").exists()


def test_the_audio_thread_has_a_core_where_there_are_enough() -> None:
    assert realtime.audio_cores({0, 1, 2, 3}) == {3}
    assert realtime.audio_cores({0, 1}) == {0, 1}


def test_what_is_not_permitted_is_said(configure: Configure) -> None:
    """As a user without the rights that the unit gives."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can give up its rights")
    command = ["setpriv", "--bounding-set=-sys_nice,-ipc_lock", "--inh-caps=-all", sys.executable, "-P", "-c"]
    limits = "import resource; resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))"
    program = f"{limits}; from apmpi.tools.cli import main; main()"
    command += [program, "run", "--config", str(configure()), "--seconds", "1"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=30)
    print(done.stderr)
    assert done.returncode == 0
    assert re.search(
        r"^apmpi: not permitted: real-time scheduling \(.*\), locked memory \(.*\); sound may be interrupted",
        done.stderr,
        re.MULTILINE,
    )
