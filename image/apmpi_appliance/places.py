"""Where things are on the device, and how they are written so that power may fail at any time."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apmpi.replace

ROOT = Path("/")
# Below the root folder:
BOOT = "boot/firmware"  # the partition that a PC sees
DATA = "data"  # a small partition of our own; where it can't be used, a folder in memory
RUN = "run/apmpi-appliance"


@contextmanager
def writable(boot: Path) -> Iterator[None]:
    """The boot partition, which is mounted read-only, for the moment it takes to write to it."""
    mounted = boot.is_mount()
    if mounted:
        subprocess.run(["mount", "-o", "remount,rw", str(boot)], check=True)
    try:
        yield
    finally:
        if mounted:
            os.sync()
            subprocess.run(["mount", "-o", "remount,ro", str(boot)], check=True)


def replace(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """`content` whole in `path`, or `path` as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    apmpi.replace.replace(path, content.encode() if isinstance(content, str) else content, mode)


def tell_user(root: Path, name: str, text: str) -> None:
    """`text` as file `name` of the boot partition, none if it is empty. Written only when it changes."""
    path = root / BOOT / name
    # A PC's editor shows it; Windows' own wants its line ends.
    content = text.replace("\n", "\r\n").encode()
    if (path.read_bytes() if path.exists() else b"") == content:
        return
    with writable(root / BOOT):
        if content:
            path.write_bytes(content)
        else:
            path.unlink()
