"""Command that runs another one as root of a user namespace in which arm64 programs run, too.

    namespace.py COMMAND...

Debian packages configure themselves with programs of their own architecture and as root. In a user namespace
any user is root over 65536 user ids, and since Linux 6.7 it has its own binfmt_misc, where qemu-aarch64 is
registered as the interpreter of arm64 programs. The machine itself is not changed. On an arm64 machine no
interpreter is needed.
"""

import ctypes
import os
import platform
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
BINFMT = Path("/proc/sys/fs/binfmt_misc")
ID_COUNT = 65536
# First id outside for root, which has no range in /etc/subuid: where Debian's tools begin to assign ranges.
ID_BASE_OF_ROOT = 100_000
# An ELF header of 64 bits, little endian, of an executable or shared object for machine 183, arm64.
ARM64_MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
ARM64_MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def main(command: list[str]) -> int:
    """Run the command and return its exit status."""
    interpreter = _interpreter()
    unshared_read, unshared_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    child = os.fork()
    if child == 0:
        _unshare()
        os.write(unshared_write, b"1")
        os.close(mapped_write)
        if not os.read(mapped_read, 1):
            os._exit(1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        os.setgroups([])
        if interpreter:
            _interpret_arm64(interpreter)
        os.execvp(command[0], command)
    os.close(unshared_write)
    if os.read(unshared_read, 1):
        _map_ids(child)
        os.write(mapped_write, b"1")
    os.close(mapped_write)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _interpreter() -> str | None:
    if platform.machine() == "aarch64":
        return None
    # In Debian 13 qemu-aarch64 is linked statically, in Debian 12 only qemu-aarch64-static is.
    for name in ("qemu-aarch64-static", "qemu-aarch64"):
        if path := shutil.which(name):
            return path
    raise SystemExit("packaging: qemu-aarch64 is missing, expected the Debian package qemu-user-static")


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        problem = os.strerror(ctypes.get_errno())
        raise SystemExit(f"packaging: no user namespace ({problem}), expected a kernel that permits them")


def _map_ids(child: int) -> None:
    """Map root and 65535 more ids inside to a range outside that no other user has."""
    if os.geteuid() == 0:
        for name in ("gid_map", "uid_map"):
            Path(f"/proc/{child}/{name}").write_text(f"0 {ID_BASE_OF_ROOT} {ID_COUNT}\n")
        return
    for tool, file, own in (
        ("newgidmap", "/etc/subgid", os.getgid()),
        ("newuidmap", "/etc/subuid", os.getuid()),
    ):
        base = _subordinate_ids(Path(file))
        subprocess.run([tool, str(child), "0", str(own), "1", "1", base, str(ID_COUNT - 1)], check=True)


def _subordinate_ids(file: Path) -> str:
    names = (pwd.getpwuid(os.getuid()).pw_name, str(os.getuid()))
    for line in file.read_text().splitlines():
        name, base, count = line.split(":")
        if name in names and int(count) >= ID_COUNT - 1:
            return base
    raise SystemExit(
        f"packaging: {file} has no range of {ID_COUNT} ids for you, expected a line NAME:BASE:{ID_COUNT}"
    )


def _interpret_arm64(interpreter: str) -> None:
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True)
    # F: the interpreter is opened now, so that it works in a changed root, too.
    rule = b":apmpi-arm64:M::" + ARM64_MAGIC + b":" + ARM64_MASK + b":" + os.fsencode(interpreter) + b":F"
    (BINFMT / "register").write_bytes(rule)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
