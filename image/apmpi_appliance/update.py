"""Command that installs an update beside the running version and starts it on trial.

    python3 -m apmpi_appliance.update           apmpi.update of the boot partition, at boot
    python3 -m apmpi_appliance.update FILE      any other file: scp it to /tmp first

An update is the next root file system (squashfs), which contains its kernel, behind a signature:

    HEADER_BYTES         SSH signature of the rest (ssh-keygen -Y sign), padded with line ends
    squashfs
    DESCRIPTION_BYTES    version, board and sizes (Description), padded with line ends

The description is behind the squashfs, so that older versions, which do not know it, verify it with the
signature and install the update.

The file is verified against the image's own list of signers. A version that is older than the running one, is
meant for other boards or does not fit is refused before anything is written. Then the version that is not in
use loses its folder of the boot partition, so that half a version is never started; its partition is written,
read back and verified again; and the folder is made anew. Nothing that starts the running version is changed
until the one sector that names the new one is written (apmpi_appliance.slots). After a power cut before that
the running version starts, and the file, which still exists, is installed at the next boot.
"""

import contextlib
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from apmpi_appliance import apart, slots
from apmpi_appliance.places import BOOT, ROOT, replace, tell_user, writable

NAME = "apmpi.update"
HEADER_BYTES = 4096
DESCRIPTION_BYTES = 4096
DESCRIPTION_MARK = "apmpi update\n"
NAMESPACE = "apmpi-update"
SIGNER = "apmpi"
SIGNATURE_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
# Paths below the root folder:
SIGNERS = "usr/share/apmpi/update-signers"
# Paths in the new root file system:
SLOT_FILES = "boot/slot"
CHUNK_BYTES = 1 << 20
# Entries beside SLOT_FILES: the slot's folder, command line and slot.txt; update.txt, and its temporary file.
OTHER_ENTRIES = 5


@dataclass(frozen=True, slots=True)
class Description:
    """Description of an update, signed with it.

    version         numbers with dots
    board           as in slots.BOARD
    boot_bytes      sum of the lengths of SLOT_FILES
    boot_entries    files and folders of SLOT_FILES
    """

    version: str
    board: str
    boot_bytes: int
    boot_entries: int

    def content(self) -> bytes:
        lines = "".join(f"{name} {value}\n" for name, value in asdict(self).items())
        return f"{DESCRIPTION_MARK}{lines}".encode().ljust(DESCRIPTION_BYTES, b"\n")

    @classmethod
    def of(cls, new_root: Path, version: str, board: str) -> Self:
        """Return the description of the root file system that was made of the folder `new_root`."""
        entries = sorted((new_root / SLOT_FILES).rglob("*"))
        size = sum(path.stat().st_size for path in entries if path.is_file())
        return cls(version, board, size, len(entries))

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """Return the description, None if `text` is none."""
        pattern = DESCRIPTION_MARK + "".join(rf"{entry.name} ([a-z0-9.-]{{1,40}})\n" for entry in fields(cls))
        found = re.fullmatch(pattern + r"\n*", content.decode("ascii", errors="replace"))
        if found is None or not all(number.isdigit() for number in found.groups()[2:]):
            return None
        return cls(found[1], found[2], int(found[3]), int(found[4]))


class UpdateError(ValueError):
    """An update is refused; `str()` is one sentence."""


def verify(file: Path, root: Path = ROOT) -> tuple[bytes, int]:
    """Verify a file and return its signature and the number of bytes behind it. Raises UpdateError."""
    if file.exists() and not file.is_file():
        raise UpdateError(f"{file.name}: is no file, expected one made by `make image`")
    try:
        size = file.stat().st_size - HEADER_BYTES
        with file.open("rb") as opened:
            signature = opened.read(HEADER_BYTES).rstrip(b"\n") + b"\n"
    except OSError as error:
        raise UpdateError(f"{file.name}: cannot be read ({error.strerror}), expected an update") from None
    if not signature.startswith(SIGNATURE_BEGIN) or size <= 0:
        raise UpdateError(f"{file.name}: not an update, expected a file made by `make image`")
    check_signature(_chunks(file, HEADER_BYTES, size), signature, file.name, root)
    return signature, size


def check_signature(
    content: Iterator[bytes], signature: bytes, name: str, root: Path, namespace: str = NAMESPACE
) -> None:
    """Raises UpdateError unless a key that the image lists has signed the content for that namespace."""
    with tempfile.TemporaryDirectory() as memory:
        folder = Path(memory)
        folder.chmod(0o755)
        (folder / "signature").write_bytes(signature)
        (folder / "signers").write_bytes((root / SIGNERS).read_bytes())
        command = ["ssh-keygen", "-Y", "verify", "-I", SIGNER, "-n", namespace]
        command += ["-f", str(folder / "signers"), "-s", str(folder / "signature")]
        checker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            # The file is not trusted yet: ssh-keygen runs without privileges.
            **(apart.AS_NOBODY if os.geteuid() == 0 else {}),
        )  # fmt: skip
        assert checker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it may have ended early
            for chunk in content:
                checker.stdin.write(chunk)
            checker.stdin.close()
        if checker.wait() != 0:
            raise UpdateError(f"{name}: damaged, or not signed by a key that this device trusts")


def _chunks(file: Path, offset: int, size: int) -> Iterator[bytes]:
    _read_anew(file)
    with file.open("rb") as opened:
        opened.seek(offset)
        while size > 0 and (chunk := opened.read(min(CHUNK_BYTES, size))):
            size -= len(chunk)
            yield chunk


def describe(file: Path) -> Description:
    """Return the description of a file that is verified. Raises UpdateError."""
    with file.open("rb") as opened:
        opened.seek(-DESCRIPTION_BYTES, os.SEEK_END)
        description = Description.parse(opened.read())
    if description is None:
        raise UpdateError(f"{file.name}: made before updates named their version, expected a newer one")
    return description


def install(file: Path, root: Path = ROOT) -> str:
    """Do everything up to the restart, and return the version that will be tried.

    Raises UpdateError: the running version is unchanged then, and the sentence says whether the other one
    still exists.
    """
    if (root / slots.TRIAL_MARK).exists():
        raise UpdateError(
            f"{file.name}: the running version is itself on trial, try again when it is confirmed"
        )
    signature, size = verify(file, root)
    description = describe(file)
    _check_meant_for(file.name, description, root)
    slot = slots.other(slots.running(root))
    partition = root / "dev/disk/by-partuuid" / slots.ROOT_PARTITION[slot]
    _check_fits(file.name, description, size, root / BOOT, slot, partition)
    with writable(root / BOOT):
        discard(root / BOOT, slot)
    try:
        _write(file, size, signature, partition, root)
        with tempfile.TemporaryDirectory() as mounted:
            subprocess.run(["mount", "-t", "squashfs", "-o", "ro", str(partition), mounted], check=True)
            try:
                put_slot_files(Path(mounted), root / BOOT, slot)
            finally:
                subprocess.run(["umount", mounted], check=True)
    except (UpdateError, OSError, subprocess.CalledProcessError) as error:
        problem = str(error) if isinstance(error, UpdateError) else f"{file.name}: not installed ({error})"
        with writable(root / BOOT):
            discard(root / BOOT, slot)
        raise UpdateError(
            f"{problem}; the card may be worn out. Version {slots.version(root)} goes on, and is the only "
            f"one on the card: {slot} can't be started"
        ) from None
    return description.version


def _check_meant_for(name: str, description: Description, root: Path) -> None:
    """Raises UpdateError."""
    running, board = slots.version(root), slots.board(root)
    if description.board != board:
        raise UpdateError(f"{name}: for {description.board} given, expected an update for {board}")
    if number_of(description.version) < number_of(running):
        raise UpdateError(
            f"{name}: version {description.version} given, expected {running} or newer; the way back is "
            f"{slots.NAME}, to the version that is still on the card"
        )


def number_of(version: str) -> tuple[int, ...]:
    """Return a key for comparison: 1.0 equals 1.0.0. Raises UpdateError for other than numbers."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}", version):
        raise UpdateError(f"version {version} given, expected numbers with dots")
    numbers = [int(number) for number in version.split(".")]
    return (*numbers, *[0] * (4 - len(numbers)))


def _check_fits(
    name: str, description: Description, size: int, boot: Path, slot: str, partition: Path
) -> None:
    """Raises UpdateError."""
    with partition.open("rb") as opened:
        room = opened.seek(0, os.SEEK_END)
    if size > room:
        raise UpdateError(f"{name}: {mib(size)} given, expected at most {mib(room)}, all that the card has")
    file_system = os.statvfs(boot)
    cluster = file_system.f_frsize
    # A file may leave most of its last cluster empty, and its name needs at most a part of another cluster.
    needed = description.boot_bytes + 2 * cluster * (description.boot_entries + OTHER_ENTRIES)
    freed = [path for folder in _folders(boot, slot) for path in folder.rglob("*")]
    free = file_system.f_bavail * cluster + sum(path.stat().st_blocks * 512 for path in freed)
    if needed > free:
        raise UpdateError(
            f"{name}: needs {mib(needed)} of the boot partition beside itself, {mib(free)} are free; "
            "delete files there that are yours, and give it its name again"
        )


def mib(size_bytes: int) -> str:
    """Return a size for a sentence."""
    return f"{size_bytes / 2**20:.1f} MiB"


def _folders(boot: Path, slot: str) -> tuple[Path, Path]:
    """Return the folder of a version, and the temporary one in which it is made."""
    return boot / slot, boot / f"{slot}.part"


def discard(boot: Path, slot: str) -> None:
    """Make a version unbootable. `boot` must be writable."""
    for folder in _folders(boot, slot):
        if folder.exists():
            shutil.rmtree(folder)


def _write(file: Path, size: int, signature: bytes, partition: Path, root: Path) -> None:
    """Raises UpdateError and OSError."""
    with partition.open("r+b") as opened:
        for chunk in _chunks(file, HEADER_BYTES, size):
            opened.write(chunk)
        opened.flush()
        os.fsync(opened.fileno())
    check_signature(_chunks(partition, 0, size), signature, f"{file.name}, as read back from the card", root)


def put_slot_files(new_root: Path, boot: Path, slot: str) -> None:
    """Copy the files that the firmware reads into the slot's folder.

    Raises UpdateError and OSError; then there is no such folder.
    """
    finished, folder = _folders(boot, slot)
    with writable(boot):
        discard(boot, slot)
        shutil.copytree(new_root / SLOT_FILES, folder)
        (folder / "cmdline.txt").write_text(command_line(new_root, slot))
        (folder / slots.NAME).write_bytes(slots.text(slot))
        os.sync()
        for file in (new_root / SLOT_FILES).rglob("*"):
            copy = folder / file.relative_to(new_root / SLOT_FILES)
            if file.is_file():
                _read_anew(copy)
                if not filecmp.cmp(file, copy, shallow=False):
                    raise UpdateError(f"{copy.name}: not on the card as it was written")
        folder.rename(finished)


def _read_anew(file: Path) -> None:
    """Drop the page cache, so that the next reads come from the card."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def command_line(new_root: Path, slot: str) -> str:
    """Return the kernel's command line, which names the slot's root file system."""
    options = (new_root / "usr/share/apmpi/cmdline.txt").read_text().strip()
    return f"root=PARTUUID={slots.ROOT_PARTITION[slot]} {options}\n"


def main(given: Path | None, root: Path = ROOT) -> bool:
    """Install the update, if there is one. Returns True if a restart will start it on trial."""
    boot = root / BOOT
    file = given or boot / NAME
    try:
        version = install(file, root)
        replace(root / slots.TRIED, version)
        tell_user(root, slots.REPORT_NAME, f"version {version} is written and tried at the next start\n")
        slot = slots.running(root)
        slots.write(root, slots.text(slots.other(slot), after=slot))
    except Exception as error:
        if not isinstance(error, UpdateError):
            traceback.print_exc()
        problem = str(error) if isinstance(error, UpdateError) else f"{file.name}: not installed ({error})"
        print(f"update refused: {problem}", flush=True)
        if not given:
            _take_away(boot, file)
        tell_user(root, slots.REPORT_NAME, f"update refused: {problem}\n")
        return False
    if not given:
        with writable(boot):
            file.unlink()
    print(f"restarting with version {version}", flush=True)
    return True


def _take_away(boot: Path, file: Path) -> None:
    """Remove a refused update from the queue, so that it is not tried again at each boot."""
    refused = file.with_suffix(".refused")
    try:
        with writable(boot):
            if refused.is_dir():
                shutil.rmtree(refused)
            file.replace(refused)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{file.name}: stays where it is ({error})", flush=True)


if __name__ == "__main__":
    if main(Path(sys.argv[1]) if sys.argv[1:] else None):
        subprocess.run(["systemctl", "reboot"], check=True)
    elif sys.argv[1:]:
        sys.exit(2)
