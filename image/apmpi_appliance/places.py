"""Where things are on the device, and how they are written so that power may fail at any time."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apmpi.cards.replace

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
    """`content` whole in `path`, or `path` as it was. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        apmpi.cards.replace.replace(path, content.encode() if isinstance(content, str) else content, mode)
    except OSError:
        # A full card stays as it was.
        path.with_name(f"{path.name}.part").unlink(missing_ok=True)
        raise


def holds(path: Path, content: bytes) -> bool:
    """Return whether `path` is a file with exactly this content."""
    try:
        with path.open("rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def tell_user(root: Path, name: str, text: str) -> None:
    """`text` as file `name` of the boot partition, none if it is empty. Written only when it changes.

    A partition that is full or damaged is no reason to do without sound or network: what could not be written
    is in the journal.
    """
    path = root / BOOT / name
    # A PC's editor shows it; Windows' own wants its line ends.
    content = text.replace("\n", "\r\n").encode()
    if holds(path, content) or not (content or path.exists()):
        return
    try:
        with writable(root / BOOT):
            if content:
                replace(path, content)
            else:
                path.unlink()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{name}: cannot be written to the boot partition ({error}); it would say: {text}", flush=True)
