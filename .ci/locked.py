"""Command that prints a lock file for pip, without the system's Python packages that the environment can use.

In an ordinary virtual environment that is the whole file. In one with --system-site-packages Debian's
versions are used, as in the image, and the rest is locked.
"""

import importlib.metadata
import re
import sys
from pathlib import Path


def provided(name: str) -> bool:
    """Return True if the package is installed outside of the virtual environment and visible in it."""
    try:
        place = importlib.metadata.distribution(name).locate_file("")
    except importlib.metadata.PackageNotFoundError:
        return False
    return not Path(str(place)).is_relative_to(sys.prefix)


# One block for each package: a line that begins with its name, and indented lines with hashes and reasons.
for block in re.split(r"^(?=\w)", Path(sys.argv[1]).read_text(), flags=re.MULTILINE):
    package = re.match(r"[\w.-]+(?===)", block)
    if package is None or not provided(package[0]):
        print(block, end="")
