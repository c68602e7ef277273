"""Selection of devices, against trees like /proc/asound."""

from __future__ import annotations

from pathlib import Path

import pytest
from apmpi_appliance.configuration import completed
from plugged import (
    GADGET,
    HAT,
    HDMI,
    I2S_DAC,
    JACK,
    LOOPBACK,
    SPEAKERPHONE,
    USB_MICROPHONE,
    USB_SPEAKER,
    Plugged,
    tree,
)

from apmpi.cards import choice
from apmpi.service.yaml_reader import parse


@pytest.mark.parametrize(
    ("plugged", "microphone", "speaker"),
    [
        ((LOOPBACK, HDMI, SPEAKERPHONE), "PowerConf", "PowerConf"),
        ((LOOPBACK, JACK, HDMI, USB_MICROPHONE, USB_SPEAKER), "Snowball", "UACDemoV10"),
        ((LOOPBACK, HDMI, USB_MICROPHONE, JACK), "Snowball", "Headphones"),
        ((LOOPBACK, HDMI, USB_MICROPHONE), "Snowball", "vc4hdmi0"),
        ((LOOPBACK, HDMI, USB_MICROPHONE, I2S_DAC), "Snowball", "sndrpihifiberry"),
        ((LOOPBACK, HDMI, HAT), "wm8960soundcard", "wm8960soundcard"),
        ((HAT, SPEAKERPHONE, LOOPBACK), "PowerConf", "PowerConf"),
        ((LOOPBACK, USB_MICROPHONE), "Snowball", None),
    ],
)
def test_layout(tmp_path: Path, plugged: tuple[Plugged, ...], microphone: str, speaker: str | None) -> None:
    chosen = choice.chosen(tree(tmp_path, *plugged))
    assert f"CARD={microphone}," in chosen["microphone"]
    assert ("speaker" in chosen) == (speaker is not None)
    assert speaker is None or f"CARD={speaker}," in chosen["speaker"]
    # The service accepts every choice; local programs are the other side.
    text = completed("", "".join(f"{key}: {value}\n" for key, value in chosen.items()))
    assert text is not None
    settings = parse(text, "apmpi.yaml")
    assert settings.far_end and settings.far_end.device == "hw:CARD=Loopback,DEV=1,SUBDEV=0"
    assert settings.output and settings.output.device == "hw:CARD=Loopback,DEV=1,SUBDEV=1"


@pytest.mark.parametrize("plugged", [(), (LOOPBACK,), (LOOPBACK, HDMI, JACK, I2S_DAC)])
def test_without_a_microphone_nothing_is_chosen(tmp_path: Path, plugged: tuple[Plugged, ...]) -> None:
    assert choice.chosen(tree(tmp_path, *plugged)) == {}


@pytest.mark.parametrize(("state", "far_end"), [("configured", "UAC2Gadget"), ("not attached", "Loopback")])
def test_a_pc_at_the_device_port_is_the_far_end(tmp_path: Path, state: str, far_end: str) -> None:
    chosen = choice.chosen(tree(tmp_path, LOOPBACK, GADGET, SPEAKERPHONE, udc_state=state))
    assert f"CARD={far_end}," in chosen["far_end"]
    assert f"CARD={far_end}," in chosen["output"]
    assert "PowerConf" in chosen["microphone"]


def test_the_second_device_of_a_card(tmp_path: Path) -> None:
    """A card whose microphone is DEV=1."""
    root = tree(tmp_path, SPEAKERPHONE)
    (root / "proc/asound/pcm").write_text("00-00: A : A : playback 1\n00-01: B : B : capture 1\n")
    chosen = choice.chosen(root)
    assert "DEV=1" in chosen["microphone"]
    assert "DEV=0" in chosen["speaker"]


def test_no_sound_in_the_kernel_at_all(tmp_path: Path) -> None:
    assert choice.chosen(tmp_path) == {}
