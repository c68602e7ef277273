"""The compiled module: what native/cython/_cards.pyx offers to apmpi.cards."""

from collections.abc import Sequence
from typing import Protocol, Self

from typing_extensions import disjoint_base

from apmpi.cards.alsa import Offer

def to_int16(samples: bytes, sample_format: str) -> bytes:
    """Return samples of one of the formats as int16: rounded, saturated; a NaN becomes 0."""

def from_int16(samples: bytes, sample_format: str) -> bytes:
    """Return int16 as samples of one of the formats, without loss."""

@disjoint_base
class Drift:
    """PI controller on the lateness of one card's sound, one step per frame (native/cards/clocks.h)."""

    PPM_MAX: float
    """largest magnitude of ppm"""

    @property
    def ppm(self) -> float:
        """Card clock over microphone clock."""
    def __new__(cls, frame_s: float, ppm: float = ...) -> Drift: ...
    def placed(self) -> None: ...
    def ratio(self, late_s: float) -> float: ...

@disjoint_base
class Settling:
    """Exact placement of the sound of a card on the microphone's clock (native/cards/clocks.h)."""

    def placed(self) -> None: ...
    def late_samples(self, late_samples: float) -> int: ...

@disjoint_base
class Pcm:
    """An open device of either direction, of an open handle of ALSA; closed, it raises DeviceLost.

    key           of the endpoint in the configuration: "microphone", "speaker", ...
    device        ALSA's name
    xruns         number of underruns or overruns
    card_number   the kernel's; -1 for a plugin that is no card
    """

    @property
    def key(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def card_number(self) -> int: ...
    @property
    def rate_hz(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def frame_samples(self) -> int:
        """Samples per channel in 10 ms."""
    @property
    def xruns(self) -> int: ...
    def __init__(self, key: str, device: str, handle: int, offer: Offer, speed: float) -> None: ...
    def close(self) -> None: ...

@disjoint_base
class Capture(Pcm):
    """A recording device (native/cards/pcm.h)."""

    @property
    def restarted(self) -> bool:
        """True after the first samples that follow a start or an overrun: samples before them were lost."""
    @property
    def captured_ns(self) -> int:
        """Time at which the first sample of the last frame was at the converter."""
    def rest(self) -> None: ...
    def read(self) -> bytes:
        """Return the next frame; waits at most half a second. Raises DeviceLost."""

@disjoint_base
class Playback(Pcm):
    """A playing device (native/cards/pcm.h)."""

    @property
    def moving(self) -> bool:
        """True once the card's position has advanced."""
    def rest(self) -> None: ...

class _Pace(Protocol):
    """The slot of the microphone, whose card is None while the device is lost."""

    @property
    def card(self) -> Pcm | None: ...

@disjoint_base
class Follower:
    """Keeps one card's sound synchronous with the microphone's (native/cards/follower.h).

    pace: the microphone's slot, None if the card is known to be the microphone's; ppm: the clock difference
    found by an earlier run. Frames of `channels` at in_rate_hz become frames at out_rate_hz.
    """

    @property
    def channels(self) -> int: ...
    @property
    def out_rate_hz(self) -> int: ...
    @property
    def ppm(self) -> float | None:
        """Output samples per input sample above the rates' nominal ratio; None on the microphone's clock."""
    def __new__(
        cls, pace: _Pace | None, channels: int, in_rate_hz: int, out_rate_hz: int, ppm: float = ...
    ) -> Follower: ...

@disjoint_base
class Place:
    """State of one card's sound in time, relative to the microphone's (native/cards/follower.h)."""

    @property
    def slips(self) -> int:
        """Number of times that samples were dropped or silence was inserted without an xrun."""
    def lose(self) -> None: ...

@disjoint_base
class FarQueue(Place):
    """A far end's sound (native/cards/ends.h), of channels at rate_hz."""

    def __new__(cls, channels: int, rate_hz: int) -> FarQueue: ...
    def forget(self) -> None: ...
    def fill(self, card: Capture, follower: Follower, due_ns: int) -> bool: ...
    def take(self) -> bytes | None: ...

@disjoint_base
class PlaybackPlace(Place):
    """The place of what a card plays (native/cards/ends.h)."""

    def play(self, card: Playback, follower: Follower, frame: bytes, due_ns: int) -> int | None: ...

def level(samples: bytes) -> tuple[float, int]:
    """Return RMS and largest magnitude of int16 samples, full scale 32768; both 0 without samples."""

@disjoint_base
class LatencyRing:
    """Latencies of the last frames (native/cards/latency.h); one thread adds, another one reads."""

    @property
    def frames(self) -> int:
        """Number of frames added since the start; a larger one may be set, to skip frames."""
    @frames.setter
    def frames(self, frames: int) -> None: ...
    def __new__(cls, capacity_frames: int, *_: object, **__: object) -> Self: ...
    def add(self, capture_wait_ms: float, processing_ms: float, playback_queue_ms: float) -> None: ...
    def spreads(self, since_frame: int) -> tuple[int, list[tuple[float, float, float]]] | None:
        """Return the number of frames from `since_frame` on, the capacity at most, and of each part and of
        their sum (median, 99th percentile, maximum) in ms; None without frames."""

@disjoint_base
class Mixer:
    """What a downmix does for every sample (native/cards/downmix.h).

    step: number of samples that are averaged before channels are compared; weights: of each channel
    """

    def __new__(cls, step: int, weights: Sequence[float]) -> Self: ...
    @property
    def frames(self) -> int:
        """Number of frames measured since forget()."""
    @property
    def last(self) -> list[list[float]]:
        """Covariances of the channels in the last frame, in rows."""
    @property
    def sum(self) -> list[list[float]]:
        """The same, summed since forget()."""
    @property
    def clipped(self) -> list[bool]:
        """Whether each channel has reached full scale since forget()."""
    def forget(self) -> None: ...
    def fade_to(self, weights: Sequence[float]) -> None:
        """Set the weights that the next frame ends with, one for each channel."""
    def measure(self, frame: bytes, unprocessed: bytes | None) -> None:
        """Take a frame; `unprocessed` is the frame before processing."""
    def mix(self, frame: bytes) -> bytes:
        """Return the mono frame."""
