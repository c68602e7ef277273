"""The appliance's units: the exposure of each, and that each works with its restrictions under systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from update_server import make_certificates, offer_update

import build

UNITS = Path(__file__).parents[2] / "image/root/usr/lib/systemd/system"
# Of the package, with the image's part beside the image's units.
OF_THE_PAGE = Path(__file__).parents[2] / "systemd/apmpi-web-take-over.service"
# systemd rates it OK; the appliance's oneshots without restrictions have 9.5.
EXPOSURE_LIMIT = 4.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units whose programs exist on this machine."""
    folder = tmp_path_factory.mktemp("machine") / "units"
    shutil.copytree(UNITS, folder)
    shutil.copy(OF_THE_PAGE, folder)
    for unit in [*folder.glob("*.service"), *folder.glob("*.d/*.conf")]:
        unit.write_text(re.sub(r"(?m)^(Exec\w+)=.*$", r"\1=/bin/true", unit.read_text()))
    return folder


@needs_systemd
@pytest.mark.parametrize("name", sorted(path.name for path in [OF_THE_PAGE, *UNITS.glob("apmpi-*.service")]))
def test_what_runs_as_root_can_do_little_else(units: Path, name: str) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", units / name],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    ).stdout  # fmt: skip
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposure is not None, said
    print(f"{name}: exposure {exposure[1]}")
    assert float(exposure[1]) <= EXPOSURE_LIMIT


@pytest.mark.parametrize("path", sorted(UNITS.glob("apmpi-*.service")), ids=lambda path: path.name)
def test_each_unit_names_its_privileges_and_the_reason(path: Path) -> None:
    lines = path.read_text().splitlines()
    (first, *_) = [number for number, line in enumerate(lines) if line.startswith("CapabilityBoundingSet=")]
    assert lines[first - 1].startswith("# "), f"{path.name}: no reason above CapabilityBoundingSet"
    assert any(line.startswith("SystemCallFilter=@system-service") for line in lines)


def server_with_an_update(folder: Path) -> None:
    """Make the files of a server: certificates, and a newer version's signed index with something else."""
    server, key = folder / "server", folder / "key"
    server.mkdir()
    make_certificates(server)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (folder / "update-signers").write_text(build.signers(key))
    offer_update(folder / "new", server, key, version="9.0")


@pytest.mark.skipif(
    Path(__file__).is_relative_to("/tmp"), reason="the units run this tree, but see another /tmp"
)
def test_units_work_with_all_their_restrictions(tmp_path: Path) -> None:
    folder = tmp_path / "boot"
    folder.mkdir()
    server_with_an_update(folder)
    script = Path(__file__).with_name("appliance_namespace.py")
    done = subprocess.run(
        [sys.executable, script, "boot", folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if not (folder / "result.json").exists():
        pytest.skip(f"no systemd in a namespace here: {done.stdout.strip()[-300:]}")
    noted = json.loads((folder / "result.json").read_text())
    print(json.dumps(noted, indent=1))
    print((folder / "journal.txt").read_text()[-6000:])

    # READY without sound confirms nothing, and shows no light.
    assert noted["light"] == noted["confirm by hand"] == 0
    assert noted["ready"] == ["inactive", "timer", "os_prefix=a/"]
    # With the first second of sound the version is confirmed.
    assert noted["confirmed"] and noted["light on"]
    assert noted["flows"] == ["os_prefix=b/", "updated: version 2.0 is in use"]
    assert noted["left"] == [False, False]
    # A device that is waited for.
    assert noted["light blinks"] and noted["light on again"]
    assert noted["confirm still"] == "active"
    # Settings and network.
    assert noted["configuration"] == 0
    assert noted["error text"].startswith("apmpi.yaml:2: sample_rate: unknown key")
    assert noted["reload"] == 0
    assert noted["mended"] == [False, "microphone: {device: x}"]
    assert noted["page"] == 0
    assert noted["page's"] == ["microphone: {device: y}", "microphone: {device: x}"]
    assert noted["page's in use"] == noted["page's"]
    assert noted["network"] == 0
    assert noted["network text"] == "network.yaml: is a folder, expected a YAML file"
    assert noted["keys"].startswith("ssh-ed25519 ")
    assert noted["host key"] == 0 and noted["ssh"]
    assert noted["page with a mistake in network.yaml"] == "inactive"
    assert noted["network again"] == 0 and noted["page's socket"]
    assert noted["name"] == "kitchen"
    assert noted["password"][1].startswith("scrypt ")
    assert noted["password"][0] == f'page_password: "{noted["password"][1]}"'
    # A card that comes later, and the report of a trial that failed.
    assert noted["hotplug"] == 0 and noted["started"]
    assert noted["returned"] == 0
    assert noted["report"].startswith("update failed: version 3.0 did not get as far as sound")
    # An update over HTTPS, fetched by a user of its own, and refused by root, since it is none.
    fetch = noted["fetch"]
    assert fetch["network"] == 0 and fetch["timer"] and "04:15:00 UTC" in fetch["time"]
    assert fetch["started"] == 0 and fetch["refused"] and fetch["idle"]
    assert fetch["text"].startswith("update refused: apmpi.update: not an update")
    assert (fetch["owner"], fetch["left"]) == ("apmpi-fetch", [])
    assert fetch["again"] == 0 and fetch["unreachable"] and fetch["idle again"]
    assert fetch["unreachable text"] == "updates: URL/pi3-pi4.index: cannot be fetched (Connection refused)"
    assert noted["boot"] == "ro"
    assert noted["failed"] == ""
    assert not (folder / "not restarted").exists()
