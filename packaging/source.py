"""The source of packages: the working tree's files, its version and its time."""

import io
import os
import subprocess
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from roots import PROJECT


def version() -> str:
    """Return the version, which is stated in pyproject.toml only."""
    found: str = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    return found


def commit_time() -> int:
    """Return the time of the last commit, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    return int(_git("log", "-1", "--format=%ct"))


def write_source(target: Path, more: Mapping[str, str]) -> None:
    """Write the working tree's files, as git would add them, as apmpi/ in a tar file.

    more: text of other files by name
    """
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    with tarfile.open(target, "w") as tar:
        for name in sorted(filter(None, names)):
            if (PROJECT / name).exists():  # not if deleted, and not yet committed
                tar.add(PROJECT / name, f"apmpi/{name}", filter=_as_root)
        for name, text in more.items():
            member = tarfile.TarInfo(f"apmpi/{name}")
            member.size, member.mtime = len(text.encode()), commit_time()
            tar.addfile(member, io.BytesIO(text.encode()))


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
