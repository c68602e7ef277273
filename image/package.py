"""apmpi's Debian package in the image: built by packaging/deb.py, unpacked, compiled to bytecode.

Debian's packages are installed once and kept. This one differs with every commit and is laid over them, so
dpkg's part is done here: its dependencies must be among those packages, and what is left out of them is left
out of it. Its scripts do not run: what they make is made at the build, bytecode here, and the user, the
journal's catalog and the enabled services in build.py.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import debian

PROJECT = Path(__file__).parents[1]
ARCHITECTURE = "arm64"
PYTHON = f"python{debian.PYTHON_VERSION}"
# The interpreter for the emulator: paths in the tar file of Debian's packages.
PYTHON_FILES = (
    *(f"./usr/bin/{PYTHON}", f"./usr/lib/{PYTHON}"),
    *("./usr/lib/ld-linux-aarch64.so.1", "./usr/lib/aarch64-linux-gnu"),
)


def build(folder: Path, version: str) -> Path:
    """Return the package of this working tree."""
    options = ["--release", debian.SUITE, "--architecture", ARCHITECTURE]
    subprocess.run([sys.executable, PROJECT / "packaging/deb.py", folder, *options], check=True)
    (package,) = (folder / debian.SUITE).glob(f"apmpi_{version}~*_{ARCHITECTURE}.deb")
    return package


def check_dependencies(package: Path, status: str) -> None:
    """Raises SystemExit for a dependency that the packages of dpkg's status do not satisfy."""
    wanted = subprocess.run(
        ["dpkg-deb", "--field", package, "Depends"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "status").write_text(status)
        done = subprocess.run(
            ["dpkg-checkbuilddeps", f"--admindir={folder}", f"-a{ARCHITECTURE}", "-I", "-d", wanted,
             str(PROJECT / "debian/control")],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    if done.returncode != 0:
        missing = done.stderr.strip().rpartition("dependencies: ")[2]
        raise SystemExit(f"image: {package.name} depends on {missing}, expected it in image/packages.txt")


def unpack(package: Path, tree: Path) -> None:
    """Unpack the package's files into a new tree, but for those that are left out of all packages."""
    subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
    for path in sorted(tree.rglob("*"), reverse=True):  # what a folder holds before the folder
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif debian.is_left_out(f"/{path.relative_to(tree)}"):
            path.unlink()


def compile_python(folder: Path, packages: Path, tree: Path, modules: str) -> None:
    """Compile modules/ in the tree with the Pi's Python, so that it need not be done at each boot.

    packages   the tar file of Debian's packages, which has that Python
    """
    root = folder / "python"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    extract = ["tar", "--extract", f"--file={packages}", f"--directory={root}", "--no-same-owner"]
    subprocess.run([*extract, *PYTHON_FILES], check=True)
    (root / "lib").symlink_to("usr/lib")
    emulated = ["qemu-aarch64-static", "-L", str(root), str(root / "usr/bin" / PYTHON)]
    command = ["-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    names = ["-s", str(tree), "-p", "/", str(tree / modules)]
    environment = {**os.environ, "PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0"}
    subprocess.run([*emulated, *command, *names], check=True, env=environment)
