"""Installs an update beside the running version, and starts it on trial.

    python3 -m apmpi_appliance.update           apmpi.update of the boot partition, at boot
    python3 -m apmpi_appliance.update FILE      any other file: scp it to /tmp first

An update is the next root file system (squashfs), which brings its kernel along, behind a signature:

    HEADER_BYTES    SSH signature of the rest (ssh-keygen -Y sign), padded with line ends
    the rest        squashfs

It is verified against the image's own list of signers, written to the partition that is not in use, and
verified there again. Nothing that starts the running version is touched until the one sector that names the
new one is written (apmpi_appliance.slots). A power cut before that changes nothing; the file is still there
and is installed at the next boot.
"""

import contextlib
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from apmpi_appliance import slots
from apmpi_appliance.places import BOOT, ROOT, replace, tell_user, writable

NAME = "apmpi.update"
HEADER_BYTES = 4096
NAMESPACE = "apmpi-update"
SIGNER = "apmpi"
# Below the root folder:
SIGNERS = "usr/share/apmpi/update-signers"
# In the new root file system:
SLOT_FILES = "boot/slot"
CHUNK_BYTES = 1 << 20


class UpdateError(ValueError):
    """Refused; `str()` is one sentence."""


def verify(file: Path, root: Path = ROOT) -> tuple[bytes, int]:
    """The signature, and the bytes of the root file system behind it. Raises UpdateError."""
    try:
        size = file.stat().st_size - HEADER_BYTES
        with file.open("rb") as opened:
            signature = opened.read(HEADER_BYTES).rstrip(b"\n") + b"\n"
    except OSError as error:
        raise UpdateError(f"{file.name}: cannot be read ({error.strerror}), expected an update") from None
    if not signature.startswith(b"-----BEGIN SSH SIGNATURE-----\n") or size <= 0:
        raise UpdateError(f"{file.name}: not an update, expected a file made by `make image`")
    _verify(_chunks(file, HEADER_BYTES, size), signature, file.name, root)
    return signature, size


def _verify(content: Iterator[bytes], signature: bytes, name: str, root: Path) -> None:
    with tempfile.NamedTemporaryFile() as signature_file:
        signature_file.write(signature)
        signature_file.flush()
        command = ["ssh-keygen", "-Y", "verify", "-f", str(root / SIGNERS), "-I", SIGNER, "-n", NAMESPACE]
        checker = subprocess.Popen(
            [*command, "-s", signature_file.name],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert checker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it may have seen enough
            for chunk in content:
                checker.stdin.write(chunk)
            checker.stdin.close()
        if checker.wait() != 0:
            raise UpdateError(f"{name}: damaged, or not signed by a key that this device trusts")


def _chunks(file: Path, offset: int, size: int) -> Iterator[bytes]:
    with file.open("rb") as opened:
        # What is read shall come from the card, not from what was just written to it.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        opened.seek(offset)
        while size > 0 and (chunk := opened.read(min(CHUNK_BYTES, size))):
            size -= len(chunk)
            yield chunk


def install(file: Path, root: Path = ROOT) -> str:
    """Everything up to the restart. The version that will be tried.

    Raises UpdateError; then all is as it was.
    """
    if (root / slots.TRIAL_MARK).exists():
        raise UpdateError(
            f"{file.name}: the running version is itself on trial, try again when it is confirmed"
        )
    signature, size = verify(file, root)
    slot = slots.other(slots.running(root))
    partition = root / "dev/disk/by-partuuid" / slots.ROOT_PARTITION[slot]
    try:
        with partition.open("r+b") as opened:
            for chunk in _chunks(file, HEADER_BYTES, size):
                opened.write(chunk)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        raise UpdateError(f"{file.name}: cannot be written to the card ({error.strerror})") from None
    _verify(_chunks(partition, 0, size), signature, f"{file.name}, as read back from the card", root)
    with tempfile.TemporaryDirectory() as mounted:
        subprocess.run(["mount", "-t", "squashfs", "-o", "ro", str(partition), mounted], check=True)
        try:
            version = slots.version(Path(mounted))
            put_slot_files(Path(mounted), root / BOOT, slot)
        finally:
            subprocess.run(["umount", mounted], check=True)
    replace(root / slots.TRIED, version)
    return version


def put_slot_files(new_root: Path, boot: Path, slot: str) -> None:
    """What the firmware reads before there is a root file system, into the slot's folder.

    Raises UpdateError.
    """
    folder = boot / slot
    with writable(boot):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(new_root / SLOT_FILES, folder)
        (folder / "cmdline.txt").write_text(command_line(new_root, slot))
        (folder / slots.NAME).write_bytes(slots.text(slot))
    for file in (new_root / SLOT_FILES).rglob("*"):
        copy = folder / file.relative_to(new_root / SLOT_FILES)
        if file.is_file() and not filecmp.cmp(file, copy, shallow=False):
            raise UpdateError(f"{copy.name}: not on the card as it was written")


def command_line(new_root: Path, slot: str) -> str:
    """The kernel's, which names the slot's root file system."""
    options = (new_root / "usr/share/apmpi/cmdline.txt").read_text().strip()
    return f"root=PARTUUID={slots.ROOT_PARTITION[slot]} {options}\n"


def main(given: Path | None, root: Path = ROOT) -> bool:
    """True: restart, and the new version is tried."""
    boot = root / BOOT
    file = given or boot / NAME
    # A power cut while an earlier update was written may have left clusters that nobody owns.
    if boot.is_mount():
        subprocess.run(["umount", str(boot)], check=True)
        subprocess.run(["fsck.vfat", "-a", f"/dev/disk/by-partuuid/{slots.DISK_ID}-01"], check=False)
        subprocess.run(["mount", str(boot)], check=True)
    try:
        version = install(file, root)
    except UpdateError as error:
        print(f"update refused: {error}", flush=True)
        tell_user(root, slots.REPORT_NAME, f"update refused: {error}\n")
        if not given:
            with writable(boot):
                file.replace(file.with_suffix(".refused"))
        return False
    tell_user(root, slots.REPORT_NAME, f"version {version} is written and tried at the next start\n")
    if not given:
        with writable(boot):
            file.unlink()
    slot = slots.running(root)
    slots.write(root, slots.text(slots.other(slot), after=slot))
    print(f"restarting with version {version}", flush=True)
    return True


if __name__ == "__main__":
    if main(Path(sys.argv[1]) if sys.argv[1:] else None):
        subprocess.run(["systemctl", "reboot"], check=True)
    elif sys.argv[1:]:
        sys.exit(2)
