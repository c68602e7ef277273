"""Runs every C test of native/: with both compilers under the address and undefined-behaviour sanitizers,
and as aarch64 code, the Raspberry Pi's, under qemu. Builds without Python, as a C program would."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
SANITIZED = "-DCMAKE_C_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
TOOLCHAINS = {
    "gcc": ["-DCMAKE_C_COMPILER=gcc", SANITIZED],
    "clang": ["-DCMAKE_C_COMPILER=clang", SANITIZED],
    "aarch64": [
        "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu",
        "-DAPMPI_ROOM=OFF",
    ],
}
# The room card needs alsa-lib's headers for its target, which Debian has for the machine itself only.
CASES = [
    (toolchain, path.stem)
    for toolchain, options in TOOLCHAINS.items()
    for path in sorted(NATIVE.rglob("test_*.c"))
    if path.parent.name != "room" or "-DAPMPI_ROOM=OFF" not in options
]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)
    return done.stdout


@pytest.fixture(scope="session")
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build folder of one toolchain."""
    folder = tmp_path_factory.mktemp(request.param)
    run("cmake", "-S", NATIVE, "-B", folder, *TOOLCHAINS[request.param])
    run("cmake", "--build", folder, "--parallel", "2")
    return folder


@pytest.mark.parametrize(("build", "name"), CASES, indirect=["build"])
def test_c(build: Path, name: str) -> None:
    output = run("ctest", "--test-dir", build, "--verbose", "--no-tests=error", "--tests-regex", f"^{name}$")
    print(output)
