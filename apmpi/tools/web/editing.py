"""Requests that change something, or show the configuration's text or the sound: with the password alone.

    GET    /session                 whether there is a password, and whether this browser has given it
    POST   /session                 {"password": ...}: sign in
    DELETE /session                 sign out
    GET    /configuration           the text, its version, and the rows of all settings
    POST   /configuration           {"text": ..., "version": ...}: check, write, take over
    POST   /configuration/before    {"version": ...}: put the file before back
    POST   /sound                   record ten seconds (apmpi.tools.web.sound)
    GET    /sound/SIGNAL            what was recorded last, as a WAV file

Answers are JSON; one that is not 200 has {"problem": ...}, a sentence. A request that changes something must
come from the page itself: its Origin is this server, and after signing in it has the session's CSRF token.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web

from apmpi.errors import CommandError, ConfigError, EndpointError, FileError
from apmpi.service.bounded_json import JsonError, parsed
from apmpi.tools.web.access import (
    PASSWORD_FILE,
    Session,
    Sessions,
    Tries,
    credential_path,
    is_password,
    password_record,
)
from apmpi.tools.web.configuration import Changed, Configuration, setting_rows, version_of
from apmpi.tools.web.sound import Sound

# A configuration has 64 KiB, in JSON up to twice. A longer body is refused before it is read.
BODY_MAX_BYTES = 160 * 1024
# A body that has not come by then will not: it is smaller than a picture.
BODY_TIMEOUT_S = 20.0
COOKIE = "apmpi_session"
CSRF_HEADER = "X-CSRF-Token"

NO_PASSWORD = "nothing can be changed or listened to here, since no password is set"


class Editing:
    """Answers of the part of the page that takes the password. For the event loop's thread."""

    def __init__(self, configuration: Configuration, socket_path: Path | None) -> None:
        self._configuration = configuration
        self._no_password = f"{NO_PASSWORD}; {configuration.password_hint}"
        self._sound = Sound(socket_path)
        self._password_path: Path = credential_path(configuration.path, PASSWORD_FILE)
        self._tries = Tries()
        self._sessions = Sessions()
        # One hash at a time bounds the memory for it and makes the count of tries exact,
        self._signing_in = asyncio.Lock()
        # and one change at a time keeps the file before.
        self._changing = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.get("/session", self._session),
            web.post("/session", self._sign_in),
            web.delete("/session", self._sign_out),
            web.get("/configuration", self._show),
            web.post("/configuration", self._put),
            web.post("/configuration/before", self._put_back),
            web.post("/sound", self._record),
            web.get("/sound/{signal}", self._play),
        ]

    def text_for(self, request: web.Request) -> str | None:
        """Return the configuration's text, None for a browser that has not signed in."""
        if self._found(request) is None:
            return None
        try:
            return self._configuration.text()
        except FileError as error:
            return str(error)

    # ---- sessions

    async def _session(self, request: web.Request) -> web.Response:
        record, session = password_record(self._password_path), self._found(request)
        how = "" if record else self._no_password
        return web.json_response({"how": how, "csrf": session.csrf if session else None})

    async def _sign_in(self, request: web.Request) -> web.Response:
        _check_origin(request)
        password = _text(await _content(request), "password")
        record = password_record(self._password_path)
        if record is None:
            _refuse(web.HTTPForbidden, self._no_password)
        address = request.remote or ""
        async with self._signing_in:
            if not self._tries.allowed(address, time.monotonic()):
                _refuse(web.HTTPTooManyRequests, "too many wrong passwords, try again in a minute")
            if not await asyncio.to_thread(is_password, record, password):
                self._tries.failed(address, time.monotonic())
                _refuse(web.HTTPForbidden, "the password is wrong")
        token, session = self._sessions.begin(record)
        response = web.json_response({"how": "", "csrf": session.csrf})
        response.set_cookie(COOKIE, token, httponly=True, samesite="Strict", path="/")
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        self._check(request)
        self._sessions.end(request.cookies.get(COOKIE, ""))
        self._sound.forget()
        response = web.json_response({})
        response.del_cookie(COOKIE, path="/")
        return response

    def _found(self, request: web.Request) -> Session | None:
        return self._sessions.find(request.cookies.get(COOKIE, ""), password_record(self._password_path))

    def _signed_in(self, request: web.Request) -> Session:
        session = self._found(request)
        if session is None:
            _refuse(web.HTTPUnauthorized, "not signed in any more, expected the password again")
        return session

    def _check(self, request: web.Request) -> None:
        """Refuse a request that does not come from the page in a browser that has signed in."""
        _check_origin(request)
        session = self._signed_in(request)
        given = request.headers.get(CSRF_HEADER, "").encode(errors="surrogateescape")
        if not secrets.compare_digest(given, session.csrf.encode()):
            _refuse(
                web.HTTPForbidden, "the request is not of this page, expected its token: load the page again"
            )

    # ---- configuration

    async def _show(self, request: web.Request) -> web.Response:
        self._signed_in(request)
        return await self._answered(self._shown)

    async def _put(self, request: web.Request) -> web.Response:
        self._check(request)
        content = await _content(request)
        text, version = _text(content, "text"), _text(content, "version")
        return await self._changed(lambda: self._configuration.put(text, version))

    async def _put_back(self, request: web.Request) -> web.Response:
        self._check(request)
        version = _text(await _content(request), "version")
        return await self._changed(lambda: self._configuration.put_back(version))

    async def _changed(self, change: Callable[[], str]) -> web.Response:
        """Do it in a thread, and answer with its sentence and the text afterwards."""
        async with self._changing:
            return await self._answered(lambda: {"sentence": change(), **self._shown()})

    def _shown(self) -> dict[str, object]:
        text = self._configuration.text()
        return {
            "path": str(self._configuration.path),
            "text": text,
            "version": version_of(text),
            "before": self._configuration.before.exists(),
            "settings": setting_rows(),
        }

    # ---- sound

    async def _record(self, request: web.Request) -> web.Response:
        self._check(request)
        try:
            signals = await self._sound.record()
        except EndpointError as error:
            _refuse(web.HTTPServiceUnavailable, str(error))
        return web.json_response({"signals": signals})

    async def _play(self, request: web.Request) -> web.Response:
        self._signed_in(request)
        wav = self._sound.file(request.match_info["signal"])
        if wav is None:
            _refuse(web.HTTPNotFound, "nothing is recorded, or not any more")
        return web.Response(body=wav, content_type="audio/wav")

    async def _answered(self, do: Callable[[], dict[str, object]]) -> web.Response:
        try:
            return web.json_response(await asyncio.to_thread(do))
        except ConfigError as error:
            _refuse(web.HTTPUnprocessableEntity, str(error))
        except Changed as error:
            _refuse(web.HTTPConflict, str(error))
        except (CommandError, FileError) as error:
            _refuse(web.HTTPInternalServerError, str(error))


class _TooLarge(web.HTTPClientError):
    """aiohttp's own takes other arguments."""

    status_code = 413


def _refuse(kind: type[web.HTTPException], problem: str) -> NoReturn:
    raise kind(text=json.dumps({"problem": problem}), content_type="application/json")


def _check_origin(request: web.Request) -> None:
    """Refuse a request that another page's code has made; a browser states the page's origin."""
    if request.headers.get("Origin", "") not in {
        f"{scheme}://{request.host}" for scheme in ("http", "https")
    }:
        _refuse(web.HTTPForbidden, "the request comes from another page, expected this one")


async def _content(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body, whose length is known and bounded before it is read."""
    if request.content_type != "application/json":
        _refuse(web.HTTPUnsupportedMediaType, f"{request.content_type} given, expected application/json")
    if request.content_length is None:
        _refuse(web.HTTPLengthRequired, "no length given, expected Content-Length")
    if request.content_length > BODY_MAX_BYTES:
        given = f"{request.content_length} bytes given"
        _refuse(_TooLarge, f"{given}, expected at most {BODY_MAX_BYTES}")
    try:
        return parsed(await asyncio.wait_for(request.read(), BODY_TIMEOUT_S), BODY_MAX_BYTES)
    except TimeoutError:
        _refuse(web.HTTPRequestTimeout, f"the body is not complete after {BODY_TIMEOUT_S:.0f} s")
    except JsonError as error:
        _refuse(web.HTTPBadRequest, f"the body {error}")


def _text(content: dict[str, Any], name: str) -> str:
    if not isinstance(text := content.get(name), str):
        _refuse(web.HTTPBadRequest, f"{name}: no text given, expected one")
    return text
