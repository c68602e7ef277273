"""Server of the local socket (apmpi.service.protocol): a thread that answers its clients.

It reads what the audio thread publishes (apmpi.service.instruments, apmpi.service.feed) and never waits for a
client: what a client is too slow for is left out for that client.
"""

import contextlib
import errno
import os
import select
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from apmpi._version import __version__
from apmpi.cards.realtime import give_way
from apmpi.errors import EndpointError
from apmpi.service import metrics
from apmpi.service.bounded_json import JsonError, parsed
from apmpi.service.feed import Feed
from apmpi.service.instruments import Instruments, Moment
from apmpi.service.lines import figures_line, json_line, sound_lines
from apmpi.service.protocol import INTERVAL_S, PROTOCOL, REQUEST_MAX_BYTES
from apmpi.settings import Settings

# More clients at a time are a mistake or an attack.
CLIENTS_MAX = 8
# Pause of accept() after the system had no descriptor for one more connection. That connection stays in the
# queue, so poll() would return at once, again and again.
ACCEPT_PAUSE_S = 1.0
# A client that has made no request by then is disconnected.
REQUEST_TIMEOUT_S = 5.0
# Most that is queued for a slow client: some seconds of sound in few channels, minutes of figures.
UNSENT_MAX_BYTES = 2 * 1024 * 1024
# Prometheus asks about every 15 s: its latency is that of the last 10 s.
METRICS_INTERVALS = 100


class _Client:
    """One connection. `wants` is "" until the client has made its request."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.came_s = time.monotonic()
        self.wants = ""
        self.request = b""
        self.unsent = bytearray()
        self.leaving = False  # disconnected as soon as all is sent

    def queue(self, line: bytes) -> None:
        """Queue it for sending, or leave it out while too much is queued."""
        if len(self.unsent) + len(line) <= UNSENT_MAX_BYTES:
            self.unsent += line


class SocketServer(threading.Thread):
    """Listens until close(). All methods but __init__ and close run in its own thread."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        instruments: Instruments,
        feed: Feed,
        channels: Mapping[str, int],
    ) -> None:
        """Open the socket; `channels` has the count of each of SIGNALS. Raises EndpointError."""
        super().__init__(name="socket", daemon=True)
        self._path = path
        self._metrics = settings.metrics
        self._instruments = instruments
        self._feed = feed
        self._hello = {
            "apmpi": __version__,
            "protocol": PROTOCOL,
            "sample_rate_hz": settings.sample_rate_hz,
            "channels": dict(channels),
        }
        self._listener = _listen(path)
        self._inode = path.stat().st_ino
        self._clients: dict[int, _Client] = {}
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._accept_again_s: float | None = None
        self._closing = False
        self._before: Moment | None = None  # time of the last line of figures
        self._moments: deque[Moment] = deque([instruments.now()], maxlen=METRICS_INTERVALS)

    def close(self) -> None:
        """Disconnect all clients. Called once, from the main thread; waits for the server's thread first."""
        self._closing = True
        if self.is_alive():
            self.join()
        for number in list(self._clients):
            self._disconnect(number)
        self._listener.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:  # not that of a successor
                self._path.unlink()

    def run(self) -> None:
        """Answer the clients, and once in INTERVAL_S send them figures and sound."""
        give_way()
        next_s = time.monotonic()
        while not self._closing:
            for number, event in self._poll.poll(max(0.0, next_s - time.monotonic()) * 1000):
                if number == self._listener.fileno():
                    self._accept()
                elif event & select.POLLIN:
                    self._receive(number)
                elif event & select.POLLOUT:
                    self._send(number)
                else:  # closed, broken
                    self._disconnect(number)
            now_s = time.monotonic()
            if now_s >= next_s:
                next_s = max(next_s + INTERVAL_S, now_s)
                self._publish(now_s)

    # ---- connections

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has given up
            return
        except OSError:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: accept(2)
            self._poll.unregister(self._listener)
            self._accept_again_s = time.monotonic() + ACCEPT_PAUSE_S
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients[connection.fileno()] = client
        self._poll.register(connection, select.POLLIN)
        if len(self._clients) > CLIENTS_MAX:
            self._refuse(client, f"{CLIENTS_MAX} others are looking on already, expected fewer")

    def _disconnect(self, number: int) -> None:
        client = self._clients.pop(number)
        self._poll.unregister(number)
        client.connection.close()

    def _receive(self, number: int) -> None:
        """Take a part of a request. A client that sends more after its request is disconnected: it would keep
        this thread busy."""
        client = self._clients[number]
        try:
            part = client.connection.recv(REQUEST_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part or client.wants:
            self._disconnect(number)
        else:
            client.request += part
            self._answer(client)
            self._send(number)

    def _answer(self, client: _Client) -> None:
        request = client.request
        if request.startswith(b"GET "):
            # Answered at the end of the headers: a connection closed before that looks broken to the client.
            if b"\r\n\r\n" in request or b"\n\n" in request:
                client.queue(self._http(request))
                client.leaving = True
            elif len(request) > REQUEST_MAX_BYTES:
                self._refuse(client, "the request is too long")
            return
        line, newline, _ = request.partition(b"\n")
        if not newline and len(line) <= REQUEST_MAX_BYTES:
            return
        wants: object = None
        with contextlib.suppress(JsonError):
            wants = parsed(line, REQUEST_MAX_BYTES).get("want")
        if not newline or not isinstance(wants, str) or wants not in ("figures", "sound"):
            self._refuse(client, 'not understood, expected {"want": "figures"} or {"want": "sound"}')
            return
        client.wants = wants
        client.queue(json_line(self._hello))

    def _refuse(self, client: _Client, problem: str) -> None:
        client.queue(json_line({"error": problem}))
        client.leaving = True
        self._send(client.connection.fileno())

    def _send(self, number: int) -> None:
        client = self._clients.get(number)
        if client is None:
            return
        try:
            while client.unsent:
                del client.unsent[: client.connection.send(client.unsent)]
        except BlockingIOError:
            self._poll.modify(number, select.POLLOUT | (0 if client.leaving else select.POLLIN))
            return
        except OSError:
            self._disconnect(number)
            return
        self._poll.modify(number, select.POLLIN)
        if client.leaving:
            self._disconnect(number)

    # ---- answers

    def _publish(self, now_s: float) -> None:
        """Send the figures since the last time, and the sound to clients that want it."""
        if self._accept_again_s is not None and now_s >= self._accept_again_s:
            self._accept_again_s = None
            self._poll.register(self._listener, select.POLLIN)
        now = self._instruments.now()
        for number, client in list(self._clients.items()):
            if now_s - client.came_s > REQUEST_TIMEOUT_S and not client.wants:
                self._disconnect(number)
        subscribers = [client for client in self._clients.values() if client.wants and not client.leaving]
        self._feed.wanted = bool(subscribers)
        frames = self._feed.take()
        if subscribers and self._before is not None:
            interval = self._instruments.interval(self._before)
            figures = figures_line(interval, self._instruments.board.parked, frames)
            sound = sound_lines(frames) if any(client.wants == "sound" for client in subscribers) else b""
            for client in subscribers:
                if client.wants == "sound":
                    client.queue(sound)
                client.queue(figures)
                self._send(client.connection.fileno())
        self._before = now if subscribers else None
        self._moments.append(now)

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


def _listen(path: Path) -> socket.socket:
    """Return the listening socket. Raises EndpointError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if path.parent == Path("/run/apmpi"):  # systemd makes it, but root may go without systemd
            path.parent.mkdir(exist_ok=True)
        _remove_leftover(path)
        listener.bind(os.fspath(path))
        path.chmod(0o660)  # to connect is to write
        listener.listen(CLIENTS_MAX)
    except OSError as error:
        listener.close()
        reason = {
            errno.EADDRINUSE: "another apmpi uses it",
            errno.ENOENT: "its folder does not exist",
        }.get(error.errno or 0, error.strerror or str(error))
        raise EndpointError(f"socket: '{path}' cannot be opened ({reason}): nobody can look on") from None
    return listener


def _remove_leftover(path: Path) -> None:
    """Remove the socket of a service that was killed. Raises OSError if something else is there."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "something else is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "in use")
