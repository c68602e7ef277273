"""A real systemd as PID 1 of a namespace, with the appliance's own units and all of their restrictions.

    appliance_namespace.py boot FOLDER     outside: cgroup and namespaces of its own, removed afterwards
    appliance_namespace.py init FOLDER     inside, PID 1: an overlay on the machine's files, then systemd
    appliance_namespace.py drive FOLDER    a unit of that systemd: acts as user and sound, records the results

FOLDER has server/, the certificates and files of a server with updates, and update-signers. It gets
result.json and journal.txt. Other writes go to memory and are discarded.

Differences from the device: Python is this machine's, so homes are visible; the boot partition is a tmpfs,
the light and the kernel's command line are files. There is no card, no iwd and no networkd, apmpi.service
is a substitute that provides /run/apmpi/sound, and nobody listens for the page.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a program's import path has its own folder alone
from booted_root import boot, enter, make_root, readable_interpreter, run

IMAGE = Path(__file__).parents[2] / "image"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGhlbGxvIHdvcmxk me\n"
SOUND = Path("/run/apmpi/sound")
BOOT = Path("/boot/firmware")
LIGHT = Path("/test/trigger")


def init(folder: Path) -> None:
    root = make_root(folder)
    readable_interpreter(root)
    _card(root)
    _units(root)
    enter(root)


def _card(root: Path) -> None:
    """Version b on trial, the boot partition mounted read-only."""
    (root / "test/cmdline").write_text("root=PARTUUID=a9d10001-03 boot=apmpi\n")
    for name in (
        "boot/firmware",
        "data/appliance",
        "etc/apmpi",
        "usr/share/apmpi",
        "run/apmpi-start",
        "etc/iwd",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "test/update-signers", root / "usr/share/apmpi")
    (root / "usr/share/apmpi/board").write_text("pi3-pi4\n")
    run("systemd-sysusers", f"--root={root}", IMAGE / "root/usr/lib/sysusers.d/apmpi-fetch.conf")
    for name in ("fetch", "fetched"):
        (root / "data" / name).mkdir()
    # As usr/lib/apmpi/mount-data does it.
    run("chroot", root, "chown", "apmpi-fetch:root", "/data/fetch")
    run("chroot", root, "chmod", "0775", "/data/fetch")
    (root / "run/apmpi-start/trial").touch()
    (root / "data/appliance/tried").write_text("2.0")
    (root / "usr/share/apmpi/version").write_text("2.0\n")
    shutil.copy(IMAGE / "boot/apmpi.yaml", root / "usr/share/apmpi")
    run("mount", "-t", "tmpfs", "tmpfs", root / "boot/firmware")
    (root / "boot/firmware/slot.txt").write_bytes(b"os_prefix=a/\n".ljust(512, b"\n"))
    (root / "boot/firmware/apmpi.yaml").write_text("microphone: {device: x}\nsample_rate: 1\n")
    (root / "boot/firmware/network.yaml").mkdir()
    (root / "boot/firmware/authorized_keys").write_text(KEY)
    run("mount", "-o", "remount,ro", root / "boot/firmware")
    trigger = root / "test/trigger"
    trigger.touch()


def _units(root: Path) -> None:
    units = root / "etc/systemd/system"
    shutil.copytree(IMAGE / "root/usr/lib/systemd/system", units, dirs_exist_ok=True)
    shutil.copy(IMAGE.parent / "systemd/apmpi-web-take-over.service", units)
    for drop_in in units.glob("apmpi-web-take-over.service.d/*"):
        drop_in.write_text(drop_in.read_text().replace("/usr/bin/python3", sys.executable))
    for unit in units.glob("apmpi-*.service"):
        text = unit.read_text().replace("/usr/bin/python3", sys.executable)
        # No networkd, and no kernel module: this machine's own must not change.
        text = re.sub(r"(?m)^(ExecStart=.*systemd-networkd.*|Requires=sys-kernel-config.*)$", "", text)
        unit.write_text(text)
        (units / f"{unit.name}.d").mkdir(exist_ok=True)
        # The kernel's command line is the machine's; each unit gets the device's over its own view of /proc.
        own_view = unit.stem not in ("apmpi-data", "apmpi-trial")
        whole_proc = unit.stem != "apmpi-web-take-over"
        (units / f"{unit.name}.d/machine.conf").write_text(
            f"[Service]\nEnvironment=PYTHONPATH={IMAGE} PYTHONDONTWRITEBYTECODE=1\n"
            + ("ProtectHome=no\n" if own_view else "")
            + ("BindReadOnlyPaths=/test/cmdline:/proc/cmdline\n" if own_view and whole_proc else "")
            + ("ReadWritePaths=/test\n" if unit.stem == "apmpi-light" else "")
        )
    stand_in = (
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    )
    for name in ("apmpi", "apmpi-web", "ssh", "iwd"):
        (units / f"{name}.service").write_text(stand_in)
    (units / "apmpi-web.socket").write_text(
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/page\n"
    )
    shutil.rmtree(units / "apmpi-web.service.d")
    shutil.rmtree(units / "apmpi.service.d")
    light = (IMAGE / "root/usr/lib/apmpi/light").read_text()
    (root / "usr/lib/apmpi").mkdir()
    (root / "usr/lib/apmpi/light").write_text(light.replace("/sys/class/leds/ACT/trigger", str(LIGHT)))
    (root / "usr/lib/apmpi/light").chmod(0o755)
    (units / "drive.service").write_text(
        "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.service\nAfter=systemd-journald.service\n"
        f"[Service]\nType=oneshot\nExecStart={sys.executable} {__file__} drive /test\n"
        f"Environment=PYTHONPATH={IMAGE}\nExecStopPost=systemctl poweroff --force\nTimeoutStartSec=150s\n"
    )


def wait_for(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


def start(*units: str) -> int:
    return subprocess.run(["systemctl", "start", *units]).returncode


def state(unit: str) -> str:
    return subprocess.run(["systemctl", "is-active", unit], stdout=subprocess.PIPE, text=True).stdout.strip()


def contents(path: Path) -> str:
    return path.read_text().rstrip("\n") if path.exists() else ""


SERVER = """
import http.server, ssl
server = http.server.ThreadingHTTPServer(("localhost", 0), http.server.SimpleHTTPRequestHandler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("server.pem", "key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


def fetched_update() -> dict[str, Any]:
    """Fetch from a server whose update is none: as far as root refuses it."""
    noted: dict[str, Any] = {}
    folder = Path("/test/server")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    url = f"https://localhost:{server.stdout.readline().strip()}/"
    try:
        run("mount", "-o", "remount,rw", BOOT)
        (BOOT / "network.yaml").write_text(f"updates: {{url: '{url}', at: '04:15'}}\n")
        shutil.copy(folder / "ca.pem", BOOT / "updates-ca.pem")
        run("mount", "-o", "remount,ro", BOOT)
        noted["network"] = subprocess.run(["systemctl", "restart", "apmpi-network"]).returncode
        noted["timer"] = wait_for(10, lambda: state("apmpi-update-fetch.timer") == "active")
        noted["time"] = run("systemctl", "show", "apmpi-update-fetch.timer", "--property=TimersCalendar")
        noted["started"] = start("apmpi-update-fetch.service")
        report = BOOT / "update.txt"
        noted["refused"] = wait_for(20, lambda: contents(report).startswith("update refused"))
        noted["idle"] = wait_for(10, lambda: state("apmpi-update-fetched") == "inactive")
        noted["text"] = contents(report)
        noted["owner"] = run("stat", "--format=%U", "/data/fetch/handed").strip()
        noted["left"] = [path.name for path in Path("/data").glob("fetch*/*.update")]
    finally:
        server.terminate()
    # Nobody answers any more.
    noted["again"] = start("apmpi-update-fetch.service")
    noted["unreachable"] = wait_for(20, lambda: "Connection refused" in contents(report))
    noted["unreachable text"] = contents(report).replace(url, "URL/")
    noted["idle again"] = wait_for(10, lambda: state("apmpi-update-fetched") == "inactive")
    return noted


def drive(folder: Path) -> None:
    noted: dict[str, Any] = {}
    try:
        # As at boot: READY, and no sound yet.
        noted["light"] = start("apmpi-light.path", "apmpi-light.service", "apmpi-confirm.path")
        SOUND.parent.mkdir(exist_ok=True)
        noted["confirm by hand"] = start("apmpi-confirm.service")
        time.sleep(1)
        noted["ready"] = [state("apmpi-confirm"), contents(LIGHT), contents(BOOT / "slot.txt")]
        SOUND.touch()
        noted["confirmed"] = wait_for(20, lambda: state("apmpi-confirm") == "active")
        noted["light on"] = wait_for(10, lambda: contents(LIGHT) == "default-on")
        noted["flows"] = [contents(BOOT / "slot.txt"), contents(BOOT / "update.txt")]
        noted["left"] = [Path("/run/apmpi-start/trial").exists(), Path("/data/appliance/tried").exists()]
        SOUND.unlink()
        noted["light blinks"] = wait_for(10, lambda: contents(LIGHT) == "timer")
        time.sleep(1)  # the shortest time between two such reports of apmpi
        SOUND.touch()
        noted["light on again"] = wait_for(10, lambda: contents(LIGHT) == "default-on")
        noted["confirm still"] = state("apmpi-confirm")

        noted["configuration"] = start("apmpi-configuration.service")
        noted["error text"] = contents(BOOT / "apmpi-error.txt")
        run("mount", "-o", "remount,rw", BOOT)
        (BOOT / "apmpi.yaml").write_text("microphone: {device: x}\n")
        run("mount", "-o", "remount,ro", BOOT)
        noted["reload"] = subprocess.run(["systemctl", "reload", "apmpi-configuration"]).returncode
        noted["mended"] = [(BOOT / "apmpi-error.txt").exists(), contents(Path("/etc/apmpi/apmpi.yaml"))]

        handed = Path("/run/apmpi-web/apmpi.yaml")
        handed.parent.mkdir()
        handed.write_text("microphone: {device: y}\n")
        noted["page"] = start("apmpi-web-take-over.service")
        noted["page's"] = [contents(path) for path in (BOOT / "apmpi.yaml", BOOT / "apmpi-before.yaml")]
        noted["page's in use"] = [contents(Path(f"/etc/apmpi/apmpi.yaml{end}")) for end in ("", ".before")]

        noted["network"] = start("apmpi-network.service")
        noted["network text"] = contents(BOOT / "network-error.txt")
        noted["keys"] = contents(Path("/etc/ssh/authorized_keys"))
        noted["host key"] = subprocess.run(
            ["ssh-keygen", "-y", "-f", "/data/ssh/ssh_host_ed25519_key"], stdout=subprocess.DEVNULL
        ).returncode
        noted["ssh"] = wait_for(10, lambda: state("ssh") == "active")
        noted["page with a mistake in network.yaml"] = state("apmpi-web.socket")
        run("mount", "-o", "remount,rw", BOOT)
        (BOOT / "network.yaml").rmdir()
        (BOOT / "network.yaml").write_text("page_password: correct horse\n")
        (BOOT / "user-data").write_text("#cloud-config\nhostname: kitchen\n")
        run("mount", "-o", "remount,ro", BOOT)
        noted["network again"] = subprocess.run(["systemctl", "restart", "apmpi-network"]).returncode
        noted["name"] = socket.gethostname()
        noted["page's socket"] = wait_for(10, lambda: state("apmpi-web.socket") == "active")
        noted["password"] = [
            contents(path) for path in (BOOT / "network.yaml", Path("/etc/apmpi/web-password"))
        ]

        run("systemctl", "stop", "apmpi.service")
        noted["hotplug"] = start("apmpi-hotplug.service")
        noted["started"] = wait_for(10, lambda: state("apmpi") == "active")

        Path("/data/appliance/tried").write_text("3.0")
        noted["returned"] = start("apmpi-returned.service")
        noted["report"] = contents(BOOT / "update.txt")
        noted["fetch"] = fetched_update()

        noted["boot"] = run("findmnt", "-no", "OPTIONS", BOOT).split(",")[0]
        noted["failed"] = run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "apmpi*")
    finally:
        (folder / "result.json").write_text(json.dumps(noted))
        (folder / "journal.txt").write_text(run("journalctl", "--no-pager", "-o", "cat"))
    # Last, since the trial's end restarts the machine.
    Path("/run/apmpi-start/trial").touch()
    with contextlib.suppress(OSError):
        start("apmpi-trial.service")
        time.sleep(10)
        (folder / "not restarted").touch()


if __name__ == "__main__":
    step, given = sys.argv[1], Path(sys.argv[2])
    if step == "boot":
        boot(__file__, given, seconds=180)
    else:
        {"init": init, "drive": drive}[step](given)
