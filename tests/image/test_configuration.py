"""apmpi.yaml from the boot partition, against a tree of files."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from apmpi_appliance import apart, configuration, network, page
from apmpi_appliance.places import BOOT, tell_user
from hypothesis import given, settings
from hypothesis import strategies as st
from plugged import LOOPBACK, SPEAKERPHONE, tree

from apmpi.errors import ConfigError, FileError
from apmpi.service.yaml_reader import load
from apmpi.tools.web.access import is_password
from apmpi.tools.web.metrics_token import is_token

IMAGE = Path(__file__).parents[2] / "image"
PAGE = network.PAGE_SERVICE
# As of `openssl rand -hex 16`.
TOKEN = "5f1ce1bd1e0b4cb69b7d8e2f6a0c3d49"


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device as after flashing, with a speakerphone plugged in."""
    root = tree(tmp_path, LOOPBACK, SPEAKERPHONE)
    boot = root / BOOT
    boot.mkdir(parents=True)
    delivered = (IMAGE / "boot/apmpi.yaml").read_bytes()
    (boot / "apmpi.yaml").write_bytes(delivered.replace(b"\n", b"\r\n"))
    (root / "usr/share/apmpi").mkdir(parents=True)
    (root / "usr/share/apmpi/apmpi.yaml").write_bytes(delivered)
    return root


@pytest.fixture
def soon() -> Iterator[None]:
    """Make anything that waits permanently fail after 30 s."""

    def too_late(number: int, frame: object) -> None:
        pytest.fail("still waiting after 30 s")  # no OSError, which could be caught

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def no_sleep(seconds: float) -> None:
    pass


def edit(device: Path, text: str | bytes) -> None:
    (device / BOOT / "apmpi.yaml").write_bytes(text.encode() if isinstance(text, str) else text)


def error_text(device: Path) -> str:
    path = device / BOOT / "apmpi-error.txt"
    return path.read_text() if path.exists() else ""


def test_as_delivered(device: Path) -> None:
    assert configuration.start(device, no_sleep) == "apmpi.yaml in use"
    settings = load(device / "etc/apmpi/apmpi.yaml")
    assert settings.microphone.device == "plughw:CARD=PowerConf,DEV=0"
    assert settings.keep_learned == "disk"
    assert all((settings.features.echo_cancellation, settings.features.noise_suppression))
    assert error_text(device) == ""


def test_a_mistake_is_told_and_the_last_good_settings_run(device: Path) -> None:
    edit(device, "features: {auto_gain_control: false}\n")
    configuration.start(device, no_sleep)
    edit(device, "features: {auto_gain_control: false}\nsample_rate: 16000\n")
    said = configuration.start(device, no_sleep)
    assert "apmpi.yaml:2: sample_rate: unknown key" in said
    assert "the last good settings in use" in said
    assert error_text(device).startswith("apmpi.yaml:2: sample_rate: unknown key")
    assert not load(device / "etc/apmpi/apmpi.yaml").features.auto_gain_control

    edit(device, "sample_rate_hz: 16000\n")
    assert configuration.start(device, no_sleep) == "apmpi.yaml in use"
    assert error_text(device) == ""
    assert load(device / "etc/apmpi/apmpi.yaml").sample_rate_hz == 16000


@pytest.mark.parametrize(
    "content",
    [
        b"features: [",
        b"\xff\xfe\x00bad",
        b"{}x",
        b"microphone: {device: a, file: b}",
        b"x" * 100_000,
        b"- 1\n",
        b"a: &b 1",
        b'sample_rate_hz: "\\UFFFFFFFF"',
        b"sample_rate_hz: !!bool foo",
        b'sample_rate_hz: !!int ""',
        b"sample_rate_hz: !!timestamp foo",
        b"? [" * 3000,
        "sample_rate_hz: 16000\n".encode("utf-16"),
        b"%YAML " + b"9" * 5000 + b".1\n---\na: 1\n",
    ],
)
def test_rubbish_never_stops_the_device(device: Path, content: bytes) -> None:
    edit(device, content)
    assert "the last good settings in use" in configuration.start(device, no_sleep)
    assert error_text(device).startswith("apmpi.yaml")
    assert load(device / "etc/apmpi/apmpi.yaml").microphone.device == "plughw:CARD=PowerConf,DEV=0"


def test_a_missing_file_is_a_mistake_too(device: Path) -> None:
    (device / BOOT / "apmpi.yaml").unlink()
    configuration.start(device, no_sleep)
    assert "missing" in error_text(device)
    assert (device / "etc/apmpi/apmpi.yaml").exists()


def test_own_devices_are_left_alone(device: Path) -> None:
    edit(device, 'microphone: {device: "hw:CARD=Mine"}\n')
    configuration.start(device, no_sleep)
    settings = load(device / "etc/apmpi/apmpi.yaml")
    assert (settings.microphone.device, settings.speaker, settings.far_end) == ("hw:CARD=Mine", None, None)


def test_one_endpoint_of_ones_own(device: Path) -> None:
    edit(device, "speaker: null\n")
    configuration.start(device, no_sleep)
    settings = load(device / "etc/apmpi/apmpi.yaml")
    assert settings.microphone.device == "plughw:CARD=PowerConf,DEV=0"
    assert settings.speaker is None
    assert settings.far_end is not None


def test_reload_keeps_the_devices(device: Path) -> None:
    configuration.start(device, no_sleep)
    (device / "proc/asound/pcm").write_text("")  # unplugged for a moment
    edit(device, "features: {noise_suppression: false}\n")
    assert configuration.take_over(device) == "apmpi.yaml in use"
    settings = load(device / "etc/apmpi/apmpi.yaml")
    assert settings.microphone.device == "plughw:CARD=PowerConf,DEV=0"
    assert not settings.features.noise_suppression


def test_without_a_microphone_there_is_nothing_to_start(device: Path) -> None:
    configuration.start(device, no_sleep)
    (device / "proc/asound/pcm").write_text("")
    assert configuration.start(device, no_sleep).startswith("no microphone found")
    assert not (device / "etc/apmpi/apmpi.yaml").exists()
    edit(device, "sample_rate: 1\n")  # a mistake is still reported
    assert "unknown key" in configuration.start(device, no_sleep)


def test_a_microphone_that_takes_its_time(device: Path) -> None:
    pcm = device / "proc/asound/pcm"
    later = pcm.read_text()
    pcm.write_text("")
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        if slept > 3.0:
            pcm.write_text(later)

    assert configuration.start(device, sleep) == "apmpi.yaml in use"
    assert 3.0 < slept < 5.0


def test_every_key_of_the_delivered_file_that_is_only_a_comment_is_valid() -> None:
    text = (IMAGE / "boot/apmpi.yaml").read_text()
    switched_on = "\n".join(
        line.lstrip("#") if line.startswith("#") and ": {" in line else line for line in text.splitlines()
    )
    assert "microphone" in configuration._keys(switched_on)
    assert configuration.completed(switched_on, "") == switched_on


# ---- network.yaml


def test_the_delivered_network_file_with_everything_on() -> None:
    text = (IMAGE / "boot/network.yaml").read_text()
    assert network.parse(text) == network.Network()
    everything = re.sub(r"(?m)^#((  )?\w+:)", r"\1", text)
    with pytest.raises(FileError, match="metrics_token: 21 characters given, expected 32 to 200 letters"):
        network.parse(everything)  # the text that stands there is no token: anybody knows it
    parsed = network.parse(everything.replace("32 characters or more", TOKEN))
    assert (parsed.wifi_name, parsed.wifi_country) == ("my network", "DE")
    assert (parsed.address, parsed.gateway) == ("192.168.1.20/24", "192.168.1.1")
    assert (parsed.page, parsed.page_password) == (False, "8 characters or more")
    assert parsed.metrics_token == TOKEN


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("wifi: {name: x}", "wifi.password: missing"),
        ("wifi: {name: x, password: '12345678', country: DEU}", "country: 'DEU' given, expected two letters"),
        ("wifi: {name: x, password: 12345678, country: DE}", "password: not text"),
        ("wifi: {name: x, password: short, country: DE}", "password: 'short' given"),
        ("wifi: on", "wifi: expected keys"),
        ("adress: 1.2.3.4/24", "adress: unknown key"),
        ("address: 1.2.3.4", "address: '1.2.3.4' given"),
        ("address: 1.2.3.4/33", "given, expected an address like"),
        ("gateway: 1.2.3.4", "address: missing"),
        ("wifi: [", "network.yaml:1: not valid YAML"),
        ("wifi: {name: \"a\\nb\", password: '12345678', country: DE}", "name: 'a\\nb' given"),
        ("wifi: {name: x, password: '1234567ä', country: DE}", "password: '1234567ä' given"),
        ("wifi: {name: x, password: '12345678', country: ÄÖ}", "country: 'ÄÖ' given"),
        ("address: 1.2.3.4/²", "address: '1.2.3.4/²' given, expected an address like"),
        ("address: fe80::1%eth0/64", "address: 'fe80::1%eth0/64' given"),
        ('address: "\\UFFFFFFFF"', "network.yaml:1: not readable as YAML"),
        ("address: !!bool foo", "network.yaml:1: a tag (!) given"),
        ('address: !!int ""', "network.yaml:1: a tag (!) given"),
        ("address: !!timestamp foo", "network.yaml:1: a tag (!) given"),
        ("address: 2026-13-32", "network.yaml:1: not readable as YAML"),
        ("address: 0x_", "network.yaml:1: not readable as YAML"),
        ("address: &a [*a]", "network.yaml:1: an alias or anchor"),
        ("[" * 5000, "network.yaml:1: nested too deep"),
        ('address: "\\ud800"', "address: "),
        ("page: maybe", "page: 'maybe' given, expected on or off"),
        ("page_password: 12345678", "page_password: not text"),
        ("page_password: short", "page_password: 5 characters given, expected 8 to 200"),
        ('page_password: "a\\tbcdefgh"', "page_password: a control character given"),
        (f"metrics_token: {'1' * 32}", "metrics_token: not text"),
        (f"metrics_token: ä{'a' * 31}", "metrics_token: 32 characters given, expected 32 to 200 letters"),
    ],
)
def test_mistakes_in_the_network_file(device: Path, text: str, problem: str) -> None:
    with pytest.raises(FileError) as raised:
        network.parse(text)
    assert problem in str(raised.value)
    (device / BOOT / "network.yaml").write_text(text)
    assert network.take_over(device) == []  # nor the page, which the file may switch off
    assert problem in (device / BOOT / "network-error.txt").read_text()


def test_wifi_and_ssh_are_off_unless_asked_for(device: Path) -> None:
    assert network.take_over(device) == [PAGE]
    (device / BOOT / "authorized_keys").write_text("# none yet\n\n")
    assert network.take_over(device) == [PAGE]
    assert not (device / "etc/ssh/authorized_keys").exists()

    (device / BOOT / "authorized_keys").write_text("ssh-ed25519 AAAA me\r\n")
    (device / BOOT / "network.yaml").write_text(
        'wifi: {name: "Ä b", password: "  a\\\\b word", country: de}\npage: off\n'
    )
    assert network.take_over(device) == ["iwd.service", "ssh.service"]
    profile = device / "var/lib/iwd/=c3842062.psk"
    assert profile.read_text() == "[Security]\nPassphrase=\\s\\sa\\\\b word\n"
    assert profile.stat().st_mode & 0o077 == 0
    assert "Country=DE" in (device / "etc/iwd/main.conf").read_text()


@pytest.mark.parametrize(
    ("given", "password"),
    [
        ('"correct horse"', "correct horse"),
        ("'it''s a # secret'   # mine", "it's a # secret"),
        ("pässwörd 12", "pässwörd 12"),
        ('"\\u00e4\\"bcdefgh"', 'ä"bcdefgh'),
    ],
)
def test_the_password_of_the_page_is_replaced_by_its_hash(device: Path, given: str, password: str) -> None:
    before, after = "# mine\r\npage_password: ", "\r\naddress: 10.0.0.2/8\r\n"
    file = device / BOOT / "network.yaml"
    file.write_bytes(f"\ufeff{before}{given}{after}".encode())
    assert network.take_over(device) == [PAGE]
    record = (device / "etc/apmpi/web-password").read_text()
    assert is_password(record, password) and not is_password(record, password[:-1])
    assert (device / "etc/apmpi/web-password").stat().st_mode & 0o077 == 0
    text = file.read_bytes().decode()
    assert password not in text and given not in text
    assert text.startswith(before + f'"{record.rstrip()}"') and text.endswith(after)
    # At the next start the hash is taken as it is.
    (device / "etc/apmpi/web-password").unlink()
    assert network.take_over(device) == [PAGE]
    assert (device / "etc/apmpi/web-password").read_text() == record
    assert file.read_bytes().decode() == text


def test_password_and_token_are_replaced_by_their_hashes(device: Path) -> None:
    file = device / BOOT / "network.yaml"
    file.write_text(f"metrics_token: {TOKEN}\npage_password: correct horse\n")
    assert network.take_over(device) == [PAGE]
    kept = device / "etc/apmpi/metrics-token"
    assert is_token(kept.read_text(), TOKEN) and kept.stat().st_mode & 0o077 == 0
    token, password = (kept.with_name(name).read_text().rstrip() for name in (kept.name, "web-password"))
    assert file.read_text() == f'metrics_token: "{token}"\npage_password: "{password}"\n'
    assert network.take_over(device) == [PAGE]
    assert kept.read_text().rstrip() == token


def test_a_password_of_several_lines_is_refused(device: Path) -> None:
    (device / BOOT / "network.yaml").write_text("page_password: correct\n  horse\n")
    assert network.take_over(device) == []
    assert "several lines given" in (device / BOOT / "network-error.txt").read_text()


# ---- files of Raspberry Pi Imager

# As Imager 2 writes them if it is asked for everything, cut to what differs in kind.
USER_DATA = """#cloud-config
hostname: kitchen
manage_etc_hosts: true
packages:
- avahi-daemon
apt:
  conf: |
    Acquire {
      Check-Date "false";
    };
timezone: Europe/Berlin
keyboard:
  model: pc105
  layout: "de"
enable_ssh: true
users:
- name: pi
  groups: users,adm,sudo
  shell: /bin/bash
  lock_passwd: false
  passwd: $5$abc$def
  ssh_authorized_keys:
    - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGhlbGxvIHdvcmxk pc
  sudo: ALL=(ALL) NOPASSWD:ALL
runcmd:
  - [ rfkill, unblock, wifi ]
"""
PSK = "0123456789abcdef" * 4
NETWORK_CONFIG = f"""network:
  version: 2
  wifis:
    wlan0:
      dhcp4: true
      regulatory-domain: "DE"
      access-points:
        "my \\"net\\"":
          hidden: true
          password: "{PSK}"
      optional: true
"""


def imaged(device: Path, user_data: str, network_config: str) -> list[str]:
    """Write the files that Imager writes, and return the services to be started."""
    (device / "etc").mkdir(exist_ok=True)
    (device / "etc/hosts").write_text((IMAGE / "root/etc/hosts").read_text())
    (device / BOOT / "user-data").write_text(user_data)
    (device / BOOT / "network-config").write_text(network_config)
    (device / BOOT / "meta-data").write_text("instance-id: rpi-imager-1\n")
    return network.take_over(device)


def test_name_wifi_and_keys_of_the_imager_are_taken_over(device: Path) -> None:
    assert imaged(device, USER_DATA, NETWORK_CONFIG) == [PAGE, "iwd.service", "ssh.service"]
    assert (device / "etc/hostname").read_text() == "kitchen\n"
    assert "127.0.1.1 kitchen\n" in (device / "etc/hosts").read_text()
    assert (device / "etc/ssh/authorized_keys").read_text() == KEY.replace(" me", " pc")
    name = b'my "net"'.hex()
    profile = (device / f"var/lib/iwd/={name}.psk").read_text()
    assert profile == f"[Security]\nPreSharedKey={PSK}\n[Settings]\nHidden=true\n"
    assert (device / "etc/iwd/main.conf").read_text() == "[General]\nCountry=DE\n"

    # One's own files count beside them.
    (device / BOOT / "authorized_keys").write_text(KEY)
    (device / BOOT / "network.yaml").write_text(WIFI + "page: off\n")
    assert network.take_over(device) == ["iwd.service", "ssh.service"]
    assert (device / "etc/ssh/authorized_keys").read_text() == KEY.replace(" me", " pc") + KEY
    assert len(list((device / "var/lib/iwd").iterdir())) == 2


def test_an_imager_that_was_asked_for_nothing_changes_nothing(device: Path) -> None:
    assert imaged(device, "#cloud-config\n", "network:\n  version: 2\n") == [PAGE]
    assert not (device / "etc/hostname").exists() and not (device / "etc/iwd").exists()


@pytest.mark.parametrize(
    ("user_data", "network_config", "problem"),
    [
        ("hostname: a b", "", "user-data: hostname: 'a b' given, expected 1 to 63 letters"),
        ("hostname: [", "", "user-data:1: not valid YAML"),
        ("users: [{ssh_authorized_keys: [1]}]", "", "user-data: ssh_authorized_keys: no text given"),
        ("ssh_authorized_keys: [nonsense]", "", "user-data: ssh_authorized_keys:1: no public key"),
        ("", "wifis: {wlan0: {access-points: {home: {}}}}", "network-config: 'home': expected a password"),
        (
            "",
            "wifis: {wlan0: {access-points: {5: {password: '12345678'}}}}",
            "network-config: '5': is no Wi-Fi",
        ),
        (
            "",
            "wifis: {w: {regulatory-domain: DEU, access-points: {a: {password: '12345678'}}}}",
            "two letters",
        ),
    ],
)
def test_mistakes_in_the_files_of_the_imager(
    device: Path, user_data: str, network_config: str, problem: str
) -> None:
    assert imaged(device, user_data, network_config) == [PAGE]
    texts = [path.read_text() for path in (device / BOOT).glob("*-error.txt")]
    assert len(texts) == 1 and problem in texts[0]


# ---- what the page hands over


def hand_over(device: Path, text: str) -> str:
    """Put a text on the boot partition as the page's unit does, and return the sentence."""
    (device / page.HANDED).parent.mkdir(parents=True, exist_ok=True)
    (device / page.HANDED).write_text(text)
    return page.put(device)


def in_use(device: Path) -> str:
    return (device / "etc/apmpi/apmpi.yaml").read_text()


def test_the_page_changes_the_file_of_the_card_and_not_the_devices(device: Path) -> None:
    configuration.start(device, no_sleep)
    delivered, shown = (device / BOOT / "apmpi.yaml").read_bytes(), in_use(device)
    assert "\r" not in shown and "microphone: {device" in shown
    changed = shown.replace("noise_suppression: true", "noise_suppression: low")
    assert hand_over(device, changed) == "apmpi.yaml in use"
    assert in_use(device) == changed
    on_card = (device / BOOT / "apmpi.yaml").read_bytes()
    assert on_card == delivered.replace(b"noise_suppression: true", b"noise_suppression: low")
    assert (device / BOOT / "apmpi-before.yaml").read_bytes() == delivered

    # After the next start, and back again.
    for path in (device / "etc/apmpi").iterdir():
        path.unlink()
    configuration.start(device, no_sleep)
    assert in_use(device) == changed
    assert (device / "etc/apmpi/apmpi.yaml.before").read_text() == shown
    hand_over(device, (device / "etc/apmpi/apmpi.yaml.before").read_text())
    assert in_use(device) == shown
    assert (device / BOOT / "apmpi.yaml").read_bytes() == delivered
    assert (device / "etc/apmpi/apmpi.yaml.before").read_text() == changed


def test_devices_changed_on_the_page_are_the_users_own_from_then_on(device: Path) -> None:
    configuration.start(device, no_sleep)
    own = in_use(device).replace("plughw:CARD=PowerConf,DEV=0", "plughw:CARD=Mine,DEV=0")
    hand_over(device, own)
    assert in_use(device) == own
    assert (device / BOOT / "apmpi.yaml").read_bytes() == own.replace("\n", "\r\n").encode()
    configuration.start(device, no_sleep)
    assert in_use(device) == own


def test_what_the_page_hands_over_is_checked_again(device: Path) -> None:
    configuration.start(device, no_sleep)
    delivered, shown = (device / BOOT / "apmpi.yaml").read_bytes(), in_use(device)
    with pytest.raises(FileError, match=r"apmpi\.yaml:\d+: sample_rate: unknown key"):
        hand_over(device, shown.replace("sample_rate_hz", "sample_rate"))
    (device / page.HANDED).unlink()
    (device / page.HANDED).symlink_to(device / BOOT / "apmpi.yaml")
    with pytest.raises(FileError, match="cannot be read"):
        page.put(device)
    assert (device / BOOT / "apmpi.yaml").read_bytes() == delivered
    assert in_use(device) == shown
    assert not (device / BOOT / "apmpi-before.yaml").exists()


# ---- anything in place of a file, and any error of the reader


@contextlib.contextmanager
def no_file(path: Path, kind: str) -> Iterator[None]:
    """A folder, a pipe or a device in place of `path`."""
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    yield
    path.rmdir() if kind == "folder" else path.unlink()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
@pytest.mark.parametrize("name", ["apmpi.yaml", "network.yaml", "authorized_keys"])
def test_what_is_no_file_is_reported_and_the_rest_goes_on(device: Path, name: str, kind: str) -> None:
    (device / BOOT / "authorized_keys").write_text(KEY)
    (device / BOOT / "network.yaml").write_text(WIFI)
    configuration.start(device, no_sleep)
    with no_file(device / BOOT / name, kind):
        configuration.start(device, no_sleep)
        services = network.take_over(device)
        said = (device / BOOT / ERROR_TEXTS[name]).read_text()
    print(said)
    assert said.startswith(f"{name}: is a {kind}, expected ")
    assert load(device / "etc/apmpi/apmpi.yaml").microphone.device == "plughw:CARD=PowerConf,DEV=0"
    expected = {"network.yaml": ["ssh.service"], "authorized_keys": [PAGE, "iwd.service"]}
    assert services == expected.get(name, [PAGE, "iwd.service", "ssh.service"])
    # Only for the wrong file, and only as long as it is wrong.
    others = [text for text in ERROR_TEXTS.values() if text != ERROR_TEXTS[name]]
    assert not any((device / BOOT / text).exists() for text in others)


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGhlbGxvIHdvcmxk me\n"
WIFI = "wifi: {name: x, password: '12345678', country: DE}\n"
ERROR_TEXTS = {
    "apmpi.yaml": "apmpi-error.txt",
    "network.yaml": "network-error.txt",
    "authorized_keys": "authorized_keys-error.txt",
}


@pytest.mark.parametrize(
    "content",
    [
        KEY.encode(),
        KEY.encode("utf-8-sig"),
        KEY.replace("\n", "\r\n").encode("utf-8-sig"),
        KEY.rstrip().encode(),
        b"# mine\r\n\r\n" + KEY.encode(),
        b'restrict,command="echo hi" ' + KEY.encode(),
        b"sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVj me\n",
        b"ecdsa-sha2-nistp256 AAAAE2VjZHNh\n",
    ],
)
def test_public_keys_as_editors_write_them(device: Path, content: bytes) -> None:
    (device / BOOT / "authorized_keys").write_bytes(content)
    assert network.take_over(device) == [PAGE, "ssh.service"]
    lines = (device / "etc/ssh/authorized_keys").read_bytes()
    assert b"\r" not in lines and b"\xef" not in lines and lines.endswith(b"\n")
    assert not (device / BOOT / "authorized_keys-error.txt").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (KEY.encode("utf-16"), "authorized_keys: is UTF-16 text, expected UTF-8"),
        (KEY.encode("utf-16-le"), "authorized_keys: is UTF-16 text, expected UTF-8"),
        (b"ssh-ed25519 \xff", "authorized_keys:1: byte 0xff given"),
        (b"x" * 100_000, "authorized_keys: more than 64 KiB"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n", "authorized_keys:1: no public key"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3\n", "authorized_keys:1: no public key"),
    ],
)
def test_what_is_no_public_key_is_reported_and_does_not_stop_wifi(
    device: Path, content: bytes, problem: str
) -> None:
    (device / BOOT / "authorized_keys").write_bytes(content)
    (device / BOOT / "network.yaml").write_text(WIFI)
    assert network.take_over(device) == [PAGE, "iwd.service"]
    assert (device / BOOT / "authorized_keys-error.txt").read_text().startswith(problem)
    assert not (device / BOOT / "network-error.txt").exists()
    (device / BOOT / "authorized_keys").write_text(KEY)
    assert network.take_over(device) == [PAGE, "iwd.service", "ssh.service"]
    assert not (device / BOOT / "authorized_keys-error.txt").exists()


def test_a_good_key_beside_a_bad_line_is_taken(device: Path) -> None:
    (device / BOOT / "authorized_keys").write_text(f"{KEY}nonsense\n")
    assert network.take_over(device) == [PAGE, "ssh.service"]
    assert (device / "etc/ssh/authorized_keys").read_text() == KEY
    assert (
        (device / BOOT / "authorized_keys-error.txt").read_text().startswith("authorized_keys:2: no public")
    )


def test_a_network_file_that_can_not_be_taken_over_does_not_stop_ssh(device: Path) -> None:
    (device / BOOT / "authorized_keys").write_text(KEY)
    (device / BOOT / "network.yaml").write_text(WIFI)
    (device / "var/lib").mkdir(parents=True)
    (device / "var/lib/iwd").touch()  # where a folder is expected
    assert network.take_over(device) == ["ssh.service"]
    assert (device / BOOT / "network-error.txt").read_text().startswith("network.yaml: could not be taken")


def test_settings_are_judged_without_privileges() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: there is nothing to give up")
    assert apart.call("x", lambda: [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()]) == [
        *(apart.NOBODY, apart.NOBODY, apart.NOBODY),
        [],
    ]
    with pytest.raises(FileError, match=r"x: not readable \(PermissionError\)"):
        apart.call("x", lambda: Path("/etc/shadow").read_text())


# Inputs on which readers of YAML, addresses and text have failed.
FRAGMENTS = (
    "wifi: ", "address: ", "dns: ", "name: ", "password: ", "country: ", "- ", "? ", "{", "}", "[", "]",
    ",", ":", "'", '"', "|", ">", "#", "~", "/", "x", "!!bool ", "!!int ", "!!timestamp ",
    "!!python/object:os.system ", "!<", "&a ", "*a", "<<: ", "\\UFFFFFFFF", "\\ud800", "\\x00", "0x_",
    "2026-13-32", "1_000", "1e999", "1.2.3.4/24", "²", "fe80::1%eth0", "ÄÖ", " ", "  ", "\t", "\n",
    "---\n", "...\n", "%YAML 9.9\n", "\ufeff", "\x85", "\u2028", "\x00", "\u0661",
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join))
def test_any_text_is_a_network_or_one_sentence(text: str) -> None:
    try:
        taken = network.parse(text)
    except FileError as error:
        assert str(error).startswith("network.yaml:") and "\n" not in str(error)
    else:
        texts = [value for value in asdict(taken).values() if isinstance(value, str)]
        assert all(text.isprintable() for text in texts)
    try:
        configuration.completed(text, "")
    except ConfigError as error:
        assert str(error).startswith("apmpi.yaml:") and "\n" not in str(error)


@pytest.mark.usefixtures("soon")
def test_the_largest_file_is_read_within_its_bounds() -> None:
    """Bounds of time and memory; if the reader is killed, the sentence is another one."""
    largest = f"a: [{'a,' * 32_000}]"
    with pytest.raises(FileError, match=r"apmpi\.yaml:1: a: unknown key"):
        apart.call("apmpi.yaml", configuration.completed, largest, "")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "work",
    [
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: os._exit(0),
        lambda: {1, 2},
        lambda: "x" * (2 * apart.ANSWER_MAX_BYTES),
        lambda: bytearray(2 * apart.MEMORY_MAX_BYTES),
        lambda: 1 / 0,
        lambda: (_ for _ in ()).throw(SystemExit(3)),
    ],
)
def test_whatever_becomes_of_the_reader_is_one_sentence(work: object) -> None:
    assert callable(work)
    with pytest.raises(FileError, match=r"^some\.yaml: not readable \(.*\), expected plain text$"):
        apart.call("some.yaml", work)


@pytest.mark.usefixtures("soon")
def test_a_reader_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "TIMEOUT_S", 1.0)
    with pytest.raises(FileError, match="its reader failed"):
        apart.call("some.yaml", lambda: sum(1 for _ in iter(int, 1)))


# ---- power cuts, and cards that can't be written to


@pytest.mark.parametrize(
    "content", [None, b"", b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz", b"\0" * 400]
)
def test_a_host_key_that_can_not_be_read_is_made_anew(device: Path, content: bytes | None) -> None:
    key = device / network.HOST_KEY
    if content is not None:
        key.parent.mkdir(parents=True)
        key.write_bytes(content)
        key.chmod(0o600)
    network.make_host_key(device)
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True
    ).stdout
    assert public.startswith("ssh-ed25519 ")
    assert key.stat().st_mode & 0o777 == 0o600
    made = key.read_bytes()
    network.make_host_key(device)
    assert key.read_bytes() == made
    assert [path.name for path in key.parent.iterdir()] == [key.name]


def test_a_full_card_stops_neither_sound_nor_network(device: Path) -> None:
    """The data partition and the boot partition are full to the last byte."""
    if os.geteuid() != 0:
        pytest.skip("not root: nothing can be mounted")
    (device / BOOT / "authorized_keys").write_text(KEY)
    saved = {path.name: path.read_bytes() for path in (device / BOOT).iterdir()}
    (device / "data").mkdir(exist_ok=True)
    with contextlib.ExitStack() as mounts:
        for folder in (device / BOOT, device / "data"):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64K", "apmpi-test", folder], check=True)
            mounts.callback(subprocess.run, ["umount", folder], check=True)
        for name, content in saved.items():
            (device / BOOT / name).write_bytes(content)
        edit(device, "features: {auto_gain_control: false}\n")
        for folder in (device / BOOT, device / "data"):
            with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
                while filler.write(b"x" * 4096):
                    pass
        assert configuration.start(device, no_sleep) == "apmpi.yaml in use"
        assert not load(device / "etc/apmpi/apmpi.yaml").features.auto_gain_control
        edit(device, "sample_rate: 1\n")
        assert "unknown key" in configuration.start(device, no_sleep)
        assert network.take_over(device) == [PAGE, "ssh.service"]
        # A file that could not be written whole was not written at all.
        assert {path.name for path in (device / BOOT).iterdir()} == {*saved, "filler"}


def test_an_error_text_is_whole_or_not_there(device: Path) -> None:
    """Power fails after any number of bytes: the file of that name is the old text or the new one."""
    tell_user(device, "some.txt", "old\n")
    path = device / BOOT / "some.txt"
    before = path.stat().st_ino
    tell_user(device, "some.txt", "new\n")
    assert path.read_bytes() == b"new\r\n"
    assert path.stat().st_ino != before  # exchanged, not overwritten
    assert not path.with_name("some.txt.part").exists()
