"""`make test-deb`: the Debian package in bare roots of its releases, with a real systemd; some minutes each.

Installed, set up, reloaded, upgraded, removed and purged (deb_scenario.sh). Needs root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from daemon import impulse_response, write
from deb import VERSION_SUFFIX, build_root
from roots import PROJECT, RELEASES, Root, packed, run
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

# piuparts in a root of its own: $1. It makes device nodes, which only the machine's root may.
PIUPARTS = r"""
cp --remove-destination /etc/resolv.conf "$1/etc/resolv.conf"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/tmp"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp LC_ALL=C.UTF-8
exec chroot "$1" piuparts --distribution="$2" \
    --basetgz=/root/bare.tgz --mirror='http://deb.debian.org/debian main' --no-eatmydata /root/apmpi.deb
"""

# In an emulator, without systemd: installed, and a recording processed by the NEON kernels.
ARM64 = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet update
apt-get --quiet install --yes --no-install-recommends /given/apmpi.deb
cd /results
apmpi --version >version
apmpi process --mic /given/call.wav -o clean.wav
python3 -c 'from apmpi.api.apm import KERNELS; print(KERNELS)' >kernels
apmpi doctor --no-sound >doctor || true
apt-get --quiet purge --yes apmpi
if id apmpi; then exit 1; fi
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(params=RELEASES)
def results(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The files that deb_scenario.sh has written."""
    release = request.param
    package = built(release)
    given = tmp_path / "given"
    for name in ("first", "second"):
        (given / name).mkdir(parents=True)
    shutil.copy(package, given / "first")
    _newer(package, tmp_path / "unpacked", given / "second" / package.name)
    (given / "release").write_text(release)
    # Both directions of the cable are room cards, too: the kernel here has no snd-aloop.
    cable = (PROJECT / "tests/loopback.conf").read_text()
    (given / "room.conf").write_text(ROOM + cable)
    rng = np.random.default_rng(1)
    write(given / "room.wav", impulse_response(rng))
    write(given / "call.wav", rng.uniform(-0.1, 0.1, 48000))
    bare = packed(Root(release, "amd64", BARE_PACKAGES))
    unpacked(bare, tmp_path / "root")
    subprocess.run([sys.executable, HERE / "deb_namespace.py", "boot", tmp_path], check=True)
    print((given / "console").read_text()[-3000:], (given / "log").read_text())
    found = {path.name: path.read_text() for path in sorted((given / "results").iterdir())}
    for name, text in found.items():
        print(f"---- {name}\n{text[-2000:]}")
    found["release"] = release
    return found


def unpacked(tar: Path, folder: Path) -> Path:
    folder.mkdir()
    command = ["tar", "--extract", f"--file={tar}", f"--directory={folder}", "--exclude=./dev/*"]
    subprocess.run(command, check=True)
    return folder


def built(release: str, architecture: str = "amd64") -> Path:
    packages = sorted((PROJECT / "build/deb" / release).glob(f"apmpi_{version()}*_{architecture}.deb"))
    assert packages, f"build/deb/{release} has no package of version {version()}, expected `make deb`"
    return packages[-1]


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

    assert results["upgraded_version"] == f"apmpi\t1:{version()}{VERSION_SUFFIX[results['release']]}\n"
    assert "ActiveState=active\n" in results["upgraded"]
    assert results["configuration_upgraded"] == results["configuration"]
    assert "goes on from what was learned before" in results["continued"]

    assert results["removed"].strip() in ("inactive", "unknown", "failed")
    assert results["user_left.status"] != "0\n"
    left = set(results["after"].splitlines()) - set(results["before"].splitlines())
    assert not [path for path in left if not RECORDS.match(path)]


@pytest.mark.parametrize("release", RELEASES)
def test_piuparts(release: str, tmp_path: Path) -> None:
    """Debian's own test: install, upgrade, remove and purge leave no file and no error."""
    root = unpacked(packed(Root("trixie", "amd64", ("piuparts", "ca-certificates"))), tmp_path / "root")
    shutil.copy(built(release), root / "root/apmpi.deb")
    with (root / "root/bare.tgz").open("wb") as bare:
        tar = packed(Root(release, "amd64", BARE_PACKAGES))
        subprocess.run(["gzip", "-1", "--stdout", tar], stdout=bare, check=True)
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    done = subprocess.run(
        [*unshare, "bash", "-euc", PIUPARTS, "piuparts", root, release],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    print(done.stdout[-5000:])
    assert done.returncode == 0
    assert "PASS: All tests." in done.stdout


@pytest.mark.parametrize("release", RELEASES)
def test_arm64(release: str, tmp_path: Path) -> None:
    write(tmp_path / "call.wav", np.random.default_rng(1).uniform(-0.1, 0.1, 48000))
    with tarfile.open(tmp_path / "given.tar", "w") as tar:
        tar.add(built(release, "arm64"), "apmpi.deb")
        tar.add(tmp_path / "call.wav", "call.wav")
    results = tmp_path / "results"
    root = packed(build_root(release, "arm64"))  # a root of its own would take ten minutes more
    assert run(root, ARM64, tmp_path / "given.tar", results) == 0
    assert (results / "version").read_text() == f"apmpi {version()}\n"
    assert (results / "kernels").read_text() == "neon\n"
    assert soundfile.info(results / "clean.wav").frames == 48000
    assert "neon kernels" in (results / "doctor").read_text()
