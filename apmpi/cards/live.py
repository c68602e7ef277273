"""Endpoints that are devices: frames of 10 ms in and out, also while a device is lost.

A lost device is parked: its endpoint returns silence or discards what it is given, and the loop continues
as long as it has a microphone. All methods belong to the audio thread, which replaces the card with the next
frame after the caretaker has opened it (apmpi.cards.slot).
"""

import time

from apmpi._cards import FarQueue, PlaybackPlace
from apmpi.cards.pcm import Capture, Playback
from apmpi.cards.slot import Slot
from apmpi.cards.sync import Follower
from apmpi.errors import DeviceLost

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
        card = slot.card or slot.take_over()
        if card is None:
            time.sleep(PARKED_SLEEP_S)
            return b""
        try:
            frame = card.read()
        except DeviceLost as error:
            slot.lose(error)
            return b""
        slot.problem = ""
        self.restarted, self.captured_ns = card.restarted, card.captured_ns
        return frame


class FarEnd:
    """A far end's card; the loop does not wait for it.

    Its samples are converted to the microphone's clock and queued, so that the frame returned was always
    captured the same time before its microphone frame: `lag_ns`, which allows for a card that reports its
    samples late.
    """

    def __init__(self, slot: Slot[Capture], follower: Follower, lag_ns: int) -> None:
        self.slot = slot
        self.place = FarQueue(follower.channels, follower.out_rate_hz)
        self.follower = follower
        self._lag_ns = lag_ns

    def read(self, captured_ns: int) -> bytes | None:
        """Return the frame for the microphone frame captured at `captured_ns`, None without sound."""
        slot = self.slot
        card = slot.card
        if card is None:
            card = slot.take_over()
            if card is None:
                return None
            self.place.forget()
        try:
            if self.place.fill(card, self.follower, captured_ns - self._lag_ns):
                slot.problem = ""
        except DeviceLost as error:
            slot.lose(error)
        return self.place.take()

    def realign(self) -> None:
        """Places the next frame anew: the microphone has restarted, which moved the pace."""
        self.place.lose()

    def rest(self) -> None:
        """Stops the card until the next read()."""
        self.place.forget()
        if self.slot.card is not None:
            self.slot.card.rest()


class Player:
    """A card that plays frames at the times when they are due (native/cards/ends.h)."""

    def __init__(self, slot: Slot[Playback], follower: Follower) -> None:
        self.slot = slot
        self.place = PlaybackPlace()
        self.follower = follower

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
        card = slot.card
        if card is None:
            card = slot.take_over()
            if card is None:
                return None
            self.place.lose()
        try:
            heard_ns = self.place.play(card, self.follower, frame, due_ns)
        except DeviceLost as error:
            slot.lose(error)
            return None
        if card.moving:
            slot.problem = ""
        return heard_ns
