"""A file exchanged as a whole: a reader, or a power cut, finds the old content or the new."""

import os
from pathlib import Path


def replace(path: Path, content: bytes, mode: int | None = None) -> None:
    """`content` whole in `path`, or `path` as it was; permissions as the umask has them unless given.

    Raises OSError.
    """
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
