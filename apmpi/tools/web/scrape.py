"""The service's metrics over the page's port, for Prometheus.

    GET /metrics    what the service answers to that request at its local socket

A request has the token (apmpi.tools.web.metrics_token) as "Authorization: Bearer TOKEN" (RFC 6750). While
none is set there are no metrics here. An answer that is not 200 is a sentence.
"""

import time
from pathlib import Path

from aiohttp import web

from apmpi.errors import EndpointError
from apmpi.service import metrics
from apmpi.service.socket_client import metrics_text
from apmpi.tools.web.access import Tries, credential_path
from apmpi.tools.web.fresh import Content, Fresh
from apmpi.tools.web.metrics_token import TOKEN_FILE, is_token, token_record

PATH = "/metrics"
NO_TOKEN = "there are no metrics here, since no token is set"
# Those who scrape together share one answer: the service takes few clients at a time.
METRICS_FRESH_S = 1.0


class Scrape:
    """Answers to Prometheus. For the event loop's thread."""

    def __init__(self, configuration: Path, socket_path: Path | None, token_hint: str) -> None:
        """Takes the configuration's file, beside which the token is kept, and how one is set."""
        self._token_path = credential_path(configuration, TOKEN_FILE)
        self._no_token = f"{NO_TOKEN}; {token_hint}\n"
        self._tries = Tries()
        self._metrics = Fresh(lambda _: _read(socket_path), METRICS_FRESH_S)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [web.get(PATH, self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        record = token_record(self._token_path)
        if record is None:
            raise web.HTTPNotFound(text=self._no_token)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthorized("no token given, expected Authorization: Bearer TOKEN\n")
        address, now_s = request.remote or "", time.monotonic()
        if not self._tries.allowed(address, now_s):
            raise web.HTTPTooManyRequests(text="too many wrong tokens, try again in a minute\n")
        if not is_token(record, token.strip()):
            self._tries.failed(address, now_s)
            raise _unauthorized("the token is wrong\n")
        content = await self._metrics.content()
        if problem := content.get("problem"):
            raise web.HTTPServiceUnavailable(text=f"{problem}\n")
        text = str(content["text"])
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _unauthorized(problem: str) -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(text=problem, headers={"WWW-Authenticate": 'Bearer realm="apmpi"'})


def _read(socket_path: Path | None) -> Content:
    """Return the service's metrics as "text", or "problem", a sentence on why there are none."""
    try:
        return {"text": metrics_text(socket_path)}
    except EndpointError as error:
        return {"problem": str(error)}
