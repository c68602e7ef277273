"""The token with which Prometheus may read the metrics over the page's port (apmpi.tools.web.scrape).

Its SHA-256 is kept in one line of a file:

    sha256 HASH     in hexadecimal

A token is long and random, unlike a password: it needs neither salt nor a slow hash, which each scrape would
cost again.
"""

import hashlib
import hmac
import re
from pathlib import Path

from apmpi.errors import CommandError
from apmpi.tools.web.access import read_record, write_record

TOKEN_FILE = "metrics-token"
RECORD = re.compile(r"sha256 ([0-9a-f]{64})\n?")
# 128 bits of `openssl rand -hex 16`; the characters and the longest are those of a header (RFC 6750, 2.1).
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{32,200}=*", re.ASCII)
EXPECTED = "32 to 200 letters, digits and -._~+/, as of: openssl rand -hex 16"


def token_problem(token: str) -> str:
    """Return what is wrong with a new token, without the token; "" if it can be one."""
    if TOKEN.fullmatch(token):
        return ""
    return f"{len(token)} characters given, expected {EXPECTED}"


def set_token(path: Path, token: str) -> None:
    """Write the hash of a token. Raises CommandError."""
    if problem := token_problem(token):
        raise CommandError(f"--set-metrics-token: {problem}")
    write_record(path, record_of(token))


def record_of(token: str) -> str:
    """Return the line that is kept of a token."""
    return f"sha256 {_hashed(token)}"


def token_record(path: Path) -> str | None:
    """Return the file's line; None if there is none, or no valid one."""
    return read_record(path, "a token's hash", RECORD)


def is_token(record: str, token: str) -> bool:
    """Return whether the record is of that token."""
    found = RECORD.fullmatch(record)
    return found is not None and hmac.compare_digest(_hashed(token), found[1])


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
