"""A real systemd as PID 1 of a namespace, with the units of the service and of its page.

    web_namespace.py boot FOLDER     outside: cgroup and namespaces of its own, removed afterwards
    web_namespace.py init FOLDER     inside, PID 1: an overlay on the machine's files, then systemd
    web_namespace.py drive FOLDER    a unit of that systemd: acts as an administrator and as a browser

FOLDER has the units, override.conf (a drop-in for the services) and etc/, and gets result.json.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from booted_root import boot, enter, install_units, make_root, readable_interpreter, run

PASSWORD = "correct horse"
TOKEN = "5f1ce1bd1e0b4cb69b7d8e2f6a0c3d49"
CONFIGURATION = Path("/etc/apmpi/apmpi.yaml")
UNITS = ("apmpi-web.socket", "apmpi-web.service", "apmpi-web-take-over.path", "apmpi-web-take-over.service")


def init(folder: Path) -> None:
    root = make_root(folder)
    readable_interpreter(root)
    install_units(root, folder, __file__, seconds=50)
    for name in UNITS:
        shutil.copy(folder / name, root / "etc/systemd/system")
        drop_in = root / f"etc/systemd/system/{name}.d"
        drop_in.mkdir()
        (drop_in / "override.conf").write_text("[Unit]\nDefaultDependencies=no\n")
        if name.endswith(".service"):
            shutil.copy(folder / "override.conf", drop_in)
    shutil.copytree(folder / "etc", root / "etc/apmpi")
    enter(root)


def ask(method: str, path: str, content: object = None, **headers: str) -> tuple[int, str, str]:
    """Return status, body and cookie of an answer of the page."""
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=20)
    named = {"Origin": "http://127.0.0.1", "Content-Type": "application/json", **headers}
    with contextlib.closing(connection):
        connection.request(method, path, None if content is None else json.dumps(content), named)
        answer = connection.getresponse()
        cookie = (answer.headers.get("Set-Cookie") or "").split(";")[0]
        return answer.status, answer.read().decode(), cookie


def drive(folder: Path) -> None:
    noted: dict[str, Any] = {}
    run("systemctl", "log-target", "journal")
    try:
        # As systemd itself does outside of containers: the credentials' mounts reach the service by it.
        run("mount", "--make-rshared", "/")
        # As at each boot: the group of the journal's folder.
        run("systemd-tmpfiles", "--create", "--prefix=/run/log/journal")
        run("systemctl", "start", "apmpi")
        run("systemctl", "start", "apmpi-web.socket")
        noted["before_the_first_request"] = state()
        noted["page"] = ask("GET", "/")[0]
        noted["after_it"] = state()
        noted["session"] = json.loads(ask("GET", "/session")[1])
        noted["past"] = json.loads(ask("GET", "/past")[1])
        noted["checks"] = json.loads(ask("GET", "/checks")[1])
        apmpi = str(Path(sys.executable).with_name("apmpi"))
        noted["metrics"] = ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}")
        subprocess.run([apmpi, "web", "--set-password"], input=f"{PASSWORD}\n", text=True, check=True)
        subprocess.run([apmpi, "web", "--set-metrics-token"], input=f"{TOKEN}\n", text=True, check=True)
        run("systemctl", "try-restart", "apmpi-web")
        noted["metrics_with_the_token"] = ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}")
        signed_in = ask("POST", "/session", {"password": PASSWORD})
        noted["signed_in"] = signed_in[:2]
        own = {"Cookie": signed_in[2], "X-CSRF-Token": json.loads(signed_in[1])["csrf"]}
        shown = json.loads(ask("GET", "/configuration", **own)[1])
        changed = shown["text"].replace("noise_suppression: false", "noise_suppression: low")
        began_s = time.monotonic()
        saved = ask("POST", "/configuration", {"text": changed, "version": shown["version"]}, **own)
        noted["saved"] = saved[:2]
        noted["saved_s"] = time.monotonic() - began_s
        noted["written"] = CONFIGURATION.read_text() == changed
        noted["owner"] = run("stat", "--format=%a %U", CONFIGURATION).strip()
        deadline_s = time.monotonic() + 10
        while "reloaded" not in (said := run("journalctl", "-t", "apmpi", "-o", "cat", "--no-pager")):
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.2)
        noted["reloaded"] = "reloaded" in said
        pid = run("systemctl", "show", "apmpi-web", "--property=MainPID", "--value").strip()
        noted["status"] = Path(f"/proc/{pid}/status").read_text()
        run("systemctl", "stop", "apmpi-web.socket", "apmpi-web.service")
        noted["stopped"] = state()
    finally:
        (folder / "result.json").write_text(json.dumps(noted))
        (folder / "journal").write_text(run("journalctl", "-o", "short-precise", "--no-pager"))


def state() -> str:
    done = subprocess.run(["systemctl", "is-active", "apmpi-web"], stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    step, given = sys.argv[1], Path(sys.argv[2])
    if step == "boot":
        boot(__file__, given, seconds=60)
    else:
        {"init": init, "drive": drive}[step](given)
