"""The service's files, checked by systemd's own tools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import unit_file
from daemon import RoomCard, talk, write

from apmpi.service.journal import Event

SYSTEMD = Path(__file__).parents[1] / "systemd"

WEB_UNITS = (
    "apmpi-web.socket",
    "apmpi-web.service",
    "apmpi-web-take-over.path",
    "apmpi-web-take-over.service",
)

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    path = tmp_path / "apmpi.service"
    path.write_text(unit_file.adapted())
    return path


@needs_systemd
def test_unit_is_valid(unit: Path) -> None:
    # It exits with 0 for an unknown key or value, but reports it; messages on the machine's other units
    # do not count.
    said = run("systemd-analyze", "verify", "--man=no", unit)
    assert not [line for line in said.splitlines() if "apmpi" in line]


@needs_systemd
def test_unit_is_locked_up(unit: Path) -> None:
    said = run("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for apmpi\.service: ([\d.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5


def boot_folder(unit: Path, room_card: RoomCard, rng: np.random.Generator, yaml: str) -> Path:
    """Return the folder of a booted root with the unit, a room card as microphone and speaker, a far end, and
    a configuration to which `yaml` is added."""
    folder = unit.parent / "boot"
    etc = folder / "etc"
    etc.mkdir(parents=True)
    shutil.copy(unit, folder)
    device = room_card("room", delay_ms=30, noise_dbfs=-75)
    shutil.copy(unit.with_name("room.conf"), etc)
    write(etc / "far.wav", talk(rng, 5.0))
    (etc / "apmpi.yaml").write_text(
        f"microphone: {{device: {device}}}\nspeaker: {{device: {device}}}\nfar_end: {{file: far.wav}}\n{yaml}"
    )
    alsa = "/usr/share/alsa/alsa.conf:/etc/apmpi/room.conf"
    (folder / "override.conf").write_text(unit_file.override(alsa))
    return folder


def test_service_lives_under_a_real_systemd(
    unit: Path, rng: np.random.Generator, room_card: RoomCard
) -> None:
    """Started, observed, reloaded, blocked until the watchdog acts, restarted and stopped, with all of the
    unit's restrictions in force.
    """
    folder = boot_folder(
        unit, room_card, rng, "output: {file: /var/lib/apmpi/clean.wav}\nreport_interval_s: 0.5\n"
    )

    noted = unit_file.booted("systemd_namespace.py", folder)
    journal = [json.loads(line) for line in (folder / "journal.json").read_text().splitlines()]
    for entry in journal:
        print(entry.get("MESSAGE"))
    print(json.dumps({key: value for key, value in noted.items() if key != "status"}, indent=1))
    assert noted["socket"] == "660 apmpi:apmpi"  # members of the group may connect

    assert (noted["start"], noted["running"]["ActiveState"]) == (0, "active")
    assert noted["start_s"] < 10
    assert re.search(r"latency \d+ ms, \d+ xruns?", noted["running"]["StatusText"])
    # One thread processes sound; the others are real time only so that they finish quickly. 1 is SCHED_FIFO.
    assert sorted(noted["threads"])[-1] == [1, 60]
    assert sorted(noted["threads"])[-2][1] < 60
    assert re.search(r"^Uid:\s+[1-9]", noted["status"], re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", noted["status"], re.MULTILINE)
    assert noted["reload"] == 0
    assert re.match(
        r"reload refused: /etc/apmpi/apmpi\.yaml:5: report_interval: unknown key.*stays in use; .*latency",
        noted["refused"]["StatusText"],
    )
    assert noted["parked"]["StatusText"].startswith("waiting: microphone.device: 'nonsense' does not exist")
    assert re.search(r"latency \d+ ms", noted["resumed"]["StatusText"])
    assert noted["sound"] == {"running": True, "parked": False, "killed": False, "stopped": False}
    same = {noted[moment]["MainPID"] for moment in ("running", "refused", "parked", "resumed")}
    assert len(same) == 1, "the watchdog bit while a device was waited for"
    assert noted["starved"]["Result"] == "watchdog"
    assert (noted["restarted"]["ActiveState"], noted["restarted"]["NRestarts"]) == ("active", "1")
    assert noted["restarted"]["MainPID"] != noted["running"]["MainPID"]
    assert (noted["stop"], noted["stopped"]["Result"], noted["stopped"]["ExecMainStatus"]) == (
        0,
        "success",
        "0",
    )
    said = [entry.get("MESSAGE_ID") for entry in journal]
    assert said.count(Event.CONTINUED.message_id) >= 1, "nothing was taken up from the run before"
    assert Event.STARTED_ANEW.message_id not in said
    assert soundfile.info(folder / "clean.wav").frames > 0.5 * 48000
    reports = [entry for entry in journal if entry.get("MESSAGE_ID") == Event.FIGURES.message_id]
    assert len(reports) >= 3
    assert all("APMPI_LATENCY_MEDIAN_MS" in entry for entry in reports)
    assert [entry for entry in journal if entry.get("MESSAGE_ID") == Event.RELOADED.message_id]
    # `apmpi log` there: the runs, and what systemd says of the one that it ended.
    print(noted["log"])
    assert noted["log"].count('"event": "started"') == 3
    assert "apmpi.service: Failed with result 'watchdog'." in noted["log"]
    if re.search(r"Max locked memory +unlimited", noted["limits"]):
        assert int(re.search(r"VmLck:\s*(\d+) kB", noted["status"])[1]) > 0
        assert not [entry for entry in journal if entry.get("MESSAGE_ID") == Event.NOT_PERMITTED.message_id]
    else:
        print("this machine does not let systemd raise LimitMEMLOCK: locked memory is not tested")


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
    explained = re.findall(r"^-- ([0-9a-f]{32})\nSubject: (.*)$", catalog, re.MULTILINE)
    assert sorted(explained) == sorted((event.message_id, event.subject) for event in Event)


def test_every_message_is_in_the_interface() -> None:
    table = re.findall(r"^\| `([0-9a-f]{32})` \| (\d) \|", (SYSTEMD / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted((event.message_id, str(event.priority)) for event in Event)


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


@needs_systemd
@pytest.mark.parametrize("name", WEB_UNITS)
def test_the_page_s_units_are_valid_and_locked_up(name: str, tmp_path: Path) -> None:
    for one in WEB_UNITS:
        (tmp_path / one).write_text(unit_file.adapted(one))
    said = run("systemd-analyze", "verify", "--man=no", tmp_path / name)
    assert not [line for line in said.splitlines() if "apmpi" in line]
    if name.endswith(".service"):
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
        said = run(*command, "--threshold=15", tmp_path / name)
        exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
        assert exposure is not None
        assert float(exposure[1]) <= 1.0


def test_the_page_lives_under_a_real_systemd(
    unit: Path, rng: np.random.Generator, room_card: RoomCard
) -> None:
    """Started by its first request, given a password, changes the configuration, stopped: with all of the
    units' restrictions in force."""
    folder = boot_folder(unit, room_card, rng, "features: {noise_suppression: false}\nmetrics: true\n")
    for name in WEB_UNITS:
        (folder / name).write_text(unit_file.adapted(name))
    noted = unit_file.booted("web_namespace.py", folder)
    print((folder / "journal").read_text())
    print(json.dumps({key: value for key, value in noted.items() if key != "status"}, indent=1))
    assert (noted["before_the_first_request"], noted["page"], noted["after_it"]) == (
        "inactive",
        200,
        "active",
    )
    assert noted["session"]["csrf"] is None and "--set-password" in noted["session"]["how"]
    assert "sentence" in noted["past"] or "systemd-python" in noted["past"]["problem"]
    assert "arithmetic" in {name for _, name, _, _ in noted["checks"]["findings"]}
    assert noted["metrics"][0] == 404 and "--set-metrics-token" in noted["metrics"][1]
    assert noted["metrics_with_the_token"][0] == 200
    assert "\napmpi_up 1\n" in noted["metrics_with_the_token"][1]
    assert noted["signed_in"][0] == 200
    status, saved = noted["saved"]
    assert status == 200 and json.loads(saved)["sentence"] == "saved, and taken over"
    assert noted["written"] and noted["owner"] == "644 root" and noted["reloaded"]
    assert re.search(r"^Uid:\s+[1-9]", noted["status"], re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", noted["status"], re.MULTILINE)
    assert noted["stopped"] == "inactive"
