"""Command of apmpi-web-take-over.service: `take_over HANDED FILE` puts a configuration into its place.

The page's service (apmpi-web.service) may not write the configuration's folder. It hands a text over, which
this command, as root, takes for a stranger's: no link is followed, and the text is checked again.
"""

import os
import sys
from pathlib import Path

from apmpi.cards.text_file import one_line, read_text
from apmpi.errors import CommandError, ConfigError, FileError
from apmpi.service.yaml_reader import parse
from apmpi.tools.web.configuration import EXPECTED, install


def main(handed: Path, path: Path) -> int:
    """Check and install the text; return the exit status."""
    try:
        text = handed_text(handed)
        parse(text.encode(), str(path))
        install(path.resolve(), text)
    except (CommandError, ConfigError, FileError) as error:
        print(f"apmpi: {one_line(str(error))}", file=sys.stderr)
        return 2
    print(f"{path}: replaced by what the page handed over")
    return 0


def handed_text(handed: Path) -> str:
    """Return the text that the page has handed over, following no link. Raises FileError."""
    try:
        descriptor = os.open(handed, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(f"{handed}: cannot be read ({error.strerror})") from None
    try:
        return read_text(Path(f"/proc/self/fd/{descriptor}"), EXPECTED, name=str(handed))
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
