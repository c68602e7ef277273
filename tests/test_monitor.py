"""Observers see the running service and change nothing: the socket, the monitor, the metrics."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import daemon
import numpy as np
import pytest
import socket_rig
from daemon import APMPI, Configure, Daemon
from prometheus_client.parser import text_string_to_metric_families
from socket_rig import FRAME, Served
from terminal import Terminal

from apmpi.errors import EndpointError
from apmpi.figures import CHAIN, SIGNALS
from apmpi.service.feed import CAPACITY_FRAMES
from apmpi.service.protocol import INTERVAL_S
from apmpi.service.socket_client import ServiceGone, Subscription, figures_of
from apmpi.service.socket_server import CLIENTS_MAX, UNSENT_MAX_BYTES
from apmpi.tools import figure_rows, monitor

# pytest finds fixtures by their names here.
configure, start, served = daemon.configure, daemon.start, socket_rig.served

# ---- the whole: a running service, a terminal


@pytest.fixture
def place(configure: Configure, tmp_path: Path) -> Path:
    """The configuration, with the socket in `tmp_path`."""
    path = configure()
    path.write_text(path.read_text() + "socket: service\n")
    return path


def test_monitor_in_a_terminal(
    place: Path, tmp_path: Path, start: type[Daemon], room_card: Callable[..., str]
) -> None:
    service = start(place)
    service.hear("running at")
    terminal = Terminal(APMPI, "monitor", "--socket", tmp_path / "service")
    # Playback is 14 ms after its frame's arrival (README: Latency), then follow the room's 30 ms.
    found = terminal.wait_for(r"^delay +(\d+\.\d) ms after the far end, confidence (0\.[5-9]\d|1\.00)$")
    print("\n".join(terminal.lines()))
    assert float(found[1]) == pytest.approx(44, abs=5)
    assert len(terminal.lines()) == 24
    # Speech of 0.1 RMS is 20 dB below full scale; a tenth of a second of it varies with its syllables.
    level = terminal.wait_for(r"^far end +█+ +▏? +(-\d+\.\d) +-\d+\.\d$")
    assert -35 < float(level[1]) < -10
    assert terminal.lines()[0].endswith("q quits")
    terminal.wait_for(r"^now +far end heard   echo path known")
    terminal.wait_for(r"^xruns +0, slips 0$")

    terminal.resize(70, 12)
    terminal.wait_for(r"^cancelling echo: \d+ dB, latency \d+ ms, 0 xruns +\d:\d\d:\d\d  q quits")
    assert len(terminal.lines()) == 12 and all(len(line) <= 70 for line in terminal.lines())

    terminal.resize(80, 24)
    service.signal(signal.SIGTERM)
    assert service.ended() == 0
    terminal.wait_for(r"^waiting for the service: ")
    terminal.wait_for(r"^far end")  # the last figures remain readable
    again = start(place)
    terminal.wait_for(r"^(learning the echo|cancelling echo)")
    terminal.type("q")
    assert terminal.ended() == 0
    assert (
        terminal.text.count(b"\x1b[?1049h") == terminal.text.count(b"\x1b[?1049l") == 1
    )  # the screen is restored
    again.signal(signal.SIGTERM)
    assert again.ended() == 0


def test_json_is_what_runs_and_costs_no_xrun(place: Path, tmp_path: Path, start: type[Daemon]) -> None:
    service = start(place, "--seconds", "5")
    service.hear("running at")
    command = [APMPI, "monitor", "--json", "--socket", tmp_path / "service", "--seconds", "2.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == pytest.approx(2.5 / INTERVAL_S, abs=8)
    frames = np.array([line["frames"] for line in lines])
    seconds = np.array([line["time_s"] for line in lines])
    print(f"{len(lines)} lines, {np.diff(frames).min()} to {np.diff(frames).max()} frames apart")
    assert frames[-1] - frames[0] == pytest.approx(100 * (seconds[-1] - seconds[0]), abs=5)
    power = np.mean([10 ** (line["far_end_dbfs"] / 10) for line in lines])
    assert 10 * np.log10(power) == pytest.approx(-20, abs=1.5)  # 2.5 s of syllables
    last = lines[-1]
    parts = ("capture_wait_median_ms", "processing_median_ms", "playback_queue_median_ms", "algorithmic_ms")
    assert last["latency_median_ms"] == pytest.approx(sum(last[part] for part in parts), abs=1)
    assert last["noise_suppression"] is False and last["reference_present"] is True
    assert service.ended() == 0
    assert "0 xruns" in service.said.splitlines()[-2]


def test_a_screen_of_any_width(served: Served) -> None:
    with Subscription("figures", served.path) as visit:
        while not (found := [figures for line in visit.next_lines() if (figures := figures_of(line))]):
            pass
    history = figure_rows.History()
    history.add(found[0])
    for width in range(1, 200):
        for problem in ("", "no service answers"):
            lines = monitor.screen(found[0], history, problem, width, fancy=False)
            assert 15 < len(lines) <= 23  # and one for the socket's place


def test_two_references_are_shown_while_they_are_in_use(served: Served) -> None:
    with Subscription("figures", served.path) as visit:
        while not (found := [figures for line in visit.next_lines() if (figures := figures_of(line))]):
            pass
    for references, shown in ((1, False), (2, True)):
        figures = found[0] | {"references": references, "erl_db": -10.2}
        lines = monitor.screen(figures, monitor.History(), "", 80, fancy=False)
        texts = ["".join(text for text, _ in line) for line in lines]
        (echo,) = (text for text in texts if text.startswith("echo"))
        assert echo.rstrip().endswith("; 2 references") == shown and len(echo.rstrip()) <= 80, echo


def test_a_reader_that_has_enough_ends_it(served: Served) -> None:
    command = f"'{APMPI}' monitor --json --socket '{served.path}' | head -n 2"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 2)


def test_what_keeps_the_monitor_from_looking_is_one_sentence(served: Served, tmp_path: Path) -> None:
    nobody = "nowhere: no service answers, expected one (systemctl start apmpi, or apmpi run)"
    for place, expected in (
        ("nowhere", nobody),
        (served.path, "monitor: not in a terminal, expected one, or --json"),
    ):
        done = subprocess.run(
            [APMPI, "monitor", "--socket", place], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (2, f"apmpi: {expected}\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_only_its_group_may_look_on(served: Served) -> None:
    status = served.path.stat()
    assert status.st_mode & 0o777 == 0o660
    for folder in served.path.parents[:-2]:  # pytest's folders are private
        folder.chmod(folder.stat().st_mode | 0o111)
    assert visit_as(served.path, groups=[]) == (
        f"{served.path}: may not be opened, expected a member of the group root"
    )
    assert visit_as(served.path, groups=[0]) == "welcome"


def visit_as(path: Path, groups: list[int]) -> str:
    """Return the answer to a process of another user."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups(groups)
            os.setgid(65534)
            os.setuid(65534)
            Subscription("figures", path)
            os.write(writer, b"welcome")
        except EndpointError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        return said.read()


# ---- the socket alone


def test_a_visitor_gets_every_frame_once(served: Served) -> None:
    with Subscription("sound", served.path) as visit:
        assert visit.channels == dict.fromkeys(SIGNALS, 1) and visit.sample_rate_hz == 48000
        numbers: list[int] = []
        levels: set[float | None] = set()
        deadline_s = time.monotonic() + 10
        while len(numbers) < 100 and time.monotonic() < deadline_s:
            for line in visit.next_lines():
                if "sound" in line:
                    sound = line["sound"]
                    numbers += range(sound["frame"], sound["frame"] + sound["frames"])
                else:
                    figures = figures_of(line)
                    assert figures
                    levels.add(figures["far_end_dbfs"])
                    assert (figures["xruns"], figures["slips"], figures["drift_ppm_output"]) == (3, 3, -12.5)
    print(f"frames {numbers[0]} to {numbers[-1]}")
    # All zeros are half a step; None is a tenth of a second in which this machine processed no frame.
    assert {level and round(level, 1) for level in levels} - {None} == {-96.3}
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    time.sleep(3 * INTERVAL_S)
    served.feed.take()
    time.sleep(INTERVAL_S)
    assert served.feed.take() == [], "nobody looks on, and sound is still handed over"


def test_a_visitor_that_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    served = Served(tmp_path)
    try:
        with socket.socket(socket.AF_UNIX) as sleeper, Subscription("figures", served.path) as other:
            sleeper.connect(str(served.path))
            sleeper.sendall(b'{"want": "sound"}\n')
            begin = served.latency.frames
            # More than fits: 10 s of sound at once.
            full = UNSENT_MAX_BYTES // (3 * len(FRAME)) + CAPACITY_FRAMES
            while served.latency.frames < begin + full:
                for _ in range(100):
                    served.feed.put(served.latency.frames, FRAME, FRAME, FRAME)
                    served.latency.add(10.25, 0.5, 4.5)
                assert other.next_lines()
            waiting = max(len(visitor.unsent) for visitor in served.server._clients.values())
            print(f"{waiting} bytes wait for it")
            assert waiting <= UNSENT_MAX_BYTES
    finally:
        served.close()


def test_a_visitor_that_talks_on_is_sent_away(served: Served) -> None:
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(served.path))
        visitor.settimeout(5)
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                visitor.sendall(b'{"want": "figures"}\n')
                time.sleep(0.001)
    Subscription("figures", served.path).close()


def test_too_many_visitors_are_sent_away(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS_MAX):
            stack.enter_context(Subscription("figures", served.path))
        with pytest.raises(EndpointError, match="8 others are looking on already"):
            Subscription("figures", served.path)
    time.sleep(2 * INTERVAL_S)
    Subscription("figures", served.path).close()


def test_what_is_asked_in_no_known_way_is_refused(served: Served, rng: np.random.Generator) -> None:
    refused = b'{"error": "not understood, expected'
    for request in (
        b"hello\n",
        b'{"want": "power"}\n',
        b"[]\n",
        b"[" * 8000 + b"\n",
        b"[" * 190 + b"\n",
        b'{"want": "figures", "a":' + b"[" * 190 + b"\n",
        b'{"want": "figures", "want": "figures"}\n',
        b'{"want": {"want": "figures"}}\n',
        b'{"want": "figures", "a": 1e999}\n',
        b'{"want": "figures", "a": ' + b"9" * 5000 + b"}\n",
        '{"want": "figures"}'.encode("utf-16") + b"\n",
        b"\xff\xfe\n",
        b"x" * 9000,
    ):
        assert served.talk(request).startswith(refused), request[:40]
    answered = 0
    for _ in range(200):
        garbage = rng.integers(0, 256, rng.integers(1, 300), dtype=np.uint8).tobytes()
        said = served.talk(garbage + b"\n", timeout_s=2)
        answered += said.startswith(refused)
    print(f"{answered} of 200 answered")
    assert answered >= 190  # the rest were empty lines or began with "GET "
    Subscription("figures", served.path).close()


def test_an_answer_in_no_known_way_is_one_sentence(tmp_path: Path, rng: np.random.Generator) -> None:
    """The service's end sends garbage, or a valid answer with some bytes changed."""
    shape = {"apmpi": "0.1.0", "protocol": 1, "sample_rate_hz": 48000, "channels": dict.fromkeys(SIGNALS, 1)}
    levels = {"far_end_dbfs": -20.5, "far_end_peak_dbfs": -9}
    hello = json.dumps(shape).encode() + b"\n"
    figures = (
        json.dumps({"figures": {"state": "fine", "frames": 10, "erle_db": 3.5, **levels}}).encode() + b"\n"
    )
    path = tmp_path / "odd"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    shown = refused = 0
    with listener:
        for round_number in range(300):
            answer = bytearray(hello + figures * 3)
            for _ in range(round_number % 8):
                answer[rng.integers(len(answer))] = rng.integers(256)

            def reply(answer: bytes = bytes(answer)) -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

            thread = threading.Thread(target=reply)
            thread.start()
            try:
                with Subscription("figures", path) as visit:
                    for line in visit.next_lines():
                        if found := figures_of(line):
                            history = figure_rows.History()
                            history.add(found)
                            monitor.screen(found, history, "", 80, True)
                            shown += 1
            except EndpointError as error:
                assert "\n" not in str(error)
                refused += 1
            thread.join()
    print(f"{shown} lines shown, {refused} answers refused")
    assert shown > 100 and refused > 100


class Impostor:
    """A server that sends every client the same lines."""

    def __init__(self, path: Path, *lines: dict[str, object]) -> None:
        self.path = path
        self._answer = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(self._answer)
                    connection.recv(100)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


BELL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\x00"  # renames the terminal's window, clears it, turns it red
HELLO = {"apmpi": "0.1.0", "protocol": 1, "sample_rate_hz": 48000, "channels": dict.fromkeys(SIGNALS, 1)}


@pytest.mark.parametrize(
    "lines",
    [
        [{"error": f"no {BELL} sound"}],
        [HELLO | {"protocol": 2, "apmpi": BELL}],
        [HELLO, {"error": BELL * 10_000}],
    ],
)
def test_no_control_character_of_the_service_is_in_an_error(
    lines: list[dict[str, object]], tmp_path: Path
) -> None:
    impostor = Impostor(tmp_path / "odd", *lines)
    try:
        command = [APMPI, "monitor", "--json", "--seconds", "1", "--socket", impostor.path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    finally:
        impostor.close()
    said = done.stderr.rstrip("\n").replace("\n", "")
    print(repr(said[:200]))
    assert said and said.isprintable() and "Traceback" not in said
    assert len(said) < 5000


def test_no_control_character_of_the_service_is_on_the_screen(tmp_path: Path) -> None:
    """A figure without a value, or an unknown one, does not stop the monitor either."""
    odd = {f"drift_ppm_{BELL}": 1.0, f"xruns_{BELL}": 2, "drift_ppm_output": None, "frames": None}
    figures = {"state": f"waiting {BELL}for a card", "waiting": BELL, **odd, "far_end_dbfs": None}
    impostor = Impostor(tmp_path / "odd", HELLO, {"figures": figures})
    try:
        with Subscription("figures", impostor.path) as visit:
            while not (found := [kept for line in visit.next_lines() if (kept := figures_of(line))]):
                pass
    finally:
        impostor.close()
    history = figure_rows.History()
    history.add(found[0])
    texts = [text for line in monitor.screen(found[0], history, "", 80, False) for text, _ in line]
    print("\n".join(texts))
    assert all(text.isprintable() for text in texts)
    assert any("for a card" in text for text in texts) and any("output ?" in text for text in texts)


def test_a_socket_that_was_left_behind_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "socket"))
    left.close()
    served = Served(tmp_path)
    try:
        with pytest.raises(EndpointError, match="another apmpi uses it"):
            Served(tmp_path)
        Subscription("figures", served.path).close()
    finally:
        served.close()
    (tmp_path / "socket").write_text("precious")
    with pytest.raises(EndpointError, match="something else is there"):
        Served(tmp_path)
    assert (tmp_path / "socket").read_text() == "precious"
    with pytest.raises(ServiceGone, match="no service answers"):
        Subscription("figures", tmp_path / "socket")


def test_a_socket_that_cannot_be_costs_no_sound(configure: Configure, start: type[Daemon]) -> None:
    path = configure()
    path.write_text(path.read_text() + "socket: no/folder/socket\n")
    service = start(path, "--seconds", "1")
    service.hear(
        "socket: .*no/folder/socket' cannot be opened .its folder does not exist.: nobody can look on"
    )
    assert service.ended() == 0


# ---- metrics


def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    served = Served(tmp_path, "metrics: true\n")
    try:
        time.sleep(0.5)
        answer = served.talk(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").decode()
    finally:
        served.close()
    head, body = answer.split("\r\n\r\n", 1)
    assert head.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert f"Content-Length: {len(body.encode())}" in head
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
        if family.documentation and family.type in ("counter", "gauge")
    }
    print(body)
    assert samples[("apmpi_up",)] == 1
    assert samples[("apmpi_xruns_total", "microphone")] == 2
    assert samples[("apmpi_drift_ppm", "output")] == -12.5
    assert samples[("apmpi_latency_seconds", "0.5")] == pytest.approx(0.02125)
    assert samples[("apmpi_erle_db",)] == pytest.approx(31.6)
    assert samples[("apmpi_feature_enabled", "echo_cancellation")] == 1
    assert all(row.metric for row in CHAIN), "a figure of the canceller's has no metric"
    assert samples[("apmpi_echo_delay_seconds",)] == pytest.approx(-0.001)


def test_metrics_are_off_by_default(served: Served) -> None:
    answer = served.talk(b"GET /metrics HTTP/1.1\r\n\r\n").decode()
    assert answer.startswith("HTTP/1.1 404 ")
    assert answer.endswith("expected metrics: true in the configuration\n")
    assert served.talk(b"GET /figures HTTP/1.1\r\n\r\n").endswith(b"only /metrics is here\n")
    assert re.match(rb"HTTP/1.1 404", served.talk(b"GET /\xff HTTP/1.1\r\n\r\n"))
    assert served.talk(b"GET \r\n\r\n").startswith(b"HTTP/1.1 404")
