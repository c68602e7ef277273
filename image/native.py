"""apmpi for the Pi, cross-compiled: the files of its Python package as they are installed there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import debian

PROJECT = Path(__file__).parents[1]
# The smallest of the boards' processors; its code runs on the larger ones, too.
PROCESSOR = "cortex-a53"
PYTHON = f"python{debian.PYTHON_VERSION}"
TRIPLE = "aarch64-linux-gnu"


def build(folder: Path, version: str, epoch: int) -> Path:
    """Return a folder with `apmpi/` and its metadata, compiled, for /usr/lib/python3/dist-packages."""
    sysroot = debian.sysroot(folder)
    package = folder / "package"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    shutil.copytree(
        PROJECT / "apmpi", package / "apmpi", ignore=shutil.ignore_patterns("__pycache__", "*.pyi")
    )
    shutil.copytree(
        PROJECT / "image/apmpi_appliance",
        package / "apmpi_appliance",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    metadata = package / f"apmpi-{version}.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: apmpi\nVersion: {version}\n")
    _compile_c(folder / "aarch64", sysroot, package)
    _compile_python(sysroot, package)
    for path in [package, *package.rglob("*")]:
        os.utime(path, (epoch, epoch))
    return package


def _compile_c(build: Path, sysroot: Path, package: Path) -> None:
    include = sysroot / f"usr/include/{PYTHON}"
    libraries = sysroot / f"usr/lib/{TRIPLE}"
    environment = {
        **os.environ,
        "PKG_CONFIG_LIBDIR": f"{libraries}/pkgconfig",
        "PKG_CONFIG_SYSROOT_DIR": str(sysroot),
        "CFLAGS": f"--sysroot={sysroot} -ffile-prefix-map={PROJECT}=.",
        "LDFLAGS": f"--sysroot={sysroot} -s",
    }
    for command in (
        [
            *("cmake", "-S", PROJECT / "native", "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DSKBUILD=ON"),
            *("-DBUILD_TESTING=OFF", "-DCMAKE_TOOLCHAIN_FILE=aarch64-linux-gnu.cmake"),
            *(f"-DAPMPI_CPU={PROCESSOR}", f"-DPython3_EXECUTABLE={sys.executable}"),
            *(
                f"-DPython_INCLUDE_DIR={include}",
                f"-DPython_SOABI=cpython-{PYTHON[6:].replace('.', '')}-{TRIPLE}",
            ),
        ],
        ["cmake", "--build", build],
        ["cmake", "--install", build, "--prefix", package],
    ):
        done = subprocess.run(
            [str(part) for part in command], env=environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"image: {command[0]} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _compile_python(sysroot: Path, package: Path) -> None:
    """Compile to bytecode with the Pi's Python, so that it need not be done at each boot."""
    emulated = ["qemu-aarch64-static", "-L", str(sysroot), str(sysroot / "usr/bin" / PYTHON)]
    command = ["-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    names = ["-s", str(package), "-p", f"/usr/lib/{PYTHON[:7]}/dist-packages", str(package)]
    environment = {**os.environ, "PYTHONHOME": str(sysroot / "usr"), "PYTHONHASHSEED": "0"}
    subprocess.run([*emulated, *command, *names], check=True, env=environment)
