"""A real systemd as PID 1 of a namespace, in which an administrator runs `apmpi setup`.

    setup_namespace.py boot FOLDER     outside, as tests/systemd_namespace.py
    setup_namespace.py init FOLDER     inside, PID 1
    setup_namespace.py drive FOLDER    a unit of that systemd: the administrator; records the results

FOLDER has apmpi.service, its drop-in override.conf, and two files for ALSA: room.conf with the card "room",
and cable.conf with snd-aloop's cables, which this kernel may lack. It gets result.json.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from booted_root import boot, enter, install_units, make_root, readable_interpreter, run

CONFIG = Path("/etc/apmpi/apmpi.yaml")
APMPI = str(Path(sys.executable).with_name("apmpi"))
ALSA = "/usr/share/alsa/alsa.conf:/test/room.conf"


def init(folder: Path) -> None:
    root = make_root(folder)
    readable_interpreter(root)
    install_units(root, folder, __file__, seconds=110)
    enter(root)


def setup(*arguments: str, alsa: str = f"{ALSA}:/test/cable.conf", prefix: tuple[str, ...] = ()) -> Any:
    command = [*prefix, APMPI, "setup", *arguments]
    environment = {**os.environ, "ALSA_CONFIG_PATH": alsa}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    return {"status": done.returncode, "out": done.stdout, "err": done.stderr, **after()}


def answered(*answers: str) -> Any:
    """Run it in a terminal and type these answers."""
    os.environ["ALSA_CONFIG_PATH"] = f"{ALSA}:/test/cable.conf"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(APMPI, [APMPI, "setup", "--device", "room", "--no-sound"])
    shown = b""
    for answer in answers:
        while not shown.rstrip().endswith(b"[Y/n]"):
            shown += os.read(terminal, 4096)
        shown += answer.encode()
        os.write(terminal, f"{answer}\n".encode())
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # how the end of a terminal looks on Linux
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"status": status, "out": shown.decode(), **after()}


def after() -> dict[str, Any]:
    asked = ["systemctl", "is-active", "apmpi"]
    return {
        "service": subprocess.run(asked, stdout=subprocess.PIPE, text=True).stdout.strip(),
        "files": {path.name: path.read_text() for path in CONFIG.parent.glob("*")},
    }


def drive(folder: Path) -> None:
    noted: dict[str, Any] = {}
    try:
        noted["no systemd"] = setup(
            "--yes",
            prefix=("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run/systemd; exec "$@"', ""),
        )
        noted["no root"] = setup("--yes", prefix=("setpriv", "--reuid", "65534", "--clear-groups"))
        appliance = Path("/etc/systemd/system/apmpi-configuration.service")
        appliance.write_text("[Service]\nExecStart=/bin/true\n")
        noted["the image"] = setup("--yes")
        appliance.unlink()
        noted["no terminal"] = setup("--device", "room")
        noted["no card"] = setup("--yes")
        noted["no such device"] = setup("--yes", "--device", "hw:CARD=Missing", alsa=ALSA)
        noted["no microphone"] = setup("--yes", "--device", "hw:CARD=Loop")
        noted["no cable"] = setup("--yes", "--device", "room", alsa=ALSA)
        noted["measured"] = setup("--yes", "--device", "room")
        noted["enabled"] = run("systemctl", "is-enabled", "apmpi").strip()
        noted["modules"] = Path("/etc/modules-load.d/apmpi.conf").read_text()
        noted["refused"] = answered("what", "n")
        noted["answered"] = answered("")
        noted["again"] = setup("--yes", "--device", "room", alsa=ALSA)
    finally:
        (folder / "result.json").write_text(json.dumps(noted))
        (folder / "journal.txt").write_text(run("journalctl", "-u", "apmpi", "--no-pager"))


if __name__ == "__main__":
    step, given = sys.argv[1], Path(sys.argv[2])
    if step == "boot":
        boot(__file__, given, seconds=120)
    else:
        {"init": init, "drive": drive}[step](given)
