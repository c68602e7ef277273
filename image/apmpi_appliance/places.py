"""Paths on the device, and writing that survives a power cut at any time."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apmpi.cards.replace

ROOT = Path("/")
# Paths below the root folder:
BOOT = "boot/firmware"  # the partition that a PC sees
DATA = "data"  # a small partition; if it cannot be used, a folder in memory
RUN = "run/apmpi-appliance"


@contextmanager
def writable(boot: Path) -> Iterator[None]:
    """Mount the boot partition writable for the duration of the context; it is read-only otherwise."""
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
    """Write `content` to `path` completely, or leave `path` as it was. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        apmpi.cards.replace.replace(path, content.encode() if isinstance(content, str) else content, mode)
    except OSError:
        # On a full card nothing is left behind.
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
    """Write `text` to file `name` of the boot partition if it differs; remove the file if `text` is empty.

    A full or damaged partition must not stop sound or network: a failure is reported in the journal.
    """
    path = root / BOOT / name
    # Line ends for the editors of Windows.
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
