"""The service's end of the local socket (apmpi.service.protocol): a thread that answers those who look on.

It reads what the audio thread leaves behind anyway (instruments.Instruments, feed.py) and never waits for
a visitor: what one is too slow for is left out for that one.
"""

import base64
import contextlib
import errno
import importlib.metadata
import json
import math
import os
import select
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from apmpi.cards.realtime import give_way
from apmpi.errors import EndpointError
from apmpi.figures import SIGNALS
from apmpi.service import metrics
from apmpi.service.bounded_json import JsonError, parsed
from apmpi.service.feed import Feed, Frame
from apmpi.service.instruments import Instruments, Moment
from apmpi.service.protocol import INTERVAL_S, PROTOCOL, REQUEST_MAX_BYTES
from apmpi.settings import Settings

# More who look on at once are a mistake, or mischief.
VISITORS_MAX = 8
# Pause of accept() after the system had no descriptor for one more connection. That connection stays in the
# queue, so poll() would return at once, again and again.
ACCEPT_PAUSE_S = 1.0
# Who has not said by then what it wants is sent away.
REQUEST_TIMEOUT_S = 5.0
# What waits for a slow visitor: some seconds of sound in few channels, minutes of figures.
UNSENT_MAX_BYTES = 2 * 1024 * 1024
# Prometheus comes every quarter of a minute or so: its latency is that of the last ten seconds.
METRICS_INTERVALS = 100


class _Visitor:
    """One connection. `wants` is "" until it has asked."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.came_s = time.monotonic()
        self.wants = ""
        self.request = b""
        self.unsent = bytearray()
        self.leaving = False  # as soon as all is sent

    def tell(self, line: bytes) -> None:
        """Queues it, or leaves it out."""
        if len(self.unsent) + len(line) <= UNSENT_MAX_BYTES:
            self.unsent += line


class SocketServer(threading.Thread):
    """Listens until close()."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        instruments: Instruments,
        feed: Feed,
        channels: Mapping[str, int],
    ) -> None:
        """Opens the socket; `channels` are those of each of SIGNALS. Raises EndpointError."""
        super().__init__(name="socket", daemon=True)
        self._path = path
        self._metrics = settings.metrics
        self._instruments = instruments
        self._feed = feed
        self._hello = {
            "apmpi": importlib.metadata.version("apmpi"),
            "protocol": PROTOCOL,
            "sample_rate_hz": settings.sample_rate_hz,
            "channels": dict(channels),
        }
        self._listener = _listen(path)
        self._inode = path.stat().st_ino
        self._visitors: dict[int, _Visitor] = {}
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._accept_again_s: float | None = None
        self._closing = False
        self._before: Moment | None = None  # of the last line of figures
        self._moments: deque[Moment] = deque([instruments.now()], maxlen=METRICS_INTERVALS)

    def close(self) -> None:
        """Sends all away, and waits until that is done."""
        self._closing = True
        if self.is_alive():
            self.join()
        for number in list(self._visitors):
            self._part_from(number)
        self._listener.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:  # not that of a successor
                self._path.unlink()

    def run(self) -> None:
        give_way()
        next_s = time.monotonic()
        while not self._closing:
            for number, event in self._poll.poll(max(0.0, next_s - time.monotonic()) * 1000):
                if number == self._listener.fileno():
                    self._welcome()
                elif event & select.POLLIN:
                    self._hear(number)
                elif event & select.POLLOUT:
                    self._send(number)
                else:  # closed, broken
                    self._part_from(number)
            now_s = time.monotonic()
            if now_s >= next_s:
                next_s = max(next_s + INTERVAL_S, now_s)
                self._tell(now_s)

    # ---- visitors

    def _welcome(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has given up
            return
        except OSError:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: accept(2)
            self._poll.unregister(self._listener)
            self._accept_again_s = time.monotonic() + ACCEPT_PAUSE_S
            return
        connection.setblocking(False)
        visitor = _Visitor(connection)
        self._visitors[connection.fileno()] = visitor
        self._poll.register(connection, select.POLLIN)
        if len(self._visitors) > VISITORS_MAX:
            self._refuse(visitor, f"{VISITORS_MAX} others are looking on already, expected fewer")

    def _part_from(self, number: int) -> None:
        visitor = self._visitors.pop(number)
        self._poll.unregister(number)
        visitor.connection.close()

    def _hear(self, number: int) -> None:
        """A part of a request. Who goes on talking after it is sent away: it would keep this thread busy."""
        visitor = self._visitors[number]
        try:
            part = visitor.connection.recv(REQUEST_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part or visitor.wants:
            self._part_from(number)
        else:
            visitor.request += part
            self._answer(visitor)
            self._send(number)

    def _answer(self, visitor: _Visitor) -> None:
        request = visitor.request
        if request.startswith(b"GET "):
            # To the end of the headers: a connection closed before that looks broken at the other end.
            if b"\r\n\r\n" in request or b"\n\n" in request:
                visitor.tell(self._http(request))
                visitor.leaving = True
            elif len(request) > REQUEST_MAX_BYTES:
                self._refuse(visitor, "the request is too long")
            return
        line, newline, _ = request.partition(b"\n")
        if not newline and len(line) <= REQUEST_MAX_BYTES:
            return
        wants: object = None
        with contextlib.suppress(JsonError):
            wants = parsed(line, REQUEST_MAX_BYTES).get("want")
        if not newline or not isinstance(wants, str) or wants not in ("figures", "sound"):
            self._refuse(visitor, 'not understood, expected {"want": "figures"} or {"want": "sound"}')
            return
        visitor.wants = wants
        visitor.tell(_line(self._hello))

    def _refuse(self, visitor: _Visitor, problem: str) -> None:
        visitor.tell(_line({"error": problem}))
        visitor.leaving = True
        self._send(visitor.connection.fileno())

    def _send(self, number: int) -> None:
        visitor = self._visitors.get(number)
        if visitor is None:
            return
        try:
            while visitor.unsent:
                del visitor.unsent[: visitor.connection.send(visitor.unsent)]
        except BlockingIOError:
            self._poll.modify(number, select.POLLOUT | (0 if visitor.leaving else select.POLLIN))
            return
        except OSError:
            self._part_from(number)
            return
        self._poll.modify(number, select.POLLIN)
        if visitor.leaving:
            self._part_from(number)

    # ---- what they are told

    def _tell(self, now_s: float) -> None:
        """Once in INTERVAL_S."""
        if self._accept_again_s is not None and now_s >= self._accept_again_s:
            self._accept_again_s = None
            self._poll.register(self._listener, select.POLLIN)
        now = self._instruments.now()
        for number, visitor in list(self._visitors.items()):
            late = now_s - visitor.came_s > REQUEST_TIMEOUT_S
            if late and not visitor.wants:
                self._part_from(number)
        lookers = [visitor for visitor in self._visitors.values() if visitor.wants and not visitor.leaving]
        self._feed.wanted = bool(lookers)
        frames = self._feed.take()
        if lookers and self._before is not None:
            figures = _line({"figures": self._figures(self._before, frames)})
            sound = b""
            if any(visitor.wants == "sound" for visitor in lookers):
                sound = b"".join(_sound(run) for run in _runs(frames))
            for visitor in lookers:
                if visitor.wants == "sound":
                    visitor.tell(sound)
                visitor.tell(figures)
                self._send(visitor.connection.fileno())
        self._before = now if lookers else None
        self._moments.append(now)

    def _figures(self, since: Moment, frames: list[Frame]) -> dict[str, object]:
        figures, waiting = self._instruments.interval(since), self._instruments.board.parked
        values: dict[str, object] = {
            "time_s": round(time.time(), 3),
            "state": waiting or figures.sentence(),
            "waiting": waiting,
        }
        for name in SIGNALS:
            rms_dbfs, peak_dbfs = _levels(b"".join(getattr(frame, name) for frame in frames))
            values |= {f"{name}_dbfs": rms_dbfs, f"{name}_peak_dbfs": peak_dbfs}
        return values | {key: _plain(value) for key, value in figures.values().items()}

    def _http(self, request: bytes) -> bytes:
        if request.split()[1:2] != [b"/metrics"]:
            return _response("404 Not Found", "only /metrics is here\n")
        if not self._metrics:
            return _response("404 Not Found", "expected metrics: true in the configuration\n")
        figures = self._instruments.interval(self._moments[0])
        return _response("200 OK", metrics.text(figures, self._instruments.board.parked))


def _response(status: str, text: str) -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {metrics.CONTENT_TYPE}\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def _line(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, allow_nan=False).encode() + b"\n"


def _plain(value: object) -> object:
    """What JSON has: no infinity, and only as many digits as are known."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value


def _runs(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames that follow each other without a gap."""
    runs: list[list[Frame]] = []
    for frame in frames:
        if runs and frame.number == runs[-1][-1].number + 1:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs


def _sound(frames: Sequence[Frame]) -> bytes:
    content: dict[str, object] = {"frame": frames[0].number, "frames": len(frames)}
    for name in SIGNALS:
        content[name] = base64.b64encode(b"".join(getattr(frame, name) for frame in frames)).decode()
    return _line({"sound": content})


def _levels(sound: bytes) -> tuple[float | None, float | None]:
    """RMS and peak over all channels in dB below full scale; None without sound."""
    samples = np.frombuffer(sound, "<i2").astype(np.float32)
    if not samples.size:
        return None, None
    half_step = 0.5  # all zeros are as quiet as 16 bits can tell
    rms, peak = float(np.sqrt(np.mean(samples**2))), float(np.abs(samples).max())
    return _dbfs(max(rms, half_step)), _dbfs(max(peak, half_step))


def _dbfs(value: float) -> float:
    return round(20 * math.log10(value / 32768), 2)


def _listen(path: Path) -> socket.socket:
    """Raises EndpointError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if path.parent == Path("/run/apmpi"):  # systemd makes it, but root may go without systemd
            path.parent.mkdir(exist_ok=True)
        _remove_leftover(path)
        listener.bind(os.fspath(path))
        path.chmod(0o660)  # to connect is to write
        listener.listen(VISITORS_MAX)
    except OSError as error:
        listener.close()
        reason = {
            errno.EADDRINUSE: "another apmpi uses it",
            errno.ENOENT: "its folder does not exist",
        }.get(error.errno or 0, error.strerror or str(error))
        raise EndpointError(f"socket: '{path}' cannot be opened ({reason}): nobody can look on") from None
    return listener


def _remove_leftover(path: Path) -> None:
    """Of a service that was killed. Raises OSError if it is none."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "something else is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        try:
            visitor.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "in use")
