"""Updates over HTTPS: a real server with a real certificate, real signatures, and what goes wrong between."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from apmpi_appliance import fetch, fetched, index, network, slots, update
from apmpi_appliance.places import BOOT
from update_server import CONTENT, FILE, Handler, Server, make_certificates, offer_update

import build

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root: nothing can be mounted")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture
def server(tmp_path: Path, certificates: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, certificates)
    yield server
    server.close()


@pytest.fixture
def device(tmp_path: Path, server: Server, certificates: Path) -> Path:
    """A device with version 1.0 whose network.yaml names the server; it trusts `key`, and `key-next`."""
    root = tmp_path / "root"
    for folder in (BOOT, "usr/share/apmpi", "run/apmpi-start", "data/fetch", "data/fetched", "etc"):
        (root / folder).mkdir(parents=True)
    (root / slots.VERSION).write_text("1.0\n")
    (root / slots.BOARD).write_text("pi3-pi4\n")
    for name in ("key", "key-next", "thief"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / name], check=True)
    (root / update.SIGNERS).write_text(build.signers(root / "key"))
    (root / BOOT / "network.yaml").write_text(f'updates: {{url: "{server.url}", at: "04:15"}}\n')
    shutil.copy(certificates / "ca.pem", root / BOOT / network.AUTHORITY_NAME)
    assert network.UPDATES_TIMER in network.take_over(root)
    assert not (root / BOOT / "network-error.txt").exists()
    return root


def offer(device: Path, server: Server, key: str = "key", **of: str) -> None:
    offer_update(device / "new", server.folder, device / key, **of)


def run(device: Path) -> str:
    """Run both programs, the second without what it would do with a file; return update.txt."""
    fetch.main(device)
    told = device / BOOT / slots.REPORT_NAME
    fetched._report(device)
    return told.read_text().strip() if told.exists() else ""


def handed(device: Path) -> bytes | None:
    file = device / fetch.FOLDER / update.NAME
    return file.read_bytes() if file.exists() else None


def part(device: Path) -> Path:
    return device / fetch.FOLDER / f"{hashlib.sha256(CONTENT).hexdigest()}.part"


# ---- what is fetched


def test_a_newer_version_is_fetched_once(
    device: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(device, server)
    assert run(device) == ""
    assert handed(device) == CONTENT and not part(device).exists()
    assert [name for name, _ in server.asked] == ["pi3-pi4.index", FILE]
    # It was refused, or did not get as far as sound: not again each night, with a restart each time.
    (device / fetch.FOLDER / update.NAME).unlink()
    assert run(device) == "" and handed(device) is None
    assert "version 2.0 was fetched before and is not in use" in capsys.readouterr().out
    assert [name for name, _ in server.asked[2:]] == ["pi3-pi4.index"]


def test_an_authority_that_openssl_makes_is_one_for_every_python(
    device: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image's Python 3.13 has this flag by itself."""
    default_context = ssl.create_default_context

    def strict(cafile: str | None) -> ssl.SSLContext:
        context = default_context(cafile=cafile)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    offer(device, server)
    monkeypatch.setattr(ssl, "create_default_context", strict)
    assert run(device) == "" and handed(device) == CONTENT


def test_the_version_in_use_is_not_fetched(device: Path, server: Server) -> None:
    offer(device, server, version="1.0.0")
    assert run(device) == "" and handed(device) is None
    assert [name for name, _ in server.asked] == ["pi3-pi4.index"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"version": "0.9.9"}, "version 0.9.9 given, expected 1.0 or newer"),
        ({"board": "pi5"}, "for pi5 given, expected an index for pi3-pi4"),
        ({"key": "thief"}, "damaged, or not signed by a key that this device trusts"),
    ],
)
def test_what_is_not_for_this_device_is_refused_before_the_file_is_fetched(
    device: Path, server: Server, given: dict[str, str], problem: str
) -> None:
    offer(device, server, **given)
    assert run(device) == f"updates: {server.url}pi3-pi4.index: {problem}"
    assert [name for name, _ in server.asked] == ["pi3-pi4.index"] and handed(device) is None
    # With the next success the sentence goes.
    offer(device, server)
    assert run(device) == "" and handed(device) == CONTENT


def test_the_next_key_is_taken_and_an_update_is_no_index(device: Path, server: Server) -> None:
    offer(device, server, key="key-next")
    assert run(device) == "" and handed(device) == CONTENT
    # The signature of an update does not hold for an index, whose text it may be.
    text = index.Index("3.0", "pi3-pi4", FILE, 1, "0" * 64).content()
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", device / "key", "-n", update.NAMESPACE]
    signature = subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True).stdout
    (server.folder / "pi3-pi4.index").write_bytes(signature.ljust(update.HEADER_BYTES, b"\n") + text)
    assert "not signed by a key that this device trusts" in run(device)


# ---- what goes wrong on the way


def test_a_connection_that_is_cut_goes_on_the_next_time(device: Path, server: Server) -> None:
    offer(device, server)

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT))})
        await response.prepare(request)
        await response.write(CONTENT[:200_000])
        assert request.transport is not None
        request.transport.close()
        return response

    server.change[FILE] = cut
    assert "the connection ended after 200000 of 512000 bytes; the next time it goes on there" in run(device)
    assert part(device).stat().st_size == 200_000 and handed(device) is None
    server.change.clear()
    assert run(device) == "" and handed(device) == CONTENT
    assert server.asked[-1] == (FILE, "bytes=200000-")


def test_a_run_that_is_killed_leaves_a_sentence(
    device: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(device, server)

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(fetch, "fetch", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch.main(device)
    fetched._report(device)
    told = device / BOOT / slots.REPORT_NAME
    assert told.read_text() == f"updates: {fetch.INTERRUPTED}\n"
    assert run(device) == "" and handed(device) == CONTENT


def test_a_server_that_knows_no_ranges_sends_all_of_it(device: Path, server: Server) -> None:
    offer(device, server)
    part(device).write_bytes(b"x" * 1000)

    async def whole(_: web.Request) -> web.StreamResponse:
        return web.Response(body=CONTENT)

    server.change[FILE] = whole
    assert run(device) == "" and handed(device) == CONTENT


def test_a_damaged_part_is_fetched_anew(device: Path, server: Server) -> None:
    offer(device, server)
    part(device).write_bytes(b"x" * 1000)
    (part(device).parent / f"{'0' * 64}.part").write_bytes(b"of an older index")
    assert "not the file of the index, expected SHA-256" in run(device)
    assert not list(part(device).parent.glob("*.part"))
    assert run(device) == "" and handed(device) == CONTENT


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while request.transport is not None:  # until the client has gone
        await response.write(b"x" * 100_000)
        await asyncio.sleep(0)
    return response


async def slow(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while request.transport is not None:
        await response.write(b"x")
        await asyncio.sleep(0.05)
    return response


async def silent(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def elsewhere(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://localhost/pi3-pi4.index")


@pytest.mark.parametrize(
    ("name", "handler", "problem"),
    [
        ("pi3-pi4.index", endless, "longer than 8192 bytes, expected an index"),
        ("pi3-pi4.index", slow, "the server is slow, not all has come within 1 s"),
        ("pi3-pi4.index", silent, "the server does not answer"),
        ("pi3-pi4.index", elsewhere, "cannot be fetched (unknown url type: http)"),
        (FILE, endless, "longer than the 512000 bytes of the index"),
        (FILE, slow, "the server is slow, not all has come within 1 s"),
    ],
)
def test_a_server_can_not_hold_a_device_up(
    device: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    handler: Handler,
    problem: str,
) -> None:
    offer(device, server)
    for constant in ("SILENCE_S", "INDEX_S", "FILE_S"):
        monkeypatch.setattr(fetch, constant, 1.0)
    server.change[name] = handler
    said = run(device)
    assert said.startswith(f"updates: {server.url}{name}: ") and problem in said
    assert handed(device) is None


@pytest.mark.parametrize("content", [b"", b"<html>", b"\0" * 5000])
def test_what_is_no_index_is_refused(device: Path, server: Server, content: bytes) -> None:
    (server.folder / "pi3-pi4.index").write_bytes(content)
    assert run(device) == f"updates: {server.url}pi3-pi4.index: no index, expected {index.EXPECTED}"


def test_no_index_and_no_server(device: Path, server: Server) -> None:
    assert run(device) == f"updates: {server.url}pi3-pi4.index: the server answers 404 (Not Found)"
    (device / fetch.URL).write_text("https://localhost:1/apmpi/\n")
    assert run(device).endswith("pi3-pi4.index: cannot be fetched (Connection refused)")


def test_a_certificate_of_another_authority_is_refused(
    device: Path, server: Server, certificates: Path, tmp_path: Path
) -> None:
    offer(device, server)
    (device / fetch.AUTHORITY).unlink()  # Debian's list remains
    assert "the server's certificate is not valid here (unable to get local issuer" in run(device)
    shutil.copy(certificates / "ca.pem", device / fetch.AUTHORITY)
    (device / fetch.URL).write_text(server.url.replace("localhost", "127.0.0.1"))
    assert "the server's certificate is not valid here (IP address mismatch" in run(device)
    expired = Server(server.folder, certificates, "expired.pem")
    try:
        (device / fetch.URL).write_text(expired.url)
        assert "the server's certificate is not valid here (certificate has expired" in run(device)
    finally:
        expired.close()
    (device / fetch.AUTHORITY).write_text("nonsense\n")
    assert run(device) == "updates: updates-ca.pem: no certificates, expected some in PEM format"
    assert handed(device) is None


@needs_root
def test_a_full_data_partition_is_a_sentence_and_keeps_its_room(device: Path, server: Server) -> None:
    offer(device, server)
    folder = device / fetch.FOLDER
    command = ["mount", "-t", "tmpfs", "-o", "size=8600K", "apmpi-test", folder]
    subprocess.run(command, check=True)
    try:
        said = run(device)
        assert said == "updates: the update needs 8.5 MiB of the data partition, 8.4 MiB are free"
        assert [name for name, _ in server.asked] == ["pi3-pi4.index"]
    finally:
        subprocess.run(["umount", folder], check=True)


@needs_root
def test_a_disk_that_fills_meanwhile_loses_nothing_but_the_part(
    device: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(device, server)
    monkeypatch.setattr(fetch, "RESERVE_BYTES", -(1 << 20))
    folder = device / fetch.FOLDER
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200K", "apmpi-test", folder], check=True)
    try:
        assert "cannot be written to the data partition (No space left on device)" in run(device)
        assert not part(device).exists() and handed(device) is None
    finally:
        subprocess.run(["umount", folder], check=True)


# ---- root's part


def test_root_takes_the_file_and_refuses_it_as_any_other(device: Path, server: Server) -> None:
    offer(device, server)
    fetch.main(device)
    assert not fetched.main(device)
    told = (device / BOOT / slots.REPORT_NAME).read_text()
    assert told.startswith(
        "update refused: apmpi.update: not an update, expected a file made by `make image`"
    )
    assert handed(device) is None and not list((device / "data/fetched").iterdir())


def test_a_file_that_is_installed_when_the_power_fails_is_installed_at_the_next_start(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device / fetch.FOLDER / update.NAME).write_bytes(b"new")
    installed: list[bytes] = []

    def power_cut(file: Path, root: Path) -> bool:
        raise KeyboardInterrupt

    def install(file: Path, root: Path) -> bool:
        installed.append(file.read_bytes())
        return True

    monkeypatch.setattr(update, "main", power_cut)
    with monkeypatch.context() as dead:  # nothing runs after a power cut
        dead.setattr(fetched, "_remove", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            fetched.main(device)
    monkeypatch.setattr(update, "main", install)
    assert fetched.main(device) and installed == [b"new"]
    assert not fetched.main(device)


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
def test_root_follows_no_link(device: Path, tmp_path: Path, kind: str) -> None:
    secret, file = tmp_path / "secret", device / fetch.FOLDER / update.NAME
    secret.write_text("root's")
    if kind == "link":
        file.symlink_to(secret)
    elif kind == "hard link":
        file.hardlink_to(secret)
    else:
        (file / "deep").mkdir(parents=True)
    report = device / fetch.REPORT
    report.symlink_to(secret)
    assert not fetched.main(device)
    told = (device / BOOT / slots.REPORT_NAME).read_text()
    assert told == "update refused: apmpi.update: is no file of its own, expected one that was fetched\n"
    assert secret.read_text() == "root's" and not list((device / "data/fetched").iterdir())


def test_a_report_is_one_line(device: Path) -> None:
    (device / fetch.REPORT).write_text("a\nb\x1b[2J" + "c" * 10_000)
    fetched.main(device)
    (line,) = (device / BOOT / slots.REPORT_NAME).read_text().splitlines()
    assert line.startswith(r"updates: a\nb\x1b[2J") and len(line) < 700


# ---- network.yaml


def test_the_time_and_the_server_of_network_yaml(device: Path) -> None:
    assert (
        device / network.UPDATES_TIME
    ).read_text() == "[Timer]\nOnCalendar=\nOnCalendar=*-*-* 04:15:00 UTC\n"
    (device / BOOT / "network.yaml").write_text("updates: {url: https://example.org}\n")
    (device / BOOT / network.AUTHORITY_NAME).unlink()
    assert network.UPDATES_TIMER in network.take_over(device)
    assert (device / fetch.URL).read_text() == "https://example.org/\n"
    assert not (device / network.UPDATES_TIME).exists() and not (device / fetch.AUTHORITY).exists()
    (device / BOOT / "network.yaml").write_text("page: off\n")
    assert network.take_over(device) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("on", "updates: expected keys with values (url, at)"),
        ("{at: '03:30'}", "updates.url: missing, expected the folder of a server"),
        ("{url: http://example.org/}", "url: 'http://example.org/' given, expected a folder like https://"),
        ("{url: 'https://example.org/a b'}", "given, expected a folder like https://"),
        ("{url: 'https://u:p@example.org/'}", "given, expected a folder like https://"),
        ("{url: https://example.org/, at: 3:30}", "at: "),
        ("{url: https://example.org/, at: '24:00'}", "at: '24:00' given, expected a time like 03:30"),
    ],
)
def test_mistakes_of_network_yaml(given: str, problem: str) -> None:
    with pytest.raises(network.FileError, match=re.escape(problem)):
        network.parse(f"updates: {given}\n")
