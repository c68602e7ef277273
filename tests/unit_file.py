"""Units adapted to this machine for tests, and runs of the scripts that boot a root with a systemd."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

UNITS = Path(__file__).parents[1] / "systemd"


def adapted(name: str = "apmpi.service") -> str:
    """Return the unit as this machine can use it: `apmpi` and its Python at their paths, and a known Type."""
    text = (UNITS / name).read_text()
    text = text.replace("/usr/bin/apmpi", str(Path(sys.executable).with_name("apmpi")))
    text = text.replace("/usr/bin/python3", sys.executable)
    asked = ["systemd-analyze", "--version"]
    version = re.search(
        r"systemd (\d+)", subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    assert version is not None
    if int(version[1]) < 253 and "Type=notify-reload" in text:
        print("this systemd is older than Type=notify-reload: checked as Type=notify")
        text = text.replace("Type=notify-reload", "Type=notify\nExecReload=kill -HUP $MAINPID")
    return text


def override(alsa_config_path: str) -> str:
    """Return a drop-in for a unit in a booted root, with the simulated cards and this Python's folder."""
    # Without the default dependencies nothing else of this machine's services is started there.
    text = f"[Unit]\nDefaultDependencies=no\n[Service]\nEnvironment=ALSA_CONFIG_PATH={alsa_config_path}\n"
    homes = {Path(prefix).parts[1] for prefix in (sys.prefix, sys.base_prefix)}
    if homes & {"root", "home"}:
        text += "ProtectHome=read-only\n"
    if "tmp" in homes:
        text += "PrivateTmp=no\n"
    return text


def booted(script: str, folder: Path) -> dict[str, Any]:
    """Run a script of this folder as `boot FOLDER`; return what it has noted in FOLDER/result.json. Skips the
    test where systemd can't be booted."""
    program = Path(__file__).with_name(script)
    done = subprocess.run([sys.executable, program, "boot", folder], capture_output=True, text=True)
    if not (folder / "console").exists():
        pytest.skip(f"systemd can't be booted in a namespace here: {done.stderr.strip().splitlines()[-1]}")
    print(done.stderr, (folder / "console").read_text())
    noted: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return noted
