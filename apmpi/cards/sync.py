"""Synchronisation of one card's sound with the microphone's.

`Place` detects sound that has left its place in time, `Follower` corrects the drift between two clocks.
Lateness is in nanoseconds on the microphone's clock; positive means that sound comes too late.
"""

from apmpi.cards.clock import Drift, Resampler, Settling
from apmpi.cards.pcm import Capture, Playback
from apmpi.cards.slot import Slot
from apmpi.units import FRAME_NS, FRAMES_PER_S, NS_PER_S

# Lateness from which samples are dropped or silence is inserted. Clock drift is corrected far below this
# limit; it serves a card that has lost time without an xrun.
SLIP_NS = FRAME_NS // 2


class Follower:
    """Keeps one card's sound synchronous with the microphone's.

    Sound of a card on the microphone's clock is placed to the sample and passes unchanged; that of any other
    card is resampled. The two cases are distinguished when both cards are open.

    channels, out_rate_hz   of the samples that convert() returns
    """

    def __init__(
        self,
        pace: Slot[Capture] | None,
        channels: int,
        in_rate_hz: int,
        out_rate_hz: int,
        ppm: float = 0.0,
    ) -> None:
        """`pace` is the microphone's slot, None if the card is known to be the microphone's; `ppm` is the
        clock difference found by an earlier run. Raises EndpointError if a resampler is needed and
        missing."""
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
        """Output samples per input sample above the rates' nominal ratio; None on the microphone's clock."""
        return self._drift.ppm if self._resamples else None

    @property
    def pending_ns(self) -> int:
        """Time from the next sample that convert() returns to the next one that it is given."""
        if self._resampler is None or not self._resamples:
            return 0
        return int(self._resampler.pending * NS_PER_S / self.out_rate_hz)

    def placed(self, card: Capture | Playback) -> None:
        """Restarts the estimates: the sound has been placed by one reading of the positions."""
        pace = self._pace.card if self._pace else None
        one_card = pace is not None and pace.card_number == card.card_number >= 0
        self._resamples = self._resampler is not None and (self._rates_differ or not one_card)
        self._settling.placed()
        self._drift.placed()

    def correction_samples(self, late_ns: int) -> int:
        """Take one reading of the lateness per frame; return by how many samples to correct at once."""
        if self._resamples:
            self._ratio = self._drift.ratio(late_ns / NS_PER_S)
            return 0
        return self._settling.late_samples(late_ns * self.out_rate_hz / NS_PER_S)

    def convert(self, samples: bytes) -> bytes:
        """Return interleaved int16 of the card's clock on the microphone's, or the reverse."""
        if self._resampler is None or not self._resamples:
            return samples
        return self._resampler.process(samples, self._nominal * self._ratio)


class Place:
    """State of one card's sound in time, relative to the microphone's.

    held    the sound is where it belongs; if False, the next frame is to be placed
    slips   number of times that samples were dropped or silence was inserted without an xrun
    """

    def __init__(self) -> None:
        self.held = False
        self.slips = 0
        self._slip_continues = False

    def lose(self) -> None:
        self.held = False

    def check(self, late_ns: int) -> None:
        """Takes the lateness once per frame. A card that stands still for several frames counts one slip."""
        if not self.held:
            return
        self.held = abs(late_ns) <= SLIP_NS
        if not self.held and not self._slip_continues:
            self.slips += 1
        self._slip_continues = not self.held
