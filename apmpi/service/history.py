"""The service's history: its entries read back from the journal, with systemd-python.

An entry may be anybody's: every program may write to the journal under any name. So each is bounded in size,
its message is made printable, and a value that is not a finite number of a usual size is left out.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from apmpi.cards.text_file import printable
from apmpi.errors import CommandError
from apmpi.figures import FIGURES, each_s_field, journal_field
from apmpi.service.journal import IDENTIFIER, Event

UNIT = "apmpi.service"
# The journal's folders, on the disk and in memory (systemd-journald.service(8)).
FOLDERS = (Path("/var/log/journal"), Path("/run/log/journal"))
# Most bytes of a field that are read: a minute of values, one a second, takes 600.
FIELD_MAX_BYTES = 4096
# Most characters of a message: one that names four devices takes 300.
MESSAGE_MAX = 400
# Above every figure that the service writes: the count of frames reaches it after 300 years.
VALUE_MAX = 1e12

MISSING = (
    "systemd-python, which reads the journal, is not installed: apt install python3-systemd, or in a virtual "
    "environment apt install gcc python3-dev libsystemd-dev pkg-config && pip install systemd-python"
)
NOT_PERMITTED = (
    "the journal is for root and the group systemd-journal alone: sudo usermod -aG systemd-journal $USER, "
    "then log in anew"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the service, or of systemd about it.

    time_s    since 1970
    run       the process that the figures are of: boot and process number
    event     kind; None: systemd reports that the service has failed
    message   one printable line
    figures   values by their names in apmpi.figures
    each_s    values of each second, oldest first, nan where there is none
    """

    time_s: float
    run: tuple[str, str]
    event: Event | None
    message: str
    figures: Mapping[str, float]
    each_s: Mapping[str, list[float]]


def entries(since_s: float, until_s: float) -> Iterator[Entry]:
    """Yield the entries of that time, in the journal's order.

    Raises CommandError if the journal cannot be read, or may not be, which shows only if nothing is found.
    """
    journal, failure_id = _systemd()
    found = False
    try:
        with contextlib.closing(_reader(journal, failure_id)) as reader:
            reader.seek_realtime(since_s)
            for fields in reader:
                time_s = fields["__REALTIME_TIMESTAMP"] / 1e6
                # The order is that of writing: where the clock was set, times go back, too.
                if since_s <= time_s <= until_s:
                    found = True
                    yield _entry(time_s, fields)
    except OSError as error:
        raise CommandError(
            f"the journal cannot be read ({error.strerror}), expected files of journald: journalctl --verify"
        ) from None
    if not found and _may_not_be_read():
        raise CommandError(NOT_PERMITTED)


def _reader(journal: ModuleType, failure_id: str) -> Any:
    """Return a reader of all events of the service. Raises OSError."""
    reader = journal.Reader()
    reader.data_threshold = FIELD_MAX_BYTES
    # Text alone: the library's own conversions of fields fail on odd values of some.
    reader.converters = {"__REALTIME_TIMESTAMP": int, "__MONOTONIC_TIMESTAMP": tuple, "__CURSOR": str}
    for event in Event:
        reader.add_match(MESSAGE_ID=event.message_id)
    reader.add_match(SYSLOG_IDENTIFIER=IDENTIFIER)
    reader.add_disjunction()
    reader.add_match(MESSAGE_ID=failure_id, UNIT=UNIT, _PID="1")
    return reader


def _systemd() -> tuple[ModuleType, str]:
    """Return the library, and systemd's MESSAGE_ID of a unit that has failed. Raises CommandError."""
    try:
        from systemd import id128, journal
    except ImportError:
        raise CommandError(MISSING) from None
    return journal, id128.SD_MESSAGE_UNIT_FAILURE_RESULT.hex


def _may_not_be_read() -> bool:
    """Return whether there are journals that this user may not read."""
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            for machine in folder.iterdir():
                if not all(os.access(path, os.R_OK) for path in (machine, *machine.glob("system.journal"))):
                    return True
    return False


EVENTS = {event.message_id: event for event in Event}
NAMES = {journal_field(name): name for row in FIGURES if row.journal for name in row.names()}
NAMES_EACH_S = {each_s_field(row.name): row.name for row in FIGURES if row.each_s}


def _entry(time_s: float, fields: Mapping[str, object]) -> Entry:
    values = {name: _number(_text(fields[field])) for field, name in NAMES.items() if field in fields}
    return Entry(
        time_s=time_s,
        run=(_text(fields.get("_BOOT_ID")), _text(fields.get("_PID"))),
        event=EVENTS.get(_text(fields.get("MESSAGE_ID"))),
        message=printable(_text(fields.get("MESSAGE")), MESSAGE_MAX),
        figures={name: value for name, value in values.items() if not math.isnan(value)},
        each_s={
            name: list(map(_number, _text(fields[field]).split()))
            for field, name in NAMES_EACH_S.items()
            if field in fields
        },
    )


def _text(value: object) -> str:
    """Return the text of a field; of one that was given several times, the first."""
    if isinstance(value, list):
        value = value[0]
    if isinstance(value, bytes):  # not UTF-8
        return value[:FIELD_MAX_BYTES].decode(errors="backslashreplace")
    return value[:FIELD_MAX_BYTES] if isinstance(value, str) else ""


def _number(text: str) -> float:
    """Return the number, nan for what is none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if abs(value) < VALUE_MAX else math.nan
