"""Command that puts a configuration from the page (`apmpi web`) into the place of the user's file.

    python3 -m apmpi_appliance.page

The page shows and changes the service's own file. What it hands over goes to the boot partition, without the
devices that were chosen, and the file before is kept there as apmpi-before.yaml.
"""

import re
import subprocess
import sys
from pathlib import Path

from apmpi.cards.text_file import one_line, read_bytes
from apmpi.errors import FileError
from apmpi.tools.web.take_over import handed_text
from apmpi_appliance import apart, configuration
from apmpi_appliance.places import BOOT, ROOT, replace, writable

HANDED = "run/apmpi-web/apmpi.yaml"  # below the root folder, by apmpi-web.service


def put(root: Path = ROOT) -> str:
    """Put the text in the file's place, take it over, and return a sentence. Raises FileError; then nothing
    has changed but that there may be a new file before.
    """
    name, chosen = configuration.NAME, (root / configuration.CHOSEN).read_text()
    text = apart.call(name, configuration.without_chosen, handed_text(root / HANDED), chosen)
    file = root / BOOT / name
    present = read_bytes(file, "a YAML file", name=name) if file.exists() else None
    try:
        with writable(root / BOOT):
            if present is not None:
                replace(file.with_name(configuration.BEFORE_NAME), present)
            # Line ends for the editors of Windows.
            replace(file, re.sub(r"\r?\n", "\r\n", text))
    except (OSError, subprocess.CalledProcessError) as error:
        raise FileError(f"{name}: cannot be written to the boot partition ({error})") from None
    return configuration.take_over(root)


def main() -> int:
    """Do it and return the exit status."""
    try:
        print(one_line(put()), flush=True)
    except FileError as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
