"""The journal's messages: datagrams that journald understands, and a limit on their number."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from soak import entry_of

from apmpi.service import journal, systemd
from apmpi.service.journal import Event, Journal, RateLimited


class Ear:
    """A receiver that keeps all datagrams."""

    interval_s = 1.0

    def __init__(self) -> None:
        self.heard: list[tuple[Event, str]] = []

    def write(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        self.heard.append((event, message))

    def report(self, figures: journal.Report, final: bool) -> None:
        self.heard.append((Event.FIGURES, figures.sentence()))


def test_an_entry_has_all_its_fields_whatever_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "socket"))
        Journal(1.0).write(Event.XRUN, "two\nlines = ü \udcff", {"APMPI_XRUNS": "3"})
        assert entry_of(journald.recv(4096)) == {
            "MESSAGE": "two\nlines = ü \udcff",
            "MESSAGE_ID": Event.XRUN.message_id,
            "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "apmpi",
            "APMPI_XRUNS": "3",
        }


def test_no_text_is_too_odd_to_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a surrogate pair, as a configuration may contain it, and a line break, which begins a field."""
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", str(tmp_path / "socket"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(tmp_path / "socket"))
        reader.settimeout(5)
        Journal(1.0).write(Event.WARNING, "card \ud800", {})
        assert entry_of(reader.recv(4096))["MESSAGE"] == "card \\ud800"
        assert systemd.notify("WATCHDOG=1", "STATUS=card \udcff\nREADY=1")
        assert reader.recv(4096) == b"WATCHDOG=1\nSTATUS=card \\udcff READY=1"


def test_no_control_character_reaches_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """The name of the process that holds the device is chosen by that process."""
    journal.Terminal(1.0).write(Event.PARKED, "'hw:1' is busy: \x1b]0;x\x07\r\udcff (7) uses it", {})
    assert capfd.readouterr().err == "apmpi: 'hw:1' is busy: \\x1b]0;x\\x07\\r\\udcff (7) uses it\n"


def test_a_journal_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent, then full, then reading again: the messages left out are counted."""
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", str(tmp_path / "socket"))
    log = Journal(1.0)
    log.write(Event.WARNING, "nobody hears", {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "socket"))
        began_s = time.monotonic()
        for number in range(2000):
            log.write(Event.WARNING, f"entry {number}", {})
        assert time.monotonic() - began_s < 1
        journald.setblocking(False)
        read = []
        with pytest.raises(BlockingIOError):
            while True:
                read.append(entry_of(journald.recv(4096))["MESSAGE"])
        log.write(Event.WARNING, "again", {})
        last = entry_of(journald.recv(4096))["MESSAGE"]
    print(f"{len(read)} read, then {last!r}")
    assert read[0] == "entry 0 (1 earlier entries were left out: the journal did not take them)"
    left_out = 2000 - len(read)
    assert left_out > 0
    assert last == f"again ({left_out} earlier entries were left out: the journal did not take them)"


def test_a_flood_is_held_back_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "BURST_S", 0.3)
    ear = Ear()
    limited = RateLimited(ear)
    for number in range(20):
        limited.write(Event.PARKED, f"parked {number}", {})
    limited.write(Event.XRUN, "another event", {})
    limited.catch_up()
    assert ear.heard == [
        *((Event.PARKED, f"parked {number}") for number in range(5)),
        (Event.XRUN, "another event"),
    ]
    time.sleep(0.35)
    limited.catch_up()
    limited.catch_up()
    assert ear.heard[6:] == [(Event.PARKED, "parked 19 (the last of 15 that were suppressed)")]
    for number in range(20, 30):  # four more fit in
        limited.write(Event.PARKED, f"parked {number}", {})
    assert ear.heard[7:] == [(Event.PARKED, f"parked {number}") for number in range(20, 24)]
    time.sleep(0.35)
    limited.write(Event.PARKED, "parked 30", {})
    limited.catch_up(at_once=True)
    assert ear.heard[11:] == [(Event.PARKED, "parked 30 (6 suppressed since the last)")]


def test_warnings_of_the_modules_are_said() -> None:
    ear = Ear()
    with journal.warnings_to(ear):
        logging.getLogger("apmpi.cards.pcm").warning("%d samples are %s", 3, "odd")
    assert ear.heard == [(Event.WARNING, "3 samples are odd")]
