"""What of the image can be checked without building it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import debian
import pytest
import sbom
from apmpi_appliance import slots

import build

IMAGE = Path(__file__).parents[2] / "image"
ROOT = IMAGE / "root"
UNITS = sorted((ROOT / "usr/lib/systemd/system").glob("*.*"))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_the_initramfs_part_is_an_archive(tmp_path: Path) -> None:
    done = subprocess.run(
        ["cpio", "--extract", "--make-directories", "--quiet"],
        input=build._initramfs_part(), cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    script = tmp_path / "scripts/apmpi"
    assert script.read_bytes() == (IMAGE / "initramfs/scripts/apmpi").read_bytes()
    assert len(build._initramfs_part()) % 4 == 0


@pytest.mark.parametrize(
    "script",
    [IMAGE / "initramfs/scripts/apmpi", *sorted((ROOT / "usr/lib/apmpi").iterdir())],
    ids=lambda path: path.name,
)
def test_shell_scripts_parse(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)


def test_units_start_what_is_there() -> None:
    assert len(UNITS) >= 8
    for unit in UNITS:
        text = unit.read_text() if unit.is_file() else (unit / "appliance.conf").read_text()
        for module in re.findall(r"python3 -m (\S+)", text):
            assert (IMAGE / f"{module.replace('.', '/')}.py").exists(), f"{unit.name}: {module}"
        for program in re.findall(r"=[-+]*/(usr/lib/apmpi/\S+)", text):
            assert (ROOT / program).stat().st_mode & 0o111, f"{unit.name}: {program}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_units_are_valid(tmp_path: Path) -> None:
    for unit in UNITS:
        if unit.is_file():
            # Programs are looked for on this machine, where the appliance's are not.
            text = re.sub(r"(?m)^(Exec\w+)=.*$", r"\1=/bin/true", unit.read_text())
            (tmp_path / unit.name).write_text(text)
    for unit in sorted(tmp_path.iterdir()):
        command = ["systemd-analyze", "verify", "--man=no", unit]
        said = subprocess.run(command, capture_output=True, text=True)
        complaints = [line for line in said.stderr.splitlines() if f"{unit}:" in line]
        assert not complaints, complaints


def test_one_name_for_each_partition() -> None:
    """Python, initramfs, fstab and units mean the same card."""
    files = [IMAGE / "initramfs/scripts/apmpi", ROOT / "etc/fstab", ROOT / "usr/lib/apmpi/mount-data", *UNITS]
    named = set()
    for file in files:
        text = file.read_text() if file.is_file() else ""
        named |= set(re.findall(r"\b([0-9a-f]{8})(?:-|\\x2d)(0[1-4])\b", text))
    assert named == {(slots.DISK_ID, "01"), (slots.DISK_ID, "04")}


def test_lists_have_no_comments_in_them() -> None:
    packages = debian.lines("packages.txt")
    assert "linux-image-arm64" in packages
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name) for name in packages)
    assert all(pattern.startswith("/usr/") for pattern in debian.lines("left-out.txt"))


def test_bill_of_materials() -> None:
    status = (
        "Package: alsa-utils\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1.2.14-1\n\n"
        "Package: libc6\nStatus: install ok installed\nArchitecture: arm64\nSource: glibc (2.41-1)\n"
        "Version: 2.41-1+b1\nDescription: a library\n with a second line\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: arm64\nVersion: 1\n"
    )
    document = json.loads(sbom.document(status, "0.1.0", 0))
    entries = {entry["name"]: entry for entry in document["packages"]}
    assert list(entries) == ["apmpi", "alsa-utils", "libc6"]
    assert entries["libc6"]["versionInfo"] == "2.41-1+b1"
    assert entries["libc6"]["sourceInfo"] == "glibc 2.41-1"
    assert document["creationInfo"]["created"] == "1970-01-01T00:00:00Z"


def test_the_namespace_runs_a_command_as_its_root() -> None:
    done = subprocess.run(
        [sys.executable, IMAGE / "namespace.py", "id", "-u"], capture_output=True, text=True, timeout=60
    )
    if done.returncode != 0:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout.strip() == "0"
