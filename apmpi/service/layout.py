"""Rules for endpoints that go together, and the settings that a reload changes.

- `microphone` is required. Every endpoint is either a `device` (ALSA name) or a `file` (WAV), never both.
- `speaker` needs `far_end`: there would be nothing to play.
- `microphone` a file: every other endpoint must be a file too. A recording contains no sound of a loudspeaker
  that plays now, a live far end cannot be its reference, and no sound card sets the pace: the chain runs as
  fast as it can.
- `microphone` a device and `far_end` a file: `speaker` is needed, or nothing plays what is to be cancelled.
  A `far_end` device without `speaker` is a card's own reference of what its loudspeaker plays.
- Two endpoints of one direction are never the same device, even by different names:
  `far_end` = `microphone` would cancel near-end speech, `output` = `speaker` would cause acoustic feedback.
- A file that is written is never a file that another endpoint reads or writes.
- `speaker` has as many channels as `far_end`, `output` as many as are used of `microphone`; or one of the two
  is mono.
- `features.array` needs two or more of the microphone's channels.
- At most CHANNELS_MAX of the microphone's channels are used; its card may have more.
- `far_end` may be some channels of the microphone's card, a hardware reference, in place of device and file:
  then there is no `speaker`, because another device plays it, and these channels are not used as microphones.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from apmpi.cards.text_file import printable
from apmpi.settings import CHANNELS_MAX, Endpoint, Settings, rows

# Where the kernel lists the cards' numbers and names.
SOUND_CARDS = Path("/sys/class/sound")


def taken_live(running: Settings, fresh: Settings) -> tuple[Settings, list[str]]:
    """Return the settings after a reload of `running`, and the keys of `fresh` that wait for a restart.

    Live settings are taken at once, and so is another device for an endpoint that is otherwise unchanged.
    Everything else needs other buffers and files.
    """
    waiting = []
    live: dict[str, Any] = {}
    devices: dict[str, Any] = {}
    for key, row in rows(Settings).items():
        old, new = getattr(running, key), getattr(fresh, key)
        both = isinstance(old, Endpoint) and isinstance(new, Endpoint)
        if row.live:
            live[key] = new
        elif old == new:
            continue
        elif both and old.device and new.device and replace(old, device=new.device) == new:
            devices[key] = new
        else:
            waiting.append(key)
    taken = replace(running, **live, **devices)
    if any(conflicts(taken)):  # with what has to wait: then all devices wait for it
        waiting += devices
        taken = replace(running, **live)
    return taken, waiting


def conflicts(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (key, problem) for each of the module's rules that `settings` breaks."""
    endpoints: dict[str, Endpoint] = {
        key: endpoint
        for key in ("microphone", "far_end", "speaker", "output")
        if (endpoint := getattr(settings, key)) is not None
    }

    def present(*pairs: tuple[str, str]) -> Iterator[tuple[str, Endpoint, str, Endpoint]]:
        for one, other in pairs:
            if one in endpoints and other in endpoints:
                yield one, endpoints[one], other, endpoints[other]

    if "speaker" in endpoints and "far_end" not in endpoints:
        yield "speaker", "given without far_end, expected far_end too: it is what is played"
    if settings.microphone.file is not None:
        for key, endpoint in endpoints.items():
            if endpoint.device is not None:
                given = f"{_quoted(endpoint.device)} given while microphone is a file"
                yield f"{key}.device", f"{given}, expected {key}.file"
    elif settings.far_end and settings.far_end.file and not settings.speaker:
        given = f"{_quoted(settings.far_end.file)} given without speaker"
        yield "far_end.file", f"{given}, expected speaker.device that plays it"
    for key, endpoint, other, like in present(("far_end", "microphone"), ("output", "speaker")):
        if endpoint.device and like.device and _hardware(endpoint.device) == _hardware(like.device):
            also = "" if endpoint.device == like.device else f" as {_quoted(like.device)}"
            yield (
                f"{key}.device",
                f"{_quoted(endpoint.device)} given for {other} too{also}, expected another device",
            )
    yield from _channel_conflicts(settings)
    if settings.features.array and len(settings.near_channels) == 1:
        given = "on given for one channel of the microphone"
        yield "features.array", f"{given}, expected two or more: a beam needs two microphones"
    if positions := settings.microphone.positions_mm:
        if not settings.features.array:
            yield "microphone.positions_mm", "given without features.array, expected features: {array: on}"
        elif len(positions) != len(settings.near_channels):
            expected = f"expected {len(settings.near_channels)}, one for each channel that is used"
            yield "microphone.positions_mm", f"{len(positions)} given, {expected}"
    written = [("output", "microphone"), ("output", "far_end"), ("output", "speaker")]
    written += [("speaker", "microphone"), ("speaker", "far_end")]
    for key, endpoint, other, like in present(*written):
        if endpoint.file and like.file and os.path.realpath(endpoint.file) == os.path.realpath(like.file):
            yield f"{key}.file", f"{_quoted(endpoint.file)} is {other}.file too, expected another file"


def _channel_conflicts(settings: Settings) -> Iterator[tuple[str, str]]:
    microphone, far_end = settings.microphone, settings.far_end
    reference = far_end.microphone_channels if far_end else ()
    expected = "expected 1, the microphone's only channel"
    if microphone.channels > 1:
        expected = f"expected numbers from 1 to {microphone.channels}, the microphone's channels"
    for key, numbers in (("microphone.use", microphone.use), ("far_end.microphone_channels", reference)):
        if numbers and max(numbers) > microphone.channels:
            yield key, f"{max(numbers)} given, {expected}"
    if both := set(microphone.use) & set(reference):
        yield (
            "far_end.microphone_channels",
            f"{min(both)} given, which microphone.use has too, expected another",
        )
    elif not settings.near_channels:
        given = f"all {microphone.channels} given"
        yield "far_end.microphone_channels", f"{given}, expected to leave the microphone one at least"
    elif len(settings.near_channels) > CHANNELS_MAX:
        given = f"{len(settings.near_channels)} of the microphone's channels given"
        yield "microphone.use", f"{given}, expected at most {CHANNELS_MAX} to be used, as [1, 2]"
    if reference and settings.speaker:
        given = "given while far_end is a channel of the microphone's card"
        yield "speaker", f"{given}, expected none: something else plays it"
    for key, sink, other, count in (
        ("speaker", settings.speaker, "far_end", far_end.channels if far_end else 1),
        ("output", settings.output, "microphone", len(settings.near_channels)),
    ):
        if sink and sink.channels != count and 1 not in (sink.channels, count):
            yield f"{key}.channels", f"{sink.channels} given for {count} of {other}, expected {count} or 1"


def _quoted(name: object) -> str:
    """Return a device or file in quotes for a sentence; a path of usual length is shown whole."""
    return f"'{printable(str(name), length_max=200)}'"


def _hardware(device: str) -> tuple[str, ...]:
    """Return (card, device, subdevice) of an ALSA name, or the name itself if it does not state them.

    One card has many names, "hw:0" and "plughw:CARD=Device,DEV=0" for instance.
    """
    name, _, arguments = device.partition(":")
    if name not in ("hw", "plughw", "dsnoop", "dmix", "sysdefault", "front"):
        return (device,)
    places = ("CARD", "DEV", "SUBDEV")
    parts = dict.fromkeys(places, "0")
    for place, argument in zip(places, arguments.split(","), strict=False):
        key, equals, value = argument.strip().rpartition("=")
        parts[key if equals else place] = value.strip("'\" ")
    card = parts["CARD"]
    if not card.isdigit():
        for path in SOUND_CARDS.glob("card*/id"):
            with contextlib.suppress(OSError):
                if path.read_text().strip() == card:
                    card = path.parent.name.removeprefix("card")
    return card, parts["DEV"], parts["SUBDEV"]
