"""A real systemd as PID 1 of a namespace, which starts, reloads, guards and stops the real service.

    systemd_namespace.py boot FOLDER     outside: cgroup and namespaces of its own, removed afterwards
    systemd_namespace.py init FOLDER     inside, PID 1: an overlay on the machine's files, then systemd
    systemd_namespace.py drive FOLDER    a unit of that systemd: acts as an administrator, records the results

FOLDER has apmpi.service and its drop-in override.conf, and gets result.json and journal.json. Nothing else of
the machine is changed: other writes go to memory and are discarded.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from booted_root import boot, enter, install_units, make_root, readable_interpreter, run


def init(folder: Path) -> None:
    root = make_root(folder)
    readable_interpreter(root)
    install_units(root, folder, __file__, seconds=65)
    shutil.copytree(folder / "etc", root / "etc/apmpi")
    enter(root)


def show() -> dict[str, str]:
    names = "ActiveState,SubState,StatusText,MainPID,NRestarts,Result,ExecMainStatus"
    lines = run("systemctl", "show", "apmpi", f"--property={names}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def wait_for(seconds: float, **wanted: str) -> dict[str, str]:
    """Wait until the unit has these properties or the time is over; return its properties."""
    deadline = time.monotonic() + seconds
    while True:
        seen = show()
        if time.monotonic() > deadline or all(seen[name] == value for name, value in wanted.items()):
            return seen
        time.sleep(0.1)


def sound_flows(within_s: float = 0.0, expected: bool = True) -> bool:
    """Return whether sound flows, as other services see it: when it is as expected, or at the end of the
    time.
    """
    deadline = time.monotonic() + within_s
    while (flows := Path("/run/apmpi/sound").exists()) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    return flows


def scheduling(pid: str) -> list[tuple[int, int]]:
    """Policy and real-time priority of each thread of the service, proc_pid_stat(5)."""
    threads = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        if (task / "comm").read_text() != "room card\n":  # the simulated card's own
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            threads.append((int(fields[38]), int(fields[37])))
    return threads


def reload(folder: Path) -> int:
    if "notify-reload" in (folder / "apmpi.service").read_text():
        return subprocess.run(["systemctl", "reload", "apmpi"]).returncode
    status = subprocess.run(["systemctl", "kill", "--signal=HUP", "apmpi"]).returncode
    time.sleep(0.7)
    return status


def drive(folder: Path) -> None:
    noted: dict[str, Any] = {}
    run("systemctl", "log-target", "journal")  # as on any machine; until here the console shows what failed
    began = time.monotonic()
    try:
        noted["start"] = subprocess.run(["systemctl", "start", "apmpi"]).returncode
        noted["start_s"] = time.monotonic() - began
        time.sleep(1.5)
        noted["running"] = show()
        noted["sound"] = {"running": sound_flows(within_s=5)}
        pid = noted["running"]["MainPID"]
        with contextlib.suppress(OSError):
            noted["threads"] = scheduling(pid)
            noted["status"] = Path(f"/proc/{pid}/status").read_text()
            noted["limits"] = Path(f"/proc/{pid}/limits").read_text()
        noted["socket"] = run("stat", "--format=%a %U:%G", "/run/apmpi/socket").strip()
        noted["reload"] = reload(folder)
        noted["reloaded"] = show()
        configuration = Path("/etc/apmpi/apmpi.yaml")
        good = configuration.read_text()
        configuration.write_text(good.replace("report_interval_s", "report_interval"))
        reload(folder)
        time.sleep(0.7)  # the next report
        noted["refused"] = show()
        configuration.write_text(good.replace("microphone: {device: room}", "microphone: {device: nonsense}"))
        reload(folder)
        time.sleep(2.5)  # longer than WatchdogSec
        noted["parked"] = show()
        noted["sound"]["parked"] = sound_flows()
        configuration.write_text(good)
        reload(folder)
        time.sleep(1)
        noted["resumed"] = show()
        run("systemctl", "kill", "--signal=STOP", "apmpi")  # no sound, no watchdog signal
        noted["starved"] = wait_for(6, Result="watchdog")
        # ExecStopPost comes after the result; a new service has no sound in its first second.
        noted["sound"]["killed"] = sound_flows(within_s=2.0, expected=False)
        noted["restarted"] = wait_for(20, ActiveState="active", NRestarts="1")
        time.sleep(12)  # the learned state is saved after 10 s of sound
        run("systemctl", "restart", "apmpi")
        time.sleep(1)
        noted["stop"] = subprocess.run(["systemctl", "stop", "apmpi"]).returncode
        noted["stopped"] = show()
        noted["sound"]["stopped"] = sound_flows()
        shutil.copy("/var/lib/apmpi/clean.wav", folder)
        noted["log"] = run(str(Path(sys.executable).with_name("apmpi")), "log", "--json")
    finally:
        (folder / "result.json").write_text(json.dumps(noted))
        (folder / "journal.json").write_text(run("journalctl", "-u", "apmpi", "-o", "json", "--no-pager"))


if __name__ == "__main__":
    step, given = sys.argv[1], Path(sys.argv[2])
    if step == "boot":
        boot(__file__, given, seconds=75)
    else:
        {"init": init, "drive": drive}[step](given)
