"""`make test-deb`: the Debian package in bare roots of its releases, with a real systemd; some minutes each.

Installed, set up, reloaded, upgraded, removed and purged (deb_scenario.sh). Needs root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from daemon import impulse_response, write
from deb import VERSION_SUFFIX
from roots import PROJECT, RELEASES, Root, packed
from source import version

HERE = Path(__file__).parent

ROOM = """
pcm_type.apmpi_room { lib "/usr/lib/python3/dist-packages/apmpi/libasound_module_pcm_apmpi_room.so" }
pcm.room { type apmpi_room card "room" impulse_response "/test/room.wav" delay_ms 30 noise_dbfs -75 }
"""
# The first boots, the second has userdel; any Debian has both.
BARE_PACKAGES = ("systemd", "passwd")
# Files that name the package and are not its own: records of package tools and of systemd.
RECORDS = re.compile(r"/(var/cache/apt|var/log|var/lib/(dpkg|apt)|test|run|proc|sys|tmp)/")


@pytest.fixture(params=RELEASES)
def results(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The files that deb_scenario.sh has written."""
    if os.geteuid() != 0:
        pytest.skip("a root with systemd can be booted by root only")
    release = request.param
    packages = sorted((PROJECT / "build/deb" / release).glob(f"apmpi_{version()}*_amd64.deb"))
    assert packages, f"build/deb/{release} has no package of version {version()}, expected `make deb`"
    given = tmp_path / "given"
    for name in ("first", "second"):
        (given / name).mkdir(parents=True)
    shutil.copy(packages[-1], given / "first")
    _newer(packages[-1], tmp_path / "unpacked", given / "second" / packages[-1].name)
    (given / "release").write_text(release)
    # Both directions of the cable are room cards, too: the kernel here has no snd-aloop.
    cable = (PROJECT / "tests/loopback.conf").read_text()
    (given / "room.conf").write_text(ROOM + cable)
    rng = np.random.default_rng(1)
    write(given / "room.wav", impulse_response(rng))
    write(given / "call.wav", rng.uniform(-0.1, 0.1, 48000))
    bare = packed(Root(release, "amd64", BARE_PACKAGES))
    (tmp_path / "root").mkdir()
    unpack = ["tar", "--extract", f"--file={bare}", f"--directory={tmp_path / 'root'}", "--exclude=./dev/*"]
    subprocess.run(unpack, check=True)
    subprocess.run([sys.executable, HERE / "deb_namespace.py", "boot", tmp_path], check=True)
    print((given / "console").read_text()[-3000:], (given / "log").read_text())
    found = {path.name: path.read_text() for path in sorted((given / "results").iterdir())}
    for name, text in found.items():
        print(f"---- {name}\n{text[-2000:]}")
    found["release"] = release
    return found


def _newer(package: Path, folder: Path, target: Path) -> None:
    """Write the same package with a higher version."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder], check=True)
    control = folder / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: ", r"\g<0>1:", control.read_text()))
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", folder, target], check=True)


def test_the_package_lives_and_leaves(results: dict[str, str]) -> None:
    must_succeed = (
        "install user version catalog api recordings setup reload upgrade upgraded_sound remove kept"
    )
    for name in (*must_succeed.split(), "purge"):
        assert results[f"{name}.status"] == "0\n", f"{name}: {results[name]}"
    print(f"{results['release']}: installed in {results['install_s'].strip()} s")
    # Enabled, and not started without a configuration.
    assert "ActiveState=inactive\n" in results["installed"]
    assert "UnitFileState=enabled\n" in results["installed"]
    assert "audio" in results["user"]
    assert results["version"] == f"apmpi {version()}\n"
    assert "apmpi: Sound was lost in an xrun" in results["catalog"]
    assert "sound flows" in results["setup"]
    assert "ActiveState=active\n" in results["running"]

    assert results["upgraded_version"] == f"1:{version()}{VERSION_SUFFIX[results['release']]}"
    assert "ActiveState=active\n" in results["upgraded"]
    assert results["configuration_upgraded"] == results["configuration"]
    assert "goes on from what was learned before" in results["continued"]

    assert results["removed"].strip() in ("inactive", "unknown", "failed")
    assert results["user_left.status"] != "0\n"
    left = set(results["after"].splitlines()) - set(results["before"].splitlines())
    assert not [path for path in left if not RECORDS.match(path)]
