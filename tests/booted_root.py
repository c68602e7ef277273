"""A root file system of its own with a real systemd as PID 1, for programs that test units.

An overlay on the machine's files, or on those of another root, in a cgroup and namespaces that are removed
afterwards: writes go to memory and are discarded. `folder` is /test inside, and gets systemd's console as a
file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def boot(program: str, folder: Path, seconds: float) -> None:
    """Run `PYTHON program init folder` as PID 1 of namespaces of its own, for so long at most.

    Raises CalledProcessError or OSError where namespaces, cgroup v2 or overlays are not permitted.
    """
    with tempfile.TemporaryDirectory() as mount:
        run("mount", "-t", "cgroup2", "cgroup2", mount)
        cgroup = Path(mount) / f"apmpi-test-{os.getpid()}"
        cgroup.mkdir()
        try:
            unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc"]
            process = subprocess.Popen(
                [*unshare, "--propagation", "private", sys.executable, program, "init", folder],
                preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())),
            )
            process.wait(seconds)  # systemd's poweroff is a signal to the process that waits for PID 1
        finally:
            process.kill()
            process.wait()
            for part in sorted(cgroup.rglob("*/"), reverse=True):
                part.rmdir()
            cgroup.rmdir()
            run("umount", mount)


def make_root(folder: Path, lower: Path = Path("/")) -> Path:
    """Return the overlay on the files of `lower`, to be changed before enter()."""
    memory = Path(tempfile.mkdtemp())
    run("mount", "-t", "tmpfs", "tmpfs", memory)
    for name in ("upper", "work", "root"):
        (memory / name).mkdir()
    root = memory / "root"
    layers = f"lowerdir={lower},upperdir={memory}/upper,workdir={memory}/work"
    run("mount", "-t", "overlay", "overlay", "-o", layers, root)
    run("mount", "-t", "tmpfs", "tmpfs", root / "run")
    run("mount", "-t", "proc", "proc", root / "proc")
    run("mount", "--bind", "-o", "ro", root / "proc/sys", root / "proc/sys")
    run("mount", "-t", "sysfs", "-o", "ro", "sysfs", root / "sys")
    run("mount", "-t", "cgroup2", "cgroup2", root / "sys/fs/cgroup")
    run("mount", "--bind", "/dev", root / "dev")
    run("mount", "-t", "tmpfs", "tmpfs", root / "dev/shm")
    (root / "test").mkdir()
    run("mount", "--bind", folder, root / "test")
    (root / "test/console").touch()
    run("mount", "--bind", root / "test/console", root / "dev/console")
    return root


def readable_interpreter(root: Path) -> None:
    """Let other users than root read this Python's folders; in the overlay that is harmless."""
    for part in (Path(sys.base_prefix), *Path(sys.base_prefix).parents, *Path(sys.prefix).parents):
        inside = root / part.relative_to("/")
        inside.chmod(inside.stat().st_mode | 0o055)


def install_units(root: Path, folder: Path, program: str, seconds: float) -> None:
    """Install apmpi.service of `folder` with its drop-in override.conf and its user, and drive.service.

    The latter runs `PYTHON program drive /test`, for so long at most, then ends the system.
    """
    units = root / "etc/systemd/system"
    (units / "apmpi.service.d").mkdir(parents=True)
    shutil.copy(folder / "apmpi.service", units)
    shutil.copy(folder / "override.conf", units / "apmpi.service.d")
    (units / "drive.service").write_text(
        "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.service\nAfter=systemd-journald.service\n"
        f"[Service]\nType=oneshot\nExecStart={sys.executable} {program} drive /test\n"
        f"ExecStopPost=systemctl poweroff --force\nTimeoutStartSec={seconds:.0f}s\n"
    )
    run("systemd-sysusers", f"--root={root}", Path(__file__).parents[1] / "systemd/sysusers.d/apmpi.conf")


def enter(root: Path) -> None:
    """Become its systemd, which starts drive.service and its dependencies. Does not return."""
    os.chdir(root)
    (root / "old").mkdir(exist_ok=True)
    run("pivot_root", ".", "old")
    os.chroot(".")
    run("umount", "-l", "/old")
    # "container": systemd does not touch the machine's own devices and mounts.
    systemd = ["/lib/systemd/systemd", "--unit=drive.service", "--log-target=console"]
    os.execve(systemd[0], systemd, {**os.environ, "container": "apmpi-test"})
