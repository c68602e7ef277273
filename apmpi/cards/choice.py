"""Choice of the endpoints among the connected sound cards (/proc/asound), for `apmpi setup` and the image.

a card that records and plays      conference device, USB headset, I2S HAT: it is both ends; USB before HAT
else a card that records           is the microphone; USB before HAT
 and a card that plays             is the speaker; USB, then HAT, then the Pi's own jack, then HDMI
a PC at the USB device port        is the far end, and receives the output
else                               programs on this computer do, through ALSA's `apmpi` (config/alsa.conf)
"""

import re
from dataclasses import dataclass
from pathlib import Path

# Of a PC (UAC2Gadget), and of programs on this computer (config/alsa.conf).
HOST_RATE_HZ = 48000
PC = "hw:CARD=UAC2Gadget,DEV=0"
# apmpi's ends of the two cables of snd-aloop.
PROGRAMS_PLAY, PROGRAMS_RECORD = (f"hw:CARD=Loopback,DEV=1,SUBDEV={cable}" for cable in (0, 1))
OWN_CARDS = {"Loopback", "UAC2Gadget"}
# Kinds of cards, preferred ones first.
USB, HAT, JACK, HDMI = range(4)


@dataclass(frozen=True, slots=True)
class Card:
    """A sound card.

    id                  ALSA's short name
    capture, playback   number of the first device of that direction, None without one
    """

    id: str
    kind: int
    capture: int | None
    playback: int | None


def cards(root: Path) -> list[Card]:
    """Return all cards but those of apmpi itself, USB first, else in the kernel's order."""
    asound = root / "proc/asound"
    pcm = (asound / "pcm").read_text() if (asound / "pcm").exists() else ""
    first: dict[tuple[int, str], int] = {}
    for line in pcm.splitlines():
        numbers, *properties = [part.strip() for part in line.split(":")]
        card, device = map(int, numbers.split("-"))
        for text in properties:
            if found := re.fullmatch(r"(capture|playback) \d+", text):
                first.setdefault((card, found[1]), device)
    found_cards = []
    for number in sorted({card for card, _ in first}):
        folder = asound / f"card{number}"
        name = (folder / "id").read_text().strip()
        if name not in OWN_CARDS:
            directions = (first.get((number, "capture")), first.get((number, "playback")))
            found_cards.append(Card(name, _kind(folder, name), *directions))
    return sorted(found_cards, key=lambda card: card.kind)


def _kind(folder: Path, name: str) -> int:
    if (folder / "usbid").exists():
        return USB
    if "hdmi" in name.lower():
        return HDMI
    # snd_bcm2835 calls its card Headphones.
    return JACK if name == "Headphones" else HAT


def chosen(root: Path) -> dict[str, str]:
    """Return YAML by endpoint, nothing without a microphone."""
    microphone, speaker = best(cards(root))
    if microphone is None:
        return {}
    endpoints = {"microphone": _endpoint(microphone.id, microphone.capture)}
    if speaker is not None:
        endpoints["speaker"] = _endpoint(speaker.id, speaker.playback)
    return endpoints | other_side(pc_is_connected(root))


def best(every: list[Card]) -> tuple[Card | None, Card | None]:
    """Return the card to record from and the card to play on: the same one, if any can do both."""
    recording = [card for card in every if card.capture is not None]
    playing = [card for card in every if card.playback is not None]
    both = [card for card in recording if card in playing]
    return next(iter(both or recording), None), next(iter(both or playing), None)


def other_side(pc: bool) -> dict[str, str]:
    """Return YAML of the far end and the output: a PC, or programs on this computer."""
    far_end, output = (PC, PC) if pc else (PROGRAMS_PLAY, PROGRAMS_RECORD)
    return {
        "far_end": f'{{device: "{far_end}", sample_rate_hz: {HOST_RATE_HZ}}}',
        "output": f'{{device: "{output}", sample_rate_hz: {HOST_RATE_HZ}}}',
    }


def device(card: str, number: int | None) -> str:
    """Return the ALSA name of a card's device; plughw: converts rate and channels that it does not have."""
    return f"plughw:CARD={card},DEV={number}"


def _endpoint(card: str, number: int | None) -> str:
    return f'{{device: "{device(card, number)}"}}'


def pc_is_connected(root: Path) -> bool:
    """Return True if a PC uses the Pi as its sound card (apmpi_appliance.gadget)."""
    card = (root / "proc/asound/UAC2Gadget").exists()
    states = (root / "sys/class/udc").glob("*/state")
    return card and any(state.read_text().strip() == "configured" for state in states)
