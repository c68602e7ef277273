"""`make release`: all that a release consists of, in one folder, with checksums and notes.

    release.py FOLDER FILE...
    release.py

FILE...: the packages and wheels (`make deb wheels`), and the image's files (`make image`). FOLDER gets them,
SHA256SUMS, and notes.md, the part of CHANGELOG.md on this version. Everything must be of the version of
pyproject.toml, which must have a part of its own in CHANGELOG.md, and nothing may be uncommitted. Without
arguments the latter two are checked, before hours of building.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from roots import PROJECT, say
from source import version


def main() -> int:
    parser = argparse.ArgumentParser(description="The files of a release, with checksums and notes.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE")
    given = parser.parse_args()
    folder: Path | None = given.folder
    if folder is not None and not given.files:
        parser.error("FOLDER given without FILE, expected both or neither")
    try:
        notes = release_notes((PROJECT / "CHANGELOG.md").read_text(), version())
        check_files(given.files, version())
    except ValueError as error:
        raise SystemExit(f"release: {error}") from None
    if changed := _changed():
        raise SystemExit(f"release: changes that are not committed, expected none:\n{changed}")
    if folder is None:
        return 0
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in given.files:
        shutil.copy(file, folder)
    (folder / "notes.md").write_text(notes)
    (folder / "SHA256SUMS").write_text(checksums(folder))
    for path in sorted(folder.iterdir()):
        say(f"{path.stat().st_size / 2**20:7.1f} MiB  {path}")
    return 0


def release_notes(changelog: str, number: str) -> str:
    """Return the text of a version's part of the changelog. Raises ValueError without one."""
    part = re.search(
        rf"^## {re.escape(number)}\b[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if part is None:
        raise ValueError(
            f"CHANGELOG.md has no part on {number}, expected a heading ## {number} - YEAR-MONTH-DAY"
        )
    return part[1].strip() + "\n"


def check_files(files: list[Path], number: str) -> None:
    """Raises ValueError for a file that is missing, of another version or of a name that another one has."""
    names: dict[str, Path] = {}
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} is missing, expected it to be built (make deb wheels image)")
        if file.suffix == ".index":  # devices ask for it by its boards alone
            is_of_it = f"\nversion {number}\n".encode() in file.read_bytes()
        else:
            is_of_it = re.match(rf"(pipewire-)?apmpi[-_]{re.escape(number)}\b", file.name) is not None
        if not is_of_it:
            raise ValueError(f"{file} is of another version, expected {number}: remove it")
        if file.name in names:
            raise ValueError(f"{file} and {names[file.name]} have one name, expected two")
        names[file.name] = file


def checksums(folder: Path) -> str:
    """Return the lines that `sha256sum --check SHA256SUMS` reads."""
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _changed() -> str:
    asked = ["git", "-C", str(PROJECT), "status", "--short"]
    return subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.rstrip()


if __name__ == "__main__":
    sys.exit(main())
