"""Clean roots of Debian: made once for each list of packages, and used for one command each.

    packed(Root(...))         the root as a tar file, kept in the user's cache
    run(tar, command, ...)    a command in a fresh copy of it; files go in and come out as tar files

Everything happens in a user namespace (namespace.py), in which any user is root and programs of arm64
run, too: nothing needs root, and the machine is not changed.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
RELEASES = ("bookworm", "trixie")
ARCHITECTURES = ("amd64", "arm64")
# Debian's name of this machine's architecture.
MACHINE = "arm64" if platform.machine() == "aarch64" else "amd64"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "apmpi"
# Process ids of its own, so that /proc can be mounted inside.
ENTER = [sys.executable, str(PROJECT / "packaging/namespace.py")]
ENTER += ["unshare", "--pid", "--fork", "--kill-child", "--mount"]
# Variables for the way to the package archives: the same inside the root.
NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# Standard input is the root's tar file, descriptor 3 that of the files which go in; standard output is the
# tar file of /results. The mounts are those of the inner shell, and end with it.
RUN = r"""
root=$(mktemp --directory)
trap 'rm -rf --one-file-system "$root"' EXIT
chmod 755 "$root"
tar --extract --directory="$root" --exclude='./dev/*'
cp --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/given" "$root/results" "$root${1%/*}"
[ ! -e "$1" ] || cp "$1" "$root$1"
tar --extract --directory="$root/given" <&3
unshare --mount bash -euo pipefail -c "$3" inside "$root" "$2" >&2 </dev/null 3<&-
tar --create --directory="$root/results" .
"""
INSIDE = r"""
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/dev/shm"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
exec chroot "$1" bash -euo pipefail -c "$2"
"""


@dataclass(frozen=True)
class Root:
    """Contents of a root.

    release        Debian's code name
    architecture   Debian's name
    packages       beyond the essential ones
    foreign        another architecture that packages may be of (NAME:ARCHITECTURE): for cross-compiling
    """

    release: str
    architecture: str
    packages: tuple[str, ...]
    foreign: str | None = None


def say(text: str) -> None:
    print(f"packaging: {text}", flush=True)


def sources(release: str) -> list[str]:
    """Return the lines of sources.list of a release, with its updates."""
    suites = {release: "debian", f"{release}-updates": "debian", f"{release}-security": "debian-security"}
    return [f"deb http://deb.debian.org/{archive} {suite} main" for suite, archive in suites.items()]


def kept(name: str, contents: Sequence[str], make: Callable[[Path], int]) -> Path:
    """Return the tar file of a root in CACHE, by name and contents.

    make   writes it, if there is none of these contents, with mmdebstrap, and returns its exit status
    """
    digest = hashlib.sha256(" ".join(contents).encode()).hexdigest()[:12]
    finished = CACHE / f"{name}-{digest}.tar"
    if finished.exists():
        return finished
    if shutil.which("mmdebstrap") is None:
        raise SystemExit("packaging: mmdebstrap is missing, expected the Debian package of that name")
    say(f"a root {name} (minutes, once)")
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = finished.with_suffix(".part")
    if make(unfinished) != 0:
        raise SystemExit(f"packaging: a root {name} cannot be made (mmdebstrap says why above)")
    unfinished.rename(finished)
    return finished


def packed(root: Root) -> Path:
    """Return the tar file of a root; it is made if there is none of these contents."""
    architectures = [root.architecture, *([root.foreign] if root.foreign else [])]
    command = [
        "mmdebstrap", "--mode=root", "--variant=apt", f"--architectures={','.join(architectures)}",
        "--format=tar", '--aptopt=Apt::Install-Recommends "false"', f"--include={','.join(root.packages)}",
        root.release, "-", *sources(root.release),
    ]  # fmt: skip

    def make(path: Path) -> int:
        # Both must be accessible to the namespace's root.
        environment = {**os.environ, "TMPDIR": "/tmp", "HOME": "/", "LC_ALL": "C.UTF-8"}
        with path.open("wb") as tar:
            return subprocess.run([*ENTER, *command], stdout=tar, env=environment).returncode

    return kept("-".join([root.release, *architectures]), command, make)


def run(root: Path, command: str, given: Path, results: Path) -> int:
    """Run shell text in a fresh copy of a packed root and return its exit status.

    given     a tar file, unpacked as /given
    results   folder that receives the contents of /results; left as it was if the command fails
    """
    environment = {name: os.environ[name] for name in NETWORK if name in os.environ}
    environment |= {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # must be accessible to the namespace's root
    }
    inside = ["bash", "-euo", "pipefail", "-c", RUN]
    with root.open("rb") as packed_root, given.open("rb") as files:
        # Descriptor 3 of the shell in the namespace.
        enter = ["bash", "-c", f'exec 3<&{files.fileno()}; exec "$@"', "enter", *ENTER]
        done = subprocess.run(
            [*enter, *inside, "run", str(CERTIFICATES), command, INSIDE],
            stdin=packed_root, stdout=subprocess.PIPE, pass_fds=[files.fileno()], env=environment,
        )  # fmt: skip
    if done.returncode == 0:
        results.mkdir(parents=True, exist_ok=True)
        unpack = ["tar", "--extract", "--no-same-owner", "--no-same-permissions", f"--directory={results}"]
        subprocess.run(unpack, input=done.stdout, check=True)
    return done.returncode
