"""The endpoints as the loop sees them: they give and take blocks of 10 ms, whatever happens to the devices.

A device that is lost is parked: its endpoint gives silence or swallows what it gets, the loop goes on as
long as it has a microphone, and a caretaker thread closes what is dead and opens what has come back. Nothing
of that happens on the audio thread, which takes a fresh card over with its next block.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from apmpi.cards import realtime
from apmpi.cards.clock import Drift, Resampler, Settling, Timebase
from apmpi.cards.pcm import Capture, Playback
from apmpi.cards.wav import WavSink, WavSource
from apmpi.errors import DeviceLost, EndpointError
from apmpi.units import FRAME_NS, FRAMES_PER_S, NS_PER_S, SAMPLE_BYTES

# How often a lost device is looked for. An attempt costs about a millisecond of the processor.
RETRY_S = 0.5
# How long the loop sleeps while there is no microphone that could wake it.
PARKED_SLEEP_S = 0.05
# How far sound may be from its place before some is left out or silence put in. What the clocks do is
# corrected long before; this is for a card that has stumbled without an xrun.
SLIP_NS = FRAME_NS // 2

# Files are read 2 s ahead, and up to 60 s of sound wait in memory for a disk that blocks.
READ_AHEAD_BLOCKS = 200
WRITE_BEHIND_BLOCKS = 6000
DISK_SLEEP_S = 0.05

Card = TypeVar("Card", Capture, Playback)


# ---- devices that come and go


class Slot(Generic[Card]):
    """The place of one device.

    card      None while it is lost
    problem   why there is no sound from or to it, as a sentence; "" while sound flows
    """

    def __init__(self, key: str, open_card: Callable[[], Card]) -> None:
        """Opens the card if it is there. Raises EndpointError for what waiting does not cure."""
        self.key = key
        self.card: Card | None = None
        self.problem = ""
        self._open_card: Callable[[], Card] = open_card
        self._dead: deque[Card] = deque()
        self._fresh: tuple[Card, Callable[[], Card]] | None = None  # and how it was opened
        self._xruns_before = 0
        try:
            self.card = open_card()
        except DeviceLost as error:
            self.problem = str(error)

    @property
    def xruns(self) -> int:
        card = self.card
        return self._xruns_before + (card.xruns if card else 0)

    # -- audio thread

    def lose(self, error: DeviceLost) -> None:
        self.problem = self.problem or str(error)
        self._give_up_card()

    def replace(self, open_card: Callable[[], Card]) -> None:
        """Another device has this place from now on, as soon as it is open."""
        self._open_card = open_card
        self.problem = ""
        self._give_up_card()

    def _give_up_card(self) -> None:
        card, self.card = self.card, None
        if card:
            self._xruns_before += card.xruns
            self._dead.append(card)

    def take_over(self) -> bool:
        """Whether there is a card now that was not there before."""
        if self.card is not None or self._fresh is None:
            return False
        (card, opener), self._fresh = self._fresh, None
        if opener is not self._open_card:  # replaced meanwhile
            self._dead.append(card)
            return False
        self.card = card
        return True

    def flows(self) -> None:
        self.problem = ""

    # -- caretaker

    def look_after(self) -> None:
        """Closes what is dead, and opens it again if it is there."""
        while self._dead:
            self._dead.popleft().close()
        if self.card is None and self._fresh is None:
            opener = self._open_card
            try:
                self._fresh = opener(), opener
            except DeviceLost as error:
                self.problem = self.problem or str(error)  # else as was said when it was lost
            except EndpointError as error:
                self.problem = str(error)

    def close(self) -> None:
        fresh = self._fresh[0] if self._fresh else None
        for card in (*self._dead, fresh, self.card):
            if card is not None:
                card.close()


class Caretaker(threading.Thread):
    """Looks after all slots until close()."""

    def __init__(self, timebase: Timebase) -> None:
        super().__init__(name="caretaker", daemon=True)
        self._slots: list[Slot[Any]] = []
        self._retry_s = timebase.real_s(RETRY_S)
        self._closing = False
        self._hurry = threading.Event()

    def adopt(self, slot: Slot[Card]) -> Slot[Card]:
        self._slots.append(slot)
        return slot

    def replace(self, key: str, open_card: Callable[[], Any]) -> None:
        """Gives an endpoint another device, without waiting for it."""
        for slot in self._slots:
            if slot.key == key:
                slot.replace(open_card)
        self._hurry.set()

    def problem(self) -> str:
        """What is parked and why, in one sentence; "" when nothing is."""
        problems = [slot.problem for slot in self._slots if slot.problem]
        return f"waiting: {'; '.join(problems)}" if problems else ""

    def xruns(self) -> dict[str, int]:
        """By endpoint, since the start."""
        return {slot.key: slot.xruns for slot in self._slots}

    def close(self) -> None:
        self._closing = True
        self._hurry.set()
        if self.is_alive():
            self.join()
        for slot in self._slots:
            slot.close()

    def run(self) -> None:
        realtime.give_way()
        while not self._closing:
            self._hurry.wait(self._retry_s)
            self._hurry.clear()
            for slot in self._slots:
                slot.look_after()


# ---- clocks


class Follower:
    """Keeps one card's sound in step with the microphone's.

    A card on the microphone's clock is put in place to the sample, and what passes is not touched. Any other
    is resampled. Which of the two it is shows when both cards are there.

    channels, out_rate_hz   of what convert() gives
    """

    def __init__(
        self,
        pace: Slot[Capture] | None,
        channels: int,
        in_rate_hz: int,
        out_rate_hz: int,
        ppm: float = 0.0,
    ) -> None:
        """`pace` is the microphone's slot, None if the card is known to be the microphone's; `ppm` as was
        found in an earlier run. Raises EndpointError if it takes a resampler and there is none."""
        self.channels = channels
        self.out_rate_hz = out_rate_hz
        self._pace = pace
        self._rates_differ = in_rate_hz != out_rate_hz
        self._nominal = out_rate_hz / in_rate_hz
        self._ratio = 1.0
        self._settling = Settling()
        self._drift = Drift(1 / FRAMES_PER_S, ppm)
        self._resampler: Resampler | None = None
        if self._rates_differ or pace:
            self._resampler = Resampler(channels, in_rate_hz // FRAMES_PER_S, self._nominal)
        self._resamples = self._resampler is not None

    @property
    def ppm(self) -> float | None:
        """By how much more samples are put out than in, beyond the rates' nominal ratio; None if the clock is
        the microphone's."""
        return self._drift.ppm if self._resamples else None

    @property
    def pending_ns(self) -> int:
        """How much before the next sample that convert() takes the next one that it gives belongs."""
        if self._resampler is None or not self._resamples:
            return 0
        return int(self._resampler.pending * NS_PER_S / self.out_rate_hz)

    def placed(self, card: Capture | Playback) -> None:
        """The sound has just been put about where it belongs."""
        pace = self._pace.card if self._pace else None
        one_card = pace is not None and pace.card_number == card.card_number >= 0
        self._resamples = self._resampler is not None and (self._rates_differ or not one_card)
        self._settling.placed()
        self._drift.placed()

    def look(self, late_ns: int) -> int:
        """How late the sound is, once for each block. Returns by how many samples to correct that at once."""
        if self._resamples:
            self._ratio = self._drift.ratio(late_ns / NS_PER_S)
            return 0
        return self._settling.late_samples(late_ns * self.out_rate_hz / NS_PER_S)

    def convert(self, samples: bytes) -> bytes:
        """Interleaved int16, from the one clock to the other."""
        if self._resampler is None or not self._resamples:
            return samples
        return self._resampler.process(samples, self._nominal * self._ratio)


class Place:
    """Where one card's sound is, seen from the microphone's.

    held    it is where it belongs; if not, the next block is to be put there
    slips   how often sound was left out or silence put in although no xrun was to blame
    """

    def __init__(self) -> None:
        self.held = False
        self.slips = 0
        self._slips_on = False

    def lose(self) -> None:
        self.held = False

    def look(self, late_ns: int) -> None:
        """At each block. A card that stands still slips once, with however many blocks."""
        if not self.held:
            return
        self.held = abs(late_ns) <= SLIP_NS
        if not self.held and not self._slips_on:
            self.slips += 1
        self._slips_on = not self.held


# ---- sources


class Microphone:
    """A microphone's card, which sets the pace.

    restarted     as with Capture
    captured_ns   when the first sample of the block read last was at the converter
    """

    def __init__(self, slot: Slot[Capture]) -> None:
        self.slot = slot
        self.restarted = True
        self.captured_ns = 0

    def read(self) -> bytes:
        """The next block; empty after a moment without one while the device is lost."""
        slot = self.slot
        slot.take_over()
        if slot.card is None:
            time.sleep(PARKED_SLEEP_S)
            return b""
        try:
            block = slot.card.read()
        except DeviceLost as error:
            slot.lose(error)
            return b""
        slot.flows()
        self.restarted, self.captured_ns = slot.card.restarted, slot.card.captured_ns
        return block


class FileMicrophone:
    """A WAV file as microphone: no pace."""

    restarted = False

    def __init__(self, source: WavSource, timebase: Timebase) -> None:
        self.captured_ns = 0
        self._source = source
        self._time = timebase

    def read(self) -> bytes | None:
        """The next block, None at the end."""
        block = self._source.read()
        self.captured_ns = self._time.now_ns()
        return block


class FarEnd:
    """A far end's card: nobody waits for it.

    What comes in is put on the microphone's clock and waits in a short queue, so that what a frame gets was
    always captured the same time before its microphone block: `lag_ns`, room for a card that tells of its
    samples late.
    """

    def __init__(self, slot: Slot[Capture], follower: Follower, lag_ns: int) -> None:
        self.slot = slot
        self.place = Place()
        self.follower = follower
        self._lag_ns = lag_ns
        self._queue = bytearray()
        self._frame_bytes = SAMPLE_BYTES * follower.channels
        self._block_bytes = self._frame_bytes * (follower.out_rate_hz // FRAMES_PER_S)

    def read(self, captured_ns: int) -> bytes | None:
        """The block for the microphone's that was captured then; None without sound."""
        slot = self.slot
        if slot.take_over():
            self._forget()
        if slot.card is None:
            return None
        try:
            self._fill(slot.card, captured_ns - self._lag_ns)
        except DeviceLost as error:
            slot.lose(error)
        if len(self._queue) < self._block_bytes:
            self.place.lose()  # ran dry
            return None
        block = bytes(self._queue[: self._block_bytes])
        del self._queue[: self._block_bytes]
        return block

    def realign(self) -> None:
        """The pace has jumped (the microphone restarted): the next block must be of its age again."""
        self.place.lose()

    def rest(self) -> None:
        """Stop listening until the next read()."""
        self._forget()
        if self.slot.card is not None:
            self.slot.card.rest()

    def _forget(self) -> None:
        self.place.lose()
        self._queue.clear()

    def _fill(self, card: Capture, due_ns: int) -> None:
        """Fetches what there is; the queue then begins with what was captured at `due_ns`."""
        follower = self.follower
        queued_ns = len(self._queue) // self._frame_bytes * NS_PER_S // follower.out_rate_hz
        late_ns = due_ns - (card.unread_ns - follower.pending_ns - queued_ns)
        came = False
        while part := card.take():
            if card.restarted:
                self._forget()
            self._queue += follower.convert(part)
            came = not card.restarted
            if len(part) < card.period_bytes:  # that was all; what arrives meanwhile is for the next time
                break
        if not came:  # nothing, or just started: no positions yet
            return
        self.slot.flows()
        self.place.look(late_ns)
        if self.place.held:
            leave_out = follower.look(late_ns)
        else:
            # At most a second of silence: further off is a look at a bad moment.
            leave_out = max(late_ns * follower.out_rate_hz // NS_PER_S, -follower.out_rate_hz)
            follower.placed(card)
            self.place.held = True
        if leave_out < 0:
            self._queue[:0] = bytes(-leave_out * self._frame_bytes)
        else:
            del self._queue[: leave_out * self._frame_bytes]


class Clockless:
    """A file has no clock and waits by itself: the loop may treat it like a card."""

    def realign(self) -> None:
        pass

    def rest(self) -> None:
        pass


class FileFarEnd(Clockless):
    """A WAV file, a block for each of a microphone that is a file, too."""

    def __init__(self, source: WavSource) -> None:
        self._source = source

    def read(self, captured_ns: int) -> bytes | None:
        """The next block, None after the end."""
        return self._source.read()


class ReadAhead(FileFarEnd):
    """A WAV file whose reading another thread does: `read` never waits for a disk.

    thread   to be started
    """

    def __init__(self, source: WavSource) -> None:
        super().__init__(source)
        self._blocks: deque[bytes] = deque()
        self._closed = False
        self._error: EndpointError | None = None
        self._fill()
        self.thread = threading.Thread(target=self._run, name="read ahead", daemon=True)

    def read(self, captured_ns: int) -> bytes | None:
        """The next block; None at the end of the file, or if the disk is slower than the sound."""
        if self._error:
            raise self._error
        return self._blocks.popleft() if self._blocks else None

    def close(self) -> None:
        self._closed = True
        if self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        realtime.give_way()
        try:
            while not self._closed and self._fill():
                time.sleep(DISK_SLEEP_S)
        except EndpointError as error:
            self._error = error

    def _fill(self) -> bool:
        """False at the end of the file."""
        while len(self._blocks) < READ_AHEAD_BLOCKS:
            block = self._source.read()
            if block is None:
                return False
            self._blocks.append(block)
        return True


# ---- sinks


class Player:
    """A card that plays blocks when they are due.

    Playback starts late rather than with a guess: its first write is one piece, as much silence as makes the
    first sample leave when it is due, then the block. That fixes the delay between the two directions, and
    the same write puts it back after an xrun on either side, so what an echo canceller has learned stays
    true.
    """

    def __init__(self, slot: Slot[Playback], follower: Follower, timebase: Timebase) -> None:
        self.slot = slot
        self.place = Place()
        self.follower = follower
        self._time = timebase

    def realign(self) -> None:
        """The pace has jumped (the microphone restarted): the next block goes exactly where it is due."""
        self.place.lose()

    def rest(self) -> None:
        """Be silent until the next play()."""
        self.place.lose()
        if self.slot.card is not None:
            self.slot.card.rest()

    def play(self, block: bytes, due_ns: int) -> int | None:
        """Queue a block; never waits. Returns when its first sample will really leave the converter (ns),
        None while the device is lost or if that time is over."""
        slot = self.slot
        if slot.take_over():
            self.place.lose()
        if slot.card is None:
            return None
        pending_ns = self.follower.pending_ns
        try:
            heard_ns = self._put(slot.card, self.follower.convert(block), due_ns - pending_ns)
        except DeviceLost as error:
            slot.lose(error)
            return None
        if slot.card.moving:
            slot.flows()
        return None if heard_ns is None else heard_ns + pending_ns

    def _put(self, card: Playback, sound: bytes, due_ns: int) -> int | None:
        """Queues `sound` so that it begins at `due_ns`. Returns when it really will, None if that is over."""
        follower, frame_bytes = self.follower, SAMPLE_BYTES * card.channels
        frames = len(sound) // frame_bytes
        while True:
            next_ns = card.next_ns()
            standing = next_ns is None
            if next_ns is None:
                next_ns = self._time.now_ns()
                self.place.lose()
            late_ns = next_ns - due_ns
            self.place.look(late_ns)
            if self.place.held:
                leave_out = follower.look(late_ns)
            else:
                leave_out = late_ns * card.rate_hz // NS_PER_S
                follower.placed(card)
                # Not yet if starting took its few samples, nor if there is more to leave out than this block.
                self.place.held = not standing and leave_out <= frames
            if standing:
                # Who is a whole block behind would only start the card to see it run dry before the next one,
                # again and again, and that costs the time in which to catch up.
                if leave_out >= frames:
                    return None
                leave_out = min(max(leave_out, frames - card.room_frames), 0)
            leave_out = min(leave_out, frames)
            data = bytes(max(-leave_out, 0) * frame_bytes) + sound[max(leave_out, 0) * frame_bytes :]
            if not data or card.write(data):
                return next_ns - leave_out * NS_PER_S // card.rate_hz


class FileSink(Clockless):
    """A WAV file: nobody hears it, so it is never late."""

    def __init__(self, sink: WavSink) -> None:
        self._sink = sink

    def play(self, block: bytes, due_ns: int) -> None:
        """Writes the block. Raises EndpointError."""
        self._sink.write(block)

    def close(self) -> None:
        """Completes the file. Raises EndpointError."""
        self._sink.close()


class WriteBehind(FileSink):
    """A WAV file whose writing another thread does: `play` never waits for a disk.

    thread   to be started
    """

    def __init__(self, sink: WavSink) -> None:
        super().__init__(sink)
        self._blocks: deque[bytes] = deque()
        self._closed = False
        self._error: EndpointError | None = None
        self.thread = threading.Thread(target=self._run, name="write behind", daemon=True)

    def play(self, block: bytes, due_ns: int) -> None:
        """Leaves the block for writing. Raises EndpointError if an earlier one could not be written."""
        if self._error:
            raise self._error
        if len(self._blocks) >= WRITE_BEHIND_BLOCKS:
            seconds = WRITE_BEHIND_BLOCKS // FRAMES_PER_S
            raise EndpointError(f"output files: the disk has taken nothing for {seconds} s")
        self._blocks.append(block)

    def close(self) -> None:
        """Completes the file with all that was left. Raises EndpointError."""
        self._closed = True
        if self.thread.is_alive():
            self.thread.join()
        self._sink.close()  # what was written before an error is kept
        if self._error:
            raise self._error

    def _run(self) -> None:
        realtime.give_way()
        try:
            while not self._closed or self._blocks:
                while self._blocks:
                    self._sink.write(self._blocks.popleft())
                time.sleep(DISK_SLEEP_S)
        except EndpointError as error:
            self._error = error


def picked(block: bytes, channels: int, wanted: tuple[int, ...]) -> bytes:
    """Some channels, counted from 0, out of interleaved int16 of `channels`."""
    if wanted == tuple(range(channels)):
        return block
    return bytes(np.frombuffer(block, dtype="<i2").reshape(-1, channels)[:, wanted].tobytes())


def repeated(block: bytes, wanted: int) -> bytes:
    """Mono int16 as interleaved int16 of `wanted` channels."""
    return np.frombuffer(block, dtype="<i2").repeat(wanted).tobytes() if wanted > 1 else block
