"""Run every C test of native/: with both compilers under the address and undefined-behaviour sanitizers, and
as aarch64 code, the Raspberry Pi's, under qemu. The build needs no Python, like that of a C program.
"""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
SANITIZED = (
    "-DCMAKE_C_FLAGS=-fsanitize=address,undefined,float-cast-overflow "
    "-fno-sanitize-recover=all -fno-omit-frame-pointer"
)
PLUGIN = "-DAPMPI_PIPEWIRE=ON"
TOOLCHAINS = {
    "gcc": ["-DCMAKE_C_COMPILER=gcc", SANITIZED, PLUGIN],
    "clang": ["-DCMAKE_C_COMPILER=clang", SANITIZED, PLUGIN],
    "aarch64": [
        f"-DCMAKE_TOOLCHAIN_FILE={NATIVE / 'aarch64-linux-gnu.cmake'}",
        # The card itself needs alsa-lib for arm64; the tests of its parts don't.
        "-DAPMPI_ROOM=OFF",
        PLUGIN,
    ],
    "oldest x86-64": ["-DAPMPI_ROOM=OFF"],
}


def run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)
    return done.stdout


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that builds with a toolchain at its first call, once for all processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    @functools.cache
    def build(toolchain: str) -> Path:
        folder = shared / toolchain
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            run("cmake", "-S", NATIVE, "-B", folder, *TOOLCHAINS[toolchain])
            run("cmake", "--build", folder, "--parallel", "2")
        return folder

    return build


@pytest.mark.parametrize("name", sorted(path.stem for path in NATIVE.rglob("test_*.c")))
@pytest.mark.parametrize("toolchain", ["gcc", "clang", "aarch64"])
def test_c(build_folder: Callable[[str], Path], toolchain: str, name: str) -> None:
    folder = build_folder(toolchain)
    print(run("ctest", "--test-dir", folder, "--verbose", "--no-tests=error", "--tests-regex", f"^{name}$"))


@pytest.mark.parametrize("name", ["test_kernels", "test_apm"])
def test_a_processor_without_avx2(build_folder: Callable[[str], Path], name: str) -> None:
    said = run("qemu-x86_64", "-cpu", "Nehalem", build_folder("oldest x86-64") / name)
    print(said)
    if name == "test_kernels":
        assert "stages use sse2" in said
