"""The HTTP server of the page, with aiohttp.

    /            the page, with its scripts and style.css: files of this package, nothing from elsewhere
    /live        server-sent events (apmpi.tools.web.live)
    /past        the last hours, as JSON (apmpi.tools.web.past)
    /checks      what is fine and what is wrong, as JSON (apmpi.tools.web.checks)
    /report      all that as a text file (apmpi.tools.web.report)
    /metrics     for Prometheus, with its token (apmpi.tools.web.scrape)
    /session, /configuration, /sound    what takes the password (apmpi.tools.web.editing)

Every answer forbids other origins, frames and caches. A request under a name that is not this computer's is
refused: a foreign page whose name resolves to this address (DNS rebinding) has the browser send that name.
/metrics answers under any name, since no browser has its token.
"""

import asyncio
import contextlib
import html
import ipaddress
import logging
import socket
import string
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.http import HttpProcessingError

from apmpi._version import __version__
from apmpi.tools.web.checks import checks
from apmpi.tools.web.configuration import Configuration
from apmpi.tools.web.editing import BODY_MAX_BYTES, Editing
from apmpi.tools.web.fresh import Fresh
from apmpi.tools.web.live import Live, TooManyViewers, sse
from apmpi.tools.web.past import past
from apmpi.tools.web.report import figures_now, report
from apmpi.tools.web.scrape import PATH as METRICS_PATH
from apmpi.tools.web.scrape import Scrape

PAGE = Path(__file__).with_name("page")
FILES = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
FILES |= {"/configuration.js": ("configuration.js", "text/javascript")}
FILES |= {"/style.css": ("style.css", "text/css")}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Domains of home networks, in which a router or mDNS names this computer. No stranger can register there.
HOME_DOMAINS = ("", ".local", ".lan", ".home", ".home.arpa", ".internal")
# A viewer that takes nothing for so long is disconnected.
WRITE_TIMEOUT_S = 20.0
# A connection without a request is closed after so long: there is room for some hundred of them.
KEEPALIVE_S = 15.0
# The journal's last hours and last day are read again after so long at the earliest; anybody may ask.
PAST_FRESH_S = 20.0
CHECKS_FRESH_S = 60.0
# The service takes few clients at a time: those who ask for a report together share one.
FIGURES_FRESH_S = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers of the page. For the event loop's thread."""

    def __init__(self, configuration: Configuration, socket_path: Path | None, token_hint: str) -> None:
        self.live = Live(socket_path)
        self.past = Fresh(past, PAST_FRESH_S)
        self.checks = Fresh(checks, CHECKS_FRESH_S)
        self.figures = Fresh(lambda _: figures_now(socket_path), FIGURES_FRESH_S)
        self.editing = Editing(configuration, socket_path)
        self.scrape = Scrape(configuration.path, socket_path, token_hint)
        version = html.escape(__version__)
        host = html.escape(socket.gethostname())
        self._files = {path: (PAGE / name).read_text() for path, (name, _) in FILES.items()}
        self._files["/"] = string.Template(self._files["/"]).substitute(version=version, host=host)

    def application(self) -> web.Application:
        """Return aiohttp's application with all routes."""
        application = web.Application(middlewares=[_own_name], client_max_size=BODY_MAX_BYTES)
        application.on_response_prepare.append(_add_headers)
        application.on_shutdown.append(self._shut_down)
        application.router.add_routes(
            [
                *(web.get(path, self._file) for path in FILES),
                web.get("/live", self._events),
                web.get("/past", self._past),
                web.get("/checks", self._checks),
                web.get("/report", self._report),
                *self.editing.routes(),
                *self.scrape.routes(),
            ]
        )
        return application

    async def _shut_down(self, _: web.Application) -> None:
        await self.live.close()

    async def _file(self, request: web.Request) -> web.Response:
        _, content_type = FILES[request.path]
        return web.Response(text=self._files[request.path], content_type=content_type, charset="utf-8")

    async def _past(self, _: web.Request) -> web.Response:
        return web.json_response(await self.past.content())

    async def _checks(self, _: web.Request) -> web.Response:
        return web.json_response(await self.checks.content())

    async def _report(self, request: web.Request) -> web.Response:
        text = report(
            checks=await self.checks.content(),
            past=await self.past.content(),
            figures=await self.figures.content(),
            configuration=self.editing.text_for(request),
        )
        name = {"Content-Disposition": 'attachment; filename="apmpi-report.txt"'}
        return web.Response(text=text, headers=name)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        # OSError: the viewer has gone, or takes nothing (TimeoutError).
        with contextlib.suppress(OSError):
            try:
                with self.live.viewer() as queue:
                    while (event := await queue.get()) is not None:
                        await asyncio.wait_for(response.write(event), WRITE_TIMEOUT_S)
            except TooManyViewers as error:
                content = {"sentence": str(error), "kind": str(error), "problem": True, "rows": []}
                await response.write(sse("state", content))
        return response


@contextlib.asynccontextmanager
async def running(
    listener: socket.socket, configuration: Configuration, socket_path: Path | None, token_hint: str
) -> AsyncIterator[None]:
    """Serve the page at a listening socket; `token_hint` is how the token for Prometheus is set."""
    application = Server(configuration, socket_path, token_hint).application()
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=KEEPALIVE_S)
    logging.getLogger("aiohttp.server").addFilter(_is_no_mistake_of_a_client)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


def _is_no_mistake_of_a_client(record: logging.LogRecord) -> bool:
    """Return False for a request that is not HTTP: aiohttp logs it with a traceback, whoever sends it."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


@web.middleware
async def _own_name(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a request under a name that is not this computer's."""
    if request.path != METRICS_PATH and not is_own_name(request.headers.get("Host", "")):
        raise web.HTTPMisdirectedRequest(
            text="not a name of this computer, expected its address, its host name, or that with .local\n"
        )
    return await handler(request)


def is_own_name(host: str) -> bool:
    """Return whether the header Host names this computer: by an address, or by its name in a home network."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        return True
    own = socket.gethostname().lower().partition(".")[0]
    return name.lower() == "localhost" or name.lower() in {own + domain for domain in HOME_DOMAINS}
