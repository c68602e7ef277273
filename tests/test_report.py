"""The daemon's reports: fields and messages, a terminal's line, systemd's protocol, and a real journal."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import daemon
import numpy as np
import pytest
from daemon import APMPI, Configure, Daemon, Systemd
from journald_namespace import journal_of, needs_journald

from apmpi.api.apm import Stats
from apmpi.cards.latency import LatencyLog
from apmpi.service import systemd as to_systemd
from apmpi.service.instruments import Interval
from apmpi.service.journal import Event
from apmpi.settings import Features

# pytest finds fixtures by their names here
configure, start, systemd = daemon.configure, daemon.start, daemon.systemd

CATALOG = Path(__file__).parents[1] / "systemd/apmpi.catalog"


def figures(**changes: object) -> Interval:
    log = LatencyLog(capacity_frames=10, algorithmic_ms=6.0)
    log.add(10.25, 0.5, 4.5)
    example = Interval(
        frames=6100,
        latency=log.summary(0),
        xruns={"microphone": 0, "far_end": 1, "speaker": 0, "output": 0},
        slips=0,
        drift_ppm={"far_end": 12.5, "speaker": -3.0, "output": 0.0},
        processor_share=0.0834,
        features=Features(auto_gain_control=False),
        core=Stats(erle_db=31.6, converged=True, reference_present=True, delay_ms=48.0),
        seconds=[Stats(erle_db=29.0), Stats(erle_db=31.6, converged=True)],
    )
    return dataclasses.replace(example, **changes)  # type: ignore[arg-type]


def test_fields_are_those_of_the_catalog() -> None:
    catalog = CATALOG.read_text()
    entry = catalog[catalog.index(f"-- {Event.FIGURES.message_id}") :]
    entry = entry[: entry.index("\n-- ")]
    assert set(figures().fields()) == set(re.findall(r"APMPI_\w+", entry))


def test_fields_have_values_a_program_can_read() -> None:
    fields = figures().fields()
    assert fields["APMPI_LATENCY_MEDIAN_MS"] == "21.250"
    assert fields["APMPI_PLAYBACK_QUEUE_MAX_MS"] == "4.500"
    assert (fields["APMPI_XRUNS"], fields["APMPI_XRUNS_FAR_END"]) == ("1", "1")
    assert (fields["APMPI_CONVERGED"], fields["APMPI_AUTO_GAIN_CONTROL"]) == ("1", "0")
    assert fields["APMPI_ERLE_DB"] == "31.600"
    assert fields["APMPI_ERLE_DB_EACH_S"] == "29.000 31.600"
    assert fields["APMPI_CONVERGED_EACH_S"] == "0 1"
    without = figures(core=Stats(erle_db=float("nan")), latency=None).fields()
    assert "APMPI_ERLE_DB" not in without and "APMPI_LATENCY_MEDIAN_MS" not in without


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "cancelling echo: 32 dB, latency 21 ms, 1 xrun"),
        ({"xruns": {}}, "cancelling echo: 32 dB, latency 21 ms, 0 xruns"),
        ({"core": Stats(4.0, reference_present=True)}, "learning the echo: 4 dB, latency 21 ms, 1 xrun"),
        ({"slips": 2}, "cancelling echo: 32 dB, latency 21 ms, 1 xrun, 2 slips"),
        ({"core": Stats()}, "nothing is played, latency 21 ms, 1 xrun"),
        ({"core": None, "latency": None}, "starting, 1 xrun"),
        ({"features": Features(echo_cancellation=False)}, "echo cancellation is off, latency 21 ms, 1 xrun"),
    ],
)
def test_status_is_a_sentence_for_people(changes: dict[str, object], sentence: str) -> None:
    assert figures(**changes).sentence() == sentence


def test_terminal_shows_one_line_that_changes(configure: Configure) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen([APMPI, "run", "--config", configure(), "--seconds", "2.2"], stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:  # the other side is closed: Linux reports it so to a terminal's reader
        pass
    os.close(ours)
    assert process.wait(10) == 0
    lines = said.decode().split("\r\n")
    print(lines)
    if lines[0].startswith("apmpi: not permitted: "):  # as to an ordinary user
        lines.pop(0)
    assert re.fullmatch(r"apmpi: running at 48000 Hz: microphone room0, .*; \w+ kernels", lines[0])
    shown = [line for line in lines if "latency" in line]
    assert len(shown) == 1
    updates = shown[0].split("\r\x1b[K")
    assert len(updates) >= 4
    assert all(re.match(r"0:0\d  .*, latency \d+ ms", update) for update in updates[1:])
    assert lines[-2:] == ["apmpi: stopped", ""]


def test_systemd_hears_of_start_reload_and_stop(
    systemd: Systemd, configure: Configure, start: type[Daemon]
) -> None:
    path = configure()
    process = start(path, **systemd.environment)
    assert systemd.hear("READY=1").startswith("READY=1\nSTATUS=")
    assert [message for _, message in systemd.heard[:-1]] == [], "something came before READY"
    assert re.match(r"STATUS=\w.*, latency \d+ ms, 0 xruns$", systemd.hear("STATUS=")[:200])

    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    process.signal(signal.SIGHUP)
    reloading = systemd.hear("RELOADING=1")
    after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    when_us = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading)
    assert when_us and before_us <= int(when_us[1]) <= after_us
    assert "reloaded" in systemd.hear("READY=1")

    path.write_text("microphone: {device")
    process.signal(signal.SIGHUP)
    systemd.hear("RELOADING=1")
    assert "last good configuration" in systemd.hear("READY=1")

    process.signal(signal.SIGTERM)
    systemd.hear("STOPPING=1")
    assert process.ended() == 0


def test_watchdog_is_fed_while_a_device_is_waited_for(
    systemd: Systemd, configure: Configure, start: type[Daemon]
) -> None:
    """Sound stops after 2 s. For 0.5 s there is no watchdog signal, then the microphone counts as lost. It
    can be opened again and gives no sound, which takes 0.5 s to detect each time.
    """
    process = start(configure(faults="capture:stall@2+30"), **systemd.environment)
    systemd.hear("READY=1")
    ready_s = systemd.heard[-1][0]
    assert "waiting: microphone.device: 'room0' has stopped" in systemd.hear("STATUS=waiting")
    parked_s = systemd.heard[-1][0]
    for _ in range(10):
        systemd.hear("WATCHDOG=1")
    process.signal(signal.SIGTERM)
    systemd.hear("STOPPING=1")
    assert process.ended() == 0
    fed_s = np.array([at_s for at_s, message in systemd.heard if message == "WATCHDOG=1"])
    gaps_s = np.diff([ready_s, *fed_s])
    print(f"apart by {np.round(gaps_s, 2)} s")
    assert len(fed_s) >= 16
    # Stall limit 0.5 s, less one interval of the reporter (0.1 s) that may end after the last frame.
    first_silence = int(np.argmax(gaps_s > 0.35))
    assert gaps_s[first_silence] > 0.35
    assert gaps_s.max() < 0.8
    assert fed_s[first_silence] == pytest.approx(parked_s, abs=0.1)


# ---- a real journal: journald in a mount namespace of its own


@needs_journald
def test_journal_entries_are_structured(configure: Configure) -> None:
    path = configure(faults="capture:xrun@1.2")
    entries = journal_of("reload", APMPI, "run", "--config", path, "--seconds", "3")
    by_event = {event: [e for e in entries if e.get("MESSAGE_ID") == event.message_id] for event in Event}
    assert sum(map(len, by_event.values())) == len(entries), "an entry without MESSAGE_ID"
    assert [len(by_event[event]) for event in (Event.STARTED, Event.RELOADED, Event.STOPPED)] == [1, 1, 1]
    assert by_event[Event.STARTED][0] is entries[0] or by_event[Event.NOT_PERMITTED]
    for event, found in by_event.items():
        assert {entry["PRIORITY"] for entry in found} <= {str(event.priority)}
        assert {entry["SYSLOG_IDENTIFIER"] for entry in found} <= {"apmpi"}

    reports = by_event[Event.FIGURES]
    assert len(reports) >= 5  # every 0.5 s
    for entry in reports[1:]:
        parts = ("CAPTURE_WAIT", "PROCESSING", "PLAYBACK_QUEUE")
        total = sum(float(entry[f"APMPI_{part}_MEDIAN_MS"]) for part in parts)
        total += float(entry["APMPI_ALGORITHMIC_MS"])
        assert float(entry["APMPI_LATENCY_MEDIAN_MS"]) == pytest.approx(total, abs=1.0)
        assert 10 < float(entry["APMPI_LATENCY_MEDIAN_MS"]) < 30
    assert int(reports[-1]["APMPI_XRUNS_MICROPHONE"]) == 1
    assert int(by_event[Event.XRUN][0]["APMPI_XRUNS_MICROPHONE"]) == 1


def test_a_microphone_that_clips_is_told_once(
    configure: Configure, start: type[Daemon], tmp_path: Path
) -> None:
    tone = np.sign(np.sin(2 * np.pi * 200 * np.arange(6 * daemon.RATE_HZ) / daemon.RATE_HZ))
    process = start(configure(near=daemon.write(tmp_path / "near.wav", tone)), "--seconds", "4")
    process.hear("the microphone clips: its capture level is too high, lower it")
    assert process.ended() == 0
    assert process.said.count("the microphone clips") == 1


@needs_journald
def test_a_journald_that_hangs_costs_no_sound(configure: Configure) -> None:
    """The journal's queue is full for 3 s, while a report comes every 0.1 s."""
    path = configure()
    path.write_text(path.read_text().replace("report_interval_s: 0.5", "report_interval_s: 0.1"))
    entries = journal_of("hang", APMPI, "run", "--config", path, "--seconds", "5.5")
    assert any("earlier entries were left out" in entry["MESSAGE"] for entry in entries)
    last = [entry for entry in entries if entry["MESSAGE_ID"] == Event.FIGURES.message_id][-1]
    print(f"latency at most {last['APMPI_LATENCY_MAX_MS']} ms, {last['APMPI_XRUNS']} xruns")
    assert int(last["APMPI_FRAMES"]) == 550
    assert int(last["APMPI_XRUNS"]) == 0


def test_notify_reaches_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0apmpi-test-{os.getpid()}")
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@apmpi-test-{os.getpid()}")
        to_systemd.notify("READY=1")
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected_s"),
    [("2000000", None, 2.0), ("2000000", "own", 2.0), ("2000000", "1", None), ("", None, None)],
)
def test_watchdog_is_meant_for_this_process(
    microseconds: str, pid: str | None, expected_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert to_systemd.watchdog_s() == expected_s
