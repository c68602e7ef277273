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

from apmpi import realtime
from apmpi.clock import NS_PER_S, Timebase
from apmpi.config import EndpointError
from apmpi.pcm import BLOCKS_PER_S, Capture, DeviceLost, Playback
from apmpi.wav import WavSink, WavSource

BLOCK_NS = NS_PER_S // BLOCKS_PER_S

# How often a lost device is looked for. An attempt costs about a millisecond of the processor.
RETRY_S = 0.5
# How long the loop sleeps while there is no microphone that could wake it.
PARKED_SLEEP_S = 0.05
# How far the playback queue may wander from its place before samples are left out or silence put in: of the
# 8 ms that the loop's default leaves for a late wake-up, 3 ms are still there then.
SLIP_NS = BLOCK_NS // 2

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
        self._dead: Card | None = None
        self._fresh: Card | None = None
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
        card, self.card = self.card, None
        if card:
            self._xruns_before += card.xruns
            self._dead = card

    def take_over(self) -> bool:
        """Whether there is a card now that was not there before."""
        if self.card is None and self._fresh is not None:
            self.card, self._fresh = self._fresh, None
            return True
        return False

    def flows(self) -> None:
        self.problem = ""

    # -- caretaker

    def look_after(self) -> None:
        """Closes what is dead, and opens it again if it is there."""
        if self._dead is not None:
            dead, self._dead = self._dead, None
            dead.close()
        if self.card is None and self._fresh is None:
            try:
                self._fresh = self._open_card()
            except DeviceLost:
                pass  # as was said when it was lost
            except EndpointError as error:
                self.problem = str(error)

    def close(self) -> None:
        for card in (self._dead, self._fresh, self.card):
            if card is not None:
                card.close()


class Caretaker(threading.Thread):
    """Looks after all slots until close()."""

    def __init__(self, timebase: Timebase) -> None:
        super().__init__(name="caretaker", daemon=True)
        self._slots: list[Slot[Any]] = []
        self._retry_s = timebase.real_s(RETRY_S)
        self._closing = threading.Event()

    def adopt(self, slot: Slot[Card]) -> Slot[Card]:
        self._slots.append(slot)
        return slot

    def problem(self) -> str:
        """What is parked and why, in one sentence; "" when nothing is."""
        problems = [slot.problem for slot in self._slots if slot.problem]
        return f"waiting: {'; '.join(problems)}" if problems else ""

    def xruns(self) -> dict[str, int]:
        """By endpoint, since the start."""
        return {slot.key: slot.xruns for slot in self._slots}

    def close(self) -> None:
        self._closing.set()
        if self.is_alive():
            self.join()
        for slot in self._slots:
            slot.close()

    def run(self) -> None:
        realtime.give_way()
        while not self._closing.wait(self._retry_s):
            for slot in self._slots:
                slot.look_after()


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
    """A far end's card: nobody waits for it."""

    def __init__(self, slot: Slot[Capture]) -> None:
        self.slot = slot
        self.slips = 0
        self._pending = bytearray()

    def read(self, captured_ns: int) -> bytes | None:
        """The block for the microphone's that was captured then; None without sound."""
        slot = self.slot
        if slot.take_over():
            self._pending.clear()
        card = slot.card
        if card is None:
            return None
        block_bytes = card.block_samples * card.channels * 2
        try:
            while part := card.take():
                self._pending += part
                slot.flows()
        except DeviceLost as error:
            slot.lose(error)
        # Its card is faster than the microphone's: what waits beyond a period only adds delay.
        if len(self._pending) > 3 * block_bytes:
            del self._pending[: len(self._pending) - 2 * block_bytes]
            self.slips += 1
        if len(self._pending) < block_bytes:
            return None
        block = bytes(self._pending[:block_bytes])
        del self._pending[:block_bytes]
        return block

    def rest(self) -> None:
        """Stop listening until the next read()."""
        self._pending.clear()
        if self.slot.card is not None:
            self.slot.card.rest()


class FileFarEnd:
    """A WAV file, a block for each of a microphone that is a file, too."""

    slips = 0

    def __init__(self, source: WavSource) -> None:
        self._source = source

    def read(self, captured_ns: int) -> bytes | None:
        """The next block, None after the end."""
        return self._source.read()

    def rest(self) -> None:
        """A file waits by itself."""


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
    first sample leave when it is due, then the block. That fixes the delay between the two directions to the
    sample, and the same write puts it back after an xrun on either side, so what an echo canceller has
    learned stays true.

    slips   how often samples were left out or silence put in because the card's clock had wandered
    """

    def __init__(self, slot: Slot[Playback], timebase: Timebase) -> None:
        self.slot = slot
        self.slips = 0
        self._time = timebase
        self._in_place = False

    def realign(self) -> None:
        """The pace has jumped (the microphone restarted): the next block goes exactly where it is due."""
        self._in_place = False

    def rest(self) -> None:
        """Be silent until the next play()."""
        self._in_place = False
        if self.slot.card is not None:
            self.slot.card.rest()

    def play(self, block: bytes, due_ns: int) -> int | None:
        """Queue a block; never waits. Returns when its first sample will really leave the converter (ns),
        None while the device is lost."""
        slot = self.slot
        if slot.take_over():
            self._in_place = False
        if slot.card is None:
            return None
        try:
            heard_ns = self._queue(slot.card, block, due_ns)
        except DeviceLost as error:
            slot.lose(error)
            return None
        if slot.card.moving:
            slot.flows()
        return heard_ns

    def _queue(self, card: Playback, block: bytes, due_ns: int) -> int:
        frame_bytes = 2 * card.channels
        while True:
            next_ns = card.next_ns()
            standing = next_ns is None
            if next_ns is None:
                next_ns = self._time.now_ns()
            early_frames = (due_ns - next_ns) * card.rate_hz // NS_PER_S
            if standing:
                early_frames = min(max(early_frames, 0), card.room_frames - card.block_samples)
            elif self._in_place and abs(due_ns - next_ns) <= SLIP_NS:
                early_frames = 0
            else:
                self.slips += self._in_place
                # More to leave out than this block has: go on with the next one.
                self._in_place = early_frames >= -card.block_samples
            # Early: silence first. Late: without the block's beginning, at most all of it.
            data = bytes(max(early_frames, 0) * frame_bytes) + block[max(-early_frames, 0) * frame_bytes :]
            if data and not card.write(data):
                continue
            if standing:
                self._in_place = False  # by the few samples that starting took
            return next_ns + max(early_frames, -card.block_samples) * NS_PER_S // card.rate_hz


class FileSink:
    """A WAV file: nobody hears it, so it is never late."""

    slips = 0

    def __init__(self, sink: WavSink) -> None:
        self._sink = sink

    def play(self, block: bytes, due_ns: int) -> None:
        """Writes the block. Raises EndpointError."""
        self._sink.write(block)

    def realign(self) -> None:
        """A file has no clock."""

    def rest(self) -> None:
        """A file waits by itself."""

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
            seconds = WRITE_BEHIND_BLOCKS // BLOCKS_PER_S
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


def remixed(block: bytes, channels: int, wanted: int) -> bytes:
    """Interleaved int16 of `channels` channels as `wanted` ones: their mean, or one of them everywhere."""
    if channels == wanted:
        return block
    samples = np.frombuffer(block, dtype="<i2").reshape(-1, channels)
    if wanted == 1:
        samples = samples.mean(axis=1).round().astype("<i2")
    else:
        samples = np.repeat(samples, wanted, axis=1)
    return bytes(samples.tobytes())
