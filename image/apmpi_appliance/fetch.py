"""Command that fetches an update over HTTPS, as a user without privileges (apmpi-update-fetch.service).

    python3 -m apmpi_appliance.fetch

network.yaml names a folder of a server. There is the index of the newest update for these boards
(apmpi_appliance.index), which is verified with the keys that updates are verified with. An older version and
one for other boards are refused before anything else is fetched. The update goes to the data partition, under
its hash, so that the next run goes on where this one was interrupted; when size and hash are those of the
index it gets its name. apmpi_appliance.fetched then installs it, as root.

A file that was handed over is not fetched again. If its version is not in use, it was refused or did not get
as far as sound, and would not the next time.
"""

import contextlib
import errno
import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from apmpi.cards.text_file import one_line, printable
from apmpi_appliance import slots, update
from apmpi_appliance.index import TEXT_MAX_BYTES, Index
from apmpi_appliance.places import DATA, ROOT, RUN, replace

# Paths below the root folder. The first two are written by apmpi_appliance.network.
URL = f"{RUN}/updates-url"
AUTHORITY = f"{RUN}/updates-ca.pem"
FOLDER = f"{DATA}/fetch"
REPORT = f"{FOLDER}/report"
# The hash of the file that was handed over last.
HANDED = f"{FOLDER}/handed"
INTERRUPTED = "the last look for an update was interrupted; the next one goes on where it was"
CHUNK_BYTES = 1 << 16
# A server that sends nothing for so long is given up; and after so long in all the index, and this run's part
# of the file: 130 MB in an hour are 36 kB/s.
SILENCE_S = 30.0
INDEX_S = 60.0
FILE_S = 3600.0
# Stays free on the data partition for what is learned about the room and the settings, some 100 KB.
RESERVE_BYTES = 8 << 20


class FetchError(ValueError):
    """No update could be fetched; `str()` is one sentence."""


def fetch(root: Path = ROOT) -> str:
    """Fetch what the server has beyond the running version, and return a sentence. Raises FetchError."""
    url, board, running = (root / URL).read_text().strip(), slots.board(root), slots.version(root)
    opener = _opener(root)
    place = f"{url}{board}.index"
    try:
        offered = Index.read(_text(opener, place), place, root)
        newer, same = update.number_of(offered.version), update.number_of(running)
    except update.UpdateError as error:
        raise FetchError(str(error)) from None
    if offered.board != board:
        raise FetchError(f"{place}: for {offered.board} given, expected an index for {board}")
    if newer < same:
        raise FetchError(f"{place}: version {offered.version} given, expected {running} or newer")
    if newer == same:
        return f"version {running} is the newest"
    with contextlib.suppress(FileNotFoundError):
        if (root / HANDED).read_text().strip() == offered.sha256:
            return f"version {offered.version} was fetched before and is not in use: not once more"
    _download(opener, f"{url}{offered.file}", offered, root)
    return f"version {offered.version} is fetched"


def _opener(root: Path) -> urllib.request.OpenerDirector:
    """Return an opener for HTTPS alone, also after a redirection."""
    authority = root / AUTHORITY
    try:
        context = ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
    except ssl.SSLError:
        raise FetchError("updates-ca.pem: no certificates, expected some in PEM format") from None
    # Python 3.13 sets it: it refuses an authority that `openssl req -x509` makes, for want of a keyUsage.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", f"apmpi/{slots.version(root)} ({slots.board(root)})")]
    return opener


def _open(opener: urllib.request.OpenerDirector, url: str, begin: int = 0) -> http.client.HTTPResponse:
    """Return the server's answer, from byte `begin` on if it can do that. Raises FetchError."""
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    try:
        response: http.client.HTTPResponse = opener.open(
            urllib.request.Request(url, headers=headers), timeout=SILENCE_S
        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"{url}: {_reason(error)}") from None
    return response


def _reason(error: Exception) -> str:
    """Return what went wrong, for the end of a sentence."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} ({printable(str(error.reason))})"
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the server's certificate is not valid here ({reason.verify_message})"
    if isinstance(reason, TimeoutError):
        return "the server does not answer"
    return f"cannot be fetched ({printable(getattr(reason, 'strerror', None) or str(reason), 100)})"


def _chunks(response: http.client.HTTPResponse, url: str, seconds: float) -> Iterator[bytes]:
    """Yield the body's parts as they come. Raises FetchError."""
    end_s = time.monotonic() + seconds
    try:
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
            if time.monotonic() > end_s:
                raise FetchError(f"{url}: the server is slow, not all has come within {seconds:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"{url}: {_reason(error)}") from None


def _text(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    """Return an index as it is on the server. Raises FetchError."""
    content, size_max_bytes = b"", update.HEADER_BYTES + TEXT_MAX_BYTES
    with _open(opener, url) as response:
        for chunk in _chunks(response, url, INDEX_S):
            content += chunk
            if len(content) > size_max_bytes:
                raise FetchError(f"{url}: longer than {size_max_bytes} bytes, expected an index")
    return content


def _download(opener: urllib.request.OpenerDirector, url: str, offered: Index, root: Path) -> None:
    """Fetch the file and hand it over. Raises FetchError."""
    folder = root / FOLDER
    part = folder / f"{offered.sha256}.part"
    try:
        had = _had(part, offered.size_bytes)
        if had < offered.size_bytes:
            _append(opener, url, part, had, offered.size_bytes)
        if _sha256(part) != offered.sha256:
            part.unlink()
            raise FetchError(f"{url}: not the file of the index, expected SHA-256 {offered.sha256}")
        part.rename(folder / update.NAME)
        os.sync()
        replace(root / HANDED, f"{offered.sha256}\n")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            part.unlink(missing_ok=True)
        raise FetchError(f"{url}: cannot be written to the data partition ({error.strerror})") from None


def _had(part: Path, size_bytes: int) -> int:
    """Return how much of the file is there, and remove what is of others. Raises FetchError and OSError."""
    for other in part.parent.glob("*.part"):
        # The user's number may be another one since the part was begun, in another version.
        if other != part or not os.access(other, os.W_OK) or other.stat().st_size > size_bytes:
            other.unlink()
    had_bytes = part.stat().st_size if part.exists() else 0
    system = os.statvfs(part.parent)
    needed, free = size_bytes - had_bytes + RESERVE_BYTES, system.f_bavail * system.f_frsize
    if needed > free:
        raise FetchError(
            f"the update needs {update.mib(needed)} of the data partition, {update.mib(free)} are free"
        )
    return had_bytes


def _append(opener: urllib.request.OpenerDirector, url: str, part: Path, had: int, size_bytes: int) -> None:
    """Fetch what is missing of the part, and keep what has come. Raises FetchError; OSError of the disk."""
    with _open(opener, url, had) as response:
        if response.status != http.client.PARTIAL_CONTENT:
            had = 0  # the server sends all of it
        elif not (response.headers["Content-Range"] or "").startswith(f"bytes {had}-"):
            raise FetchError(f"{url}: the server sends another part of the file than asked for")
        with part.open("r+b" if had else "wb") as file:
            file.seek(had)
            for chunk in _chunks(response, url, FILE_S):
                had += len(chunk)
                if had > size_bytes:
                    raise FetchError(f"{url}: longer than the {size_bytes} bytes of the index")
                file.write(chunk)
    if had < size_bytes:
        raise FetchError(
            f"{url}: the connection ended after {had} of {size_bytes} bytes; the next time it goes on there"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(root: Path = ROOT) -> None:
    """Fetch, and leave a sentence for the user: what went wrong, or nothing."""
    # Until it is replaced: systemd or a power cut may end this.
    replace(root / REPORT, INTERRUPTED)
    problem = ""
    try:
        print(one_line(fetch(root)), flush=True)
    except FetchError as error:
        problem = one_line(str(error))
        print(problem, flush=True)
    replace(root / REPORT, problem)


if __name__ == "__main__":
    main()
