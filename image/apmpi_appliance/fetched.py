"""Command that installs what apmpi_appliance.fetch has handed over, and reports what it could not fetch.

    python3 -m apmpi_appliance.fetched

It runs as root, after the other one has ended. Nothing of that one's folder is believed: the file goes to a
folder of root's before it is verified, so that it cannot be exchanged any more, no link is followed, and the
sentence is cut to one line. From there on it is an update as any other (apmpi_appliance.update).
"""

import shutil
import stat
import subprocess
from pathlib import Path

from apmpi.cards.text_file import printable
from apmpi.errors import FileError
from apmpi.tools.web.take_over import handed_text
from apmpi_appliance import fetch, slots, update
from apmpi_appliance.places import BOOT, DATA, ROOT, tell_user

# Of root alone, on the file system of fetch.FOLDER. A file that is here at boot was being installed.
TAKEN = f"{DATA}/fetched/{update.NAME}"
PREFIX = "updates: "
# The longest sentence has two addresses.
SENTENCE_MAX_CHARACTERS = 600


def main(root: Path = ROOT) -> bool:
    """Report, and install the file if there is one. Returns True if a restart will start it on trial."""
    _report(root)
    handed, taken = root / fetch.FOLDER / update.NAME, root / TAKEN
    if _exists(handed):
        _remove(taken)
        handed.rename(taken)
    if not _exists(taken):
        return False
    try:
        status = taken.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            problem = f"update refused: {taken.name}: is no file of its own, expected one that was fetched"
            print(problem, flush=True)
            tell_user(root, slots.REPORT_NAME, f"{problem}\n")
            return False
        return update.main(taken, root)
    finally:
        _remove(taken)


def _report(root: Path) -> None:
    """Put the sentence into update.txt, or take an earlier one away."""
    report, told = root / fetch.REPORT, root / BOOT / slots.REPORT_NAME
    if not _exists(report):
        return
    try:
        problem = printable(handed_text(report), SENTENCE_MAX_CHARACTERS)
    except FileError as error:
        problem = str(error)
    if problem:
        tell_user(root, slots.REPORT_NAME, f"{PREFIX}{problem}\n")
    elif told.exists() and told.read_text(errors="replace").startswith(PREFIX):
        tell_user(root, slots.REPORT_NAME, "")


def _exists(path: Path) -> bool:
    """Return whether there is anything of that name, be it a link that leads nowhere."""
    return path.is_symlink() or path.exists()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    if main():
        subprocess.run(["systemctl", "reboot"], check=True)
