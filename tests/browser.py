"""A headless Chromium for tests of pages, steered over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio",
    "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
TIMEOUT_S = 30.0


class Tab:
    """One tab. `errors` has the page's exceptions and what its security policy has refused."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._numbers = itertools.count()
        self.errors: list[str] = []

    async def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        number = next(self._numbers)
        await self._connection.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._connection.receive_json(timeout=TIMEOUT_S)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(str(answer["params"]))

    async def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, which may be a promise."""
        done = await self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until the expression is true, and return its value."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not (value := await self.value(expression)):
            if time.monotonic() > deadline_s:
                pytest.fail(f"never: {expression}; {await self.value('document.body.innerText')}")
            await asyncio.sleep(0.1)
        return value

    async def open(self, url: str, width: int, height: int, scheme: str = "light") -> None:
        """Show a page in a window of that size, in the colour scheme light or dark."""
        await self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        await self.do(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        await self.do("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        done = await self.do("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(done["data"]))


@contextlib.asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """Start Chromium and give its tab."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            "chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    pages = [one for one in await answer.json() if one["type"] == "page"]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as connection:
                    opened = Tab(connection)
                    for domain in ("Page", "Runtime", "Log"):
                        await opened.do(f"{domain}.enable")
                    yield opened
        finally:
            process.terminate()
            await process.wait()


async def _port(path: Path) -> int:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (path.exists() and path.read_text().count("\n")):
        assert time.monotonic() < deadline_s, "chromium does not start"
        await asyncio.sleep(0.1)
    return int(path.read_text().split()[0])
