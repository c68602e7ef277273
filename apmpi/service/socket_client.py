"""Client of the local socket (apmpi.service.protocol)."""

import contextlib
import errno
import grp
import http.client
import json
import os
import re
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apmpi.errors import EndpointError
from apmpi.figures import SIGNALS
from apmpi.service.bounded_json import JsonError, parsed
from apmpi.service.protocol import LINE_MAX_BYTES, PROTOCOL, client_paths
from apmpi.settings import CHANNELS_MAX, CHANNELS_MIN, SAMPLE_RATES_HZ

# A service that has not answered by then will not: it answers ten times a second.
TIMEOUT_S = 5.0
# Of the page for Prometheus, which has some 6 KB.
METRICS_MAX_BYTES = 256 * 1024
# The service's longest sentence has some 200 characters, the longest name of a figure some 40.
TEXT_MAX_CHARACTERS = 1000
# Above any figure there is; infinity is above it, and NaN not below it.
LARGEST = 1e15
# Figures are named as in apmpi.figures.
NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")


# Numbers and flags by name; None is what is not known. `state` and `waiting` are sentences.
Figures = Mapping[str, Any]


class ServiceGone(EndpointError):
    """There is no service (any more) to connect to; it may start later."""


class Subscription:
    """A connection; its `fileno` is for select(). For one thread.

    path             of the socket
    sample_rate_hz   of the sound
    channels         count of each of SIGNALS
    """

    def __init__(self, want: str, path: Path | None = None) -> None:
        """Connect and ask for "figures" or "sound", on `path` or else wherever a service answers. Raises
        ServiceGone, or EndpointError for what waiting does not cure."""
        self._socket, self.path = _connect(path)
        self._received = bytearray()
        try:
            self._socket.settimeout(TIMEOUT_S)
            with contextlib.suppress(BrokenPipeError):  # disconnected already: the reason is there to be read
                self._socket.sendall(json.dumps({"want": want}).encode() + b"\n")
            deadline_s = time.monotonic() + TIMEOUT_S
            while b"\n" not in self._received:
                self._receive()
                if time.monotonic() > deadline_s:
                    raise ServiceGone(f"{self.path}: the service does not answer")
            hello, _, self._received = self._received.partition(b"\n")
            self._understand(self._parsed(bytes(hello)))
        except OSError as error:
            self.close()
            raise self._gone(error) from None
        except BaseException:
            self.close()
            raise

    def _understand(self, hello: dict[str, Any]) -> None:
        try:
            if hello["protocol"] != PROTOCOL:
                raise EndpointError(
                    f"{self.path}: is of another version of apmpi ({printable(hello['apmpi'])})"
                )
            self.sample_rate_hz = int(hello["sample_rate_hz"])
            self.channels = {name: int(hello["channels"][name]) for name in SIGNALS}
            counts = range(CHANNELS_MIN, CHANNELS_MAX + 1)
            if self.sample_rate_hz not in SAMPLE_RATES_HZ or not set(self.channels.values()) <= set(counts):
                raise self._not_apmpi()
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._not_apmpi() from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def service_pid(self) -> int:
        """Return the process number of the service (SO_PEERCRED of unix(7)), 0 in another namespace."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        return int(pid)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next_lines(self) -> list[dict[str, Any]]:
        """Return the lines that have come; without any, wait for a part of one, so the list may be empty.

        Raises ServiceGone when the service ends, EndpointError when what answers is not apmpi."""
        if b"\n" not in self._received:
            self._receive()
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        return [self._parsed(bytes(line)) for line in lines]

    def _receive(self) -> None:
        try:
            part = self._socket.recv(256 * 1024)
        except OSError as error:
            raise self._gone(error) from None
        if not part:
            raise ServiceGone(f"{self.path}: the service has stopped")
        self._received += part
        if len(self._received) > LINE_MAX_BYTES:
            raise self._not_apmpi()

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            content = parsed(line, LINE_MAX_BYTES)
        except JsonError:
            raise self._not_apmpi() from None
        if isinstance(problem := content.get("error"), str):
            raise EndpointError(f"{self.path}: {printable(problem)}")
        return content

    def _not_apmpi(self) -> EndpointError:
        return EndpointError(f"{self.path}: what answers there is not apmpi")

    def _gone(self, error: OSError) -> ServiceGone:
        if isinstance(error, TimeoutError):
            return ServiceGone(f"{self.path}: the service does not answer")
        return ServiceGone(f"{self.path}: the service has gone ({error.strerror})")


def metrics_text(path: Path | None = None) -> str:
    """Return the page for Prometheus. Raises EndpointError with the service's sentence if it has none."""
    client, place = _connect(path)
    with client:
        try:
            client.settimeout(TIMEOUT_S)
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            response = http.client.HTTPResponse(client)
            response.begin()
            text = response.read(METRICS_MAX_BYTES).decode()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise EndpointError(f"{place}: gives no metrics ({printable(error)})") from None
    if response.status != http.client.OK:
        raise EndpointError(f"{place}: {printable(text)}")
    return text


def printable(text: object) -> str:
    """Return it as text of limited length, without control characters, which would act on a terminal."""
    return "".join(letter for letter in str(text)[:TEXT_MAX_CHARACTERS] if letter.isprintable())


def figures_of(line: Mapping[str, Any]) -> Figures | None:
    """Return a line's figures without what is no figure, None if it has none."""
    given = line.get("figures")
    if not isinstance(given, dict):
        return None
    figures: dict[str, Any] = {"state": "", "waiting": ""}
    for name, value in given.items():
        if name in ("state", "waiting"):
            figures[name] = printable(value)
        elif not NAME.fullmatch(name):
            continue
        elif value is None or (isinstance(value, int | float) and abs(value) < LARGEST):
            figures[name] = value
    return figures


def _connect(path: Path | None) -> tuple[socket.socket, Path]:
    """Return a connection to the first service that answers, and its path."""
    problems: list[EndpointError] = []
    for place in [path] if path else client_paths():
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(TIMEOUT_S)
        try:
            client.connect(os.fspath(place))
            return client, place
        except OSError as error:
            client.close()
            problems.append(_failure(place, error))
    # Of several, the error of a socket that exists says more than that of one that does not.
    raise next((problem for problem in problems if not isinstance(problem, ServiceGone)), problems[-1])


def _failure(path: Path, error: OSError) -> EndpointError:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return ServiceGone(f"{path}: no service answers, expected one (systemctl start apmpi, or apmpi run)")
    if error.errno in (errno.EACCES, errno.EPERM):
        return EndpointError(f"{path}: may not be opened, expected a member of the group {_group(path)}")
    return EndpointError(f"{path}: cannot be opened ({error.strerror or error})")


def _group(path: Path) -> str:
    try:
        return grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "apmpi"
