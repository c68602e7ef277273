"""The page of `apmpi web`: the service's state in a browser, and what may not be done to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import itertools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import browser
import daemon
import numpy as np
import pytest
import socket_rig
import soundfile
from daemon import APMPI, RATE_HZ, Configure, Daemon, level_db
from journald_namespace import in_journal, needs_journald
from prometheus_client.parser import text_string_to_metric_families
from socket_rig import Served

from apmpi.figures import SIGNALS
from apmpi.tools.web.access import TRIES_MAX, TRIES_OF_ADDRESS_MAX, TRIES_S, Tries, is_password
from apmpi.tools.web.editing import BODY_MAX_BYTES
from apmpi.tools.web.live import QUEUE_EVENTS_MAX, VIEWERS_MAX
from apmpi.tools.web.server import is_own_name
from apmpi.tools.web.sound import HEARD, SECONDS

# pytest finds fixtures by their names here.
configure, start, served = daemon.configure, daemon.start, socket_rig.served

TIMEOUT_S = 20.0
PASSWORD = "correct horse"


class Page:
    """`apmpi web` as a process, and a browser's requests to it."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [APMPI, "web", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, (line, self.process.communicate())
        self.port = int(found[1])
        self.cookie = self.cookie_set = self.csrf = ""

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Return the answer. A header's name has _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            named.setdefault("Cookie", self.cookie)
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer, answer.read()

    def ask(
        self, method: str, path: str, content: object = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Make a request as the page does; return status and content of the answer."""
        origin = {"Origin": f"http://127.0.0.1:{self.port}", "Content_Type": "application/json"}
        body = None if content is None else json.dumps(content).encode()
        answer, told = self.request(method, path, body, **(origin | {"X_CSRF_Token": self.csrf} | headers))
        if cookie := answer.headers.get("Set-Cookie"):
            self.cookie_set = cookie
            self.cookie = cookie.split(";")[0]
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, json.loads(told)

    def sign_in(self) -> None:
        status, told = self.ask("POST", "/session", {"password": PASSWORD})
        assert status == 200, told
        self.csrf = told["csrf"]

    def events(self) -> Iterator[tuple[str, Any]]:
        """Yield the kind and content of each event."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", "/live")
            answer = connection.getresponse()
            assert answer.headers["Content-Type"] == "text/event-stream"
            kind = ""
            while line := answer.readline().decode():
                if line.startswith("event: "):
                    kind = line[7:].strip()
                elif line.startswith("data: "):
                    yield kind, json.loads(line[6:])

    def state(self, pattern: str) -> dict[str, Any]:
        """Return the first state whose sentence matches."""
        deadline_s, seen = time.monotonic() + TIMEOUT_S, ""
        for kind, content in self.events():
            if kind == "state":
                seen = content["sentence"]
                if re.search(pattern, seen):
                    return dict(content)
            if time.monotonic() > deadline_s:
                break
        pytest.fail(f"no state matches {pattern!r}, the last was {seen!r}")

    def end(self) -> str:
        """Stop it; return what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def open_page() -> Iterator[Callable[..., Page]]:
    """Page, which ends with the test, without a word on standard error."""
    pages: list[Page] = []

    def open_one(*arguments: str | Path) -> Page:
        pages.append(Page(*arguments))
        return pages[-1]

    yield open_one
    said = [page.end() for page in pages]
    assert said == [""] * len(pages)


# ---- state


def test_a_service_in_the_page_away_and_back(
    configure: Configure, tmp_path: Path, start: type[Daemon], open_page: Callable[..., Page]
) -> None:
    path = configure()
    path.write_text(path.read_text() + "socket: service\n")
    page = open_page("--socket", tmp_path / "service")
    before = page.state("waiting for the service: .*no service answers")
    assert before["problem"] and before["rows"] == []
    service = start(path)
    state = page.state(r"^cancelling echo: \d+ dB, latency \d+ ms, 0 xruns$")
    assert state["kind"] == "cancelling echo" and not state["problem"]
    rows = {label: "".join(text for text, _ in parts) for label, parts in state["rows"]}
    print(rows)
    assert re.fullmatch(r"reduced by \d+\.\d dB; it is .* below the far end", rows["echo"])
    assert re.match(r"\d+\.\d ms after the far end", rows["delay"])
    assert re.match(r"\d+\.\d ms, at most \d+\.\d in a minute", rows["latency"])
    assert rows["xruns"] == "0, slips 0" and "echo cancellation" in rows["switched on"]
    kinds = {"levels": 0, "curve": 0, "state": 0}
    for kind, content in page.events():
        kinds[kind] += 1
        if kind == "levels":
            assert set(content) == set(SIGNALS)
            assert all(-100 < rms <= peak <= 0 for rms, peak in content.values())
        if kinds["state"] > 2 and kinds["levels"] > 10:
            break
    print(kinds)
    service.signal(signal.SIGTERM)
    assert service.ended() == 0
    gone = page.state("waiting for the service: ")
    assert gone["problem"]
    again = start(path)
    page.state("^(learning the echo|cancelling echo)")
    again.signal(signal.SIGTERM)
    assert again.ended() == 0


def test_all_viewers_share_one_client_of_the_service(served: Served, open_page: Callable[..., Page]) -> None:
    page = open_page("--socket", served.path)
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(contextlib.closing(page.events())) for _ in range(VIEWERS_MAX)]
        for events in viewers:
            assert any(kind == "levels" for kind, _ in events)
        assert len(served.server._clients) == 1
        refused = list(page.events())
        assert [kind for kind, _ in refused] == ["state"]
        assert f"{VIEWERS_MAX} others look at the page" in refused[0][1]["sentence"]
        # Fifteen that do not read meanwhile cost the sixteenth nothing.
        numbers = itertools.islice(viewers[0], QUEUE_EVENTS_MAX)
        assert len(list(numbers)) == QUEUE_EVENTS_MAX
    deadline_s = time.monotonic() + TIMEOUT_S
    while served.server._clients:  # without viewers the service is left alone
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


# ---- the last hours

# Runs the page and prints its answer about the past.
ASK_PAST = """
import re, subprocess, sys, urllib.request
page = subprocess.Popen([sys.argv[1], "web", "--port", "0"], stdout=subprocess.PIPE, text=True)
url = re.search("http://.*/", page.stdout.readline())[0]
print(urllib.request.urlopen(url + "past", timeout=30).read().decode())
page.terminate()
sys.exit(page.wait())
"""


@needs_journald
def test_the_last_hours_in_the_page(configure: Configure, tmp_path: Path) -> None:
    pytest.importorskip("systemd.journal")
    path = configure(faults="capture:xrun@0.7")
    (tmp_path / "ask.py").write_text(ASK_PAST)
    before, after = (f"{sys.executable} -P ask.py {APMPI}{space}" for space in ("", " "))
    said = in_journal(tmp_path, before, f"! {APMPI} run --config {path} --seconds 2", after)
    status, out, errors = said[before]
    assert (status, errors) == (0, "")
    assert json.loads(out) == {"problem": "the journal has no entries of apmpi in the last 6 hours"}
    status, out, errors = said[after]
    assert (status, errors) == (0, "")
    past = json.loads(out)
    assert re.match(r"2 s of sound, latency at most .* ms, \d+ xruns? \(microphone 1", past["sentence"])
    # What to do about the xrun.
    assert any("periods in apmpi.yaml" in todo for _, _, todo in past["findings"])
    faults = [text for _, text, fault in past["messages"] if fault]
    assert any(text.startswith("Sound was lost in an xrun: ") for text in faults)
    assert past["messages"][0][1:] == ["apmpi has stopped", False]  # the newest comes first
    assert past["messages"][-1][1].startswith("apmpi has opened its devices")
    assert len(past["rows"]) >= 1 and all(len(texts) == len(past["head"]) for _, texts in past["rows"])
    assert abs(past["rows"][0][0] - time.time()) < 300


# ---- the page itself


def test_the_page_needs_nothing_from_elsewhere(served: Served, open_page: Callable[..., Page]) -> None:
    page = open_page("--socket", served.path)
    answer, body = page.request("GET", "/")
    text = body.decode()
    version = subprocess.run([APMPI, "--version"], capture_output=True, text=True, check=True).stdout.split()[
        1
    ]
    assert answer.status == 200 and f"version {version}" in text
    links = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert set(links) == {"page.js", "configuration.js", "style.css", "data:,", "report"}
    for link in set(links) - {"data:,"}:
        answer, body = page.request("GET", f"/{link}")
        assert answer.status == 200 and body
        assert not re.search(rb"https?://|@import|url\(", body)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
    # An inline script or style would be left out by that policy.
    assert not re.search(r"<style|\son\w+=|\sstyle=|<script>", text)
    answer, _ = page.request("GET", "/../server.py")
    assert answer.status == 404 and answer.headers["Content-Security-Policy"] == policy


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8080", True),
        ("192.168.1.7", True),
        ("[fe80::1]:80", True),
        ("localhost", True),
        ("apmpi", True),
        ("apmpi.local:8080", True),
        ("APMPI.lan", True),
        ("apmpi.example.org", False),
        ("example.org", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_only_names_of_this_computer_are_answered(
    host: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "apmpi.example.net")
    assert is_own_name(host) == own


def test_a_foreign_name_is_refused(served: Served, open_page: Callable[..., Page]) -> None:
    page = open_page("--socket", served.path)
    for path in ("/", "/live"):
        answer, body = page.request("GET", path, Host="evil.example.org")
        assert answer.status == 421 and b"not a name of this computer" in body


@browser.needs_chromium
def test_the_page_in_a_browser(tmp_path: Path, editable: Path, open_page: Callable[..., Page]) -> None:
    """On a desktop and a phone the figures arrive, and a screen reader is given the change of state."""
    service = Served(tmp_path)
    page = open_page("--socket", service.path, "--config", editable)
    good = editable.read_text()
    told: list[int] = []  # the service is in this process here: it is what gets the signal of a reload
    before = signal.signal(signal.SIGHUP, lambda number, _: told.append(number))

    async def sign_in(tab: browser.Tab, password: str, expected: str) -> None:
        await tab.until("document.getElementById('password').checkVisibility()")
        await tab.value(f"document.getElementById('password').value = '{password}'")
        await tab.value("document.querySelector('#sign-in button').click()")
        await tab.until(f"document.getElementById('result').textContent === '{expected}'")

    async def edit(tab: browser.Tab) -> None:
        """Sign in with the second try, make a mistake, mend it in a session that has ended meanwhile."""
        await sign_in(tab, "wrong", "the password is wrong")
        await sign_in(tab, PASSWORD, "")
        await tab.until("document.getElementById('text').value.includes('report_interval_s')")
        text = "document.getElementById('text').value"
        save = "document.querySelector('#editor button').click()"
        await tab.value(f"{text} = {text}.replace('report_interval_s', 'report_interval'); {save}")
        await tab.until(
            "document.getElementById('result').textContent.includes(':5: report_interval: unknown')"
        )
        selected = "{text}.slice(document.activeElement.selectionStart, document.activeElement.selectionEnd)"
        assert await tab.value(selected.format(text=text)) == "report_interval: 0.5"
        await tab.do("Network.clearBrowserCookies")
        await tab.value(
            f"{text} = {text}.replace('report_interval:', 'periods: 6\\nreport_interval_s:'); {save}"
        )
        await tab.until("document.getElementById('result').textContent.startsWith('not signed in any more')")
        await sign_in(tab, PASSWORD, "")
        await tab.until("document.getElementById('text').checkVisibility()")
        await tab.value(save)
        await tab.until("document.getElementById('result').textContent.startsWith('saved')")
        await tab.value("document.getElementById('put-back').click()")
        await tab.until("!document.getElementById('text').value.includes('periods')")
        await tab.value("document.getElementById('sign-out').click()")
        await tab.until("document.getElementById('sign-in').checkVisibility()")
        assert await tab.value(text) == ""

    async def look() -> None:
        async with browser.tab() as tab:
            for width, height, scheme in ((1280, 900, "light"), (390, 844, "dark")):
                await tab.open(f"http://127.0.0.1:{page.port}/", width, height, scheme)
                await tab.until("document.querySelectorAll('[role=meter]').length === 3")
                await tab.until("document.getElementById('figures').innerText.includes('reduced by 31.6 dB')")
                assert (
                    await tab.value("document.querySelector('[role=status]').textContent")
                    == "cancelling echo"
                )
                # Without entries of the service in this machine's journal, or without a journal.
                await tab.until("document.getElementById('past').textContent !== 'reading the journal'")
                await tab.value("document.getElementById('check').click()")
                await tab.until("document.getElementById('findings-list').innerText.includes('arithmetic')")
                assert await tab.value("document.documentElement.scrollWidth") <= width
            await edit(tab)
            service.close()
            await tab.until(
                "document.getElementById('state').textContent.startsWith('waiting for the service')"
            )
            # The next change is announced five seconds after the last at the earliest.
            await tab.until("document.querySelector('[role=status]').textContent.startsWith('waiting')")
            # Chromium notes the answers that refuse: the wrong password, the mistake, the ended session.
            assert len(tab.errors) == 3 and all("status of 4" in error for error in tab.errors), tab.errors
            assert editable.read_text() == good

    try:
        asyncio.run(look())
    finally:
        signal.signal(signal.SIGHUP, before)
        service.close()
    assert told == [signal.SIGHUP, signal.SIGHUP]


# ---- checks and report


def test_a_report_has_what_the_page_knows_and_the_configuration_with_the_password(
    served: Served, editable: Path, open_page: Callable[..., Page]
) -> None:
    page = open_page("--socket", served.path, "--config", editable)
    answer, body = page.request("GET", "/checks")
    findings = json.loads(body)["findings"]
    assert answer.status == 200 and {verdict for verdict, *_ in findings} <= {"fine", "note", "WRONG"}
    names = {name for _, name, _, _ in findings}
    # The page's process has neither devices nor rights: their checks would blame the service for that.
    assert "arithmetic" in names and not names & {"permission", "kernel sound", "real-time rights"}

    answer, body = page.request("GET", "/report")
    text = body.decode()
    print(text)
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="apmpi-report.txt"'
    assert re.match(r"apmpi \d\S* on \S+, 2\d{3}-", text)
    assert re.search(r"(?m)^fine   arithmetic +\w+ kernels$", text)
    assert re.search(r"(?m)^erle_db +31\.6$", text)
    assert "takes the password" in text and "sample_rate_hz:" not in text
    page.sign_in()
    text = page.request("GET", "/report")[1].decode()
    assert text.endswith(editable.read_text())


def test_a_report_without_the_service_says_why(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    text = open_page("--socket", tmp_path / "none").request("GET", "/report")[1].decode()
    assert re.search(r"(?m)^Now\n---\nproblem +.*no service answers", text)


# ---- editing


@pytest.fixture
def editable(configure: Configure, tmp_path: Path) -> Path:
    """A configuration with a socket in `tmp_path`, and a password beside it."""
    path = configure()
    path.write_text(path.read_text() + "socket: service\n")
    command = [APMPI, "web", "--set-password", "--config", path]
    done = subprocess.run(command, input=f"{PASSWORD}\n", capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return path


def test_a_configuration_is_checked_written_taken_over_and_put_back(
    editable: Path, tmp_path: Path, start: type[Daemon], open_page: Callable[..., Page]
) -> None:
    service = start(editable)
    service.hear("latency")
    page = open_page("--socket", tmp_path / "service", "--config", editable)
    page.sign_in()
    for part in ("HttpOnly", "SameSite=Strict"):
        assert part in page.cookie_set
    good = editable.read_text()
    status, shown = page.ask("GET", "/configuration")
    assert (status, shown["text"], shown["path"]) == (200, good, str(editable)) and not shown["before"]
    settings = {name: (values, takes) for name, _, values, _, takes in shown["settings"]}
    assert settings["tuning.high_pass_hz"] == ("20 to 300 Hz", "at once")
    assert settings["periods"] == ("2 to 16", "at a restart")
    assert settings["features.noise_suppression"][0].startswith("true, false, low, ")
    assert settings["ENDPOINT.device"] == ("", "at once")

    # A mistake has the sentence of `apmpi check`, and changes nothing.
    bad = good.replace("report_interval_s", "report_interval")
    status, told = page.ask("POST", "/configuration", {"text": bad, "version": shown["version"]})
    editable.write_text(bad)
    done = subprocess.run([APMPI, "check", editable], capture_output=True, text=True, timeout=60)
    editable.write_text(good)
    assert status == 422 and done.stderr == f"apmpi: {told['problem']}\n"
    assert told["problem"].startswith(f"{editable}:5: report_interval: unknown key")
    assert not editable.with_name("apmpi.yaml.before").exists()

    changed = good.replace("noise_suppression: false", "noise_suppression: low") + "periods: 6\n"
    status, told = page.ask("POST", "/configuration", {"text": changed, "version": shown["version"]})
    assert (status, told["sentence"]) == (
        200,
        "saved, and taken over; read at the next start only: periods",
    )
    service.hear("reloaded .*; needs a restart to take effect: periods")
    page.state("latency")
    assert editable.read_text() == changed
    rows: dict[str, Any] = {}
    deadline_s = time.monotonic() + TIMEOUT_S
    while "noise" not in "".join(text for text, _ in rows.get("switched on", [])):
        assert time.monotonic() < deadline_s, rows
        rows = dict(page.state("latency")["rows"])

    # One who has loaded it before that does not undo it by accident.
    status, late = page.ask("POST", "/configuration", {"text": good, "version": shown["version"]})
    assert status == 409 and "has changed meanwhile" in late["problem"]
    assert editable.read_text() == changed

    status, told = page.ask("POST", "/configuration/before", {"version": told["version"]})
    assert status == 200 and told["sentence"].startswith("saved, and taken over") and told["text"] == good
    assert editable.read_text() == good
    assert editable.with_name("apmpi.yaml.before").read_text() == changed
    service.hear("reloaded")
    service.signal(signal.SIGTERM)
    assert service.ended() == 0
    status, told = page.ask("POST", "/configuration/before", {"version": told["version"]})
    assert told["sentence"] == "saved; the service does not run, and takes it at its next start"


def test_nothing_is_changed_without_the_password(editable: Path, open_page: Callable[..., Page]) -> None:
    before = editable.read_text()
    page = open_page("--config", editable)
    text = {"text": before + "periods: 6\n", "version": ""}
    assert page.ask("GET", "/session") == (200, {"how": "", "csrf": None})
    assert page.ask("GET", "/configuration")[0] == 401
    assert page.ask("POST", "/configuration", text)[0] == 401
    page.sign_in()
    status, told = page.ask("POST", "/configuration", text, X_CSRF_Token="guessed")
    assert status == 403 and "the request is not of this page" in told["problem"]
    for origin in ("http://evil.example.org", "null", f"http://127.0.0.1:{page.port}.example.org", ""):
        for path, content in (("/configuration", text), ("/session", {"password": PASSWORD})):
            status, told = page.ask("POST", path, content, Origin=origin)
            assert status == 403 and "comes from another page" in told["problem"]
    assert page.ask("POST", "/configuration", text)[0] == 409  # only the version was wrong
    assert page.ask("DELETE", "/session")[0] == 200
    page.cookie = "apmpi_session=" + "a" * 43
    assert page.ask("POST", "/configuration", text)[0] == 401
    page.sign_in()
    # Another password ends what began with the old one.
    command = [APMPI, "web", "--set-password", "--config", editable]
    subprocess.run(command, input="another one\n", text=True, check=True, stdout=subprocess.DEVNULL)
    assert page.ask("GET", "/configuration")[0] == 401
    assert editable.read_text() == before


def test_wrong_passwords_are_limited(editable: Path, open_page: Callable[..., Page]) -> None:
    page = open_page("--config", editable)
    answers = [page.ask("POST", "/session", {"password": f"guess {n}"}) for n in range(TRIES_OF_ADDRESS_MAX)]
    assert {status for status, _ in answers} == {403}
    assert answers[0][1] == {"problem": "the password is wrong"}
    # The right one is not taken either: it is not even tried.
    status, told = page.ask("POST", "/session", {"password": PASSWORD})
    assert (status, told) == (429, {"problem": "too many wrong passwords, try again in a minute"})


def test_tries_are_counted_by_address_and_in_all() -> None:
    tries = Tries()
    for number in range(TRIES_OF_ADDRESS_MAX):
        # Addresses of one network, as one computer can have them.
        assert tries.allowed(f"2001:db8::{number}", 0)
        tries.failed(f"2001:db8::{number}", 0)
    assert not tries.allowed("2001:db8::ffff", 1)
    assert tries.allowed("2001:db8:0:1::1", 1) and tries.allowed("::ffff:192.0.2.1", 1)
    for number in range(TRIES_MAX - TRIES_OF_ADDRESS_MAX):
        tries.failed(f"::ffff:192.0.2.{number}", 2)
    assert not tries.allowed("198.51.100.1", 3)
    assert tries.allowed("2001:db8::1", TRIES_S)
    assert tries.allowed("192.0.2.1", TRIES_S + 2)


def test_requests_are_bounded(editable: Path, open_page: Callable[..., Page]) -> None:
    page = open_page("--config", editable)
    page.sign_in()
    large = {"text": "#" * BODY_MAX_BYTES, "version": ""}
    status, told = page.ask("POST", "/configuration", large)
    assert status == 413 and told["problem"].endswith(f"expected at most {BODY_MAX_BYTES}")
    # The answer comes before the body: the length alone is enough.
    with contextlib.closing(page.connect()) as connection:
        connection.putrequest("POST", "/session")
        for name, value in {
            "Origin": f"http://127.0.0.1:{page.port}",
            "Content-Type": "application/json",
            "Content-Length": str(10**12),
        }.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 413
    for body, expected in (
        (b"[" * 1000, 400),
        (b'{"text": 1}', 400),
        (b"\xff", 400),
        (b'{"text": "", "text": ""}', 400),
    ):
        headers = {"Content_Type": "application/json", "Origin": f"http://127.0.0.1:{page.port}"}
        answer, told_bytes = page.request("POST", "/configuration", body, X_CSRF_Token=page.csrf, **headers)
        assert answer.status == expected and json.loads(told_bytes)["problem"], body
    assert page.ask("POST", "/session", {"password": "x"}, Content_Type="text/plain")[0] == 415
    text = {"text": "# " + "x" * 70_000, "version": ""}
    status, told = page.ask("POST", "/configuration", text)
    assert status == 422 and "more than 64 KiB" in told["problem"]


def test_garbage_does_no_harm(
    editable: Path, open_page: Callable[..., Page], rng: np.random.Generator
) -> None:
    """The page answers afterwards, and has written nothing to standard error (open_page)."""
    page = open_page("--config", editable)
    page.sign_in()
    good = (
        "POST /configuration HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
        f"Cookie: {page.cookie}\r\nX-CSRF-Token: {page.csrf}\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    ).encode()
    for number in range(200):
        request = bytearray(good)
        for _ in range(number % 10):
            request[rng.integers(len(request))] = rng.integers(256)
        with socket.create_connection(("127.0.0.1", page.port), timeout=TIMEOUT_S) as connection:
            connection.settimeout(0.1)
            connection.sendall(request if number % 20 else rng.bytes(300))
            with contextlib.suppress(ConnectionError, TimeoutError):  # it may wait for more
                connection.recv(4096)
    assert page.ask("GET", "/configuration")[0] == 200


def test_without_a_password_the_page_says_how(configure: Configure, open_page: Callable[..., Page]) -> None:
    path = configure()
    page = open_page("--config", path)
    status, told = page.ask("GET", "/session")
    assert status == 200 and "sudo apmpi web --set-password" in told["how"]
    assert page.ask("POST", "/session", {"password": ""})[0] == 403
    path.with_name("web-password").write_text("scrypt 1 1 1 00 00\n")  # one that would cost nothing to guess
    assert page.ask("POST", "/session", {"password": ""})[0] == 403
    other = open_page("--config", path, "--password-hint", "on the card")
    assert other.ask("GET", "/session")[1]["how"].endswith("no password is set; on the card")


def test_a_password_is_kept_as_its_hash(tmp_path: Path) -> None:
    command = [APMPI, "web", "--set-password", "--config", tmp_path / "apmpi.yaml"]
    done = subprocess.run(command, input="short\n", capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "apmpi: --set-password: 5 characters given, expected 8 to 200\n"
    done = subprocess.run(command, input=b"\xff" * 9 + b"\n", capture_output=True, timeout=30)
    assert done.stderr == b"apmpi: --set-password: no text given, expected a password in UTF-8\n"
    kept = tmp_path / "web-password"
    assert not kept.exists()
    records = []
    for _ in range(2):
        subprocess.run(command, input="caf\u00e9 noir\n", text=True, check=True, stdout=subprocess.DEVNULL)
        records.append(kept.read_text())
    assert kept.stat().st_mode & 0o777 == 0o600
    assert records[0] != records[1] and "noir" not in records[0]  # salted
    assert is_password(records[0], "cafe\u0301 noir") and not is_password(records[0], "cafe noir")


def test_before_and_after_are_heard_with_the_password_alone(
    editable: Path, tmp_path: Path, start: type[Daemon], open_page: Callable[..., Page]
) -> None:
    page = open_page("--socket", tmp_path / "service", "--config", editable)
    assert page.ask("POST", "/sound")[0] == 401
    page.sign_in()
    status, told = page.ask("POST", "/sound")
    assert status == 503 and "no service answers" in told["problem"]
    start(editable).hear("running at")
    status, told = page.ask("POST", "/sound")
    assert (status, told) == (200, {"signals": list(HEARD)})
    level = {}
    for name in HEARD:
        answer, body = page.request("GET", f"/sound/{name}")
        assert answer.status == 200 and answer.headers["Content-Type"] == "audio/wav"
        sound, rate_hz = soundfile.read(io.BytesIO(body))
        assert rate_hz == RATE_HZ and len(sound) == pytest.approx(SECONDS * RATE_HZ, abs=0.2 * RATE_HZ)
        level[name] = level_db(sound)
    print(level)
    # The echo is heard before, and after not, once it has been learned.
    assert level["output"] < level["microphone"] - 10
    assert page.ask("DELETE", "/session")[0] == 200
    assert page.request("GET", "/sound/microphone")[0].status == 401
    page.sign_in()
    assert page.request("GET", "/sound/microphone")[0].status == 404  # nothing stays after signing out


def test_what_was_handed_over_is_checked_again(editable: Path, tmp_path: Path) -> None:
    """The unit that takes it over runs as root: it follows no link and installs only what is valid."""
    handed, good = tmp_path / "handed", editable.read_text()

    def take_over() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "apmpi.tools.web.take_over", handed, editable]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    handed.write_text(good + "nonsense: 1\n")
    done = take_over()
    assert done.returncode == 2 and "nonsense: unknown key" in done.stderr
    handed.unlink()
    (tmp_path / "secret").write_text(good + "periods: 7\n")
    handed.symlink_to(tmp_path / "secret")
    assert "cannot be read (Too many levels of symbolic links)" in take_over().stderr
    assert editable.read_text() == good
    handed.unlink()
    handed.write_text(good + "periods: 6\n")
    assert take_over().returncode == 0
    assert editable.read_text() == good + "periods: 6\n"
    assert editable.with_name("apmpi.yaml.before").read_text() == good


# ---- metrics

TOKEN = "5f1ce1bd1e0b4cb69b7d8e2f6a0c3d49"


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Served]:
    """A service with metrics."""
    service = Served(tmp_path, "metrics: true\n")
    yield service
    service.close()


def set_token(folder: Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    command = [APMPI, "web", "--set-metrics-token", "--config", folder / "apmpi.yaml"]
    return subprocess.run(command, input=f"{token}\n", capture_output=True, text=True, timeout=30)


def scraped(page: Page, authorization: str | None) -> tuple[int, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    # A name of a network with a domain: the token, which no browser has, is what counts.
    answer, body = page.request("GET", "/metrics", Host="kitchen.example.org", **headers)
    assert (answer.status == 401) == (answer.headers["WWW-Authenticate"] == 'Bearer realm="apmpi"')
    return answer.status, body.decode()


def test_metrics_take_the_token(measured: Served, tmp_path: Path, open_page: Callable[..., Page]) -> None:
    page = open_page("--socket", measured.path, "--config", tmp_path / "apmpi.yaml")
    right = f"Bearer {TOKEN}"
    status, told = scraped(page, right)
    assert status == 404 and told.startswith(
        "there are no metrics here, since no token is set; on the computer"
    )
    assert set_token(tmp_path).returncode == 0
    assert (tmp_path / "metrics-token").stat().st_mode & 0o777 == 0o600
    assert TOKEN not in (tmp_path / "metrics-token").read_text()
    status, text = scraped(page, right)
    assert status == 200
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples[("apmpi_up",)] == 1 and samples[("apmpi_xruns_total", "microphone")] == 2
    assert scraped(page, None) == (401, "no token given, expected Authorization: Bearer TOKEN\n")
    answers = [scraped(page, f"Bearer guess{number}") for number in range(TRIES_OF_ADDRESS_MAX)]
    assert set(answers) == {(401, "the token is wrong\n")}
    # As with the page's password, the right one is not tried either; the password is counted apart.
    assert scraped(page, right) == (429, "too many wrong tokens, try again in a minute\n")
    assert page.ask("GET", "/session")[0] == 200


def test_metrics_that_are_not_there_are_a_sentence(
    served: Served, tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    done = set_token(tmp_path, "short")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(
        "apmpi: --set-metrics-token: 5 characters given, expected 32 to 200 letters"
    )
    set_token(tmp_path)
    off = open_page("--socket", served.path, "--config", tmp_path / "apmpi.yaml")
    status, told = scraped(off, f"Bearer {TOKEN}")
    assert (status, told) == (503, f"{served.path}: expected metrics: true in the configuration\n")
    gone = open_page("--socket", tmp_path / "none", "--config", tmp_path / "apmpi.yaml")
    status, told = scraped(gone, f"Bearer {TOKEN}")
    assert status == 503 and "no service answers, expected one" in told


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed, whose package starts it as a service",
)
def test_prometheus_scrapes_the_page(
    measured: Served, tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    """The configuration of docs/fleet.md, with this page as its device."""
    set_token(tmp_path)
    page = open_page("--socket", measured.path, "--config", tmp_path / "apmpi.yaml")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    dashboard = json.loads((Path(__file__).parents[1] / "docs/fleet-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    text = (Path(__file__).parents[1] / "docs/fleet.md").read_text()
    (configuration,) = re.findall(r"(?s)```\n(scrape_configs:.*?)```", text)
    configuration = re.sub(r"\[.*\]", f"['127.0.0.1:{page.port}']", configuration)
    configuration = configuration.replace("/etc/prometheus/apmpi-token", str(tmp_path / "token"))
    (tmp_path / "prometheus.yml").write_text("global: {scrape_interval: 1s}\n" + configuration)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    options = {"config.file": tmp_path / "prometheus.yml", "storage.tsdb.path": tmp_path / "tsdb"}
    command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
    command += [f"--web.listen-address={address}"]
    with (tmp_path / "log").open("w") as log:
        prometheus = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            values = {name: _asked(address, name) for name in ("up", "apmpi_up", "apmpi_erle_db")}
            for query in queries:
                _asked(address, query.replace("$device", ".*"))
        finally:
            prometheus.terminate()
            prometheus.wait(TIMEOUT_S)
    print((tmp_path / "log").read_text())
    assert values == {"up": 1, "apmpi_up": 1, "apmpi_erle_db": pytest.approx(31.6)}


def _asked(address: str, query: str) -> float:
    """Return Prometheus's answer to a query, as soon as there is one."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(ConnectionError):
            connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
            with contextlib.closing(connection):
                connection.request("GET", f"/api/v1/query?query={quote(query)}")
                results = json.loads(connection.getresponse().read()).get("data", {}).get("result")
            if results:
                return float(results[0]["value"][1])
        time.sleep(0.2)
    pytest.fail(f"Prometheus has no answer to {query}")


# ---- mistakes


def test_a_mistake_is_one_sentence(served: Served, open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page("--socket", served.path)
    for arguments, expected in (
        (["--port", "70000"], "argument --port: '70000' given, expected a port from 0 to 65535"),
        (["--port", str(page.port)], f"127.0.0.1 port {page.port}: cannot be listened at (Address already"),
        (["--address", "no.such.invalid"], "--address: 'no.such.invalid' given ("),
        (["--address", "192.0.2.1"], "192.0.2.1 port 8080: cannot be listened at (Cannot assign"),
    ):
        done = subprocess.run([APMPI, "web", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.startswith(f"apmpi: {expected}"), done.stderr
        assert done.stderr.count("\n") == 1


def test_without_aiohttp_a_sentence_names_the_package() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None; from apmpi.tools.cli import main; sys.exit(main(['web']))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        "apmpi: aiohttp, which serves the page, is not installed: apt install python3-aiohttp, or "
        "pip install 'apmpi[web]'\n"
    )
