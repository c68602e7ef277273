"""Index of updates on a server: what the newest update is for one kind of boards, behind a signature.

    HEADER_BYTES    SSH signature of the rest, as of an update (apmpi_appliance.update)
    text            Index, at most TEXT_MAX_BYTES

It lies beside the update as BOARD.index; `make image` writes it.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from apmpi_appliance import update
from apmpi_appliance.places import ROOT

MARK = "apmpi index\n"
# Another one than an update's, so that neither can stand for the other.
NAMESPACE = "apmpi-index"
# The fields take some 200.
TEXT_MAX_BYTES = 4096
PATTERNS = {
    "version": "[0-9.]{1,40}",
    "board": "[a-z0-9.-]{1,40}",
    "file": "[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
    "size_bytes": "[0-9]{1,12}",
    "sha256": "[0-9a-f]{64}",
}
EXPECTED = "an index made by `make image`"


@dataclass(frozen=True, slots=True)
class Index:
    """Content of an index.

    version      as in update.Description
    board        as in slots.BOARD
    file         name of the update, beside the index
    size_bytes   of that file
    sha256       of that file, in hexadecimal
    """

    version: str
    board: str
    file: str
    size_bytes: int
    sha256: str

    def content(self) -> bytes:
        """Return the text that is signed."""
        return (MARK + "".join(f"{name} {value}\n" for name, value in asdict(self).items())).encode()

    @classmethod
    def read(cls, content: bytes, name: str, root: Path = ROOT) -> Self:
        """Return the content of an index after its signature is verified. Raises UpdateError."""
        signature, text = content[: update.HEADER_BYTES].rstrip(b"\n") + b"\n", content[update.HEADER_BYTES :]
        if not signature.startswith(update.SIGNATURE_BEGIN) or not 0 < len(text) <= TEXT_MAX_BYTES:
            raise update.UpdateError(f"{name}: no index, expected {EXPECTED}")
        update.check_signature(iter([text]), signature, name, root, NAMESPACE)
        pattern = MARK + "".join(rf"{field} ({value})\n" for field, value in PATTERNS.items())
        found = re.fullmatch(pattern, text.decode("ascii", errors="replace"))
        if found is None:
            raise update.UpdateError(f"{name}: of another version of apmpi, expected {EXPECTED}")
        version, board, file, size, sha256 = found.groups()
        return cls(version, board, file, int(size), sha256)
