"""The service's configuration for the page: read, checked as `apmpi check` does, written, and taken over.

The file before is kept beside it as NAME.before. Writing it back keeps the present one under that name.
"""

import hashlib
import math
import os
import signal
import stat
import time
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from apmpi.cards.replace import replace
from apmpi.cards.text_file import decoded, read_bytes
from apmpi.errors import CommandError, ConfigError, EndpointError
from apmpi.service.layout import taken_live
from apmpi.service.socket_client import ServiceGone, Subscription
from apmpi.service.yaml_reader import parse
from apmpi.settings import Endpoint, Features, Settings, Tuning, rows

EXPECTED = "a YAML file"
# systemd starts the unit that takes a configuration over within milliseconds; it then reads, writes, reloads.
TAKEN_OVER_TIMEOUT_S = 15.0


class Changed(RuntimeError):
    """The file is not the one that was edited any more."""


class Configuration:
    """The configuration's file.

    path            of the file
    handed          where an accepted text is put instead of into the file, for the unit that takes it over
                    (apmpi.tools.web.take_over); None: it is written at once, and the service is told
    socket_path     of the service
    password_hint   how the password is set with which it may be changed
    """

    def __init__(self, path: Path, handed: Path | None, socket_path: Path | None, password_hint: str) -> None:
        self.password_hint = password_hint
        self.path = path.resolve()  # a link stays one: what it leads to is replaced
        self.before = before_path(self.path)
        self._handed = handed
        self._socket_path = socket_path

    def text(self) -> str:
        """Return the file's text. Raises FileError."""
        return decoded(read_bytes(self.path, EXPECTED), str(self.path))

    def put(self, text: str, version: str) -> str:
        """Check a text, write it and have the service take it over; return what came of it, as a sentence.

        version   of the text that was edited
        Raises ConfigError with the sentence of `apmpi check` and Changed; then nothing has changed. Raises
        CommandError or FileError if it cannot be read or written.
        """
        text = text.removeprefix("\ufeff")  # a byte order mark, which reading leaves out, too
        fresh = parse(text.encode(), str(self.path))
        present = self.text()
        if version_of(present) != version:
            raise Changed("the file has changed meanwhile, expected the text that was shown: load it again")
        if text == present:
            return "nothing has changed"
        if self._handed is None:
            install(self.path, text)
        else:
            _write(self._handed, text.encode(), 0o644)
            self._wait_for(text)
        try:
            self._reload()
        except ServiceGone:
            return "saved; the service does not run, and takes it at its next start"
        except PermissionError:
            return "saved; only root may have the service take it over: systemctl reload apmpi"
        except (EndpointError, OSError) as error:
            return f"saved; the service could not be told ({error}): systemctl reload apmpi"
        return "saved, and taken over" + _waiting(present, fresh, str(self.path))

    def put_back(self, version: str) -> str:
        """Put the file before back, as put() does."""
        return self.put(decoded(read_bytes(self.before, EXPECTED), str(self.before)), version)

    def _reload(self) -> None:
        """Have the service read its configuration again, unless the unit that took it over does. Raises
        EndpointError or OSError."""
        with Subscription("figures", self._socket_path) as service:
            if self._handed is None:
                pid = service.service_pid()
                if pid <= 0:  # which os.kill takes for a group of processes
                    raise OSError("it runs in another namespace")
                os.kill(pid, signal.SIGHUP)

    def _wait_for(self, text: str) -> None:
        """Wait until the file has that text. Raises CommandError."""
        deadline_s = time.monotonic() + TAKEN_OVER_TIMEOUT_S
        while self.text() != text:
            if time.monotonic() > deadline_s:
                raise CommandError("not taken over: journalctl -u apmpi-web-take-over has the reason")
            time.sleep(0.1)


def before_path(path: Path) -> Path:
    """Return the place of the file before."""
    return path.with_name(path.name + ".before")


def version_of(text: str) -> str:
    """Return what identifies a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def install(path: Path, text: str) -> None:
    """Replace the configuration's file by a valid text and keep the file before, or change nothing. Raises
    CommandError or FileError."""
    present = read_bytes(path, EXPECTED)
    mode = stat.S_IMODE(path.stat().st_mode)
    _write(before_path(path), present, mode)
    _write(path, text.encode(), mode)


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        replace(path, content, mode)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written ({error.strerror})") from None


def _waiting(present: str, fresh: Settings, name: str) -> str:
    """Return which of the changed keys are read at a start alone, to be added to a sentence."""
    try:
        _, waiting = taken_live(parse(present.encode(), name), fresh)
    except ConfigError:  # the file so far was not valid
        return ""
    return f"; read at the next start only: {', '.join(waiting)}" if waiting else ""


def setting_rows() -> list[list[str]]:
    """Return name, meaning, allowed values, default, and how it takes effect, of each setting."""
    found: list[list[str]] = []
    for name, row in rows(Settings).items():
        kind = get_type_hints(Settings)[name]
        if kind in (Features, Tuning):
            found += [_setting(kind, inner, f"{name}.", row.live) for inner in rows(kind)]
        else:
            found.append(_setting(Settings, name, "", row.live))
    # Of an endpoint another device is taken live, too (apmpi.service.layout.taken_live).
    found += [_setting(Endpoint, name, "ENDPOINT.", name == "device") for name in rows(Endpoint)]
    return found


def _setting(part: type[Any], name: str, prefix: str, live: bool) -> list[str]:
    row = rows(part)[name]
    default = {entry.name: entry.default for entry in fields(part)}[name]
    allowed = ["true, false"] if isinstance(default, bool) else []
    allowed += [", ".join(map(str, row.choices))] if row.choices else []
    allowed += [f"{row.low:g} to {row.high:g}"] if row.high < math.inf else []
    values = ", ".join(allowed) + (f" {row.unit}" if row.unit and allowed else "")
    shown = "" if default in (None, (), MISSING) else str(default).lower()
    return [prefix + name, row.meaning, values, shown, "at once" if live else "at a restart"]
