"""apmpi.yaml from the boot partition, against a tree of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from apmpi_appliance import configuration, network
from apmpi_appliance.places import BOOT
from plugged import LOOPBACK, SPEAKERPHONE, tree

from apmpi.config import load

IMAGE = Path(__file__).parents[2] / "image"


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """As after flashing, with a speakerphone plugged in."""
    root = tree(tmp_path, LOOPBACK, SPEAKERPHONE)
    boot = root / BOOT
    boot.mkdir(parents=True)
    delivered = (IMAGE / "boot/apmpi.yaml").read_bytes()
    (boot / "apmpi.yaml").write_bytes(delivered.replace(b"\n", b"\r\n"))
    (root / "usr/share/apmpi").mkdir(parents=True)
    (root / "usr/share/apmpi/apmpi.yaml").write_bytes(delivered)
    return root


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
    edit(device, "sample_rate: 1\n")  # a mistake is told all the same
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
    lines = (IMAGE / "boot/network.yaml").read_text().splitlines()
    assert network.parse("\n".join(lines)) == network.Network()
    text = "\n".join(
        line[1:] if line[:2] in ("#w", "# ", "#a", "#g", "#d") and ":" in line else line for line in lines[3:]
    )
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("#", " Without")))
    parsed = network.parse(text)
    assert (parsed.wifi_name, parsed.wifi_country) == ("my network", "DE")
    assert (parsed.address, parsed.gateway) == ("192.168.1.20/24", "192.168.1.1")


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
    ],
)
def test_mistakes_in_the_network_file(device: Path, text: str, problem: str) -> None:
    with pytest.raises(network.NetworkError) as raised:
        network.parse(text)
    assert problem in str(raised.value)
    (device / BOOT / "network.yaml").write_text(text)
    assert network.take_over(device) == []
    assert problem in (device / BOOT / "network-error.txt").read_text()


def test_wifi_and_ssh_are_off_unless_asked_for(device: Path) -> None:
    assert network.take_over(device) == []
    (device / BOOT / "authorized_keys").write_text("# none yet\n\n")
    assert network.take_over(device) == []
    assert not (device / "etc/ssh/authorized_keys").exists()

    (device / BOOT / "authorized_keys").write_text("ssh-ed25519 AAAA me\r\n")
    (device / BOOT / "network.yaml").write_text(
        'wifi: {name: "Ä b", password: "  a\\\\b word", country: de}\n'
    )
    assert network.take_over(device) == ["iwd.service", "ssh.service"]
    profile = device / "var/lib/iwd/=c3842062.psk"
    assert profile.read_text() == "[Security]\nPassphrase=\\s\\sa\\\\b word\n"
    assert profile.stat().st_mode & 0o077 == 0
    assert "Country=DE" in (device / "etc/iwd/main.conf").read_text()
