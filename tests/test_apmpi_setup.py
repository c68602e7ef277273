"""`apmpi setup` under a real systemd, on the simulated sound card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import unit_file
from daemon import RoomCard, impulse_response, write

from apmpi.service.yaml_reader import parse

CABLE = Path(__file__).with_name("loopback.conf")


@pytest.fixture
def noted(tmp_path: Path, rng: np.random.Generator, room_card: RoomCard) -> dict[str, Any]:
    """Results of each attempt, see setup_namespace.py."""
    folder = tmp_path / "boot"
    folder.mkdir()
    response = write(folder / "room.wav", impulse_response(rng))
    device = room_card("room", impulse_response=response, delay_ms=30, noise_dbfs=-75)
    assert device == "room"
    # The folder has another name inside.
    conf = (tmp_path / "room.conf").read_text().replace(str(folder), "/test")
    (folder / "room.conf").write_text(conf)
    shutil.copy(CABLE, folder / "cable.conf")
    (folder / "apmpi.service").write_text(unit_file.adapted())
    alsa = "/usr/share/alsa/alsa.conf:/test/room.conf:/test/cable.conf"
    (folder / "override.conf").write_text(unit_file.override(alsa))
    result = unit_file.booted("setup_namespace.py", folder)
    print(json.dumps(result, indent=1))
    print((folder / "journal.txt").read_text())
    return result


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_setup_from_the_first_card_to_a_running_service(noted: dict[str, Any]) -> None:
    for attempt, said in {
        "no systemd": "apmpi: no systemd runs here, expected one for the service",
        "no root": "apmpi: /etc/apmpi/apmpi.yaml and the service need root, expected: sudo apmpi setup",
        "the image": "apmpi: this is apmpi's image, expected settings in apmpi.yaml on its boot partition",
        "no terminal": "apmpi: standard input is no terminal to ask at, expected --yes",
        "no card": "apmpi: no sound card records here, expected a microphone",
        "no such device": "apmpi: microphone.device: 'hw:CARD=Missing' does not exist",
        "no microphone": "apmpi: 'hw:CARD=Loop' records only what is played, expected a card with",
        "no cable": "apmpi: the virtual card for programs on this computer is missing",
    }.items():
        tried = noted[attempt]
        assert (tried["status"], tried["service"], tried["files"]) == (2, "inactive", {}), attempt
        assert tried["err"].startswith(said) and tried["err"].count("\n") == 1

    measured = noted["measured"]
    assert (measured["status"], measured["err"], measured["service"]) == (0, "", "active")
    assert noted["enabled"] == "enabled"
    assert noted["modules"].splitlines()[-1] == "snd-aloop"
    assert measured["out"].endswith("for programs: arecord -D apmpi, aplay -D apmpi\n")
    text = measured["files"]["apmpi.yaml"]
    settings = parse(text, "apmpi.yaml")
    assert settings.microphone.device == settings.speaker.device == "room"
    assert settings.far_end.device == "hw:CARD=Loopback,DEV=1,SUBDEV=0"
    assert settings.output.device == "hw:CARD=Loopback,DEV=1,SUBDEV=1"
    # 30 ms of the room, and what the loop itself keeps in the card's queue.
    assert 30 <= settings.stream_delay_ms <= 60

    # A refused configuration changes nothing, and the service runs again.
    refused = noted["refused"]
    assert (refused["status"], refused["service"], refused["files"]) == (0, "active", {"apmpi.yaml": text})
    assert "what given, expected y or n" in refused["out"]

    answered = noted["answered"]
    assert (answered["status"], answered["service"]) == (0, "active")
    assert answered["files"]["apmpi.yaml.1"] == text
    assert "stream_delay_ms" not in answered["files"]["apmpi.yaml"]  # not measured
    assert "the configuration so far is now /etc/apmpi/apmpi.yaml.1" in answered["out"]

    # A failure of a later run leaves the service as it was.
    again = noted["again"]
    assert (again["status"], again["service"], again["files"]) == (2, "active", answered["files"])
