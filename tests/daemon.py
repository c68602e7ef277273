"""`apmpi run` as a process on a room card of its own, for tests that observe it from outside."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import soundfile

RATE_HZ = 48000
APMPI = Path(sys.executable).with_name("apmpi")

RoomCard = Callable[..., str]
Samples = np.ndarray


def talk(rng: np.random.Generator, seconds: float, level: float = 0.1) -> Samples:
    """Noise with the long-term spectrum and the syllables of speech, its RMS about `level`."""
    count = int(seconds * RATE_HZ)
    frequencies_hz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    shape = frequencies_hz / 500 / (1 + (frequencies_hz / 500) ** 2)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * shape, count)
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 3.1 * np.arange(count) / RATE_HZ)
    noise *= syllables
    return np.asarray(noise * level / noise.std())


def impulse_response(rng: np.random.Generator) -> Samples:
    """An impulse response of a direct sound and a decay of 60 dB in 0.2 s."""
    count = int(0.2 * RATE_HZ)
    tail = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    response = 0.2 * tail / np.sqrt(np.sum(tail**2))
    response[0] = 0.5
    return np.asarray(response)


def level_db(samples: Samples) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(samples**2)) + 1e-9))


def write(path: Path, samples: Samples) -> Path:
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
    return path


class Daemon:
    """`apmpi run` as a process of its own."""

    def __init__(
        self,
        yaml: Path,
        *arguments: str,
        code: str = "",
        stderr: int | IO[Any] = subprocess.PIPE,
        **more: str,
    ) -> None:
        """`code` is run before the program, `more` goes into the environment."""
        command = [APMPI, "run", "--config", yaml, *arguments]
        if code:
            program = f"import sys; {code}; from apmpi.tools.cli import main; sys.exit(main())"
            command[:1] = [sys.executable, "-P", "-c", program]
        self._process = subprocess.Popen(command, stderr=stderr, text=True, env={**os.environ, **more})
        self.said = ""

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def hear(self, pattern: str, timeout_s: float = 10.0) -> str:
        """Wait until a line on standard error matches."""
        assert self._process.stderr is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            line = self._process.stderr.readline()
            self.said += line
            if re.search(pattern, line):
                return line
            if not line:
                break
        pytest.fail(f"no line matches {pattern!r} in:\n{self.said}")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self, timeout_s: float = 15.0, *, traceback: bool = False) -> int:
        """Return the exit status. A traceback must be in the output exactly if `traceback` is set."""
        _, rest = self._process.communicate(timeout=timeout_s)
        self.said += rest or ""
        print(self.said)
        assert ("Traceback" in self.said) == traceback
        return self._process.returncode


@pytest.fixture
def start() -> Iterator[type[Daemon]]:
    """Daemon, whose processes end with the test."""
    started: list[Daemon] = []

    class Started(Daemon):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            started.append(self)

    yield Started
    for daemon in started:
        daemon.kill()


class Systemd:
    """systemd's end of sd_notify(3)."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self.environment = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "400000"}
        self.heard: list[tuple[float, str]] = []

    def close(self) -> None:
        self._socket.close()

    def hear(self, wanted: str, timeout_s: float = 10.0) -> str:
        """Return the next message that contains `wanted`; all are kept with their time of arrival."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            message = self._socket.recv(4096).decode()
            self.heard.append((time.monotonic(), message))
            if wanted in message:
                return message
        pytest.fail(f"no {wanted!r} within {timeout_s} s, but {self.heard}")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listener = Systemd(tmp_path)
    yield listener
    listener.close()


Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path, rng: np.random.Generator, room_card: RoomCard) -> Configure:
    """Return configure(faults="...", ...), which writes a configuration on a room card with these options: 12
    s of far end, its echo, output in clean.wav.
    """

    def write_all(**card: str | float | Path) -> Path:
        write(tmp_path / "far.wav", talk(rng, 12.0))
        write(tmp_path / "room.wav", impulse_response(rng))
        device = room_card(impulse_response=tmp_path / "room.wav", delay_ms=30, noise_dbfs=-75, **card)
        path = tmp_path / "apmpi.yaml"
        path.write_text(
            f"microphone: {{device: {device}}}\n"
            f"speaker: {{device: {device}}}\n"
            "far_end: {file: far.wav}\n"
            "output: {file: clean.wav}\n"
            "report_interval_s: 0.5\n"
            "features: {noise_suppression: false, auto_gain_control: false}\n"
        )
        return path

    return write_all
