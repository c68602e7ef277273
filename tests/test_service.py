"""The service and its surroundings: signals, terminals, systemd, file descriptors, and its own threads.

Each daemon is a real process on a room card.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import daemon
import numpy as np
import pytest
import soundfile
from daemon import APMPI, RATE_HZ, Configure, Daemon, Systemd, level_db, write

from apmpi.service.chime import LEVEL_DBFS, TONES_HZ
from apmpi.service.sound_mark import STILL_MAX_S, SoundMark

# pytest finds fixtures by their names here
configure, start, systemd = daemon.configure, daemon.start, daemon.systemd


def wait_until(happened: Callable[[], object], what: str, timeout_s: float = 10.0) -> float:
    """Wait and return the time in seconds that it took."""
    began_s = time.monotonic()
    while not happened():
        if time.monotonic() - began_s > timeout_s:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - began_s


def processor_s(pid: int) -> float:
    """User and system time in seconds, proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- errors in threads


@pytest.mark.parametrize(
    ("thread", "broken"),
    [
        ("reporter", "from apmpi.service import report; report.Reporter._note_second"),
        ("socket", "from apmpi.service import socket_server; socket_server.SocketServer._publish"),
        ("keeper", "from apmpi.service import learned, loop; learned.FIRST_SAVE_S = 0.5; loop.Loop.snapshot"),
        ("caretaker", "from apmpi.cards import slot; slot.Slot.look_after"),
        ("read ahead", "from apmpi.cards import wav; read = wav.WavSource.read;"
         " wav.WavSource.read = lambda self: read(self) if threading.current_thread().name"
         " != 'read ahead' else 1 / 0; nothing"),
        ("write behind", "from apmpi.cards import wav; wav.WavSink.write"),
    ],
)  # fmt: skip
def test_an_error_in_any_thread_ends_the_service_with_a_failure(
    thread: str, broken: str, configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    path = configure()
    path.write_text(path.read_text() + "socket: service\n")
    code = f"import threading; {broken} = lambda *_, **__: 1 / 0"
    process = start(path, "--seconds", "20", code=code, RUNTIME_DIRECTORY=str(tmp_path))
    assert process.ended(traceback=True) == 1
    reason = f"{thread}: ZeroDivisionError: division by zero"
    assert f"apmpi: stopped by an error in the program ({reason})\n" in process.said
    assert not (tmp_path / "learned").exists() and not (tmp_path / "sound").exists()


# ---- terminals and pipes


class TerminalDaemon:
    """A daemon in a terminal of its own; `terminal` is the other end."""

    def __init__(self, path: Path) -> None:
        """Start, and return when it shows figures."""
        self._status: int | None = None
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execv(APMPI, [str(APMPI), "run", "--config", str(path)])
        said = b""
        while b"latency" not in said:
            said += os.read(self.terminal, 4096)

    def close_terminal(self) -> None:
        os.close(self.terminal)
        self.terminal = -1

    def exit_status(self, timeout_s: float = 5.0) -> int:
        """Send SIGTERM and return the exit status."""
        os.kill(self.pid, signal.SIGTERM)
        wait_until(self._has_ended, "the end of the process", timeout_s)
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        if not self._has_ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.terminal >= 0:
            self.close_terminal()

    def _has_ended(self) -> bool:
        if self._status is None:
            pid, value = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(value) if pid else None
        return self._status is not None


@pytest.fixture
def in_a_terminal() -> Iterator[Callable[[Path], TerminalDaemon]]:
    """TerminalDaemon, whose processes end with the test."""
    with contextlib.ExitStack() as stack:

        def started(path: Path) -> TerminalDaemon:
            daemon = TerminalDaemon(path)
            stack.callback(daemon.kill)
            return daemon

        yield started


def frames(socket_path: Path) -> int:
    """Return the number of processed frames that the service reports."""
    command = [APMPI, "monitor", "--json", "--seconds", "0.5", "--socket", socket_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return int(json.loads(done.stdout.splitlines()[-1])["frames"])


def test_a_terminal_that_closes_ends_nothing(
    configure: Configure, tmp_path: Path, in_a_terminal: Callable[[Path], TerminalDaemon]
) -> None:
    """The terminal's window is closed: SIGHUP, then every write fails."""
    path = configure()
    path.write_text(path.read_text() + "socket: service\n")
    service = in_a_terminal(path)
    service.close_terminal()
    time.sleep(3)
    before = frames(tmp_path / "service")
    time.sleep(1)
    after = frames(tmp_path / "service")
    print(f"{after - before} frames while nobody had a terminal")
    assert after - before > 90
    assert service.exit_status() == 0


@pytest.mark.parametrize("how", ["stopped", "unread"])
def test_a_terminal_that_takes_nothing_holds_up_no_signal(
    how: str, configure: Configure, in_a_terminal: Callable[[Path], TerminalDaemon]
) -> None:
    """Ctrl-S, or a window or connection that has stopped: the line discipline's buffer fills up."""
    path = configure()
    interval = "0.5" if how == "stopped" else "0.1"
    path.write_text(path.read_text().replace("report_interval_s: 0.5", f"report_interval_s: {interval}"))
    service = in_a_terminal(path)
    if how == "stopped":
        os.write(service.terminal, b"\x13")
    else:  # fill the rest of it, as hours of lines would
        with (
            contextlib.suppress(BlockingIOError),
            Path(f"/proc/{service.pid}/fd/2").open("wb", buffering=0) as more,
        ):
            os.set_blocking(more.fileno(), False)
            while more.write(b"." * 63):
                pass
    time.sleep(2)
    assert service.exit_status() == 0


def test_a_pipe_that_nobody_reads_holds_up_no_signal(configure: Configure, start: type[Daemon]) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    path = configure()
    path.write_text(path.read_text().replace("report_interval_s: 0.5", "report_interval_s: 0.1"))
    process = start(path, stderr=writer)
    time.sleep(7)  # 60 lines of 100 characters are 6 kB
    process.signal(signal.SIGTERM)
    began_s = time.monotonic()
    assert process.ended(5) == 0
    print(f"ended after {time.monotonic() - began_s:.2f} s")
    os.close(reader)
    os.close(writer)


# ---- signals and limits


def test_a_reload_that_comes_early_is_done_late(configure: Configure, start: type[Daemon]) -> None:
    """SIGHUP while the program is still loading its libraries."""
    process = start(configure())
    maps = Path(f"/proc/{process.pid}/maps")
    wait_until(lambda: "libasound" in maps.read_text(), "ALSA's library is loaded")
    process.signal(signal.SIGHUP)
    process.hear("reloaded")
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def test_a_line_of_brackets_ends_nothing(configure: Configure, tmp_path: Path, start: type[Daemon]) -> None:
    """Regression: in the service's own thread json.loads of Python 3.13 would overflow the stack: SIGSEGV."""
    path = configure()
    path.write_text(path.read_text() + "socket: service\n")
    process = start(path)
    process.hear("latency")
    for line in (b"[" * 8000, b'{"a":' * 1600, b"[" * 190):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(tmp_path / "service"))
            client.sendall(line + b"\n")
            assert client.recv(1000).startswith(b'{"error": "not understood, expected')
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def test_few_file_descriptors_cost_neither_sound_nor_processor(
    configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    """No file descriptor is free for a client, nor for anything else, for 3 s."""
    path = configure()
    path.write_text(path.read_text() + "socket: service\n")
    process = start(path)
    process.hear("latency")
    opened = {int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir()}
    free = min(set(range(max(opened) + 2)) - opened)  # the limit is on the number of the next one
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    idle_s = processor_s(process.pid)
    time.sleep(2)
    idle_s = processor_s(process.pid) - idle_s
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        for client in clients:
            client.connect(str(tmp_path / "service"))
            client.sendall(b'{"want": "figures"}\n')
            client.settimeout(10)
        busy_s = processor_s(process.pid)
        time.sleep(2)
        busy_s = processor_s(process.pid) - busy_s
        process.signal(signal.SIGHUP)
        process.hear("cannot be read .Too many open files")
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        waited_s = wait_until(lambda: clients[0].recv(1000), "the clients are served")
        assert all(client.recv(1000) for client in clients[1:])
    print(f"processor: {idle_s / 2:.1%} before, {busy_s / 2:.1%} meanwhile; served after {waited_s:.1f} s")
    assert busy_s < idle_s + 0.2
    assert waited_s < 2
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    assert re.search(r"\b0 xruns", process.said.splitlines()[-2])


def test_a_systemd_that_does_not_read_is_not_waited_for(
    configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    """systemd's queue is full; when it reads again, it gets the message that it waits for: READY=1."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            other.connect(str(tmp_path / "notify"))
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.send(b"STATUS=of another service")
        process = start(configure(), NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="2000000")
        process.hear("systemd does not hear us")
        process.hear("latency")
        systemd.settimeout(5)
        heard: list[bytes] = []
        while not any(message.startswith(b"READY=1\n") for message in heard):
            heard.append(systemd.recv(4096))
        process.signal(signal.SIGHUP)
        time.sleep(3)  # full again: 6 reports and 6 watchdog signals, and more
        process.signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert process.ended(10) == 0
        print(f"ended after {time.monotonic() - began_s:.2f} s")
        assert time.monotonic() - began_s < 2


# ---- the file that exists while sound flows


def test_a_card_that_is_not_there_is_ready_without_the_file(
    configure: Configure, systemd: Systemd, tmp_path: Path, start: type[Daemon]
) -> None:
    """READY=1 with the reason, and no file of flowing sound, nor one of an earlier run."""
    path = configure()
    path.write_text(path.read_text().replace("microphone: {device: room0}", 'microphone: {device: "hw:7"}'))
    mark = tmp_path / "run/sound"
    mark.parent.mkdir()
    mark.touch()
    process = start(path, RUNTIME_DIRECTORY=str(mark.parent), **systemd.environment)
    assert "STATUS=waiting: microphone.device: 'hw:7' does not exist" in systemd.hear("READY=1")
    assert not mark.exists(), "it was left behind by another run"
    time.sleep(3)
    assert not mark.exists()
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def test_frames_that_stand_still_are_no_flowing_sound(tmp_path: Path) -> None:
    """Frames stop although no device is parked: the audio thread hangs."""
    mark = SoundMark(tmp_path / "sound")
    looks = [(0.1 * look, 10 * look, "") for look in range(12)]
    looks += [(1.1 + STILL_MAX_S * part, 110, "") for part in (0.5, 1.1)]
    looks += [(2.0, 200, ""), (2.9, 290, "waiting"), (3.0, 300, ""), (3.8, 380, ""), (3.9, 395, "")]
    there = []
    for now_s, frames, parked in looks:
        mark.look(now_s, frames, parked)
        there.append((tmp_path / "sound").exists())
    assert there == [False] * 10 + [True] * 2 + [True, False] + [False, False, False, False, True]
    mark.remove()
    assert not list(tmp_path.iterdir())


def test_the_file_of_flowing_sound_follows_the_card(
    configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    """A microphone that is unplugged after half a second, plugged in again, and unplugged again."""
    faults = "capture:unplug@0.5 capture:replug@2.5 capture:unplug@6"
    mark = tmp_path / "sound"
    process = start(configure(faults=faults), RUNTIME_DIRECTORY=str(tmp_path))
    process.hear("waiting: microphone.device: 'room0'")
    assert not mark.exists()
    process.hear("all devices are back")
    appeared_s = wait_until(mark.exists, "sound flows")
    gone_s = wait_until(lambda: not mark.exists(), "sound does not flow any more")
    print(f"there {appeared_s:.1f} s after the card, gone {gone_s:.1f} s later")
    assert 0.8 < appeared_s < 2
    assert gone_s > 1
    time.sleep(1.5)
    assert not mark.exists()
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def test_the_file_of_flowing_sound_goes_with_the_service(
    configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    mark = tmp_path / "sound"
    process = start(configure(faults="playback:unplug@3 playback:replug@5"), RUNTIME_DIRECTORY=str(tmp_path))
    wait_until(mark.exists, "sound flows")
    wait_until(lambda: not mark.exists(), "the loudspeaker is missing")
    assert wait_until(mark.exists, "sound flows again") > 1.0
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    assert not mark.exists()


# ---- the chime

# The recording begins while the microphone is missing; then a second of sound, the tones, and a second more.
CHIME_FAULTS = "capture:unplug@0.2 capture:replug@2"
CHIME_RECORDED_S = 5


def test_the_tones_are_heard_once_and_their_echo_is_cancelled(
    configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    path = configure(faults=CHIME_FAULTS)
    path.write_text(f"{path.read_text()}chime: true\nsocket: service\n")
    write(tmp_path / "far.wav", np.zeros(12 * RATE_HZ))
    state = tmp_path / "run"
    state.mkdir()
    far, microphone, output = recorded_start(path, tmp_path, state, start)
    (played,) = np.nonzero(far)
    begin, end = played[0], played[-1] + 1
    assert (end - begin) / RATE_HZ == pytest.approx(0.3, abs=0.001)
    halves = np.split(far[begin : begin + 2 * ((end - begin) // 2)], 2)
    tones_hz = [np.argmax(np.abs(np.fft.rfft(half, RATE_HZ))) for half in halves]
    assert tones_hz == pytest.approx(TONES_HZ, abs=2)
    # Of each tone 0.13 s are not faded.
    assert level_db(halves[0][1000:-1000]) == pytest.approx(LEVEL_DBFS, abs=0.2)
    # Its echo comes 30 ms and more later. Nothing was learned before.
    heard = slice(begin + int(0.03 * RATE_HZ), end + int(0.1 * RATE_HZ))
    levels = {"echo": level_db(microphone[heard]), "output": level_db(output[heard])}
    print(levels)
    assert levels["echo"] > -45 and levels["output"] < levels["echo"] - 15
    # After a restart of the service it is silent.
    far, _, _ = recorded_start(path, tmp_path, state, start)
    assert not far.any()


def recorded_start(path: Path, folder: Path, state: Path, start: type[Daemon]) -> np.ndarray:
    """Return far end, microphone and output from the start of the service on."""
    process = start(path, RUNTIME_DIRECTORY=str(state))
    process.hear("running at")
    wait_until((folder / "service").exists, "there is a socket")
    call = folder / "call.wav"
    command = [
        APMPI,
        "record",
        "--socket",
        folder / "service",
        "-o",
        call,
        "--seconds",
        str(CHIME_RECORDED_S),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    sound, _ = soundfile.read(call)
    return np.asarray(sound.T)
