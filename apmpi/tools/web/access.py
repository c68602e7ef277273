"""The right to change something by the page: the password, failed tries, and sessions.

The password is kept as scrypt's hash of it (RFC 7914) in one line of a file, with all parameters:

    scrypt N r p SALT HASH        the last two in hexadecimal

Without such a file nobody can sign in, so nothing can be changed.
"""

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import time
import unicodedata
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from apmpi.cards.replace import replace
from apmpi.cards.text_file import read_text
from apmpi.errors import CommandError, FileError

PASSWORD_FILE = "web-password"
PASSWORD_MIN_CHARACTERS = 8
# The hash takes as long for any length; a longer one is none that a person typed.
PASSWORD_MAX_CHARACTERS = 200
# 16 MiB (128 N r bytes) and 0.05 s on x86-64 for each try: what RFC 7914 names for interactive use.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 16384, 8, 1
SALT_BYTES, HASH_BYTES = 16, 32
RECORD = re.compile(r"scrypt 16384 8 1 ([0-9a-f]{32}) ([0-9a-f]{64})\n?")

# Failed tries within that time, of one address and of all: a person mistypes a few times. 20 a minute are
# 10 million in a year; a password of 8 random letters has 200,000 million.
TRIES_S = 60.0
TRIES_OF_ADDRESS_MAX = 5
TRIES_MAX = 20

# Further ones end the oldest.
SESSIONS_MAX = 16
# A session ends so long after its last request, and in any case after
SESSION_IDLE_S = 30 * 60.0
SESSION_MAX_S = 12 * 3600.0


def credential_path(configuration: Path, name: str) -> Path:
    """Return the path of PASSWORD_FILE or the like: what systemd gave the service as a credential, else
    beside the configuration."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return (Path(folder) if folder else configuration.parent) / name


def set_password(path: Path, password: str) -> None:
    """Write the hash of a password. Raises CommandError."""
    if problem := length_problem(password):
        raise CommandError(f"--set-password: {problem}")
    write_record(path, record_of(password))


def write_record(path: Path, record: str) -> None:
    """Write what is kept of a secret. Raises CommandError."""
    try:
        replace(path, f"{record}\n".encode(), mode=0o600)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written ({error.strerror})") from None


def read_record(path: Path, what: str, pattern: re.Pattern[str]) -> str | None:
    """Return the file's line; None if there is none, or no valid one. `what` names it in messages."""
    try:
        text = read_text(path, what, 1024)
    except FileError:
        return None
    return text if pattern.fullmatch(text) else None


def length_problem(password: str) -> str:
    """Return what is wrong with a new password, without the password; "" if it can be one."""
    if PASSWORD_MIN_CHARACTERS <= len(password) <= PASSWORD_MAX_CHARACTERS:
        return ""
    expected = f"{PASSWORD_MIN_CHARACTERS} to {PASSWORD_MAX_CHARACTERS}"
    return f"{len(password)} characters given, expected {expected}"


def record_of(password: str) -> str:
    """Return the line that is kept of a password."""
    salt = secrets.token_bytes(SALT_BYTES)
    return f"scrypt {SCRYPT_N} {SCRYPT_R} {SCRYPT_P} {salt.hex()} {_hashed(password, salt).hex()}"


def password_record(path: Path) -> str | None:
    """Return the file's line; None if there is none, or no valid one."""
    return read_record(path, "a password's hash", RECORD)


def is_password(record: str, password: str) -> bool:
    """Return whether the record is of that password; takes SCRYPT_N's time and memory."""
    found = RECORD.fullmatch(record)
    if found is None or len(password) > PASSWORD_MAX_CHARACTERS:
        return False
    return hmac.compare_digest(_hashed(password, bytes.fromhex(found[1])), bytes.fromhex(found[2]))


def _hashed(password: str, salt: bytes) -> bytes:
    # Keyboards differ in how they compose an accented letter.
    typed = unicodedata.normalize("NFC", password).encode()
    return hashlib.scrypt(typed, salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=HASH_BYTES)


class Tries:
    """Failed tries of the last TRIES_S."""

    def __init__(self) -> None:
        self._failed: deque[tuple[float, str]] = deque(maxlen=TRIES_MAX)

    def allowed(self, address: str, now_s: float) -> bool:
        """Return whether one more try is permitted."""
        recent = [source for time_s, source in self._failed if now_s - time_s < TRIES_S]
        return len(recent) < TRIES_MAX and recent.count(_source(address)) < TRIES_OF_ADDRESS_MAX

    def failed(self, address: str, now_s: float) -> None:
        """Count a failed try."""
        self._failed.append((now_s, _source(address)))


def _source(address: str) -> str:
    """Return the address, of IPv6 its network: a computer has as many addresses there as it likes."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))


@dataclass(slots=True)
class Session:
    """A browser that has given the password.

    csrf     secret of the page in that browser, which other pages cannot read
    record   of the password: a new password ends the session
    """

    csrf: str
    record: str
    began_s: float
    used_s: float


class Sessions:
    """The sessions by their tokens, the secrets in the browsers' cookies."""

    def __init__(self) -> None:
        self._by_token: dict[str, Session] = {}

    def begin(self, record: str) -> tuple[str, Session]:
        """Return a new session and its token in front."""
        while len(self._by_token) >= SESSIONS_MAX:
            del self._by_token[next(iter(self._by_token))]
        token, now_s = secrets.token_urlsafe(32), time.monotonic()
        self._by_token[token] = Session(secrets.token_urlsafe(32), record, now_s, now_s)
        return token, self._by_token[token]

    def find(self, token: str, record: str | None) -> Session | None:
        """Return the session of a token, None if there is none any more."""
        session, now_s = self._by_token.get(token), time.monotonic()
        if session is None:
            return None
        idle = now_s - session.used_s > SESSION_IDLE_S or now_s - session.began_s > SESSION_MAX_S
        if idle or session.record != record:
            del self._by_token[token]
            return None
        session.used_s = now_s
        return session

    def end(self, token: str) -> None:
        """End a session."""
        self._by_token.pop(token, None)
