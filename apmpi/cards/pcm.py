"""An ALSA device: opened with exactly the parameters given, or a sentence that says why not.

Every device is opened non-blocking, because only the microphone may block the loop: `Capture.read` alone
waits, in poll() and at most half a second. Transfers, positions and xruns are in native code
(native/cards/pcm.h), where frames are read and played (apmpi.cards.live).

A device that disappears, or moves no sample for half a second, raises DeviceLost: it may come back
(apmpi.cards.slot). Any other EndpointError is an error that waiting does not cure.

Cards without 16-bit samples are opened with the first other format of FORMATS that they have, and samples
are converted. Times are nanoseconds of the `Timebase`, usually CLOCK_MONOTONIC.
"""

import contextlib
import errno
import re
from pathlib import Path
from typing import NoReturn

from apmpi import _cards
from apmpi._cards import Pcm
from apmpi.cards import alsa
from apmpi.cards.alsa import CAPTURE, PLAYBACK, AlsaError, Offer
from apmpi.cards.clock import Timebase
from apmpi.cards.formats import FORMATS, from_int16, to_int16
from apmpi.errors import DeviceLost, EndpointError
from apmpi.units import FRAMES_PER_S

__all__ = ["FORMATS", "Capture", "DeviceLost", "Pcm", "Playback", "from_int16", "to_int16"]


class _Opening(Pcm):
    """Opening of either direction. Frames have 10 ms."""

    _direction: int

    def __init__(
        self,
        key: str,
        device: str,
        rate_hz: int,
        channels: int,
        periods: int,
        timebase: Timebase | None = None,
        periods_per_frame: int = 1,
    ) -> None:
        """Opens `device` with a buffer of `periods` frames of 10 ms, each `periods_per_frame` ALSA periods.
        Raises EndpointError."""
        found, pcm = _opened(key, device, self._direction, rate_hz, channels, periods, periods_per_frame)
        super().__init__(key, device, pcm, found, timebase.speed if timebase else 1.0)


class Capture(_Opening, _cards.Capture):
    """A recording device."""

    _direction = CAPTURE


class Playback(_Opening, _cards.Playback):
    """A playing device."""

    _direction = PLAYBACK


def _opened(
    key: str, device: str, direction: int, rate_hz: int, channels: int, periods: int, periods_per_frame: int
) -> tuple[Offer, int]:
    """Return the parameters and the handle of the device. Raises EndpointError."""
    frame_samples = rate_hz // FRAMES_PER_S
    period_samples = frame_samples // periods_per_frame
    try:
        found, pcm = alsa.opened(
            device, direction, FORMATS, rate_hz, channels, period_samples, periods * periods_per_frame
        )
    except AlsaError as error:
        raise _open_failure(key, device, direction, error) from None
    try:
        _check(f"{key}.device: '{device}'", found, rate_hz, channels, period_samples)
    except EndpointError:
        alsa.close(pcm)
        raise
    return found, pcm


def _check(name: str, found: Offer, rate_hz: int, channels: int, period_samples: int) -> None:
    """Raises EndpointError for any parameter that is not as requested; ALSA takes the nearest one."""

    def fail(problem: str) -> NoReturn:
        raise EndpointError(f"{name} {problem}")

    if found.sample_format not in FORMATS:
        formats, known = ", ".join(sorted(found.formats)), ", ".join(FORMATS)
        fail(f"has none of {known} but {formats}, expected 'plughw:...' in front of it")
    if found.rate_hz != rate_hz:
        fail(f"cannot do {rate_hz} Hz, it can do {_choices(found.rates_hz)} Hz")
    if found.channels != channels:
        fail(f"cannot do {channels} channel(s), it can do {_choices(found.channel_counts)}")
    if found.period_samples != period_samples:
        wanted = f"{period_samples} samples ({1000 * period_samples / rate_hz:g} ms)"
        fail(f"cannot do periods of {wanted}, it does {found.period_samples}; try 'plughw:...'")
    if found.buffer_samples < 2 * rate_hz // FRAMES_PER_S:
        fail(f"has a buffer of {found.buffer_samples} samples, expected at least two periods of 10 ms")


# ---- reasons why a device cannot be opened


def _open_failure(key: str, device: str, direction: int, error: AlsaError) -> EndpointError:
    what = "record from" if direction == CAPTURE else "play on"
    name = f"{key}.device: '{device}'"
    alsa_says = error.complaint
    if error.errno == errno.EBUSY:
        holders = " and ".join(busy_with(device, direction)) or "another program"
        return EndpointError(f"{name} is busy: {holders} uses it, expected a device that is free")
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        if not alsa_says.startswith("Unknown PCM"):  # that would stay wrong; a card may still be plugged in
            return DeviceLost(f"{name} does not exist" + (f" ({alsa_says})" if alsa_says else ""))
        known = ", ".join(dict.fromkeys(hardware(direction))) or "none"
        return EndpointError(
            f"{name} does not exist ({alsa_says}), expected one to {what}; cards here: {known}"
        )
    if error.errno == errno.EACCES:
        return EndpointError(f"{name} may not be opened, expected a user of the group audio")
    return EndpointError(f"{name} cannot be opened to {what} it ({error})")


def hardware(direction: int) -> list[str]:
    """Return the ALSA names of the cards present that have this direction ("hw:CARD=Device,DEV=0")."""
    return [name for name in names(direction) if name.startswith("hw:")]


def names(direction: int) -> list[str]:
    """Return the ALSA names of this direction as `aplay -L` or `arecord -L`, but null, which has no clock."""
    import alsaaudio  # the loop does without

    return [name for name in alsaaudio.pcms(direction) if name and name != "null"]


def abilities(device: str, direction: int, channels: int) -> tuple[int, range] | None:
    """Return the channel count nearest to `channels` that a device can do, and its range of rates (Hz).

    None if it cannot be opened. A device in use cannot be queried; it has one channel at least.
    """
    try:
        offer = alsa.offer(device, direction, FORMATS, 48000, channels, 48000 // FRAMES_PER_S, 4)
    except AlsaError as error:
        return (1, range(0)) if error.errno == errno.EBUSY else None
    return offer.channels, offer.rates_hz


def busy_with(device: str, direction: int, proc: Path = Path("/proc")) -> list[str]:
    """Return the processes that have the card of an ALSA name open, as "arecord (123)"; [] if unknown."""
    match = re.search(r":(?:CARD=)?(\w+)(?:,(?:DEV=)?(\d+))?", device)
    if not match:
        return []
    card, number = match[1], match[2] or "0"
    folder = proc / "asound" / (f"card{card}" if card.isdigit() else card)
    stream = f"pcm{number}{'c' if direction == CAPTURE else 'p'}"
    holders = []
    for status in sorted((folder / stream).glob("sub*/status")):
        owner = None
        with contextlib.suppress(OSError):
            owner = re.search(r"^owner_pid\s*: (\d+)", status.read_text(), re.MULTILINE)
        if owner:
            name = "process"
            with contextlib.suppress(OSError):  # a service sees no other user's processes
                name = (proc / owner[1] / "comm").read_text().strip()
            holders.append(f"{name} ({owner[1]})")
    return holders


def _choices(span: range) -> str:
    return f"{span[0]} to {span[-1]}" if len(span) > 1 else str(span[0])
