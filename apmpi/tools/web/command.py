"""The command `apmpi web`: serves the page until SIGTERM or Ctrl-C."""

import asyncio
import getpass
import signal
import socket
import sys
from pathlib import Path

from apmpi.cards.text_file import printable
from apmpi.errors import CommandError
from apmpi.service.systemd import passed_socket
from apmpi.tools.web import access, metrics_token
from apmpi.tools.web.configuration import Configuration

MISSING = (
    "aiohttp, which serves the page, is not installed: apt install python3-aiohttp, or "
    "pip install 'apmpi[web]'"
)
# Connections that wait to be accepted: a browser opens six at a time.
BACKLOG = 32


def main(
    address: str, port: int, socket_path: Path | None, configuration: Configuration, token_hint: str
) -> int:
    """Serve the page and return the exit status. Raises CommandError.

    address, port   to listen at, unless systemd has passed a socket; port 0 is any free one
    socket_path     of the service; None: wherever one answers
    token_hint      how the token for Prometheus is set
    """
    try:
        import aiohttp.web  # noqa: F401 - asked before the work, not in the midst of it
    except ImportError:
        raise CommandError(MISSING) from None
    with passed_socket() or _listen(address, port) as listener:
        asyncio.run(_serve(listener, configuration, socket_path, token_hint))
    return 0


def set_password(configuration: Path) -> int:
    """Ask for the page's password, or read it from standard input, and keep its hash; return the exit status.
    Raises CommandError."""
    path = configuration.parent / access.PASSWORD_FILE
    access.set_password(path, _asked("--set-password", "password"))
    print(f"{path}: the password's hash; systemctl try-restart apmpi-web, if the page is a service")
    return 0


def set_metrics_token(configuration: Path) -> int:
    """Ask for the token for Prometheus as for a password, and keep its hash; return the exit status. Raises
    CommandError."""
    path = configuration.parent / metrics_token.TOKEN_FILE
    metrics_token.set_token(path, _asked("--set-metrics-token", "token"))
    print(f"{path}: the token's hash; systemctl try-restart apmpi-web, if the page is a service")
    return 0


def _asked(option: str, kind: str) -> str:
    """Return what is typed, or the first line of standard input. Raises CommandError."""
    try:
        if not sys.stdin.isatty():
            return sys.stdin.buffer.readline().decode().rstrip("\r\n")
        given = getpass.getpass(f"{kind} for the page: ")
        again = getpass.getpass("once more: ")
    except (EOFError, UnicodeError):
        raise CommandError(f"{option}: no text given, expected a {kind} in UTF-8") from None
    if again != given:
        raise CommandError(f"{option}: two different {kind}s given, expected the same twice")
    return given


async def _serve(
    listener: socket.socket, configuration: Configuration, socket_path: Path | None, token_hint: str
) -> None:
    from apmpi.tools.web.server import running

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with running(listener, configuration, socket_path, token_hint):
        print(f"the page: {_url(listener)} (Ctrl-C ends it)", flush=True)
        await ended.wait()


def _listen(address: str, port: int) -> socket.socket:
    """Return the listening socket. Raises CommandError."""
    named = f"{printable(address)} port {port}"
    try:
        family, _, _, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # At :: IPv4 is served, too.
        dual = family == socket.AF_INET6 and address == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(place[:2], family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except socket.gaierror as error:
        raise CommandError(
            f"--address: {printable(address)!r} given ({error.strerror}), expected an address of this "
            "computer, as 127.0.0.1, or :: for all"
        ) from None
    except OSError as error:
        raise CommandError(
            f"{named}: cannot be listened at ({error.strerror}), expected a free port (from 1024 on unless "
            "root) at an address of this computer"
        ) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"
