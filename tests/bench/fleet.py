"""A fleet that fetches one update at night: what its server must bear. `fleet.py [DEVICES]`.

Each device is a folder in which the image's own apmpi_appliance.fetch runs, at a random time of the timer's
half hour; one HTTPS server sends all they ask for through a link of limited rate, in equal shares. Time runs
SPEED times as fast and the update is as much smaller than an image's: as many bytes a second as in reality,
and SPEED times as many new connections. One row a link: how many devices have the update after each night,
and the most connections at once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[2] / "image"))
sys.path.insert(0, str(Path(__file__).parents[1] / "image"))

from apmpi_appliance import fetch, slots, update
from update_server import make_certificates, offer_update

import build

DEVICES = 1000
SPEED = 120
UPDATE_BYTES = 140_000_000  # of an image
DELAY_S = 1800  # RandomizedDelaySec of apmpi-update-fetch.timer
LINKS_MBIT_S = (1000, 200, 100)
CHUNK_BYTES = 1 << 16
CLIENTS = 2  # processes of DEVICES / CLIENTS threads
NIGHTS_MAX = 10
SEED = 1


class Link:
    """Sends chunks in the order in which they come, at a limited rate, and counts the connections."""

    def __init__(self, mbit_s: int) -> None:
        self._bytes_s = mbit_s * 1e6 / 8
        self._free_s = 0.0
        self._open = self.most_open = 0

    async def answer(self, request: web.Request, file: Path) -> web.StreamResponse:
        content = file.read_bytes()
        part = request.http_range
        begin = part.start or 0
        response = web.StreamResponse(status=206 if begin else 200)
        response.content_length = len(content) - begin
        if begin:
            response.headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        try:
            with suppress(ConnectionError):  # The device has given up for this night.
                await self._send(request, response, content, begin)
        finally:
            self._open -= 1
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, content: bytes, begin: int
    ) -> None:
        await response.prepare(request)
        for at in range(begin, len(content), CHUNK_BYTES):
            chunk = content[at : at + CHUNK_BYTES]
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + len(chunk) / self._bytes_s
            await asyncio.sleep(self._free_s - now_s)
            await response.write(chunk)


def serve(folder: Path, mbit_s: int, pipe: Connection) -> None:
    """Serve the folder in this process, tell the port, and on any message the most connections."""

    async def run() -> None:
        link = Link(mbit_s)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "server.pem", folder / "key")
        application = web.Application()
        application.router.add_get(
            "/{name}", lambda asked: link.answer(asked, folder / asked.match_info["name"])
        )
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context, backlog=1024).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.to_thread(pipe.recv)
        pipe.send(link.most_open)

    asyncio.run(run())


def night(roots: list[Path], seed: int, pipe: Connection) -> None:
    """Let each device look for the update once, and tell how many have it then."""
    fetch.FILE_S /= SPEED
    os.sync = lambda: None  # All devices share this machine's disk.
    rng = random.Random(seed)
    delays_s = [rng.uniform(0, DELAY_S / SPEED) for _ in roots]

    def look(root: Path, delay_s: float) -> None:
        time.sleep(delay_s)
        with suppress(fetch.FetchError):  # It goes on in the next night.
            fetch.fetch(root)

    threads = [threading.Thread(target=look, args=pair) for pair in zip(roots, delays_s, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send(sum((root / fetch.FOLDER / update.NAME).exists() for root in roots))


def make_device(root: Path, folder: Path, port: int) -> Path:
    """Make a device with version 1.0 that trusts the folder's key and authority."""
    for file, text in {
        slots.VERSION: "1.0\n",
        slots.BOARD: "pi3-pi4\n",
        update.SIGNERS: build.signers(folder / "signing"),
        fetch.URL: f"https://localhost:{port}/\n",
        fetch.AUTHORITY: (folder / "ca.pem").read_text(),
        f"{fetch.FOLDER}/report": "",
    }.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return root


def called(function: Callable[..., None], *arguments: object) -> Connection:
    """Start a process of its own and return the pipe to it."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=function, args=(*arguments, there), daemon=True).start()
    there.close()  # A process that fails ends the waiting for it.
    return here


def measure(devices: int, mbit_s: int, folder: Path) -> tuple[object, ...]:
    """Return the row of a link."""
    server = called(serve, folder, mbit_s)
    port = server.recv()
    roots = [make_device(folder / f"{mbit_s}" / str(number), folder, port) for number in range(devices)]
    having: list[int] = []
    while len(having) < NIGHTS_MAX and devices not in having:
        seeds = [SEED + CLIENTS * len(having) + first for first in range(CLIENTS)]
        clients = [called(night, roots[first::CLIENTS], seed) for first, seed in enumerate(seeds)]
        having.append(sum(client.recv() for client in clients))
    server.send("end")
    return f"{mbit_s} Mbit/s", ", ".join(map(str, having)), server.recv()


def main(devices: int) -> None:
    size_mb = UPDATE_BYTES / 1e6
    print(f"{devices} devices, an update of {size_mb:.0f} MB, {SPEED} times as fast, seed {SEED}\n")
    print("| link | updated after each night | connections at once |\n|---|---|---|")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        folder, key = Path(memory), Path(memory) / "signing"
        make_certificates(folder)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        offer_update(folder / "new", folder, key, content=os.urandom(UPDATE_BYTES // SPEED))
        for mbit_s in LINKS_MBIT_S:
            print("| " + " | ".join(map(str, measure(devices, mbit_s, folder))) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES)
