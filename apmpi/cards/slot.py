"""A slot per device, which may be lost and come back while the service runs.

Two threads share a slot. The audio thread reads and plays, parks a card that is lost, and takes over a card
that has been opened. The caretaker closes parked cards and opens lost devices again: both can take longer
than a frame. They exchange cards through a deque and single references, without a lock.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from apmpi.cards import realtime
from apmpi.cards.clock import Timebase
from apmpi.cards.pcm import Capture, Playback
from apmpi.errors import DeviceLost, EndpointError

# Interval between attempts to open a lost device. An attempt costs about 1 ms of processor time.
RETRY_S = 0.5

Card = TypeVar("Card", Capture, Playback)


class Slot(Generic[Card]):
    """One device of an endpoint.

    card      None while the device is lost
    problem   why no sound flows, as a sentence; "" while it flows
    """

    def __init__(self, key: str, open_card: Callable[[], Card]) -> None:
        """Opens the card if it is present. Raises EndpointError for an error that waiting does not cure."""
        self.key = key
        self.card: Card | None = None
        self.problem = ""
        self._open_card: Callable[[], Card] = open_card
        self._dead: deque[Card] = deque()
        self._fresh: tuple[Card, Callable[[], Card]] | None = None  # a card and the function that opened it
        self._xruns_before = 0  # of the cards that had this slot before
        try:
            self.card = open_card()
        except DeviceLost as error:
            self.problem = str(error)

    @property
    def xruns(self) -> int:
        """Xruns of all cards of this slot since the start."""
        card = self.card
        return self._xruns_before + (card.xruns if card else 0)

    # -- audio thread

    def lose(self, error: DeviceLost) -> None:
        """Parks the card."""
        self.problem = self.problem or str(error)
        self._give_up_card()

    def replace(self, open_card: Callable[[], Card]) -> None:
        """Parks the card; the caretaker opens the next one by `open_card`."""
        self._open_card = open_card
        self.problem = ""
        self._give_up_card()

    def _give_up_card(self) -> None:
        card, self.card = self.card, None
        if card:
            self._xruns_before += card.xruns
            self._dead.append(card)

    def take_over(self) -> Card | None:
        """Put a card in place that the caretaker has opened, and return it; None if there is none.

        Called while there is no card. Once the card moves sound, the caller sets `problem` to "".
        """
        if self._fresh is None:
            return None
        (card, opener), self._fresh = self._fresh, None
        if opener is not self._open_card:  # replaced in the meantime
            self._dead.append(card)
            return None
        self.card = card
        return card

    # -- caretaker

    def look_after(self) -> None:
        """Closes parked cards, and opens the device again if it is lost."""
        while self._dead:
            self._dead.popleft().close()
        if self.card is None and self._fresh is None:
            opener = self._open_card
            try:
                self._fresh = opener(), opener
            except DeviceLost as error:
                self.problem = self.problem or str(error)  # the first reason is kept
            except EndpointError as error:
                self.problem = str(error)

    def close(self) -> None:
        """Closes every card of the slot, which no thread uses any more."""
        fresh = self._fresh[0] if self._fresh else None
        for card in (*self._dead, fresh, self.card):
            if card is not None:
                card.close()


class Caretaker(threading.Thread):
    """The thread that closes and opens the cards of all slots, until close()."""

    def __init__(self, timebase: Timebase) -> None:
        super().__init__(name="caretaker", daemon=True)
        self._slots: list[Slot[Any]] = []
        self._retry_s = timebase.real_s(RETRY_S)
        self._closing = False
        self._hurry = threading.Event()

    def adopt(self, slot: Slot[Card]) -> Slot[Card]:
        """Add a slot, before the thread starts, and return it."""
        self._slots.append(slot)
        return slot

    def replace(self, key: str, open_card: Callable[[], Any]) -> None:
        """Replaces an endpoint's device; does not wait until it is open. Audio thread."""
        for slot in self._slots:
            if slot.key == key:
                slot.replace(open_card)
        self._hurry.set()

    def problem(self) -> str:
        """Return the parked endpoints with their reasons in one sentence, "" if none is parked."""
        problems = ""
        for slot in self._slots:  # in every frame: no list
            if slot.problem:
                problems += f"{'; ' if problems else 'waiting: '}{slot.problem}"
        return problems

    def xruns(self) -> dict[str, int]:
        """Return the number of xruns since the start, by endpoint."""
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
