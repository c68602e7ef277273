"""An HTTPS server with updates: real certificates, and indexes signed by the build's own function."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from apmpi_appliance import slots

import build

CONTENT = bytes(range(256)) * 2000  # 512 KB
FILE = "apmpi-2.0-arm64.update"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """Make an authority (ca.pem), its certificate for localhost (server.pem), and one that has expired."""
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(folder, "req", "-x509", *kind, "-subj", "/CN=ours", "-keyout", "ca.key", "-out", "ca.pem")
    asked = ("-subj", "/CN=server", "-addext", "subjectAltName=DNS:localhost")
    openssl(folder, "req", *kind, *asked, "-keyout", "key", "-out", "request")
    for name, validity in (("server.pem", ("-days", "30")), ("expired.pem", _expired())):
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy", *validity)
        openssl(folder, "x509", "-req", "-in", "request", *signing, "-out", name)


def _expired() -> tuple[str, ...]:
    """Return the options for a validity in the past: OpenSSL 3.5 refuses -1 days, 3.0 knows no dates."""
    done = subprocess.run(["openssl", "x509", "-help"], capture_output=True, text=True, check=True)
    if "-not_after" not in done.stdout + done.stderr:
        return ("-days", "-1")
    return ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")


def offer_update(
    new: Path,
    server: Path,
    key: Path,
    version: str = "2.0",
    board: str = "pi3-pi4",
    content: bytes = CONTENT,
) -> None:
    """Put something and its index into the server's folder. `new` is what the new root file system has."""
    (new / slots.VERSION).parent.mkdir(parents=True, exist_ok=True)
    (new / slots.VERSION).write_text(f"{version}\n")
    (new / slots.BOARD).write_text(f"{board}\n")
    (server / FILE).write_bytes(content)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("APMPI_SIGNING_KEY", str(key))
        build.write_index(new, server / FILE, server / "pi3-pi4.index")


class Server:
    """An HTTPS server of a folder, at a free port; `change` may answer in its place."""

    def __init__(self, folder: Path, certificates: Path, certificate: str = "server.pem") -> None:
        self.folder = folder
        self.asked: list[tuple[str, str]] = []  # path and range of each request
        self.change: dict[str, Handler] = {}
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / certificate, certificates / "key")
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(context, started))
        self._thread.start()
        assert started.wait(10)

    def _run(self, context: ssl.SSLContext, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        self._loop.run_until_complete(site.start())
        port = runner.addresses[0][1]
        self.url = f"https://localhost:{port}/apmpi/"
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name = request.path.removeprefix("/apmpi/")
        self.asked.append((name, request.headers.get("Range", "")))
        if name in self.change:
            return await self.change[name](request)
        if not (self.folder / name).is_file():
            raise web.HTTPNotFound
        return web.FileResponse(self.folder / name)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
