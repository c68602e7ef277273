"""The Debian part of the image: packages, configured, with an initramfs, as one tar file.

It takes minutes to make and depends only on mmdebstrap's command line, most of which is packages.txt and
left-out.txt. So it is kept in the build folder under the hash of the command line. It contains no file of
apmpi.
"""

import fnmatch
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
NAMESPACE = HERE.parent / "packaging/namespace.py"
SUITE = "trixie"
PYTHON_VERSION = "3.13"  # the suite's
# Time of the files that the packages' scripts write: fixed, so that the tar does not depend on the commit.
EPOCH = 1767225600  # 2026-01-01
SOURCES = (
    f"deb http://deb.debian.org/debian {SUITE} main non-free-firmware",
    f"deb http://deb.debian.org/debian {SUITE}-updates main non-free-firmware",
    f"deb http://deb.debian.org/debian-security {SUITE}-security main non-free-firmware",
)
# The Pi 5's devices are behind a chip (RP1) that the suite's own kernel does not support.
BACKPORTS = f"deb http://deb.debian.org/debian {SUITE}-backports main"
KERNEL = "linux-image-arm64"
# Modules of the initramfs beyond storage: the file systems, and the watchdogs of the Pi and of the virtual
# machine, which run from there on.
EARLY_MODULES = ("squashfs", "overlay", "vfat", "nls_ascii", "nls_cp437", "bcm2835_wdt", "i6300esb")
# Of folders that are left out. snd-usb-audio needs media/mc, vc4 (HDMI and its sound) media/cec and rc-core.
LEFT_IN = (
    "/usr/share/doc/*/copyright",
    "/usr/lib/linux-image-*/broadcom/*",
    "/usr/lib/modules/*/kernel/drivers/media/mc/*",
    "/usr/lib/modules/*/kernel/drivers/media/cec/core/*",
    "/usr/lib/modules/*/kernel/drivers/media/rc/rc-core.ko*",
)


def lines(name: str) -> list[str]:
    """Return the lines of a list beside this file, without comments."""
    return [
        text for line in (HERE / name).read_text().splitlines() if (text := line.partition("#")[0].strip())
    ]


def build(folder: Path, backports_kernel: bool, renew: bool = False) -> Path:
    """Return the tar file; it is made if there is none for this command line, or if it is to be renewed.

    Raises SystemExit with the end of what mmdebstrap said if it fails.
    """
    command = _mmdebstrap(backports_kernel)
    recipe = "\n".join(command)
    finished = folder / f"debian-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar"
    if finished.exists() and not renew:
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = finished.with_suffix(".part")
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "LC_ALL": "C.UTF-8",
        "TMPDIR": "/tmp",  # must be accessible to the namespace's root
        "INITRD": "No",  # once at the end, not with each package
    }
    log = folder / "debian.log"
    with unfinished.open("wb") as tar, log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, NAMESPACE, *command], stdout=tar, stderr=output, env=environment
        )
    if done.returncode != 0:
        said = log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"image: mmdebstrap failed (all of its output: {log})\n{said}")
    for old in folder.glob("debian-*.tar"):
        old.unlink()
    unfinished.rename(finished)
    return finished


def age(packages: Path, now_s: float) -> str:
    """Return a sentence on the age of the packages, and what to do about it."""
    fetched_s = packages.stat().st_mtime
    day = datetime.fromtimestamp(fetched_s, UTC).strftime("%Y-%m-%d")
    days = max(0, int((now_s - fetched_s) // 86400))
    return f"packages of {day} ({days} days old); make image RENEW=1 fetches them anew"


def is_left_out(path: str) -> bool:
    """Return whether dpkg leaves a path out of the packages that it installs."""

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)

    return matches(lines("left-out.txt")) and not matches(LEFT_IN)


def _mmdebstrap(backports_kernel: bool) -> list[str]:
    packages, sources = lines("packages.txt"), list(SOURCES)
    if backports_kernel:
        packages[packages.index(KERNEL)] += f"/{SUITE}-backports"
        sources.append(BACKPORTS)
    return [
        "mmdebstrap", "--mode=root", "--variant=essential", "--architectures=arm64", "--format=tar",
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in lines("left-out.txt")),
        *(f"--dpkgopt=path-include={pattern}" for pattern in LEFT_IN),
        "--include=" + ",".join(packages),
        # The kernel's own directory of the boot partition; apmpi's build fills it from /boot.
        '--essential-hook=mkdir -p "$1/boot/firmware"',
        # "most": modules for the root file system of any board. Fast decompression matters more than size.
        '--customize-hook=printf "MODULES=most\\nBUSYBOX=y\\nCOMPRESS=zstd\\nCOMPRESSLEVEL=9\\n"'
        ' > "$1/etc/initramfs-tools/conf.d/apmpi"',
        f"--customize-hook=printf '%s\\n' {' '.join(EARLY_MODULES)} >> \"$1/etc/initramfs-tools/modules\"",
        '--customize-hook=chroot "$1" update-initramfs -c -k all >&2',
        # Removes what differs from build to build, and what must not be the same on every device.
        '--customize-hook=rm -rf "$1"/etc/ssh/ssh_host_* "$1"/etc/machine-id "$1"/var/lib/systemd/random-seed'
        ' "$1"/var/cache/ldconfig/aux-cache "$1"/var/lib/dpkg/*-old "$1"/etc/*- "$1"/etc/.pwd.lock',
        SUITE, "-", *sources,
    ]  # fmt: skip
