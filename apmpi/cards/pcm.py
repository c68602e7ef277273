"""An ALSA device: frames of 10 ms, interleaved 16-bit little endian, read from a card or written to it.

Every device is opened non-blocking, because only the microphone may block the loop: `Capture.read` alone
waits, in poll() and at most STALL_S.

    Capture.read()         the next frame; `captured_ns` is the time of its first sample at the converter
    Capture.take()         the samples available, without waiting
    Playback.next_ns()     the time at which the next sample written will leave the converter
    Playback.write(frame)  queue the samples of a frame

A device that disappears, or moves no sample for STALL_S, raises DeviceLost: it may come back
(apmpi.cards.slot). Any other EndpointError is an error that waiting does not cure.

Cards without 16-bit samples are opened with the first other format of FORMATS that they have, and samples
are converted (apmpi.cards.formats).

Times are nanoseconds of the `Timebase`, usually CLOCK_MONOTONIC. ALSA reports a position as a pair: a time,
and the number of samples per channel (ALSA's frames) available at that time. A frame here has 10 ms;
`samples` count per channel.

Written for pyalsaaudio 0.10 (Debian 13) and 0.11. 0.10 has no avail(); it raises EPIPE where 0.11 returns
it, and after an xrun it restarts without an error, hence the call of state() before each transfer.
"""

import contextlib
import errno
import os
import re
import select
import time
from pathlib import Path
from typing import Any, NoReturn

import alsaaudio

from apmpi.cards import alsa
from apmpi.cards.alsa import AlsaError, Offer
from apmpi.cards.clock import Timebase
from apmpi.cards.formats import FORMAT_BYTES, FORMATS, from_int16, to_int16
from apmpi.errors import DeviceLost, EndpointError
from apmpi.units import FRAMES_PER_S, NS_PER_S, SAMPLE_BYTES

# Time without a moved sample after which a card counts as lost: 50 frames, far beyond any scheduling delay.
STALL_S = 0.5
# Xruns without sound in between after which a card counts as lost: ALSA's plugins can hide ENODEV, and then
# an unplugged device reports xruns without end.
XRUNS_IN_A_ROW_MAX = 8
# Sleep after poll() has reported data and none could be read (0.10 cannot translate the poll events of
# plugins): it prevents a busy loop and is far below a period.
FALSE_WAKE_SLEEP_S = 0.0005


class Pcm:
    """Both directions' common part: opening with exactly the parameters given, positions, xruns, closing.

    key             of the endpoint in the configuration: "microphone", "speaker", ...
    rate_hz, channels
    frame_samples   samples per channel in 10 ms
    period_bytes    bytes of an ALSA period as int16
    xruns           number of underruns or overruns
    card_number     the kernel's; -1 for a plugin that is no card
    """

    _direction: int
    _pcm: Any = None  # until it is open

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
        self.key = key
        self.device = device
        self.rate_hz = rate_hz
        self.channels = channels
        self.frame_samples = rate_hz // FRAMES_PER_S
        self.xruns = 0
        self._time = timebase or Timebase()
        self._period_samples = self.frame_samples // periods_per_frame
        self._xruns_in_a_row = 0
        try:
            self._open(periods * periods_per_frame)
            self._pcm.set_tstamp_mode(alsaaudio.PCM_TSTAMP_ENABLE)
            self._pcm.set_tstamp_type(alsaaudio.PCM_TSTAMP_TYPE_MONOTONIC)
            self._begin()
        except EndpointError:
            self.close()
            raise
        except (alsaaudio.ALSAAudioError, RuntimeError) as error:
            self.close()
            self._fail(f"cannot be set up ({error})")

    def _begin(self) -> None:
        """Initialises the state of one direction."""
        raise NotImplementedError

    def _open(self, periods: int) -> None:
        """Opens the device. Raises EndpointError, where possible before pyalsaaudio is called, which leaks
        memory with each refusal: a lost device is tried twice a second."""
        try:
            offer = alsa.offer(
                self.device,
                self._direction,
                [*FORMATS],
                self.rate_hz,
                self.channels,
                self._period_samples,
                periods,
            )
        except AlsaError as error:
            raise _open_failure(self.key, self.device, self._direction, error) from None
        self._check(offer)
        self.card_number = offer.card_number
        self._buffer_samples = offer.buffer_samples
        self._format = offer.sample_format
        self._alsa_frame_bytes = FORMAT_BYTES[self._format] * self.channels
        self._frame_bytes = self.frame_samples * self._alsa_frame_bytes
        self.period_bytes = self._period_samples * self.channels * SAMPLE_BYTES
        try:
            with alsa.complaints([]):
                self._pcm = alsaaudio.PCM(
                    type=self._direction,
                    mode=alsaaudio.PCM_NONBLOCK,
                    device=self.device,
                    rate=self.rate_hz,
                    channels=self.channels,
                    format=FORMATS[self._format],
                    periodsize=self._period_samples,
                    periods=periods,
                )
        except alsaaudio.ALSAAudioError as error:
            self._lost(f"has gone while it was opened ({error})")

    def close(self) -> None:
        """Closes the device and discards its queue: without drop() pyalsaaudio waits until all is played."""
        if self._pcm is None:
            return
        with contextlib.suppress(alsaaudio.ALSAAudioError):
            self._pcm.drop()
        self._pcm.close()

    def _fail(self, problem: str) -> NoReturn:
        raise EndpointError(self._named(problem))

    def _lost(self, problem: str) -> NoReturn:
        raise DeviceLost(self._named(problem))

    def _named(self, problem: str) -> str:
        return f"{self.key}.device: '{self.device}' {problem}"

    def _check(self, offer: Offer) -> None:
        """Raises EndpointError for any parameter that is not as requested; pyalsaaudio would take the
        nearest one."""
        if offer.sample_format not in FORMATS:
            formats, known = ", ".join(sorted(offer.formats)), ", ".join(FORMATS)
            self._fail(f"has none of {known} but {formats}, expected 'plughw:...' in front of it")
        if offer.rate_hz != self.rate_hz:
            self._fail(f"cannot do {self.rate_hz} Hz, it can do {_choices(offer.rates_hz)} Hz")
        if offer.channels != self.channels:
            self._fail(f"cannot do {self.channels} channel(s), it can do {_choices(offer.channel_counts)}")
        if offer.period_samples != self._period_samples:
            wanted = f"{self._period_samples} samples ({1000 * self._period_samples / self.rate_hz:g} ms)"
            self._fail(f"cannot do periods of {wanted}, it does {offer.period_samples}; try 'plughw:...'")
        if offer.buffer_samples < 2 * self.frame_samples:
            self._fail(
                f"has a buffer of {offer.buffer_samples} samples, expected at least two periods of 10 ms"
            )

    def rest(self) -> None:
        """Stops the card and discards its queue; the next transfer starts it again, without an xrun."""
        with contextlib.suppress(alsaaudio.ALSAAudioError):  # that transfer will raise it
            self._pcm.drop()

    def _position(self) -> tuple[int, int] | None:
        """Return a time in ns and the samples available at that time, None while the card does not run."""
        seconds, nanoseconds, available = self._pcm.htimestamp()
        # state() after htimestamp(), which hides errors and then returns undefined numbers.
        if self._pcm.state() != alsaaudio.PCM_STATE_RUNNING or not 0 <= available <= self._buffer_samples:
            return None
        at_ns, now_ns = seconds * NS_PER_S + nanoseconds, time.monotonic_ns()
        # A card just started may have no time stamp yet, and some plugins use another clock.
        at_ns = at_ns if 0 <= now_ns - at_ns < NS_PER_S else now_ns
        return self._time.of_monotonic(at_ns), available

    def _samples_to_ns(self, samples: int) -> int:
        return samples * NS_PER_S // self.rate_hz

    def _xrun(self) -> None:
        """Counts an xrun and stops the card; the next transfer starts it. Raises DeviceLost."""
        self.xruns += 1
        self._xruns_in_a_row += 1
        if self._xruns_in_a_row > XRUNS_IN_A_ROW_MAX:
            self._lost(f"has gone ({self._xruns_in_a_row} xruns in a row without sound)")
        try:
            self._pcm.drop()
        except alsaaudio.ALSAAudioError as error:
            self._broken(error)

    def _broken(self, error: Exception) -> NoReturn:
        """Raises DeviceLost for an error while the card ran. pyalsaaudio gives its text only, no errno."""
        text = str(error)
        if text.startswith((os.strerror(errno.ENODEV), os.strerror(errno.EBADFD))):
            self._lost("has gone (unplugged?)")
        self._lost(f"failed ({text.split(' [')[0]})")

    def _transfer(self, transfer: Any, *data: bytes) -> Any:
        """Return the result of read() or write(), None after an xrun, which is counted and stops the card.
        Raises DeviceLost."""
        if self._pcm.state() == alsaaudio.PCM_STATE_XRUN:
            return self._xrun()
        try:
            result = transfer(*data)
        except alsaaudio.ALSAAudioError as error:
            if str(error).startswith(os.strerror(errno.EPIPE)):
                return self._xrun()
            self._broken(error)
        if (result[0] if isinstance(result, tuple) else result) == -errno.EPIPE:
            return self._xrun()
        return result


class Capture(Pcm):
    """A recording device.

    restarted   True after the first samples that follow a start or an overrun: samples before them were lost
    """

    _direction = alsaaudio.PCM_CAPTURE

    def _begin(self) -> None:
        self.restarted = True
        self._pending = bytearray()  # of a frame that is not complete yet
        self._stopped = True
        self._moved_ns = 0  # time of the last samples, or of the start; 0 until then
        self._poll = select.poll()
        for descriptor, events in self._pcm.polldescriptors():
            self._poll.register(descriptor, events)
        # Plugins (the room card too) need a call after poll(); 0.10 lacks it, hardware does not need it.
        self._demangle = getattr(self._pcm, "polldescriptors_revents", None)

    def read(self) -> bytes:
        """Return the next frame; waits at most STALL_S. Raises DeviceLost."""
        while True:
            position = self._position()
            # poll() wakes for a whole period: samples read before that would delay it.
            if position is None or position[1] >= self._period_samples:
                moved = self._read()
                if len(self._pending) >= self._frame_bytes:
                    frame = bytes(self._pending[: self._frame_bytes])
                    del self._pending[: self._frame_bytes]
                    return to_int16(frame, self._format)
                if not moved:  # poll() may return at once all the same, without end
                    time.sleep(FALSE_WAKE_SLEEP_S)
            left_ns = self._moved_ns + STALL_S * NS_PER_S - self._time.now_ns()
            if left_ns <= 0:
                self._lost(f"has stopped: no sound for {STALL_S * 1000:.0f} ms")
            self._wait(left_ns / NS_PER_S)

    def take(self) -> bytes:
        """Return the samples available, at most a period; starts a stopped card. Raises DeviceLost."""
        self._read()
        if not self._pending:
            if self._time.now_ns() - self._moved_ns > STALL_S * NS_PER_S:
                self._lost(f"has stopped: no sound for {STALL_S * 1000:.0f} ms")
            return b""
        samples = to_int16(bytes(self._pending), self._format)
        self._pending.clear()
        return samples

    def _read(self) -> bool:
        """Append the samples available, at most a period, to `_pending`; return True if there were any."""
        if not self._moved_ns:  # starts now
            self._stopped, self._moved_ns = True, self._time.now_ns()
        result = self._transfer(self._pcm.read)
        if result is None:
            self._pending.clear()
            self._stopped = True
            result = self._transfer(self._pcm.read)  # restarts it: a stopped card does not wake poll()
        count, data = result or (0, b"")
        if count <= 0:
            return False
        self._xruns_in_a_row = 0
        self._moved_ns = self._time.now_ns()
        self._pending += data
        self.restarted, self._stopped = self._stopped, False
        return True

    def rest(self) -> None:
        super().rest()
        self._pending.clear()
        self._moved_ns = 0

    @property
    def captured_ns(self) -> int:
        """Time at which the first sample of the last frame was at the converter."""
        return self.unread_ns - self._samples_to_ns(self.frame_samples)

    @property
    def unread_ns(self) -> int:
        """Time at which the next sample to be read was at the converter."""
        now_ns, available = self._position() or (self._time.now_ns(), 0)
        return now_ns - self._samples_to_ns(available + len(self._pending) // self._alsa_frame_bytes)

    def _wait(self, timeout_s: float) -> None:
        """Waits until samples may be available; sleeps FALSE_WAKE_SLEEP_S after a wake-up without any."""
        ready = self._poll.poll(self._time.real_s(timeout_s) * 1000)
        if ready and self._demangle and self._demangle(ready) & (select.POLLIN | select.POLLERR):
            return
        if ready:
            time.sleep(FALSE_WAKE_SLEEP_S)


class Playback(Pcm):
    """A playing device. It starts with its first write, after opening as after an xrun.

    moving   True once the card's position has advanced
    """

    _direction = alsaaudio.PCM_PLAYBACK

    def _begin(self) -> None:
        self.moving = False
        self._started = False
        self._written_samples = 0
        self._played_samples = -1  # last position; -1: none yet
        self._moved_ns = 0  # time at which that position last changed

    def rest(self) -> None:
        super().rest()
        self._started = False

    def next_ns(self) -> int | None:
        """Return the time at which the next sample written will leave the converter; None while the card is
        stopped, until the next write starts it. Raises DeviceLost."""
        position = self._position()
        if position is None:
            if self._started:
                self._started = False
                self._xrun()
            return None
        now_ns, available = position
        queued_samples = self._buffer_samples - available
        played_samples = self._written_samples - queued_samples
        if played_samples != self._played_samples:
            if self._played_samples >= 0:
                self.moving = True
                self._xruns_in_a_row = 0
            self._played_samples, self._moved_ns = played_samples, now_ns
        elif now_ns - self._moved_ns > STALL_S * NS_PER_S:
            self._lost(f"has stopped: played nothing for {STALL_S * 1000:.0f} ms")
        return now_ns + self._samples_to_ns(queued_samples)

    @property
    def room_samples(self) -> int:
        """Samples per channel that the first write can have."""
        return self._buffer_samples

    def write(self, samples: bytes) -> bool:
        """Queue interleaved int16; return False if an xrun prevented it, which leaves the card stopped.
        Raises DeviceLost."""
        written = self._transfer(self._pcm.write, from_int16(samples, self._format))
        if written is None:
            self._started = False
            return False
        if not self._started:
            self._started, self._written_samples, self._played_samples = True, 0, -1
        self._written_samples += written
        return True


# ---- reasons why a device cannot be opened


def _open_failure(key: str, device: str, direction: int, error: AlsaError) -> EndpointError:
    what = "record from" if direction == alsaaudio.PCM_CAPTURE else "play on"
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
    names = (name for name in alsaaudio.pcms(direction) if name)
    return [name for name in names if name.startswith("hw:")]


def names(direction: int) -> list[str]:
    """Return the ALSA names of this direction as `aplay -L` or `arecord -L`, but null, which has no clock."""
    return [name for name in alsaaudio.pcms(direction) if name and name != "null"]


def abilities(device: str, direction: int, channels: int) -> tuple[int, range] | None:
    """Return the channel count nearest to `channels` that a device can do, and its range of rates (Hz).

    None if it cannot be opened. A device in use cannot be queried; it has one channel at least.
    """
    try:
        offer = alsa.offer(device, direction, [*FORMATS], 48000, channels, 48000 // FRAMES_PER_S, 4)
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
    stream = f"pcm{number}{'c' if direction == alsaaudio.PCM_CAPTURE else 'p'}"
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
