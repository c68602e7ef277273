"""The page of `apmpi web`: the service's state in a browser, and what may not be done to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import daemon
import pytest
import socket_rig
from daemon import APMPI, Configure, Daemon
from journald_namespace import in_journal, needs_journald
from socket_rig import Served

from apmpi.figures import SIGNALS
from apmpi.tools.web.live import QUEUE_EVENTS_MAX, VIEWERS_MAX
from apmpi.tools.web.server import is_own_name

# pytest finds fixtures by their names here.
configure, start, served = daemon.configure, daemon.start, socket_rig.served

TIMEOUT_S = 20.0


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
        self.cookie = ""

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
    assert re.fullmatch(r"reduced by \d+\.\d dB; it comes .* below the far end", rows["echo"])
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
        # A viewer that does not read costs the others nothing.
        for _ in range(2 * QUEUE_EVENTS_MAX):
            next(viewers[0])
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
    assert set(links) == {"page.js", "style.css", "data:,"}
    for link in ("page.js", "style.css"):
        answer, body = page.request("GET", f"/{link}")
        assert answer.status == 200 and body
        assert not re.search(rb"https?://|@import|url\(", body)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
    # An inline script or style would be left out by that policy.
    assert not re.search(r"<style|\son\w+=|\sstyle=|<script>", text)
    assert page.request("GET", "/../server.py")[0].status == 404


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
def test_the_page_in_a_browser(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    """On a desktop and a phone the figures arrive, and a screen reader is given the change of state."""
    service = Served(tmp_path)
    page = open_page("--socket", service.path)

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
                assert await tab.value("document.documentElement.scrollWidth") <= width
            service.close()
            await tab.until(
                "document.getElementById('state').textContent.startsWith('waiting for the service')"
            )
            # The next change is announced five seconds after the last at the earliest.
            await tab.until("document.querySelector('[role=status]').textContent.startsWith('waiting')")
            assert tab.errors == []

    try:
        asyncio.run(look())
    finally:
        service.close()


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
