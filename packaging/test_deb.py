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
from deb import VERSION_SUFFIX
from roots import CERTIFICATES, PROJECT, RELEASES, Root, packed, run
from source import version
from wheels import TEST_PACKAGES

HERE = Path(__file__).parent

ROOM = """
pcm_type.apmpi_room { lib "/usr/lib/python3/dist-packages/apmpi/libasound_module_pcm_apmpi_room.so" }
pcm.room { type apmpi_room card "room" impulse_response "/test/room.wav" delay_ms 30 noise_dbfs -75 }
"""
# The first boots, the second has userdel; any Debian has both.
BARE_PACKAGES = ("systemd", "passwd")
PACKAGES = ("apmpi", "pipewire-apmpi")
# Files that name the package and are not its own: records of package tools and of systemd.
RECORDS = re.compile(r"/(var/cache/apt|var/log|var/lib/(dpkg|apt)|test|run|proc|sys|tmp)/")

# Enters the root $1 as the machine's root, who may make device nodes (piuparts) and give real-time priority
# (PipeWire), and runs the shell text $2 there.
ENTER = r"""
cp --remove-destination /etc/resolv.conf "$1/etc/resolv.conf"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/tmp"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp LC_ALL=C.UTF-8
exec chroot "$1" bash -euo pipefail -c "$2"
"""

# As a user of PipeWire: installed, switched on as README.Debian says, tried by the project's tests
# and purged. Those tests need the package apmpi.
PIPEWIRE = r"""
export DEBIAN_FRONTEND=noninteractive
mkdir /results
install="apt-get --quiet install --yes --no-install-recommends"
apt-get --quiet update
$install /given/pipewire-apmpi.deb pipewire wireplumber
export XDG_RUNTIME_DIR=/tmp/runtime
devices() { # the names of what PipeWire has when it is started as the user configured it
    mkdir -p $XDG_RUNTIME_DIR
    pipewire &
    timeout 30 sh -c 'until [ -S $XDG_RUNTIME_DIR/pipewire-0 ]; do sleep 0.1; done'
    pw-dump | grep '"node.name"' || true
    kill $!
    wait $! || true
    rm -r $XDG_RUNTIME_DIR
}
devices >/results/installed
sed -n 's/^    \(mkdir\|ln\) /\1 /p' /usr/share/doc/pipewire-apmpi/README.Debian >switch-on
bash -eux switch-on
devices >/results/switched_on

$install /given/apmpi.deb dbus-daemon
python3 -m venv --system-site-packages /tmp/venv
/tmp/venv/bin/pip --quiet --no-cache-dir --disable-pip-version-check install --only-binary :all: \
    pytest pytest-xdist hypothesis scipy pystoi
cd /given/apmpi
/tmp/venv/bin/pytest -q -s -p no:cacheprovider tests/test_pipewire.py

apt-get --quiet purge --yes pipewire-apmpi
devices >/results/purged
if find /usr -path '*aec-apmpi*' | grep .; then exit 1; fi
"""

# In an emulator, with userdel and without systemd: installed, and a recording processed by the NEON kernels.
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


def entered(root: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run shell text in an unpacked root, in namespaces that end with it."""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    done = subprocess.run(
        [*unshare, "bash", "-euc", ENTER, "enter", root, text],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    print(done.stdout[-5000:])
    return done


def built(release: str, architecture: str = "amd64", package: str = "apmpi") -> Path:
    packages = sorted((PROJECT / "build/deb" / release).glob(f"{package}_{version()}*_{architecture}.deb"))
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
    for package in PACKAGES:
        shutil.copy(built(release, package=package), root / f"root/{package}.deb")
    with (root / "root/bare.tgz").open("wb") as bare:
        tar = packed(Root(release, "amd64", BARE_PACKAGES))
        subprocess.run(["gzip", "-1", "--stdout", tar], stdout=bare, check=True)
    command = f"piuparts --distribution={release} --basetgz=/root/bare.tgz --no-eatmydata"
    command += " --mirror='http://deb.debian.org/debian main'"
    done = entered(root, " ".join([command, *(f"/root/{package}.deb" for package in PACKAGES)]))
    assert done.returncode == 0
    assert "PASS: All tests." in done.stdout


@pytest.mark.parametrize("release", RELEASES)
def test_the_plugin_in_debian_s_pipewire(release: str, tmp_path: Path) -> None:
    root = unpacked(packed(Root(release, "amd64", TEST_PACKAGES)), tmp_path / "root")
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    project = root / "given/apmpi"
    project.mkdir(parents=True)
    for package in PACKAGES:
        shutil.copy(built(release, package=package), root / f"given/{package}.deb")
    for name in ("tests", "config"):
        shutil.copytree(PROJECT / name, project / name)
    shutil.copy(PROJECT / "pyproject.toml", project)
    assert entered(root, PIPEWIRE).returncode == 0
    # Nothing is switched on by the installation, and a link that is left over does no harm.
    devices = {path.name: path.read_text() for path in (root / "results").iterdir()}
    print(devices)
    assert "apmpi_microphone" in devices["switched_on"] and "apmpi_speaker" in devices["switched_on"]
    assert all("Dummy-Driver" in names for names in devices.values())
    assert "apmpi" not in devices["installed"] + devices["purged"]


@pytest.mark.parametrize("release", RELEASES)
def test_arm64(release: str, tmp_path: Path) -> None:
    write(tmp_path / "call.wav", np.random.default_rng(1).uniform(-0.1, 0.1, 48000))
    with tarfile.open(tmp_path / "given.tar", "w") as tar:
        tar.add(built(release, "arm64"), "apmpi.deb")
        tar.add(tmp_path / "call.wav", "call.wav")
    results = tmp_path / "results"
    root = packed(Root(release, "arm64", ("passwd",)))
    assert run(root, ARM64, tmp_path / "given.tar", results) == 0
    assert (results / "version").read_text() == f"apmpi {version()}\n"
    assert (results / "kernels").read_text() == "neon\n"
    assert soundfile.info(results / "clean.wav").frames == 48000
    assert "neon kernels" in (results / "doctor").read_text()
