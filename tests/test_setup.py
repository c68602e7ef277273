"""Set-up and test runner: locks, half-made environments, other package managers, and tests that crash."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SETUP = ROOT / ".ci/setup"
LOCKS = ROOT / ".ci/locks"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def locked(purpose: str, python: str) -> dict[str, str]:
    """Return the version of each package that the lock has for this Python on a Raspberry Pi."""
    pi = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "aarch64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    found: dict[str, str] = {}
    for block in re.split(r"^(?=\w)", (LOCKS / f"{purpose}.txt").read_text(), flags=re.MULTILINE):
        if not block.strip():
            continue
        assert "--hash=sha256:" in block, block
        requirement = Requirement(block.split("\\")[0])
        if requirement.marker is None or requirement.marker.evaluate(pi):
            (pin,) = requirement.specifier
            assert pin.operator == "==" and requirement.name not in found
            found[requirement.name] = pin.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("purpose", ["build", "run", "test", "agents", "assistants"])
def test_the_lock_has_what_the_project_asks_for(purpose: str, python: str) -> None:
    asked = subprocess.run(
        [sys.executable, ".ci/requirements.py", purpose], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    pins = locked(purpose, python)
    for requirement in map(Requirement, asked):
        name = requirement.name.lower()
        assert name in pins, f"{requirement} is not in the lock, expected `make lock` after a new dependency"
        assert requirement.specifier.contains(pins[name]), (
            f"{name} is locked at {pins[name]}, not {requirement}"
        )


@pytest.mark.parametrize("python", PYTHONS)
def test_tests_run_with_what_a_user_gets(python: str) -> None:
    assert locked("build", python).items() <= locked("run", python).items() <= locked("test", python).items()


def test_a_half_made_environment_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    process = subprocess.Popen(
        [SETUP, "venv", sys.executable, folder], cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True
    )
    while not folder.exists():
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may hold the package manager's lock")
def test_another_package_manager_is_waited_for(tmp_path: Path) -> None:
    nothing_new = ["env", "LC_ALL=C", "apt-get", "--yes", "--no-upgrade", "install", "dpkg"]
    with Path("/var/lib/dpkg/lock-frontend").open("w") as held:
        # As dpkg does it: a process's lock, from the beginning of the file to its end.
        fcntl.fcntl(held, fcntl.F_SETLKW, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        process = subprocess.Popen(
            [SETUP, "apt_get", *nothing_new], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
    process.communicate(timeout=60)
    print(line)
    assert re.match(r"setup: waiting for another package manager: Could not get lock \S+\. ", line)
    assert f"process {os.getpid()}" in line
    assert process.returncode == 0


CRASHES = """
import ctypes, time

def test_that_crashes():
    ctypes.string_at(0)

def test_that_hangs():
    time.sleep(60)

def test_that_passes():
    pass
"""


def test_what_crashes_or_hangs_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "test_crashes.py").write_text(CRASHES)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--numprocesses=1",
        "--override-ini=faulthandler_timeout=2",
    ]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout)
    assert "Fatal Python error: Segmentation fault" in done.stdout
    for name in ("crashes", "hangs"):
        assert re.search(rf"^FAILED \S*::test_that_{name}\b", done.stdout, re.MULTILINE)
        assert re.search(rf"in test_that_{name}$", done.stdout, re.MULTILINE), "its stack is missing"
    assert "2 failed, 1 passed" in done.stdout
