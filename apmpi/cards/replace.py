"""Atomic replacement of files: after a power cut, too, a reader finds the old content or the new one."""

import errno
import fcntl
import os
import stat
from pathlib import Path

# Permissions of recordings: the owner, and the group that has the right to listen.
RECORDING_MODE = 0o640


class Part:
    """A file that grows as NAME.part beside its place and is renamed when it is complete.

    It is always a new file: a link of that name is removed, not followed, as is the part of a killed program.
    A part that another program is writing is left alone.

    file   to write to, unbuffered
    """

    def __init__(self, target: Path, mode: int = 0o666) -> None:
        """Creates the part with the permissions `mode`, less the umask. Raises OSError."""
        self._target = target
        self.path = target.with_name(target.name + ".part")
        self._remove_older()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.file = os.fdopen(os.open(self.path, flags, mode), "wb", buffering=0)
        _lock(self.file.fileno())

    def write(self, content: bytes | memoryview) -> None:
        """Writes all of `content`. Raises OSError."""
        rest = memoryview(content)
        while rest:
            rest = rest[self.file.write(rest) :]

    def finish(self) -> None:
        """Renames the part; returns when content and name are on the disk. Raises OSError."""
        os.fsync(self.file.fileno())  # before the rename: a power cut leaves the old file or the new one
        self.path.rename(self._target)
        self.file.close()
        folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abort(self) -> None:
        """Removes the part; after finish() it does nothing."""
        if not self.file.closed:
            self.path.unlink(missing_ok=True)
            self.file.close()

    def _remove_older(self) -> None:
        try:
            older = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # none, or a link, or one that may not be read
            self.path.unlink(missing_ok=True)
            return
        try:
            if stat.S_ISREG(os.fstat(older).st_mode) and not _lock(older):
                raise OSError(errno.EBUSY, "another program is writing it")
            self.path.unlink(missing_ok=True)
        finally:
            os.close(older)


def _lock(descriptor: int) -> bool:
    """Lock a file; return False if another program has locked it. True on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def replace(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replaces the content of `path`, or leaves the file as it was. Raises OSError.

    mode: permissions; None: 0666 less the umask
    """
    part = Part(path, 0o666 if mode is None else mode)
    try:
        if mode is not None:  # exactly, without the umask
            os.fchmod(part.file.fileno(), mode)
        part.write(content)
        part.finish()
    finally:
        part.abort()
