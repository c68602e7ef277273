"""`apmpi log` and the doctor's look at the last day: spans of made-up days, and a real journal."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import daemon
import pytest
from daemon import APMPI, Configure
from journald_namespace import in_journal, needs_journald
from PIL import Image

from apmpi.errors import CommandError
from apmpi.service.history import Entry
from apmpi.service.journal import Event
from apmpi.tools import log
from apmpi.tools.finding import FINE, NOTE, WRONG
from apmpi.tools.journal_checks import span_findings
from apmpi.tools.spans import Spans

configure = daemon.configure  # pytest finds fixtures by their names here

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")

NOON_S = time.mktime((2026, 11, 28, 12, 0, 0, 0, 0, -1))
RUN = ("boot", "100")


def entry(
    after_s: float, event: Event | None, message: str = "", run: tuple[str, str] = RUN, **figures: float
) -> Entry:
    return Entry(NOON_S + after_s, run, event, message, figures, {})


def report(after_s: float, heard: str = "11", run: tuple[str, str] = RUN, **figures: float) -> Entry:
    """Figures of ten seconds, and of two seconds of it: 20 and 40 dB, and whether the far end was heard."""
    each_s = {"erle_db": [20.0, 40.0], "reference_present": [float(digit) for digit in heard]}
    return Entry(NOON_S + after_s, run, Event.FIGURES, "", figures, each_s)


# ---- spans


def test_six_hours_are_a_screen_of_lines() -> None:
    """A report every 10 s: latency 20 ms, and once 35; the loudspeaker has an xrun each hour."""
    found = [entry(0, Event.STARTED, "running at 48000 Hz: microphone hw:1")]
    steady = {"processor_share": 0.083, "drift_ppm_speaker": -12.0, "drift_ppm_output": 3.0}
    for tick in range(1, 6 * 360):
        counts = {"frames": 1000 * tick, "xruns_speaker": tick // 360}
        latency_ms = 35.0 if tick == 400 else 20.0
        found.append(report(10 * tick, "01", latency_max_ms=latency_ms, **counts, **steady))
    lines = list(log.table(log.spans_of(iter(found), NOON_S, NOON_S + 6 * 3600, log.LINES_MAX)))
    print("\n".join(lines))
    rows = [re.split(r"  +", line.strip()) for line in lines if re.match(r"\d\d-\d\d .* +8.3%$", line)]
    assert 30 <= len(rows) <= log.LINES_MAX
    assert {tuple(row[2:3] + row[4:]) for row in rows} == {("40.0", "-12.0 speaker", "8.3%")}
    assert [row[0] for row in rows if row[1] == "35.0"] == ["11-28 13:00:00"]
    assert [row[0][6:] for row in rows if row[3] == "1"] == [f"{hour}:00:00" for hour in range(13, 18)]
    assert lines[2].endswith("apmpi has opened its devices: running at 48000 Hz: microphone hw:1")
    total = "10 minutes a line: 6.0 h of sound, latency at most 35.0 ms, 5 xruns (speaker 5)"
    assert lines[-3] == f"\nsince 2026-11-28 12:00, {total}"


def test_counts_go_on_over_a_restart() -> None:
    """Counts are since a run's start; a run that was there before counts from its first entry here."""
    second = ("boot", "200")
    spans = Spans(NOON_S, 3600)
    for one in (
        report(0, frames=500_000, xruns_microphone=7),
        entry(5, Event.XRUN, "2 xruns", xruns_microphone=9),
        report(10, frames=501_000, xruns_microphone=9),
        entry(20, Event.STARTED, run=second),
        report(30, run=second, frames=1000, xruns_microphone=1),
        entry(40, Event.STARTED, run=RUN),  # the number of a process comes again
        report(50, frames=1000, xruns_microphone=0),
    ):
        spans.add(one)
    assert spans.total.xruns == {"microphone": 3}
    assert spans.total.sentence() == "30 s of sound, 3 xruns (microphone 3)"


def test_a_loose_plug_does_not_fill_the_screen() -> None:
    found = [entry(second, Event.PARKED, f"waiting: hw:{second}") for second in range(0, 60, 2)]
    lines = list(log.table(log.spans_of(iter(found), NOON_S, NOON_S + 6 * 3600, log.LINES_MAX)))
    print("\n".join(lines))
    assert sum("A device is waited for: waiting: hw:" in line for line in lines) == 5
    assert "and 25 more messages" in lines[6]


@pytest.mark.parametrize("extent_s", [0.5, 300, 3600, 6 * 3600, 30 * 3600, 86400 * 365])
def test_any_time_fits(extent_s: float) -> None:
    ends = [entry(0, Event.STOPPED, "stopped"), entry(extent_s, Event.STOPPED, "stopped")]
    spans = log.spans_of(iter(ends), NOON_S, NOON_S + extent_s, log.LINES_MAX)
    print(f"{extent_s} s: {spans.span_s} s a line")
    assert len(spans.without_gaps()) <= log.LINES_MAX


@needs_systemd
def test_since_takes_what_journalctl_takes() -> None:
    now_s = time.time()
    for text, ago_s in {"2 hours ago": 7200, "-1h": 3600, "-1h 30min": 5400, "@1000": now_s - 1000}.items():
        assert log.time_of(text, now_s) == pytest.approx(now_s - ago_s, abs=5)
    assert log.time_of("2026-01-31 12:00", now_s) == time.mktime((2026, 1, 31, 12, 0, 0, 0, 0, -1))
    assert now_s - 25 * 3600 <= log.time_of("today", now_s) < now_s
    for text in ("tomorrow", "soon", "", "-", "\x1b[31m", "infinity"):
        with pytest.raises(CommandError, match=r"given, expected a time in the past"):
            log.time_of(text, now_s)


# ---- the doctor


def test_the_doctor_looks_at_the_day() -> None:
    def verdicts(*found: Entry) -> list[tuple[str, str]]:
        day = Spans(NOON_S, 86400)
        for one in (entry(0, Event.STARTED), *found):
            day.add(one)
        said = list(span_findings(day.total))
        for finding in said:
            print(finding)
            assert bool(finding.todo) == (finding.verdict != FINE)
        return [(finding.verdict, finding.text) for finding in said]

    ten_hours = 10 * 3600 * 100
    assert verdicts(report(9, frames=ten_hours, latency_max_ms=24.3, processing_max_ms=2.0)) == [
        (FINE, "10.0 h of sound, latency at most 24.3 ms, 0 xruns")
    ]
    assert verdicts(report(9, frames=ten_hours, xruns_microphone=59)) == [
        (NOTE, "10.0 h of sound, 59 xruns (microphone 59)")
    ]
    assert verdicts(report(9, frames=ten_hours, xruns_microphone=61))[0][0] == WRONG
    assert verdicts(report(9, frames=100, xruns_speaker=1))[0][0] == NOTE
    found = verdicts(
        report(9, frames=ten_hours, processing_max_ms=14.0),
        entry(20, Event.PARKED, "waiting: 'hw:1' has gone"),
        entry(3600, Event.PARKED, "waiting: 'hw:1' does not exist"),
        entry(7200, None, "Failed with result 'watchdog'."),
    )
    assert found[1:] == [
        (NOTE, "processing took up to 14.0 ms for 10 ms of sound"),
        (
            NOTE,
            "a device was waited for 2 times, last at 13:00: waiting: 'hw:1' does not exist",
        ),
        (
            NOTE,
            "systemd saw the service fail 1 time, last at 14:00: Failed with result 'watchdog'.",
        ),
    ]


# ---- a real journal

# As a user without rights: nobody. The modules are loaded before, for they may lie where nobody may read.
AS_NOBODY = """
import os, sys
import systemd.id128, systemd.journal
from apmpi.errors import CommandError
from apmpi.tools import log
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    log.main(None, None, False)
except CommandError as error:
    print(error, file=sys.stderr)
"""
# A Python without the library.
WITHOUT = """
import sys
sys.modules["systemd.journal"] = None
from apmpi.tools import cli
sys.exit(cli.main())
"""


@needs_journald
def test_a_run_in_the_journal(configure: Configure, tmp_path: Path) -> None:
    """A run of 4 s with an xrun, then what the commands show of it."""
    pytest.importorskip("systemd.journal")
    path = configure(faults="capture:xrun@1.2")
    (tmp_path / "nobody.py").write_text(AS_NOBODY)
    (tmp_path / "without.py").write_text(WITHOUT)
    without = f"{sys.executable} -P without.py doctor --no-sound {path}"
    as_nobody = f"{sys.executable} -P nobody.py"
    said = in_journal(
        tmp_path,
        f"{APMPI} log",
        f"! {APMPI} run --config {path} --seconds 4",
        f"{APMPI} log ",
        f"{APMPI} log --since -1h --json",
        f"{APMPI} log --since '2 minutes ago' --plot history.png",
        f"{APMPI} log --since soon",
        f"{APMPI} log | head -n 1",
        f"{APMPI} doctor --no-sound {path}",
        without,
        as_nobody,
    )
    status, out, errors = said[f"{APMPI} log"]
    assert (status, out) == (2, "")
    assert re.match(r"apmpi: no entries of apmpi since .* \(/var/log/journal and /run/log/journal\)", errors)

    status, out, errors = said[f"{APMPI} log --since -1h --json"]
    assert (status, errors) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines if line["event"] != "figures"][-1] == "stopped"
    reports = [line for line in lines if line["event"] == "figures"]
    assert len(reports) >= 7  # every 0.5 s
    assert sum(len(line["each_s"].get("erle_db", [])) for line in reports) >= 3
    assert all(abs(line["time_s"] - time.time()) < 300 for line in lines)
    xruns = reports[-1]["figures"]["xruns"]  # on a busy machine the loudspeaker may have some, too
    assert xruns >= 1
    latency_ms = max(line["figures"]["latency_max_ms"] for line in reports)
    summary = rf"4 s of sound, latency at most {latency_ms:.1f} ms, {xruns:.0f} xruns? \(microphone 1"

    status, out, errors = said[f"{APMPI} log "]
    assert (status, errors) == (0, "")
    for pattern in (
        r"^time +latency ms +ERLE dB +xruns +drift ppm +processor$",
        r"^\d\d-\d\d \d\d:\d\d:\d\d  apmpi has opened its devices: running at 48000 Hz: microphone room0",
        r"^\d\d-\d\d \d\d:\d\d:\d\d  Sound was lost in an xrun: \d+ xruns?, recovered",
        r"^\d\d-\d\d \d\d:\d\d:\d\d  apmpi has stopped$",
        rf"^since [\d-]+ [\d:]+, 10 seconds a line: {summary}",
    ):
        assert re.search(pattern, out, re.MULTILINE), pattern

    status, out, errors = said[f"{APMPI} log --since '2 minutes ago' --plot history.png"]
    assert (status, errors) == (0, "")
    assert re.match(rf"history.png: 10 seconds a point, {summary}", out)
    with Image.open(tmp_path / "history.png") as picture:
        assert picture.width == 1300 and len(picture.convert("RGB").getcolors(1 << 20) or []) > 100

    status, out, errors = said[f"{APMPI} log --since soon"]
    assert (status, out) == (2, "") and errors.startswith("apmpi: --since: 'soon' given, expected a time")
    assert said[f"{APMPI} log | head -n 1"][2] == ""
    doctor = said[f"{APMPI} doctor --no-sound {path}"][1]
    assert re.search(rf"^(note|WRONG) +last day +{summary}", doctor, re.MULTILINE)
    assert re.search(
        r"^note   last day +not known: systemd-python, .* is not installed", said[without][1], re.M
    )
    status, out, errors = said[as_nobody]
    assert out == "" and errors.startswith(
        "the journal is for root and the group systemd-journal alone: sudo usermod -aG "
    )


# Entries as any program may write them under this name.
HOSTILE = f"""
import socket
def send(*fields):
    data = b"".join(b"%s\\n%s%s\\n" % (name, len(text).to_bytes(8, "little"), text) for name, text in fields)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.sendto(data, "/run/systemd/journal/socket")
KIND = (b"SYSLOG_IDENTIFIER", b"apmpi"), (b"MESSAGE_ID", b"{Event.FIGURES.message_id}")
PARKED = (b"SYSLOG_IDENTIFIER", b"apmpi"), (b"MESSAGE_ID", b"{Event.PARKED.message_id}")
send(*KIND, (b"MESSAGE", b"odd"), (b"APMPI_LATENCY_MAX_MS", b"nan"), (b"APMPI_FRAMES", b"9" * 60000),
     (b"APMPI_XRUNS_MICROPHONE", b"-inf"), (b"APMPI_PROCESSOR_SHARE", b"\\xff"), (b"APMPI_ERLE_DB", b"12.5"),
     (b"APMPI_ERLE_DB_EACH_S", b"1 x " * 20000), (b"COREDUMP_TIMESTAMP", b"9" * 40), (b"PRIORITY", b"\\xff"))
send(*PARKED, (b"MESSAGE", b"\\x1b]0;title\\x07\\r" + b"long " * 20000))
send(*PARKED, (b"MESSAGE", b"not text \\xff"), (b"MESSAGE", b"twice"))
send(*PARKED)
send((b"SYSLOG_IDENTIFIER", b"apmpi"), (b"MESSAGE", b"no kind"))
send((b"SYSLOG_IDENTIFIER", b"other"), PARKED[1], (b"MESSAGE", b"another's"))
"""


@needs_journald
def test_entries_of_others_do_no_harm(tmp_path: Path) -> None:
    pytest.importorskip("systemd.journal")
    (tmp_path / "hostile.py").write_text(HOSTILE)
    said = in_journal(
        tmp_path,
        f"! {sys.executable} hostile.py",
        f"{APMPI} log",
        f"{APMPI} log --json",
        f"{APMPI} log --plot history.png",
    )
    for status, out, errors in said.values():
        assert (status, errors) == (0, "")
        assert all(line.isprintable() and len(line) < 600 for line in out.splitlines() if line[:1] != "{")
    table = said[f"{APMPI} log"][1]
    assert "another's" not in table and "no kind" not in table
    assert r"A device is waited for: \x1b]0;title\x07\rlong long" in table
    lines = [json.loads(line) for line in said[f"{APMPI} log --json"][1].splitlines()]
    assert len(lines) == 4
    assert lines[0]["figures"] == {"erle_db": 12.5}
    assert set(lines[0]["each_s"]["erle_db"]) == {1.0, None} and len(lines[0]["each_s"]["erle_db"]) < 2100
    assert not any(math.isinf(value) for line in lines for value in line["figures"].values())


def test_without_systemd_python_it_says_what_is_missing() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", WITHOUT, "log"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "apmpi: systemd-python, which reads the journal, is not installed: apt install "
    )
    assert len(done.stderr.splitlines()) == 1
