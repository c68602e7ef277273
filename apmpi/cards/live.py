"""Endpoints that are devices: frames of 10 ms in and out, also while a device is lost.

A lost device is parked: its endpoint returns silence or discards what it is given, and the loop continues
as long as it has a microphone. All methods belong to the audio thread, which replaces the card with the next
frame after the caretaker has opened it (apmpi.cards.slot).
"""

import time

from apmpi.cards.clock import Timebase
from apmpi.cards.pcm import Capture, Playback
from apmpi.cards.slot import Slot
from apmpi.cards.sync import Follower, Place
from apmpi.errors import DeviceLost
from apmpi.units import FRAMES_PER_S, NS_PER_S, SAMPLE_BYTES

# Sleep of the loop while no microphone can wake it.
PARKED_SLEEP_S = 0.05


class Microphone:
    """A microphone's card, which sets the pace of the loop.

    restarted     as Capture's
    captured_ns   time at which the first sample of the last frame was at the converter
    """

    def __init__(self, slot: Slot[Capture]) -> None:
        self.slot = slot
        self.restarted = True
        self.captured_ns = 0

    def read(self) -> bytes:
        """Return the next frame; after PARKED_SLEEP_S an empty one while the device is lost."""
        slot = self.slot
        slot.take_over()
        if slot.card is None:
            time.sleep(PARKED_SLEEP_S)
            return b""
        try:
            frame = slot.card.read()
        except DeviceLost as error:
            slot.lose(error)
            return b""
        slot.flows()
        self.restarted, self.captured_ns = slot.card.restarted, slot.card.captured_ns
        return frame


class FarEnd:
    """A far end's card; the loop does not wait for it.

    Its samples are converted to the microphone's clock and queued, so that the frame returned was always
    captured the same time before its microphone frame: `lag_ns`, which allows for a card that reports its
    samples late.
    """

    def __init__(self, slot: Slot[Capture], follower: Follower, lag_ns: int) -> None:
        self.slot = slot
        self.place = Place()
        self.follower = follower
        self._lag_ns = lag_ns
        self._queue = bytearray()
        self._alsa_frame_bytes = SAMPLE_BYTES * follower.channels
        self._frame_bytes = self._alsa_frame_bytes * (follower.out_rate_hz // FRAMES_PER_S)

    def read(self, captured_ns: int) -> bytes | None:
        """Return the frame for the microphone frame captured at `captured_ns`, None without sound."""
        slot = self.slot
        if slot.take_over():
            self._forget()
        if slot.card is None:
            return None
        try:
            self._fill(slot.card, captured_ns - self._lag_ns)
        except DeviceLost as error:
            slot.lose(error)
        if len(self._queue) < self._frame_bytes:
            self.place.lose()  # underrun of the queue
            return None
        frame = bytes(self._queue[: self._frame_bytes])
        del self._queue[: self._frame_bytes]
        return frame

    def realign(self) -> None:
        """Places the next frame anew: the microphone has restarted, which moved the pace."""
        self.place.lose()

    def rest(self) -> None:
        """Stops the card until the next read()."""
        self._forget()
        if self.slot.card is not None:
            self.slot.card.rest()

    def _forget(self) -> None:
        self.place.lose()
        self._queue.clear()

    def _fill(self, card: Capture, due_ns: int) -> None:
        """Reads all available samples; the queue then begins with the one captured at `due_ns`."""
        follower = self.follower
        queued_ns = len(self._queue) // self._alsa_frame_bytes * NS_PER_S // follower.out_rate_hz
        late_ns = due_ns - (card.unread_ns - follower.pending_ns - queued_ns)
        came = False
        while part := card.take():
            if card.restarted:
                self._forget()
            self._queue += follower.convert(part)
            came = not card.restarted
            if len(part) < card.period_bytes:  # the last one; later samples are for the next frame
                break
        if not came:  # nothing was read, or the card has just started: there are no positions yet
            return
        self.slot.flows()
        self.place.check(late_ns)
        if self.place.held:
            drop_samples = follower.correction_samples(late_ns)
        else:
            # At most 1 s of silence: a larger figure is a wrong reading of the positions.
            drop_samples = max(late_ns * follower.out_rate_hz // NS_PER_S, -follower.out_rate_hz)
            follower.placed(card)
            self.place.held = True
        if drop_samples < 0:
            self._queue[:0] = bytes(-drop_samples * self._alsa_frame_bytes)
        else:
            del self._queue[: drop_samples * self._alsa_frame_bytes]


class Player:
    """A card that plays frames at the times when they are due.

    The first write is one piece: silence up to the time at which the first sample is due, then the frame. So
    the delay between the two directions is known from the start, not guessed. The same write restores it
    after an xrun of either direction, so that an echo canceller's filter stays valid.
    """

    def __init__(self, slot: Slot[Playback], follower: Follower, timebase: Timebase) -> None:
        self.slot = slot
        self.place = Place()
        self.follower = follower
        self._time = timebase

    def realign(self) -> None:
        """Places the next frame anew: the microphone has restarted, which moved the pace."""
        self.place.lose()

    def rest(self) -> None:
        """Stops the card until the next play()."""
        self.place.lose()
        if self.slot.card is not None:
            self.slot.card.rest()

    def play(self, frame: bytes, due_ns: int) -> int | None:
        """Queue a frame without waiting; return when its first sample will leave the converter (ns).

        None if the device is lost, or if the frame is later than its whole length.
        """
        slot = self.slot
        if slot.take_over():
            self.place.lose()
        if slot.card is None:
            return None
        pending_ns = self.follower.pending_ns
        try:
            heard_ns = self._put(slot.card, self.follower.convert(frame), due_ns - pending_ns)
        except DeviceLost as error:
            slot.lose(error)
            return None
        if slot.card.moving:
            slot.flows()
        return None if heard_ns is None else heard_ns + pending_ns

    def _put(self, card: Playback, sound: bytes, due_ns: int) -> int | None:
        """Queue `sound` to begin at `due_ns`; return when it will begin, None if it is too late for that."""
        follower, alsa_frame_bytes = self.follower, SAMPLE_BYTES * card.channels
        samples = len(sound) // alsa_frame_bytes
        while True:
            next_ns = card.next_ns()
            standing = next_ns is None
            if next_ns is None:
                next_ns = self._time.now_ns()
                self.place.lose()
            late_ns = next_ns - due_ns
            self.place.check(late_ns)
            if self.place.held:
                drop_samples = follower.correction_samples(late_ns)
            else:
                drop_samples = late_ns * card.rate_hz // NS_PER_S
                follower.placed(card)
                # Not held yet if the start took a few samples, or if more is to be dropped than this frame.
                self.place.held = not standing and drop_samples <= samples
            if standing:
                # Starting the card a whole frame late would only let it run dry before the next frame, again
                # and again, and take the time that is needed to catch up.
                if drop_samples >= samples:
                    return None
                drop_samples = min(max(drop_samples, samples - card.room_samples), 0)
            drop_samples = min(drop_samples, samples)
            silence = bytes(max(-drop_samples, 0) * alsa_frame_bytes)
            data = silence + sound[max(drop_samples, 0) * alsa_frame_bytes :]
            if not data or card.write(data):
                return next_ns - drop_samples * NS_PER_S // card.rate_hz
