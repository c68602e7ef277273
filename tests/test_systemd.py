"""The service's files, looked at by systemd's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apmpi.report import Event

SYSTEMD = Path(__file__).parents[1] / "systemd"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as this machine can check it: `apmpi` from where it is installed, and a Type that is known."""
    text = (SYSTEMD / "apmpi.service").read_text()
    text = text.replace("/usr/bin/apmpi", str(Path(sys.executable).with_name("apmpi")))
    version = re.search(r"systemd (\d+)", run("systemd-analyze", "--version"))
    assert version is not None
    if int(version[1]) < 253:
        print("this systemd is older than Type=notify-reload: checked as Type=notify")
        text = text.replace("Type=notify-reload", "Type=notify")
    path = tmp_path / "apmpi.service"
    path.write_text(text)
    return path


@needs_systemd
def test_unit_is_valid(unit: Path) -> None:
    # It exits with 0 for an unknown key or value, but says so; of other units on the machine it may say
    # what it likes.
    said = run("systemd-analyze", "verify", "--man=no", unit)
    assert not [line for line in said.splitlines() if "apmpi" in line]


@needs_systemd
def test_unit_is_locked_up(unit: Path) -> None:
    said = run("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for apmpi\.service: ([\d.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5


def test_unit_feeds_the_watchdog_it_promises() -> None:
    unit = (SYSTEMD / "apmpi.service").read_text()
    assert "Type=notify-reload\n" in unit
    assert re.search(r"^WatchdogSec=", unit, re.MULTILINE)
    assert "RestrictRealtime" not in re.sub(r"^#.*", "", unit, flags=re.MULTILINE)


@needs_systemd
def test_user_is_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").touch()
    (tmp_path / "etc/group").write_text("audio:x:29:\n")
    run("systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "sysusers.d/apmpi.conf")
    assert (tmp_path / "etc/passwd").read_text().startswith("apmpi:")
    assert "audio:x:29:apmpi" in (tmp_path / "etc/group").read_text()


def test_every_message_is_explained() -> None:
    catalog = (SYSTEMD / "apmpi.catalog").read_text()
    explained = re.findall(r"^-- ([0-9a-f]{32})$", catalog, re.MULTILINE)
    assert sorted(explained) == sorted(event.message_id for event in Event)


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="journalctl is not installed")
def test_catalog_compiles(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(SYSTEMD / "apmpi.catalog", folder)
    run("journalctl", f"--root={tmp_path}", "--update-catalog")
    said = run("journalctl", f"--root={tmp_path}", "--list-catalog")
    assert len(said.splitlines()) == len(Event)
    assert f"{Event.XRUN.message_id} apmpi: Sound was lost in an xrun" in said
