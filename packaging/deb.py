"""`make deb`: Debian packages for each release and architecture, built in clean roots.

    deb.py FOLDER [--release bookworm|trixie]... [--architecture amd64|arm64]...

The files of the working tree (as git would add them) are built by debhelper and pybuild, as debian/ says,
and lintian checks the result. The packages are FOLDER/RELEASE/*.deb.

Debian 12 lacks three things: scikit-build-core, Cython 3 and pyalsaaudio 0.10. They come from PyPI, in the
locked versions. The first two only build; the third becomes a part of the package.
"""

import argparse
import sys
import tempfile
from email.utils import formatdate
from pathlib import Path

from roots import ARCHITECTURES, MACHINE, PROJECT, RELEASES, Root, packed, run, say
from source import commit_time, version, write_source

# Beyond build-essential: debian/control's Build-Depends; ca-certificates for PyPI.
BUILD_PACKAGES = (
    *("build-essential", "ca-certificates", "cmake", "debhelper", "dh-python", "lintian"),
    *("pybuild-plugin-pyproject", "python3-all-dev", "python3-setuptools"),
)
MORE_PACKAGES = {"bookworm": ("python3-pip",), "trixie": ("cython3", "python3-scikit-build-core")}
# Of the architecture that is compiled for.
LIBRARIES = ("libasound2-dev", "libpython3-all-dev", "libspa-0.2-dev", "pkgconf")
# A package of "~deb12" is older than one of "~deb13": an upgrade of Debian brings the newer.
VERSION_SUFFIX = {"bookworm": "~deb12", "trixie": "~deb13"}

# The architecture that is compiled for, in dpkg's words and in Python's. (pybuild sets the latter by itself.)
HOST = r"""
host() { dpkg-architecture --host-arch "$ARCHITECTURE" --query "DEB_HOST_$1"; }
python_of_host="_PYTHON_HOST_PLATFORM=linux-$(host GNU_CPU)"
python_of_host+=" _PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__$(host MULTIARCH)"
"""
BUILD = r"""
cd /given/apmpi
DEB_BUILD_OPTIONS="noautodbgsym parallel=$(nproc)" \
    dpkg-buildpackage --host-arch="$ARCHITECTURE" --no-sign --build=binary $CHECK
mv ../*.deb /results
lintian --allow-root --fail-on=error --display-info /results/*.deb
"""
FROM_PYPI = r"""
cd /given/apmpi
CHECK=--no-check-builddeps # dpkg-buildpackage knows Debian's packages only
pip="pip --quiet --no-cache-dir"
locked="--no-deps --require-hashes --requirement /dev/stdin"
python3 .ci/locked.py .ci/locks/build.txt |
    $pip install --break-system-packages --root-user-action=ignore $locked
awk '/^[a-z]/ { wanted = /^pyalsaaudio==/ } wanted' .ci/locks/run.txt |
    env $python_of_host $pip wheel --no-build-isolation --wheel-dir debian $locked
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Debian packages, built in clean roots.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--release", action="append", choices=RELEASES)
    parser.add_argument("--architecture", action="append", choices=ARCHITECTURES)
    given = parser.parse_args()
    for release in given.release or RELEASES:
        for architecture in given.architecture or ARCHITECTURES:
            _build(given.folder, release, architecture)
    for path in sorted(given.folder.glob("*/*.deb")):
        print(f"{path.stat().st_size / 2**20:7.1f} MiB  {path}")
    return 0


def _build(folder: Path, release: str, architecture: str) -> None:
    root = packed(build_root(release))
    say(f"apmpi for {release}, {architecture}")
    command = f"ARCHITECTURE={architecture} CHECK="
    command += HOST + FROM_PYPI + BUILD if release == "bookworm" else BUILD
    with tempfile.NamedTemporaryFile(suffix=".tar") as source:
        write_source(Path(source.name), {"debian/changelog": changelog(release)})
        if run(root, command, Path(source.name), folder / release) != 0:
            raise SystemExit(f"packaging: apmpi for {release}, {architecture} cannot be built (above is why)")


def build_root(release: str) -> Root:
    """Return the root of the machine's own architecture that compiles for all."""
    (foreign,) = set(ARCHITECTURES) - {MACHINE}
    packages = (*BUILD_PACKAGES, *MORE_PACKAGES[release], f"crossbuild-essential-{foreign}")
    packages += tuple(f"{name}:{architecture}" for name in LIBRARIES for architecture in ARCHITECTURES)
    return Root(release, MACHINE, packages, foreign)


def changelog(release: str) -> str:
    """Return debian/changelog: the version is that of pyproject.toml, the time that of the last commit."""
    control = (PROJECT / "debian/control").read_text()
    maintainer = next(line for line in control.splitlines() if line.startswith("Maintainer: "))
    return (
        f"apmpi ({version()}{VERSION_SUFFIX[release]}) {release}; urgency=medium\n\n"
        "  * NEWS.md in the same folder has what is new.\n\n"
        f" -- {maintainer.removeprefix('Maintainer: ')}  {formatdate(commit_time())}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
