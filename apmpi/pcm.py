"""One ALSA endpoint: blocks of 10 ms, interleaved 16-bit little endian, in from a card or out to one.

Where the microphone sets the pace, nothing else may stop the loop. So every device is opened non-blocking;
`Capture.read` alone waits, in poll() and never longer than STALL_S.

    Capture.read()         next block; `captured_ns` is when its first sample was at the converter
    Capture.read_now()     the same without waiting: a block or None
    Playback.play(block, at_ns)   queue a block so that its first sample leaves the converter at `at_ns`

Playback starts late rather than with a guess: its first write is one piece, as much silence as makes the
first sample leave at `at_ns`, then the block. That fixes the delay between the two directions to the
sample, and the same write puts it back after an xrun on either side, so what an echo canceller has learned
stays true.

Times are CLOCK_MONOTONIC nanoseconds. ALSA gives them in pairs: at this time that many frames were available.

Written for pyalsaaudio 0.10 (Debian 13) and 0.11. 0.10 has no avail(); it raises EPIPE where 0.11 returns
it, and after an xrun it restarts without a word, hence the look at state() before each transfer.
"""

import contextlib
import errno
import os
import re
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import alsaaudio

from apmpi.config import EndpointError

BLOCKS_PER_S = 100
SAMPLE_BYTES = 2
NS_PER_S = 1_000_000_000

# A card that moved no sample for so long is gone or broken: 50 periods, far beyond any scheduling delay.
STALL_S = 0.5
# An unplugged device can look like an endless row of xruns (ENODEV gets lost on its way through ALSA's
# plugins).
XRUNS_IN_A_ROW_MAX = 8
# When poll() says "ready" and nothing can be read (0.10 can't ask plugins what their poll means): a short
# sleep keeps the wait from turning into a busy loop and still is far below a period.
FALSE_WAKE_SLEEP_S = 0.0005
# How far the playback queue may wander from its place before samples are left out or silence put in: of the
# 8 ms that the loop's default leaves for a late wake-up, 3 ms are still there then.
SLIP_PERIODS = 0.5


class Pcm:
    """What both directions share: opening with exactly what was asked for, positions, xruns, closing.

    key             the key of the endpoint in the configuration: "microphone", "speaker", ...
    rate_hz, channels, block_samples (per channel)
    xruns           how often the card ran dry or over since start()
    """

    def __init__(
        self, key: str, device: str, direction: int, rate_hz: int, channels: int, periods: int
    ) -> None:
        """Opens `device` with a buffer of `periods` blocks. Raises EndpointError."""
        self.key = key
        self.device = device
        self.rate_hz = rate_hz
        self.channels = channels
        self.block_samples = rate_hz // BLOCKS_PER_S
        self.xruns = 0
        self._frame_bytes = SAMPLE_BYTES * channels
        self._block_bytes = self.block_samples * self._frame_bytes
        self._xruns_in_a_row = 0
        try:
            with _stderr_captured() as said:
                self._pcm: Any = alsaaudio.PCM(
                    type=direction,
                    mode=alsaaudio.PCM_NONBLOCK,
                    device=device,
                    rate=rate_hz,
                    channels=channels,
                    format=alsaaudio.PCM_FORMAT_S16_LE,
                    periodsize=self.block_samples,
                    periods=periods,
                )
        except alsaaudio.ALSAAudioError as error:
            problem = _open_failure(key, device, direction, error, _alsa_reason("".join(said)))
            raise EndpointError(problem) from None
        try:
            self._check()
            self._pcm.set_tstamp_mode(alsaaudio.PCM_TSTAMP_ENABLE)
            self._pcm.set_tstamp_type(alsaaudio.PCM_TSTAMP_TYPE_MONOTONIC)
        except EndpointError:
            self.close()
            raise
        except (alsaaudio.ALSAAudioError, RuntimeError) as error:
            self.close()
            self._fail(f"cannot be set up ({error})")

    def start(self) -> None:
        """Nothing to do: capture starts with the first read, playback with the first block."""

    def close(self) -> None:
        """Drop what is queued and close: without drop() pyalsaaudio waits until all has been played."""
        with contextlib.suppress(alsaaudio.ALSAAudioError):
            self._pcm.drop()
        self._pcm.close()

    def _fail(self, problem: str) -> NoReturn:
        raise EndpointError(f"{self.key}.device: '{self.device}' {problem}")

    def _check(self) -> None:
        """pyalsaaudio sets each parameter "near" the request; anything but the request itself is refused
        here."""
        info = self._pcm.info()
        self._buffer_frames: int = info["buffer_size"]
        got_rate_hz, got_channels = info["rate"], info["channels"]
        if info["format_name"] != "S16_LE":
            formats = ", ".join(sorted(self._pcm.getformats())) or info["format_name"]
            self._fail(f"has no 16-bit samples (S16_LE) but {formats}, expected 'plughw:...' in front of it")
        if got_rate_hz != self.rate_hz:
            rates = self._pcm.getrates()
            self._fail(f"cannot do {self.rate_hz} Hz, it can do {_choices(rates or got_rate_hz)} Hz")
        if got_channels != self.channels:
            channels = self._pcm.getchannels()
            self._fail(
                f"cannot do {self.channels} channel(s), it can do {_choices(channels or got_channels)}"
            )
        if info["period_size"] != self.block_samples:
            wanted = f"{self.block_samples} samples (10 ms)"
            self._fail(f"cannot do periods of {wanted}, it does {info['period_size']}; try 'plughw:...'")
        if self._buffer_frames < 2 * self.block_samples:
            self._fail(
                f"has a buffer of {self._buffer_frames} samples, expected at least two periods of 10 ms"
            )

    def _position(self) -> tuple[int, int] | None:
        """(time in ns, frames available at that time), or None while the card is not running."""
        seconds, nanoseconds, available = self._pcm.htimestamp()
        # After, not before: htimestamp() hides errors and then returns numbers without meaning.
        if self._pcm.state() != alsaaudio.PCM_STATE_RUNNING or not 0 <= available <= self._buffer_frames:
            return None
        at_ns, now_ns = seconds * NS_PER_S + nanoseconds, time.monotonic_ns()
        # A card just started may have no time stamp yet, and some plugins have one of another clock.
        return (at_ns if 0 <= now_ns - at_ns < NS_PER_S else now_ns), available

    def _frames_to_ns(self, frames: int) -> int:
        return frames * NS_PER_S // self.rate_hz

    def _frames(self, ns: int) -> int:
        return ns * self.rate_hz // NS_PER_S

    def _xrun(self) -> None:
        """Count, and stop the card: the next transfer prepares and starts it. Raises EndpointError if it's
        gone."""
        self.xruns += 1
        self._xruns_in_a_row += 1
        if self._xruns_in_a_row > XRUNS_IN_A_ROW_MAX:
            self._fail(f"has gone ({self._xruns_in_a_row} xruns in a row without sound)")
        try:
            self._pcm.drop()
        except alsaaudio.ALSAAudioError as error:
            self._fail(_failure(error))

    def _transfer(self, transfer: Any, *data: bytes) -> Any:
        """read() or write(). None is an xrun, counted, the card stopped. Raises EndpointError."""
        if self._pcm.state() == alsaaudio.PCM_STATE_XRUN:
            return self._xrun()
        try:
            result = transfer(*data)
        except alsaaudio.ALSAAudioError as error:
            if str(error).startswith(os.strerror(errno.EPIPE)):
                return self._xrun()
            self._fail(_failure(error))
        if (result[0] if isinstance(result, tuple) else result) == -errno.EPIPE:
            return self._xrun()
        return result


class Capture(Pcm):
    """A source of blocks.

    restarted   True after the first block that follows a start or an overrun: samples before it were lost
    """

    def __init__(self, key: str, device: str, rate_hz: int, channels: int, periods: int) -> None:
        super().__init__(key, device, alsaaudio.PCM_CAPTURE, rate_hz, channels, periods)
        self.restarted = True
        self._pending = bytearray()  # a kernel device may give less than a period
        self._stopped = True
        self._poll = select.poll()
        for descriptor, events in self._pcm.polldescriptors():
            self._poll.register(descriptor, events)
        # Plugins (the room card too) have to be told that poll() woke us; 0.10 can't, hardware needs it not.
        self._demangle = getattr(self._pcm, "polldescriptors_revents", None)

    def read(self) -> bytes:
        """The next block; waits at most STALL_S. Raises EndpointError."""
        deadline = time.monotonic() + STALL_S
        while True:
            if block := self.read_now():
                return block
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._fail(f"has stopped: no sound for {STALL_S * 1000:.0f} ms")
            self._wait(left_s)

    def read_now(self) -> bytes | None:
        """The next block if it is there; a card that stands is started. Raises EndpointError."""
        position = self._position()
        if position is not None and position[1] + self._pending_frames < self.block_samples:
            # Not taken piece by piece: poll() wakes for a whole period beyond what has been read.
            return None
        result = self._transfer(self._pcm.read)
        if result is None:
            self._pending.clear()
            self._stopped = True
            result = self._transfer(self._pcm.read)  # starts it again: a card that stands wakes nobody
        count, data = result or (0, b"")
        if count <= 0:
            return None
        self._xruns_in_a_row = 0
        self._pending += data
        if len(self._pending) < self._block_bytes:
            return None
        block = bytes(self._pending[: self._block_bytes])
        del self._pending[: self._block_bytes]
        self.restarted, self._stopped = self._stopped, False
        return block

    @property
    def available(self) -> int:
        """Frames that can be read at once."""
        position = self._position()
        return self._pending_frames + (position[1] if position else 0)

    @property
    def captured_ns(self) -> int:
        """When the first sample of the block read last was at the converter."""
        now_ns, available = self._position() or (time.monotonic_ns(), 0)
        return now_ns - self._frames_to_ns(available + self._pending_frames + self.block_samples)

    @property
    def _pending_frames(self) -> int:
        return len(self._pending) // self._frame_bytes

    def _wait(self, timeout_s: float) -> None:
        """Until there may be something to read. Woken for nothing at once, sleeps a little: never a busy
        loop."""
        ready = self._poll.poll(timeout_s * 1000)
        if ready and self._demangle and self._demangle(ready) & (select.POLLIN | select.POLLERR):
            return
        if ready:
            time.sleep(FALSE_WAKE_SLEEP_S)


class Playback(Pcm):
    """A sink of blocks.

    slips   how often samples were cut or silence put in because the card's clock had wandered from the pace
    """

    def __init__(self, key: str, device: str, rate_hz: int, channels: int, periods: int) -> None:
        super().__init__(key, device, alsaaudio.PCM_PLAYBACK, rate_hz, channels, periods)
        self.slips = 0
        self._silence = bytes(self._frame_bytes * self._buffer_frames)
        self._started = False
        self._realign = False
        self._slip_max_frames = int(SLIP_PERIODS * self.block_samples)
        self._written_frames = 0
        self._played_frames = -1  # last seen, and when it last moved
        self._moved_ns = 0

    def realign(self) -> None:
        """The pace has jumped (the microphone restarted): the next block goes exactly where `at_ns` says."""
        self._realign = True

    def play(self, block: bytes, at_ns: int) -> int:
        """Queue a block whose first sample is due at `at_ns`; never waits. Returns when it will really
        leave the converter (ns). Raises EndpointError when the card is gone or stands still."""
        while True:
            position = self._position()
            if position is None:
                if self._started:
                    self._started = False
                    self._xrun()
                next_ns = time.monotonic_ns()
                free = self._buffer_frames - self.block_samples
                shift = min(max(self._frames(at_ns - next_ns), 0), free)
            else:
                next_ns = position[0] + self._frames_to_ns(self._buffer_frames - position[1])
                self._watch(*position)
                shift = self._correction(self._frames(at_ns - next_ns))
            # Early: silence first. Late: without the block's beginning, at most all of it.
            skipped = block[max(-shift, 0) * self._frame_bytes :]
            data = self._silence[: max(shift, 0) * self._frame_bytes] + skipped
            written = self._transfer(self._pcm.write, data) if data else 0
            if written is None:
                self._started = False
                continue
            if position is None:
                self._started, self._written_frames, self._played_frames = True, 0, -1
                self._realign = True  # by the few samples that starting took
            else:
                self._xruns_in_a_row = 0
            self._written_frames += written
            return next_ns + self._frames_to_ns(shift)

    def _correction(self, early_frames: int) -> int:
        """Frames of silence to put in (or, negative, of sound to leave out) so that the block is on time."""
        if not self._realign:
            if abs(early_frames) <= self._slip_max_frames:
                return 0
            self.slips += 1
        # More to leave out than this block has: go on with the next one.
        self._realign = early_frames < -self.block_samples
        return max(early_frames, -self.block_samples)

    def _watch(self, now_ns: int, available: int) -> None:
        played = self._written_frames - (self._buffer_frames - available)
        if played != self._played_frames:
            self._played_frames, self._moved_ns = played, now_ns
        elif now_ns - self._moved_ns > STALL_S * NS_PER_S:
            self._fail(f"has stopped: played nothing for {STALL_S * 1000:.0f} ms")


@contextlib.contextmanager
def _stderr_captured() -> Iterator[list[str]]:
    """What ALSA writes to standard error meanwhile, in a list, filled at the end: its reasons are worth a
    place in our sentence, its lines are not worth a user's screen."""
    said: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all
        yield said
        return
    with os.fdopen(os.memfd_create("alsa"), "w+b") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sink.seek(0)
            said.append(sink.read().decode(errors="replace"))


def _alsa_reason(said: str) -> str:
    """The first thing ALSA complained of (what follows are consequences), without file and line of its
    source."""
    for line in said.splitlines():
        if line.startswith("ALSA lib "):
            return re.sub(r"^ALSA lib [^(]*(\(\w+\))? *", "", line).strip()
    return ""


def _failure(error: Exception) -> str:
    """What a device that failed while running did. pyalsaaudio gives text only: no errno."""
    text = str(error)
    if text.startswith((os.strerror(errno.ENODEV), os.strerror(errno.EBADFD))):
        return "has gone (unplugged?)"
    return f"failed ({text.split(' [')[0]})"


def _open_failure(key: str, device: str, direction: int, error: Exception, alsa_says: str) -> str:
    what = "record from" if direction == alsaaudio.PCM_CAPTURE else "play on"
    name = f"{key}.device: '{device}'"
    text = str(error).removesuffix(f" [{device}]")
    if text == os.strerror(errno.EBUSY):
        holders = " and ".join(busy_with(device, direction)) or "another program"
        return f"{name} is busy: {holders} uses it, expected a device that is free"
    if text in (os.strerror(errno.ENOENT), os.strerror(errno.ENODEV), os.strerror(errno.ENXIO)):
        known = ", ".join(dict.fromkeys(hardware(direction))) or "none"
        reason = f" ({alsa_says})" if alsa_says else ""
        return f"{name} does not exist{reason}, expected one to {what}; cards here: {known}"
    if text == os.strerror(errno.EACCES):
        return f"{name} may not be opened, expected a user of the group audio"
    return f"{name} cannot be opened to {what} it ({alsa_says or text})"


def hardware(direction: int) -> list[str]:
    """ALSA names of the cards that are plugged in and have this direction ("hw:CARD=Device,DEV=0")."""
    names = (name for name in alsaaudio.pcms(direction) if name)
    return [name for name in names if name.startswith("hw:")]


def busy_with(device: str, direction: int, proc: Path = Path("/proc")) -> list[str]:
    """Who has the card of an ALSA name open: "arecord (123)", by process id. Empty if that can't be known."""
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


def _choices(values: object) -> str:
    """getrates() and getchannels() return one number, a list, or (lowest, highest)."""
    if isinstance(values, tuple) and len(values) == 2:
        return f"{values[0]} to {values[1]}"
    return ", ".join(map(str, values)) if isinstance(values, (list, tuple)) else str(values)
