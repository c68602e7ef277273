"""The service's end of the local socket alone, without a loop behind it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from apmpi.api.apm import Stats
from apmpi.cards.latency import LatencyLog
from apmpi.service.feed import Feed
from apmpi.service.instruments import Board, Instruments
from apmpi.service.socket_server import SocketServer
from apmpi.service.yaml_reader import parse

FRAME = bytes(960)


class Served:
    """A server, and the data that the audio thread would leave for it."""

    def __init__(self, folder: Path, yaml: str = "") -> None:
        settings = parse("microphone: {device: none}\n" + yaml, "test.yaml")
        self.path = folder / "socket"
        figures = asdict(Stats(erle_db=31.6, converged=True, reference_present=True))
        self.board = Board(settings, settings, figures=figures)
        self.latency = LatencyLog(1000, algorithmic_ms=6.0)
        self.feed = Feed()
        instruments = Instruments(
            self.board,
            self.latency,
            lambda: {"microphone": 2, "output": 1},
            lambda: 3,
            lambda: {"output": -12.5},
        )
        channels = {"far_end": 1, "microphone": 1, "output": 1}
        self.server = SocketServer(self.path, settings, instruments, self.feed, channels)
        self.server.start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def _play(self) -> None:
        while not self._ended.wait(0.01):
            self.feed.put(self.latency.frames, FRAME, FRAME, FRAME)
            self.latency.add(10.25, 0.5, 4.5)

    def stop_sound(self) -> None:
        self._ended.set()
        self._thread.join()

    def close(self) -> None:
        self.stop_sound()
        self.server.close()

    def talk(self, request: bytes, timeout_s: float = 5.0) -> bytes:
        """Return all bytes received in that time."""
        said, end_s = b"", time.monotonic() + timeout_s
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(timeout_s)
            visitor.connect(str(self.path))
            visitor.sendall(request)
            with contextlib.suppress(TimeoutError, ConnectionError):
                while time.monotonic() < end_s and (part := visitor.recv(65536)):
                    said += part
        return said


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    service = Served(tmp_path)
    yield service
    service.close()
    assert not service.path.exists()
