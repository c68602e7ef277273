"""Packages, as far as that is quick: what they name exists, versions sort, and purge knows what setup writes.

`make test-deb` tries the built package in bare roots.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import deb
import namespace
import numpy as np
import pytest
import release
import roots
import soundfile
import source
import wheels

import apmpi
from apmpi.tools import setup

ROOT = Path(__file__).parents[1]

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-parsechangelog") is None, reason="dpkg-dev is missing")


@needs_dpkg
@pytest.mark.parametrize("release", deb.RELEASES)
def test_the_changelog_has_the_project_s_version(release: str, tmp_path: Path) -> None:
    path = tmp_path / "changelog"
    path.write_text(deb.changelog(release))
    command = ["dpkg-parsechangelog", f"--file={path}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    print(said.stdout)
    assert said.stderr == ""
    assert f"Version: {VERSION}{deb.VERSION_SUFFIX[release]}\n" in said.stdout
    assert f"Distribution: {release}\n" in said.stdout


@needs_dpkg
def test_an_upgrade_of_debian_upgrades_the_package() -> None:
    versions = [f"{VERSION}{deb.VERSION_SUFFIX[release]}" for release in deb.RELEASES]
    for older, newer in zip(versions, [*versions[1:], VERSION], strict=True):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)


@pytest.mark.skipif(platform.libc_ver()[1] != "2.36", reason="wheels are built on Debian 12")
def test_the_wheel_needs_no_newer_c_library_than_its_name_says() -> None:
    libraries = sorted(Path(apmpi.__file__).parent.glob("*.so"))
    assert len(libraries) >= 3
    newest = tuple(map(int, wheels.PLATFORM.split("_")[1:]))
    for library in libraries:
        listed = subprocess.run(["nm", "--dynamic", library], capture_output=True, text=True, check=True)
        used = re.findall(r"\S+@GLIBC_[\d.]+", listed.stdout)
        newer = [name for name in used if tuple(map(int, name.rpartition("_")[2].split("."))) > newest]
        print(f"{library.name}: {len(used)} symbols of glibc")
        assert used
        assert not newer, f"{library.name}: {newer}"


def test_the_package_s_files_are_there() -> None:
    for name in ("docs", "examples", "manpages", "pipewire-apmpi.docs"):
        for pattern in (ROOT / "debian" / name).read_text().split():
            assert list(ROOT.glob(pattern)), f"debian/{name}: {pattern}"
    rules = (ROOT / "debian/rules").read_text()
    sources = re.findall(r"^\t(?:install -D -m 644|cp) (\S+)", rules, re.MULTILINE)
    assert len(sources) >= 8
    for name in sources:
        assert (ROOT / name).is_file(), f"debian/rules: {name}"
    # What is copied into debian/ is removed by a clean-up.
    copied = re.findall(r"^\tcp \S+ (debian/\S+)$", rules, re.MULTILINE)
    assert copied == (ROOT / "debian/clean").read_text().split()[::-1]


def test_what_switches_pipewire_on_is_where_the_package_puts_it() -> None:
    rules = (ROOT / "debian/rules").read_text()
    found = re.search(r"config/pipewire-apmpi\.conf \$\(PIPEWIRE\)(\S+)", rules)
    assert found
    for name in ("debian/pipewire-apmpi.README.Debian", "docs/pipewire.md"):
        assert f"ln -s {found[1]} ~/.config/pipewire/pipewire.conf.d/\n" in (ROOT / name).read_text()


def test_purge_removes_what_setup_writes() -> None:
    removed = re.findall(r"^    rm .*$", (ROOT / "debian/postrm").read_text(), re.MULTILINE)
    paths = " ".join(removed).split()
    assert {str(setup.CONFIG.parent), str(setup.MODULES), str(setup.SOUND_MARK.parent)} <= set(paths)


def test_the_source_has_all_files(tmp_path: Path) -> None:
    source.write_source(tmp_path / "source.tar", {"debian/changelog": "text"})
    with tarfile.open(tmp_path / "source.tar") as tar:
        names = set(tar.getnames())
        owners = {member.uid for member in tar}
    listed = subprocess.run(
        ["git", "ls-files", "native", "apmpi"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {f"apmpi/{name}" for name in [*listed.stdout.split(), "debian/changelog"]} <= names
    assert owners == {0}
    assert not [name for name in names if "/build/" in name or "/.venv" in name]


@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is missing")
def test_a_root_is_made_once_for_its_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "CACHE", tmp_path)

    def make(path: Path) -> int:
        path.write_text("half a root" if fails else "a root")
        return int(fails)

    fails = True
    with pytest.raises(SystemExit, match="a root trixie cannot be made"):
        roots.kept("trixie", ["make", "git"], make)
    assert not list(tmp_path.glob("*.tar"))
    fails = False
    tar = roots.kept("trixie", ["make", "git"], make)
    assert tar.read_text() == "a root"
    fails = True  # and would be noticed
    assert roots.kept("trixie", ["make", "git"], make) == tar
    fails = False
    assert roots.kept("trixie", ["make"], make) != tar


def test_the_range_of_ids_is_found_without_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package is built with few variables, and USER is none of them."""
    monkeypatch.delenv("USER", raising=False)
    name = pwd.getpwuid(os.getuid()).pw_name
    ranges = tmp_path / "subuid"
    ranges.write_text(f"another:100000:65536\n{name}:165536:65536\n")
    assert namespace._subordinate_ids(ranges) == "165536"


# On the path of a program: nothing of alsa-lib can be loaded.
WITHOUT_ALSA = """
import ctypes
import sys

class Library(ctypes.CDLL):
    def __init__(self, name, *arguments, **options):
        if name == "libasound.so.2":
            raise OSError("libasound.so.2: cannot open shared object file")
        super().__init__(name, *arguments, **options)

ctypes.CDLL = Library

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("alsaaudio", "apmpi._cards"):
            raise ImportError("libasound.so.2: no such file", name=name.rpartition(".")[2])

sys.meta_path.insert(0, Missing())
"""


def test_what_devices_need_is_said(tmp_path: Path) -> None:
    """Without pyalsaaudio or alsa-lib, processing works, and whatever opens a device says what is missing."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_ALSA)
    program = "import apmpi; apmpi.AudioProcessingModule(); apmpi.MediaDevices"

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)

    said = run(sys.executable, "-P", "-c", program).stderr
    assert said.splitlines()[-1].startswith(
        "ImportError: microphones and loudspeakers need alsa-lib and pyalsaaudio (libasound.so.2: no"
    )
    apmpi = Path(sys.executable).with_name("apmpi")
    for command in (["doctor"], ["setup"], ["run", "--config", ROOT / "config" / "apmpi.yaml"]):
        done = run(apmpi, *command)
        assert done.returncode == 2
        assert done.stderr.startswith("apmpi: microphones and loudspeakers need alsa-lib and pyalsaaudio")
        assert done.stderr.count("\n") == 1
    soundfile.write(tmp_path / "mic.wav", np.zeros(4410, np.int16), 44100)
    done = run(apmpi, "process", "--mic", tmp_path / "mic.wav", "-o", tmp_path / "out.wav")
    assert done.returncode == 0, done.stderr


def test_release_notes_are_the_version_s_part_of_the_changelog() -> None:
    changelog = (
        "# Changelog\n\n## Unreleased\n\n- later\n\n## 0.2.0 - 2027-01-02\n\n- new\n\n## 0.1.0\n\n- first\n"
    )
    assert release.release_notes(changelog, "0.2.0") == "- new\n"
    assert release.release_notes(changelog, "0.1.0") == "- first\n"
    with pytest.raises(ValueError, match=r"no part on 0\.3\.0, expected a heading ## 0\.3\.0"):
        release.release_notes(changelog, "0.3.0")


def test_a_release_is_of_one_version(tmp_path: Path) -> None:
    names = ["apmpi_0.2.0~deb13_arm64.deb", "pipewire-apmpi_0.2.0~deb13_arm64.deb"]
    names += ["apmpi-0.2.0-cp311-abi3-manylinux_2_34_x86_64.whl", "apmpi-0.2.0.tar.gz"]
    files = [tmp_path / name for name in names]
    for file in files:
        file.write_text(file.name)
    release.check_files(files, "0.2.0")
    (tmp_path / "SHA256SUMS").write_text(release.checksums(tmp_path))
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True)

    older = tmp_path / "apmpi_0.1.0~deb13_arm64.deb"
    older.touch()
    with pytest.raises(ValueError, match=r"is of another version, expected 0\.2\.0"):
        release.check_files([*files, older], "0.2.0")
    index = tmp_path / "pi3-pi4.index"
    for number, is_good in (("0.2.0", True), ("0.1.0", False)):
        index.write_text(f"apmpi index\nversion {number}\nboard pi3-pi4\n")
        with contextlib.nullcontext() if is_good else pytest.raises(ValueError, match="of another version"):
            release.check_files([index], "0.2.0")
    with pytest.raises(ValueError, match="is missing, expected it to be built"):
        release.check_files([tmp_path / "apmpi-0.2.0.whl"], "0.2.0")
    (tmp_path / "other").mkdir()
    same = Path(shutil.copy(files[0], tmp_path / "other"))
    with pytest.raises(ValueError, match="have one name, expected two"):
        release.check_files([*files, same], "0.2.0")
