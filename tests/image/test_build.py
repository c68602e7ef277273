"""Properties of the image that can be checked without building it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import drivers
import licences
import manifest
import package
import pytest
import sbom
from apmpi_appliance import slots

import build
import debian

IMAGE = Path(__file__).parents[2] / "image"
ROOT = IMAGE / "root"
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-checkbuilddeps") is None, reason="dpkg-dev is missing")
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
        files = [unit] if unit.is_file() else unit.glob("*.conf")
        text = "".join(file.read_text() for file in files)
        for module in re.findall(r"python3 -m (\S+)", text):
            assert (IMAGE / f"{module.replace('.', '/')}.py").exists(), f"{unit.name}: {module}"
        for program in re.findall(r"=[-+]*/(usr/lib/apmpi/\S+)", text):
            assert (ROOT / program).stat().st_mode & 0o111, f"{unit.name}: {program}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_units_are_valid(tmp_path: Path) -> None:
    for unit in UNITS:
        if unit.is_file():
            # Programs are searched on this machine, which lacks the appliance's.
            text = re.sub(r"(?m)^(Exec\w+)=.*$", r"\1=/bin/true", unit.read_text())
            (tmp_path / unit.name).write_text(text)
    for unit in sorted(tmp_path.iterdir()):
        command = ["systemd-analyze", "verify", "--man=no", unit]
        said = subprocess.run(command, capture_output=True, text=True)
        complaints = [line for line in said.stderr.splitlines() if f"{unit}:" in line]
        assert not complaints, complaints


def test_no_unit_of_the_image_needs_one_that_is_masked() -> None:
    for unit in UNITS:
        text = unit.read_text() if unit.is_file() else ""
        needed = set(re.findall(r"^(?:Requires|Wants|After)=(.*)$", text, re.MULTILINE))
        assert not {name for line in needed for name in line.split()} & set(build.MASKED), unit.name


def test_one_name_for_each_partition() -> None:
    """Python, initramfs, fstab and units name the same partitions."""
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


DEP5 = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2001 Somebody
License: GPL-2+

Files: lib/*
Copyright: 2001 Somebody
License: LGPL-2.1+ or BSD-3-clause

Files: data/*
Copyright: none
License: public-domain
 Do what you like.
 .
 Really.

License: GPL-2+
 See /usr/share/common-licenses/GPL-2.
"""
STATUS = (
    "Package: alsa-utils\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1.2.14-1\n\n"
    "Package: libc6\nStatus: install ok installed\nArchitecture: arm64\nSource: glibc (2.41-1)\n"
    "Version: 2.41-1+b1\nDescription: a library\n with a second line\n\n"
    "Package: gone\nStatus: deinstall ok config-files\nArchitecture: arm64\nVersion: 1\n"
)


@pytest.mark.parametrize("downloads", ["", "https://example.org/apmpi/"])
def test_the_list_for_raspberry_pi_imager(tmp_path: Path, downloads: str) -> None:
    """The fields that its schema-notes.md requires, with their types, and what it compares after writing."""
    image, compressed = tmp_path / "apmpi-0.1.0-arm64.img", tmp_path / "apmpi-0.1.0-arm64.img.xz"
    image.write_bytes(b"card" * 100_000)
    compressed.write_bytes(lzma.compress(image.read_bytes()))
    content = json.loads(manifest.manifest(image, compressed, "0.1.0", build.BOARD, 0, downloads))
    (entry,) = content["os_list"]
    texts = ("name", "description", "icon", "url", "extract_sha256", "release_date", "init_format")
    assert all(isinstance(entry[name], str) and entry[name] for name in texts)
    assert entry["url"] == f"{downloads or tmp_path.as_uri() + '/'}{compressed.name}"
    assert entry["release_date"] == "1970-01-01" and entry["init_format"] == "cloudinit"
    unpacked = lzma.decompress(compressed.read_bytes())
    assert entry["extract_size"] == len(unpacked)
    assert entry["extract_sha256"] == hashlib.sha256(unpacked).hexdigest()
    assert entry["image_download_size"] == compressed.stat().st_size
    assert entry["image_download_sha256"] == hashlib.sha256(compressed.read_bytes()).hexdigest()
    # Each board that is offered leads to the image.
    tags = {tag for device in content["imager"]["devices"] for tag in device["tags"]}
    assert set(entry["devices"]) == tags == {"pi3-64bit", "pi4-64bit"}
    assert base64.b64decode(entry["icon"].partition(",")[2]).startswith(b"<svg ")


def test_bill_of_materials() -> None:
    copyrights = {"alsa-utils": DEP5, "libc6": "Free text about a licence.\n"}
    document = json.loads(sbom.document(STATUS, copyrights, "0.1.0", 0))
    entries = {entry["name"]: entry for entry in document["packages"]}
    assert list(entries) == ["apmpi", "alsa-utils", "libc6"]
    assert entries["libc6"]["versionInfo"] == "2.41-1+b1"
    assert entries["libc6"]["sourceInfo"] == "glibc 2.41-1"
    assert document["creationInfo"]["created"] == "1970-01-01T00:00:00Z"
    assert entries["apmpi"]["licenseDeclared"] == "Apache-2.0"
    assert entries["alsa-utils"]["licenseDeclared"] == (
        "GPL-2.0-or-later AND (LGPL-2.1-or-later OR BSD-3-Clause) AND LicenseRef-alsa-utils-public-domain"
    )
    assert entries["libc6"]["licenseDeclared"] == "LicenseRef-glibc-copyright"
    texts = {entry["licenseId"]: entry["extractedText"] for entry in document["hasExtractedLicensingInfos"]}
    assert texts == {
        "LicenseRef-alsa-utils-public-domain": "Do what you like.\n\nReally.",
        "LicenseRef-glibc-copyright": "Free text about a licence.\n",
    }


def test_a_package_without_its_licence_is_in_no_image() -> None:
    with pytest.raises(SystemExit, match=r"/usr/share/doc/libc6/copyright: missing"):
        sbom.document(STATUS, {"alsa-utils": DEP5}, "0.1.0", 0)


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("GPL-2", "GPL-2.0-only"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("Expat", "MIT"),
        ("bsd-3-CLAUSE", "BSD-3-Clause"),
        ("Artistic or GPL-1+", "LicenseRef-x-Artistic OR GPL-1.0-or-later"),
        ("GPL-3+ with Bison exception", "LicenseRef-x-GPL-3-with-Bison-exception"),
        ("ISC or Expat, and Zlib and 0BSD", "(ISC OR MIT) AND (Zlib AND 0BSD)"),
    ],
)
def test_licences_by_their_short_names(name: str, expression: str) -> None:
    text = f"{DEP5.splitlines()[0]}\n\nFiles: *\nLicense: {name}\n"
    declared = licences.declared("x", text, licences.Extracted())
    assert declared in (expression, f"({expression})")


def test_two_texts_of_one_name_are_two_licences() -> None:
    extracted = licences.Extracted()
    assert [extracted.named("x BSD", text) for text in ("a", "b", "a")] == [
        *("LicenseRef-x-BSD", "LicenseRef-x-BSD-2", "LicenseRef-x-BSD"),
    ]


def test_each_copyright_file_is_in_the_image(tmp_path: Path) -> None:
    packages = tmp_path / "debian.tar"
    doc = tmp_path / "usr/share/doc"
    for name in ("gcc-14-base", "busybox"):
        (doc / name).mkdir(parents=True)
        (doc / name / "copyright").write_text(f"licence of {name}")
        (doc / name / "changelog.gz").touch()
    (doc / "libgcc-s1").symlink_to("gcc-14-base")
    (doc / "libgomp1").mkdir()
    (doc / "libgomp1/copyright").symlink_to("../gcc-14-base/copyright")
    with tarfile.open(packages, "w") as tar:
        tar.add(tmp_path / "usr", "./usr")
    with tarfile.open(packages) as tar:
        kept = [name for name in tar.getnames() if not build._is_left_out(name[2:])]
    assert {name for name in kept if name.startswith("./usr/share/doc/") and name.count("/") == 5} == {
        *("./usr/share/doc/gcc-14-base/copyright", "./usr/share/doc/busybox/copyright"),
        "./usr/share/doc/libgomp1/copyright",
    }
    assert "./usr/share/doc/libgcc-s1" in kept
    assert build.copyrights(packages) == {
        "busybox": "licence of busybox",
        **dict.fromkeys(("gcc-14-base", "libgcc-s1", "libgomp1"), "licence of gcc-14-base"),
    }


@pytest.fixture
def apmpi(tmp_path: Path) -> Path:
    """A Debian package with a program, a man page, an example and its licence, and with dependencies."""
    files = tmp_path / "apmpi"
    for name in ("usr/bin/apmpi", "usr/share/man/man1/apmpi.1.gz", "usr/share/doc/apmpi/copyright",
                 "usr/share/doc/apmpi/examples/apmpi.yaml", "DEBIAN/control"):  # fmt: skip
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).touch()
    (files / "usr/bin/apmpi").chmod(0o755)
    (files / "DEBIAN/control").write_text(
        "Package: apmpi\nVersion: 0.1.0\nArchitecture: arm64\nMaintainer: nobody <nobody@example.org>\n"
        "Depends: libc6 (>= 2.41), python3-yaml | alsa-utils, python3:any\nDescription: a package\n"
    )
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", files, tmp_path / "apmpi.deb"], check=True)
    return tmp_path / "apmpi.deb"


@needs_dpkg
def test_the_package_is_unpacked_without_what_is_left_out(apmpi: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    package.unpack(apmpi, tree)
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if not path.is_dir()}
    assert files == {"usr/bin/apmpi", "usr/share/doc/apmpi/copyright"}
    assert not (tree / "usr/share/man").exists()
    assert (tree / "usr/bin/apmpi").stat().st_mode & 0o111


@needs_dpkg
def test_a_dependency_that_is_not_in_the_image_is_named(apmpi: Path) -> None:
    python = (
        "Package: python3\nStatus: install ok installed\nArchitecture: arm64\nMulti-Arch: allowed\n"
        "Version: 3.13.5-1\n\n"
    )
    package.check_dependencies(apmpi, python + STATUS)
    with pytest.raises(SystemExit) as said:
        package.check_dependencies(apmpi, python + STATUS.replace("Version: 2.41-1+b1", "Version: 2.36-9"))
    assert str(said.value) == (
        "image: apmpi.deb depends on libc6 (>= 2.41), expected it in image/packages.txt"
    )
    with pytest.raises(SystemExit, match=r"depends on python3:any, expected"):
        package.check_dependencies(apmpi, STATUS)


def test_the_package_s_dependencies_are_in_the_list() -> None:
    control = (IMAGE.parent / "debian/control").read_text()
    depends = re.search(r"^Package: apmpi\n.*?^Depends: (.*?)^\S", control, re.MULTILINE | re.DOTALL)
    assert depends
    names = re.findall(r"^ *([a-z0-9.+-]+)(?: \(.*\))?,?$", depends[1], re.MULTILINE)
    assert "python3-numpy" in names
    assert {*names, "python3-alsaaudio"} <= set(debian.lines("packages.txt"))


def test_a_driver_whose_module_is_left_out_is_named(tmp_path: Path) -> None:
    """All but one are part of the kernel itself; that one is linked to a module, which is left out or not."""
    usb = b"\0license=GPL\0depends=snd,mc\0retpoline=Y\0"
    builtin = "".join(f"kernel/x/{driver}.ko\n" for driver in drivers.DRIVERS[1:])
    parts = {
        "modules.builtin": builtin.encode() + b"kernel/sound/snd.ko\n",
        "kernel/sound/usb/snd-usb-audio.ko.xz": lzma.compress(usb),
        "kernel/drivers/media/mc/mc.ko": b"\0depends=\0",
    }
    for count in (2, 3):
        with tarfile.open(tmp_path / "packages.tar", "w") as tar:
            for name, content in list(parts.items())[:count]:
                member = tarfile.TarInfo(f"./usr/lib/modules/6.12/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        if count == 3:
            drivers.check(tmp_path / "packages.tar")
            continue
        with pytest.raises(
            SystemExit, match="snd-usb-audio cannot be loaded, the kernel's mc is not in the image"
        ):
            drivers.check(tmp_path / "packages.tar")


def test_the_age_of_the_packages_is_said(tmp_path: Path) -> None:
    packages = tmp_path / "debian.tar"
    packages.touch()
    os.utime(packages, (1793577600, 1793577600))  # 2026-11-02
    assert debian.age(packages, 1793577600 + 26.5 * 86400) == (
        "packages of 2026-11-02 (26 days old); make image RENEW=1 fetches them anew"
    )


def test_the_namespace_runs_a_command_as_its_root() -> None:
    done = subprocess.run(
        [sys.executable, IMAGE.parent / "packaging/namespace.py", "id", "-u"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout.strip() == "0"
