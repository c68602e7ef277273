"""Files exchanged as a whole: a reader, or a power cut, finds the old content or the new."""

import errno
import fcntl
import os
import stat
from pathlib import Path

# Of what carries voices: for their owner, and for the group that was given the right to listen.
RECORDING_MODE = 0o640


class Part:
    """A file that grows as NAME.part beside its place, and gets its name when it is complete.

    It is a new file always, whatever had that name: a link there is not followed but removed, as is what a
    killed program left. A part that another program still writes is not touched.

    file   to write to, unbuffered
    """

    def __init__(self, target: Path, mode: int = 0o666) -> None:
        """`mode`: permissions, less the umask. Raises OSError."""
        self._target = target
        self.path = target.with_name(target.name + ".part")
        self._remove_older()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.file = os.fdopen(os.open(self.path, flags, mode), "wb", buffering=0)
        _lock(self.file.fileno())

    def write(self, content: bytes | memoryview) -> None:
        """All of it. Raises OSError."""
        rest = memoryview(content)
        while rest:
            rest = rest[self.file.write(rest) :]

    def finish(self) -> None:
        """Give it its name; on the disk before that is done. Raises OSError."""
        os.fsync(self.file.fileno())  # before the name: a power cut leaves the old file or the new one
        self.path.rename(self._target)
        self.file.close()
        folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abort(self) -> None:
        """Remove it; what has its name already stays."""
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
    """Lock the file; return whether nobody else has. A file system without locks knows of nobody."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def replace(path: Path, content: bytes, mode: int | None = None) -> None:
    """`content` whole in `path`, or `path` as it was; permissions as the umask has them unless given.

    Raises OSError.
    """
    part = Part(path, 0o666 if mode is None else mode)
    try:
        if mode is not None:  # that exactly, whatever the umask
            os.fchmod(part.file.fileno(), mode)
        part.write(content)
        part.finish()
    finally:
        part.abort()
