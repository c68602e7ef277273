"""Choice of the version that is started, by slot.txt of the boot partition.

config.txt includes it, and the Pi's firmware takes kernel, initramfs, device trees and command line from
the folder it names:

    os_prefix=a/              version a is started at each boot

    os_prefix=b/              version b is started once: its initramfs first replaces this file by a/slot.txt,
    # trial, after that a     which is the case above. Whatever happens, a is started next.

A trial in which sound has flowed is confirmed: this file is replaced by b/slot.txt. The file is one sector of
the card and is only written in place, so that a power cut leaves the old or the new text.

A version's folder exists only while its root file system is complete on the card.

    python3 -m apmpi_appliance.slots confirm    sound flows: keeps the version on trial
    python3 -m apmpi_appliance.slots report     the old version runs again: reports that to the user
"""

import os
import re
import sys
from pathlib import Path

from apmpi_appliance.places import BOOT, DATA, ROOT, tell_user, writable

NAME = "slot.txt"
SECTOR_BYTES = 512
SLOTS = ("a", "b")
# MBR partitions: 1 boot, 2 and 3 the root file systems, 4 data.
DISK_ID = "a9d10001"
ROOT_PARTITION = {"a": f"{DISK_ID}-02", "b": f"{DISK_ID}-03"}
# Written by the initramfs at the start of a trial.
TRIAL_MARK = "run/apmpi-start/trial"
# The version on trial, until the result is known.
TRIED = f"{DATA}/appliance/tried"
VERSION = "usr/share/apmpi/version"
# The boards that the image was built for (image/build.py).
BOARD = "usr/share/apmpi/board"
# Result of an update, for the user, on the boot partition.
REPORT_NAME = "update.txt"


def text(slot: str, after: str | None = None) -> bytes:
    """Return a slot.txt that starts `slot`; with `after`, only once, and then `after`."""
    lines = f"os_prefix={slot}/\n" + (f"# trial, after that {after}\n" if after else "")
    # Not padded with blanks: the firmware might read them as part of the name.
    return lines.encode().ljust(SECTOR_BYTES, b"\n")


def write(root: Path, content: bytes) -> None:
    assert len(content) == SECTOR_BYTES
    path = root / BOOT / NAME
    with writable(root / BOOT):
        # Neither truncated nor renamed: FAT's directory and table are not written.
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(file, content)
            os.fsync(file)
        finally:
            os.close(file)


def running(root: Path = ROOT) -> str:
    """Return the running slot, from the kernel's command line."""
    found = re.search(rf"root=PARTUUID={DISK_ID}-0([23])", (root / "proc/cmdline").read_text())
    assert found is not None
    return SLOTS[int(found[1]) - 2]


def other(slot: str) -> str:
    return SLOTS[1 - SLOTS.index(slot)]


def version(root: Path = ROOT) -> str:
    return (root / VERSION).read_text().strip()


def board(root: Path = ROOT) -> str:
    return (root / BOARD).read_text().strip()


def confirm(root: Path = ROOT) -> str:
    """Keep the running version permanently, and return a sentence on what was done."""
    name = version(root)
    if not (root / TRIAL_MARK).exists():
        return f"version {name} as before"
    write(root, text(running(root)))
    (root / TRIAL_MARK).unlink()
    return _report(root, f"updated: version {name} is in use")


def report(root: Path = ROOT) -> str:
    """Report that a trial has failed if another version was to run. Returns a sentence on what was done."""
    tried = root / TRIED
    if (root / TRIAL_MARK).exists() or not tried.exists():
        return "no update was tried"
    failed = tried.read_text(errors="replace").strip()
    return _report(
        root,
        f"update failed: version {failed} did not get as far as sound within 3 minutes; "
        f"version {version(root)} goes on",
    )


def _report(root: Path, said: str) -> str:
    tell_user(root, REPORT_NAME, said + "\n")
    (root / TRIED).unlink(missing_ok=True)
    return said


if __name__ == "__main__":
    print({"confirm": confirm, "report": report}[sys.argv[1]](), flush=True)
