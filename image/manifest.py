"""The list with which Raspberry Pi Imager offers the image: name, size and hash, boards, and that it asks for
name, Wi-Fi and SSH, which the device takes over (apmpi_appliance/imager.py).

Fields: doc/schema-notes.md and doc/os_customisation_formats.md of github.com/raspberrypi/rpi-imager.
"""

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

# Imager's tags of boards. A Zero 2 W and the Compute Modules have those of the chip that they share.
DEVICES = {
    "pi3-pi4": {
        "Raspberry Pi 4": ("pi4-64bit", "4, 400 and Compute Module 4"),
        "Raspberry Pi Zero 2 W": ("pi3-64bit", "Zero 2 W"),
        "Raspberry Pi 3": ("pi3-64bit", "3 A+, B, B+ and Compute Module 3"),
    },
    "pi5": {"Raspberry Pi 5": ("pi5-64bit", "5, not tried yet")},
}
# A bar for each signal: far end, microphone, output.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><rect width="40" height="40" rx="8" '
    'fill="#2d7d5a"/><path d="M11 30V16M20 30V9M29 30v-7" stroke="#fff" stroke-width="5" '
    'stroke-linecap="round"/></svg>'
)


def manifest(image: Path, compressed: Path, version: str, board: str, epoch: int, downloads: str) -> str:
    """Return the list's text.

    downloads   URL of the folder where `compressed` will be; "": the file where it is now
    """
    boards = DEVICES[board]
    url = f"{downloads.rstrip('/')}/{compressed.name}" if downloads else compressed.resolve().as_uri()
    entry = {
        "name": f"apmpi {version}",
        "description": "A microphone without the echo of its loudspeaker",
        "icon": "data:image/svg+xml;base64," + base64.b64encode(ICON.encode()).decode(),
        "url": url,
        "extract_size": image.stat().st_size,
        "extract_sha256": _sha256(image),
        "image_download_size": compressed.stat().st_size,
        "image_download_sha256": _sha256(compressed),
        "release_date": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d"),
        "devices": sorted({tag for tag, _ in boards.values()}),
        "init_format": "cloudinit",
        "architecture": "armv8",
    }
    devices = [
        {"name": name, "tags": [tag], "description": text, "matching_type": "inclusive", "capabilities": []}
        for name, (tag, text) in boards.items()
    ]
    return json.dumps({"imager": {"devices": devices}, "os_list": [entry]}, indent=1) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
