"""`make image`: the image for the SD card, an update for cards that have one, and lists.

    build.py FOLDER [--pi5] [--renew] [--downloads URL]

    debian.py    Debian's packages as one tar file, which is kept         minutes, once
    drivers.py   are the drivers in it complete?
    package.py   apmpi's own package, as `make deb` builds it             minutes
    build.py     both and root/ -> root file system (squashfs) -> SD card image

Nothing needs root or a loop device. All files have the commit's time and all identifiers are fixed, so that
the same commit and the same packages give the same image, bit by bit; the list names the packages.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import time
import tomllib
from pathlib import Path

import drivers
import manifest
import package
import sbom
from apmpi_appliance import index, slots, update

import debian

HERE = Path(__file__).parent
PROJECT = HERE.parent
DIST_PACKAGES = "usr/lib/python3/dist-packages"
# Size for two versions of the firmware's files and an update; and for a root file system that grows.
BOOT_SIZE = "448M"
ROOT_SIZE = "320M"
# And one for an update that was fetched, beside what is learned.
DATA_SIZE = "384M"
DATA_UUID = "a9d10001-0000-4000-8000-000000000004"
WANTS = "etc/systemd/system"
# The licences require each package's copyright file. Some folders are links to another package's.
DOC = "usr/share/doc/"
LICENCE_FILES = re.compile(DOC + r"[^/]+(/copyright)?")
# The boards of an image and its updates; an update for other boards is refused.
BOARD, BOARD_PI5 = "pi3-pi4", "pi5"
# Left out of Debian's tar: files of package tools, of the boot partition, and those that the kernel makes.
LEFT_OUT = (
    *("dev/", "run/", "boot/", "var/cache/", "var/log/", "var/lib/apt/", "var/lib/dpkg/"),
    *("usr/lib/raspi-firmware/", "usr/lib/linux-image", "usr/lib/klibc/", "usr/share/initramfs-tools/"),
    *("usr/share/sounds/", "usr/share/doc/", "var/lib/initramfs-tools/"),
    # Services that the image does not run, and SSH, which apmpi-network.service starts.
    *(f"{WANTS}/multi-user.target.wants/", f"{WANTS}/getty.target.wants/", f"{WANTS}/timers.target.wants/"),
    *("etc/resolv.conf", "etc/.resolv.conf"),
    *(f"{WANTS}/sysinit.target.wants/systemd-{name}.service" for name in ("pstore", "resolved")),
    # apmpi-gadget.service requires it, where there is a port for it.
    "usr/lib/systemd/system/sysinit.target.wants/sys-kernel-config.mount",
)
# Started by apmpi-network.service, after the sound and unless network.yaml switches it off.
STARTED_LATER = ("apmpi-web.socket",)
# Masked, because each start of a program before the sound costs 0.02 to 0.1 s of one core:
MASKED = (
    # what the build has done;
    *("ldconfig.service", "systemd-hwdb-update.service", "systemd-firstboot.service"),
    # file systems and programs of other processors, which nothing here uses;
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service"),
    # nodes for modules that are loaded when they are opened (tun, fuse, loop), none of which is;
    *("kmod-static-nodes.service", "systemd-tmpfiles-setup-dev-early.service"),
    "systemd-tmpfiles-setup-dev.service",
    # what needs a disk that remembers: seed, log, mixer settings (udev's rule sets each card's defaults), and
    # options of a root file system in fstab;
    *("systemd-random-seed.service", "systemd-journal-flush.service", "alsa-restore.service"),
    "systemd-remount-fs.service",
    # udev's rules in credentials of a virtual machine.
    "systemd-udev-load-credentials.service",
)
# systemd's generators that find nothing here; the others read fstab and the kernel's command line.
MASKED_GENERATORS = (
    *("getty", "gpt-auto", "hibernate-resume", "rc-local", "run", "ssh", "system-update", "sysv", "tpm2"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="The image for the SD card.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pi5", action="store_true", help="with the kernel of Debian's backports")
    parser.add_argument("--renew", action="store_true", help="fetch Debian's packages anew")
    text = "where the image will be, for Raspberry Pi Imager (default: the file here)"
    parser.add_argument("--downloads", metavar="URL", default="", help=text)
    given = parser.parse_args()
    folder: Path = given.folder
    epoch = _commit_time()
    version = _version()
    board = BOARD_PI5 if given.pi5 else BOARD
    os.environ.update(
        SOURCE_DATE_EPOCH=str(epoch), E2FSPROGS_FAKE_TIME=str(epoch), TZ="UTC", LC_ALL="C.UTF-8"
    )
    _say("Debian packages (minutes, once)")
    packages = debian.build(folder, backports_kernel=given.pi5, renew=given.renew)
    _say(debian.age(packages, time.time()))
    drivers.check(packages)
    _say("apmpi for arm64")
    apmpi = package.build(folder / "deb", version)
    status = _member(packages, "./var/lib/dpkg/status").decode()
    package.check_dependencies(apmpi, status)
    _say("root file system")
    tree = _tree(folder, apmpi, packages, version, board)
    squashfs = folder / "root.squashfs"
    squash(packages, tree, squashfs, epoch)
    _say("SD card image")
    name = folder / f"apmpi-{version}-arm64{'-pi5-untested' if given.pi5 else ''}"
    image = name.with_name(name.name + ".img")
    _sd_card(folder, tree, squashfs, packages, image)
    _say("update, list of packages, compression")
    update_file = name.with_name(name.name + ".update")
    write_update(tree, squashfs, update_file)
    write_index(tree, update_file, folder / f"{board}.index")
    listed = sbom.document(status, copyrights(packages), version, epoch)
    name.with_name(name.name + ".spdx.json").write_text(listed)
    # One thread: the division of work among several would change the file.
    subprocess.run(["xz", "--keep", "--force", "--threads=1", "-6", image], check=True)
    listed = manifest.manifest(
        image, image.with_name(f"{image.name}.xz"), version, board, epoch, given.downloads
    )
    name.with_name(name.name + ".imager.json").write_text(listed)
    for path in [*sorted(folder.glob(f"{name.name}.*")), folder / f"{board}.index"]:
        print(f"{path.stat().st_size / 2**20:7.1f} MiB  {path}")


def _say(text: str) -> None:
    print(f"image: {text}", flush=True)


def _version() -> str:
    version: str = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    try:
        update.number_of(version)
    except update.UpdateError as error:
        raise SystemExit(f"image: pyproject.toml: {error}: devices compare them") from None
    return version


def _commit_time() -> int:
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    asked = ["git", "-C", str(PROJECT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout)


# ---- the root file system: Debian's tar, and the tree of apmpi's files over it


def _tree(folder: Path, apmpi: Path, packages: Path, version: str, board: str) -> Path:
    """Make the tree of all files that are not Debian's, each at its path in the root file system."""
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    package.unpack(apmpi, tree)
    shutil.copytree(HERE / "root", tree, dirs_exist_ok=True)
    appliance = tree / DIST_PACKAGES / "apmpi_appliance"
    shutil.copytree(HERE / "apmpi_appliance", appliance, ignore=shutil.ignore_patterns("__pycache__"))
    package.compile_python(folder, packages, tree, DIST_PACKAGES)
    for source, target in (
        ("config/apmpi.yaml", "usr/share/apmpi/every-key.yaml"),
        ("config/room-card.conf", "usr/share/apmpi/room-card.conf"),
        ("image/boot/apmpi.yaml", "usr/share/apmpi/apmpi.yaml"),
        ("image/boot/cmdline.txt", "usr/share/apmpi/cmdline.txt"),
    ):
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / source, tree / target)
    (tree / slots.VERSION).write_text(f"{version}\n")
    (tree / slots.BOARD).write_text(f"{board}\n")
    (tree / update.SIGNERS).write_text(signers(signing_key()))
    _switch_services(tree)
    _user_and_catalog(tree, packages)
    _boot_files(tree, packages)
    (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (tree / "etc/machine-id").touch()  # empty: made anew in memory, and not a "first boot"
    (tree / "data").mkdir()
    for name in ("etc/.updated", "var/.updated"):  # systemd: nothing to be done after an update
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(f"TIMESTAMP_NSEC={2**62}\n")
    return tree


def _switch_services(tree: Path) -> None:
    on: dict[str, str] = {}
    for unit in (tree / "usr/lib/systemd/system").glob("*.*"):
        if unit.name in STARTED_LATER:
            continue
        if unit.is_file() and (wanted_by := re.search(r"^WantedBy=(\S+)$", unit.read_text(), re.MULTILINE)):
            on[unit.name] = wanted_by[1]
    system = tree / "etc/systemd/system"
    for unit_name, target in on.items():
        wants = system / f"{target}.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / unit_name).symlink_to(f"/usr/lib/systemd/system/{unit_name}")
    for unit_name in MASKED:
        (system / unit_name).symlink_to("/dev/null")
    generators = tree / "etc/systemd/system-generators"
    generators.mkdir()
    for name in MASKED_GENERATORS:
        (generators / f"systemd-{name}-generator").symlink_to("/dev/null")


def _user_and_catalog(tree: Path, packages: Path) -> None:
    """Run systemd's tools that derive files from those of the tree and of Debian."""
    with tarfile.open(packages) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name in ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow") or (
                name.startswith("usr/lib/systemd/catalog/") and member.isfile()
            ):
                content = tar.extractfile(member)
                assert content is not None
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).write_bytes(content.read())
    # In this order: apmpi, who owns files on the data partition, keeps its number.
    users = [tree / f"usr/lib/sysusers.d/{name}.conf" for name in ("apmpi", "apmpi-fetch")]
    subprocess.run(["systemd-sysusers", f"--root={tree}", *users], check=True)
    (tree / "var/lib/systemd/catalog").mkdir(parents=True)
    subprocess.run(
        ["journalctl", f"--root={tree}", "--update-catalog"], check=True, stderr=subprocess.DEVNULL
    )
    for left_behind in [*(tree / "etc").glob("*-"), tree / "etc/.pwd.lock"]:
        left_behind.unlink(missing_ok=True)


def _boot_files(tree: Path, packages: Path) -> None:
    """Make boot/slot, with which the firmware starts this root file system; update.py copies it."""
    slot = tree / update.SLOT_FILES
    slot.mkdir(parents=True)
    with tarfile.open(packages) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if re.fullmatch(r"\./boot/vmlinuz-.*", member.name):
                (slot / "vmlinuz").write_bytes(content.read())
            elif re.fullmatch(r"\./boot/initrd\.img-.*", member.name):
                # The kernel unpacks concatenated archives one after the other.
                (slot / "initrd.img").write_bytes(_initramfs_part() + content.read())
            # Copied there by raspi-firmware; their place in the kernel's package depends on its version.
            elif found := re.fullmatch(r"\./boot/firmware/(bcm2\d{3}-(?:d-)?rpi-.*\.dtb)", member.name):
                (slot / found[1]).write_bytes(content.read())
    if not list(slot.glob("*.dtb")):
        raise SystemExit(f"image: {packages}: no device tree in /boot/firmware, expected bcm2...-rpi-*.dtb")
    overlays = slot / "overlays"
    overlays.mkdir()
    # The firmware searches this folder for overlays only if it has a README.
    shutil.copy(HERE / "overlays/README", overlays)
    for source in sorted((HERE / "overlays").glob("*.dts")):
        target = overlays / f"apmpi-{source.stem}.dtbo"
        subprocess.run(["dtc", "-q", "-@", "-I", "dts", "-O", "dtb", "-o", target, source], check=True)


def _initramfs_part() -> bytes:
    """Return initramfs/ as a cpio archive of the kernel's format (newc), a multiple of 4 bytes long."""
    archive = b""
    files = [path for path in sorted((HERE / "initramfs").rglob("*"))]
    for number, path in enumerate([*files, None], start=1):
        name = "TRAILER!!!" if path is None else str(path.relative_to(HERE / "initramfs"))
        content = path.read_bytes() if path and path.is_file() else b""
        mode = 0 if path is None else 0o040755 if path.is_dir() else 0o100644
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        header = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % value for value in header) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return archive


def squash(packages: Path, tree: Path, squashfs: Path, epoch: int) -> None:
    """Make the squashfs from a tar stream, so that owners and device nodes need no root."""
    squashfs.unlink(missing_ok=True)
    options = "-tar -comp zstd -Xcompression-level 15 -b 64K -root-mode 755 -noappend -no-progress -quiet"
    maker = subprocess.Popen(
        ["mksquashfs", "-", squashfs, *options.split()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert maker.stdin is not None
    with tarfile.open(fileobj=maker.stdin, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        ours = {path.relative_to(tree).as_posix(): path for path in sorted(tree.rglob("*"))}
        with tarfile.open(packages) as theirs:
            for member in theirs:
                name = member.name.removeprefix("./")
                if _is_left_out(name) or (name in ours and not ours[name].is_dir()):
                    continue
                if name in ours and member.isdir():
                    del ours[name]  # with Debian's owner and mode
                member.mtime = min(int(member.mtime), epoch)
                tar.addfile(member, theirs.extractfile(member) if member.isfile() else None)
        for name, path in ours.items():
            member = tar.gettarinfo(path, f"./{name}")
            member.uid = member.gid = 0
            member.gid = 42 if name in ("etc/shadow", "etc/gshadow") else 0  # Debian's group shadow
            member.mode = 0o640 if member.gid else (0o755 if member.mode & 0o100 or member.isdir() else 0o644)
            member.uname = member.gname = ""
            member.mtime = epoch
            if member.isfile():
                with path.open("rb") as content:
                    tar.addfile(member, content)
            else:
                tar.addfile(member)
    maker.stdin.close()
    if maker.wait() != 0:
        raise SystemExit("image: mksquashfs failed")


def _is_left_out(name: str) -> bool:
    # "dev" stands for the folder itself, "dev/" for its content.
    return name.startswith(LEFT_OUT) and not LICENCE_FILES.fullmatch(name)


def copyrights(packages: Path) -> dict[str, str]:
    """Return each package's copyright file, also where its folder is a link to another package's."""
    found: dict[str, str] = {}
    links: dict[str, str] = {}
    with tarfile.open(packages) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if not LICENCE_FILES.fullmatch(name):
                continue
            package, _, file = name.removeprefix(DOC).partition("/")
            if member.issym() or member.islnk():
                # "../gcc-14-base/copyright", or a whole folder: "gcc-14-base".
                target = Path(member.linkname)
                links[package] = target.parent.name if file else target.name
            elif file and (content := tar.extractfile(member)):
                found[package] = content.read().decode(errors="replace")
    return found | {package: found[target] for package, target in links.items() if target in found}


def _member(packages: Path, name: str) -> bytes:
    with tarfile.open(packages) as tar:
        content = tar.extractfile(name)
        assert content is not None
        return content.read()


# ---- the SD card


def _sd_card(folder: Path, tree: Path, squashfs: Path, packages: Path, image: Path) -> None:
    boot = folder / "boot"
    shutil.rmtree(boot, ignore_errors=True)
    boot.mkdir()
    for name in ("config.txt", "apmpi.yaml", "network.yaml", "START-HERE.txt"):
        # Line ends for the editors of a PC; the firmware and YAML accept both.
        (boot / name).write_bytes((HERE / "boot" / name).read_bytes().replace(b"\n", b"\r\n"))
    update.put_slot_files(tree, boot, "a")
    # Licences beside the files that they belong to.
    licences = boot / "licences"
    licences.mkdir()
    shutil.copy(PROJECT / "LICENSE", licences / "apmpi.txt")
    (licences / "firmware.txt").write_text(copyrights(packages)["raspi-firmware"])
    (boot / slots.NAME).write_bytes(slots.text("a"))
    with tarfile.open(packages) as tar:
        for member in tar:
            found = re.fullmatch(
                r"\./usr/lib/raspi-firmware/(bootcode\.bin|(start|fixup)4?\.(elf|dat))", member.name
            )
            content = tar.extractfile(member) if found else None
            if found and content:
                (boot / found[1]).write_bytes(content.read())
    data = folder / "data.ext4"
    data.unlink(missing_ok=True)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-U", DATA_UUID,
         "-E", f"hash_seed={DATA_UUID},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0",
         data, DATA_SIZE],
        check=True,
    )  # fmt: skip
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in [boot, *boot.rglob("*")]:
        os.utime(path, (epoch, epoch))
    configuration = folder / "genimage.cfg"
    configuration.write_text(
        (HERE / "genimage.cfg.in").read_text()
        .replace("@IMAGE@", image.name)
        .replace("@DISK_ID@", f"0x{slots.DISK_ID}")
        .replace("@BOOT_SIZE@", BOOT_SIZE)
        .replace("@ROOT_SIZE@", ROOT_SIZE)
    )  # fmt: skip
    scratch = folder / "genimage.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    done = subprocess.run(
        ["genimage", "--config", configuration, "--rootpath", boot, "--tmppath", scratch,
         "--inputpath", folder, "--outputpath", folder],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"image: genimage failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    # genimage of Debian 13 has removed it.
    shutil.rmtree(scratch, ignore_errors=True)


# ---- the update


def signing_key() -> Path:
    """Return the key of all images of the checkout; it is made at the first build. `make clean` keeps it.

    A device takes updates signed with the key its image was built with.
    """
    if given := os.environ.get("APMPI_SIGNING_KEY"):
        key = Path(given)
    else:
        key = PROJECT / "signing-key"
        _move_here_from_build(key)
    if not key.exists():
        _say(f"new signing key {key}: keep it, without it no card can be updated")
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "apmpi updates", "-f", key], check=True
        )
    return key


def signers(key: Path) -> str:
    """Return the keys whose updates an image takes: that one, and the next if NAME-next.pub is beside it."""
    following = key.with_name(f"{key.name}-next.pub")
    keys = [key.with_name(f"{key.name}.pub"), *([following] if following.exists() else [])]
    return "".join(f"{update.SIGNER} {file.read_text().strip()}\n" for file in keys)


def _move_here_from_build(key: Path) -> None:
    """Return the key of an earlier version, which cards with its images trust."""
    for folder in ("image", "image-pi5"):
        earlier = PROJECT / "build" / folder / "signing-key"
        if earlier.exists() and not key.exists():
            _say(f"the signing key moves from {earlier} to {key}: keep it")
            for suffix in (".pub", ""):
                shutil.move(f"{earlier}{suffix}", f"{key}{suffix}")


def write_update(tree: Path, squashfs: Path, target: Path) -> None:
    """Write the signed update. `tree` is that of _tree()."""
    description = update.Description.of(tree, slots.version(tree), slots.board(tree)).content()
    with target.open("wb") as file:
        file.write(bytes(update.HEADER_BYTES))
        with squashfs.open("rb") as content:
            shutil.copyfileobj(content, file)
        file.write(description)
    _sign(target, update.NAMESPACE)


def write_index(tree: Path, update_file: Path, target: Path) -> None:
    """Write the signed index, for a server that has both files in one folder."""
    with update_file.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size_bytes = update_file.stat().st_size
    text = index.Index(slots.version(tree), slots.board(tree), update_file.name, size_bytes, sha256).content()
    target.write_bytes(bytes(update.HEADER_BYTES) + text)
    _sign(target, index.NAMESPACE)


def _sign(target: Path, namespace: str) -> None:
    """Put the signature of what is behind the header into the header."""
    with target.open("r+b") as file:
        file.seek(update.HEADER_BYTES)
        signature = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-f", signing_key(), "-n", namespace],
            stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
        ).stdout  # fmt: skip
        file.seek(0)
        file.write(signature.ljust(update.HEADER_BYTES, b"\n"))


if __name__ == "__main__":
    main()
