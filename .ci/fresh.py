"""Command that runs the README's commands as a newcomer would, in a bare root of each Debian release.

    fresh.py [--release bookworm|trixie|forky]... [--user root|newcomer]... [--prepared] [COMMAND...]

A root holds Debian's smallest variant with git, make, ca-certificates and sudo. It is kept as a tar file in
the user's cache, by release and package list. The last commit is cloned into it, and each COMMAND, one
argument of shell text, runs there in turn. Root runs them as in a container; "newcomer" is a user with sudo.
Ends with a table of times, or with the status of the first command that fails.

    --prepared    a root that has the packages of .ci/setup as well: for build machines, which test the
                  project there and not the set-up

Everything runs in namespaces of its own, and the root is removed at the end. Downloaded packages are kept for
the next run, so that the times do not include most of the downloads.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The build machine's scripts know the packaging's roots, which know nothing of them.
sys.path.append(str(Path(__file__).resolve().parents[1] / "packaging"))
from roots import CACHE, CERTIFICATES, NETWORK, PROJECT, RELEASES, kept, sources

# Debian's testing, which has the next Python; only on request.
NEXT = "forky"
USERS = ("root", "newcomer")
# passwd has useradd.
BARE_PACKAGES = ("git", "make", "ca-certificates", "sudo", "passwd")
# The last two show that a complete set-up has nothing left to do.
COMMANDS = ("make run", "make test", "make run SECONDS=8", "make setup-test")
# Root needs no user namespace, and can make mounts that such a namespace forbids.
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
if os.geteuid() != 0:
    UNSHARE += ["--map-auto", "--map-root-user"]

ENTER = r"""
root=$1 release=$2 user=$3 command=$4
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/run"
cp --remove-destination "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
[ -e "$APMPI_CERTIFICATES" ] && mount --bind "$APMPI_CERTIFICATES" "$root$APMPI_CERTIFICATES"
mount --bind "$APMPI_CACHE/apt-$release" "$root/var/cache/apt/archives"
home=/root
if [ "$user" != root ]; then
    home=/home/$user
    chroot "$root" id "$user" >/dev/null 2>&1 || chroot "$root" useradd --create-home "$user"
    echo "$user ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$user"
fi
mkdir -p "$root$home/.cache/pip" "$root/old"
mount --bind "$APMPI_CACHE/pip-$user" "$root$home/.cache/pip"
[ -e "$root$home/apmpi" ] || mv "$root/clone" "$root$home/apmpi"
chroot "$root" chown -R "$user:" "$home"
cd "$root"
pivot_root . old
umount -l /old
cd "$home/apmpi"
exec setpriv --reuid "$user" --regid "$user" --init-groups env HOME="$home" USER="$user" bash -c "$command"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="The README's commands in bare roots of Debian.")
    parser.add_argument("--release", action="append", choices=(*RELEASES, NEXT))
    parser.add_argument("--user", action="append", choices=USERS)
    parser.add_argument("--prepared", action="store_true")
    parser.add_argument("commands", nargs="*", metavar="COMMAND")
    given = parser.parse_args()
    # End as Ctrl-C does, so that the root is removed.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("fresh: stopped"))
    changed = _output("git", "-C", PROJECT, "status", "--short")
    if changed:
        _say(f"the last commit is tried; not in it:\n{changed.rstrip()}")
    times: list[str] = []
    status = 0
    for release in given.release or RELEASES:
        for user in given.user or USERS:
            status = status or _try(release, user, given.prepared, given.commands or COMMANDS, times)
    print("\n".join(times))
    return status


def _say(text: str) -> None:
    print(f"fresh: {text}", flush=True)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _try(release: str, user: str, prepared: bool, commands: list[str], times: list[str]) -> int:
    """Run the commands in a new root, add their times, and return the first status that is not 0."""
    packed = _packed_root(release, prepared)
    for name in (f"apt-{release}", f"pip-{user}"):
        (CACHE / name).mkdir(exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=f"{release}-", dir=CACHE))
    root.chmod(0o755)
    try:
        _in_namespace(["tar", "--extract", f"--file={packed}", f"--directory={root}", "--exclude=./dev/*"])
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", PROJECT, root / "clone"], check=True)
        for command in commands:
            _say(f"{release}, {user}: {command}")
            began_s = time.monotonic()
            status = _in_namespace(
                ["bash", "-euc", ENTER, "enter", str(root), release, user, command], check=False
            )
            times.append(f"{release:9} {user:9} {time.monotonic() - began_s:6.0f} s  {command}")
            if status != 0:
                times[-1] += f": failed with status {status}"
                return status
        return 0
    finally:
        _in_namespace(["rm", "-rf", str(root)])


def _in_namespace(command: list[str], check: bool = True) -> int:
    """Run a command as root of its own namespaces, with the network's variables only; return its status."""
    environment = {name: os.environ[name] for name in (*NETWORK, "CI") if name in os.environ}
    environment |= {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "APMPI_CACHE": str(CACHE),
        "APMPI_CERTIFICATES": str(CERTIFICATES),
    }
    return subprocess.run([*UNSHARE, *command], env=environment, check=check).returncode


def _packed_root(release: str, prepared: bool) -> Path:
    """Return the tar file of the root; it is made if there is none of this release and these packages."""
    packages = [*BARE_PACKAGES]
    if prepared:
        packages += _output(PROJECT / ".ci/setup", "list").split()

    def make(path: Path) -> int:
        command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase"]
        command += [f"--include={','.join(packages)}", release, str(path), *sources(release)]
        return subprocess.run(command).returncode

    return kept(release, packages, make)


if __name__ == "__main__":
    sys.exit(main())
