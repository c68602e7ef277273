"""AudioProcessingModule: the native chain, with LiveKit's names and meaning."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol

from apmpi import _native
from apmpi.api.frame import SAMPLE_FORMATS, shown
from apmpi.settings import (
    CHANNELS_MAX,
    NOISE_SUPPRESSION_DEFAULT,
    POSITION_MAX_MM,
    SAMPLE_RATES_HZ,
    Features,
    Settings,
    Tuning,
    rows,
)
from apmpi.units import FRAMES_PER_S

FLAGS, NUMBERS, DELAY = rows(Features), rows(Tuning), rows(Settings)["stream_delay_ms"]
KERNELS = _native.KERNELS
"""variant of the arithmetic that runs on this processor: neon, avx2, sse2 or scalar"""


class Frame(Protocol):
    """Attributes that a frame must have; apmpi's and livekit's AudioFrame both have them."""

    @property
    def data(self) -> memoryview:
        """Interleaved int16 samples, as int16 or as bytes, contiguous; writable if they are processed."""

    @property
    def sample_rate(self) -> int:
        """Samples per second and channel."""

    @property
    def num_channels(self) -> int: ...

    @property
    def samples_per_channel(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of the chain after the last frame (microphone channel 0)."""

    erle_db: float = 0.0
    """echo power over residual-echo power, during far-end single talk"""
    erl_db: float = 0.0
    """far-end power over echo power at the microphone"""
    delay_ms: float = -1.0
    """delay of the echo behind the far end; negative: not yet estimated"""
    delay_confidence: float = 0.0
    """0..1"""
    drift_ppm: float = 0.0
    """microphone clock over far-end clock, as compensated in the chain"""
    speech_probability: float = 0.0
    """probability of near-end speech, 0..1"""
    noise_floor_dbfs: float = -100.0
    snr_db: float = 0.0
    """level of active near-end speech over the noise; 0 before half a second of speech"""
    noise_suppression_db: float = 0.0
    """largest attenuation of noise: the level in use"""
    agc_gain_db: float = 0.0
    array_gain_db: float = 0.0
    """noise at one microphone over noise behind the beam of all; 0 without a beam"""
    direction_deg: float = -1.0
    """direction of the talker, clockwise from +y seen from above, 0 to 360; -1: unknown"""
    converged: bool = False
    """the canceller attenuates the echo by 10 dB or more"""
    double_talk: bool = False
    reference_present: bool = False
    """the far end was active within the last second"""
    divergences: int = 0
    """number of times that the echo estimate began to add power to the signal"""
    microphone_clipping: bool = False
    """full-scale samples within the last second"""
    microphone_too_quiet: bool = False
    """active speech is 3 dB or more below gain_target_dbfs even with gain_max_db"""
    references: int = 1
    """2 while the far end's channels differ and for 2 s after, else 1"""


class AudioProcessingModule:
    """Echo cancellation, noise suppression, high-pass filter and gain control over 10 ms frames, in place.

    Frames hold interleaved int16 samples at 8000, 16000, 32000 or 48000 Hz, rate/100 per channel, with 1 to 8
    channels; apmpi's AudioFrame, livekit.rtc's, or any object with those attributes. Every microphone channel
    has its own canceller and suppressor; the gain is linked, so that channels keep their balance. With
    `array` the channels become one beam behind their cancellers, and the output is mono. A far end of two
    channels is that of two loudspeakers, which may play different things; where they play the same, it
    costs hardly more than one. Of three to eight channels the two are used from which the others follow
    best: more than two independent signals are cancelled in part. The first microphone frame sets rate
    and channel count; a microphone frame of another shape starts the chain anew.

    Safe from several threads (far end in one, microphone in another); modules share nothing with each other.
    After os.fork() parent and child each continue with a module of their own.

    Args:
        echo_cancellation: cancels the echo of what the loudspeaker plays; needs process_reverse_stream().
        noise_suppression: attenuates noise such as fans, traffic and hiss: "low", "moderate", "high" or
            "very_high" by at most 6, 12, 18 or 21 dB; True is "high"; "auto" selects one of these by the
            signal-to-noise ratio (stats().snr_db): 30 dB, 20 dB, 10 dB and less.
        high_pass_filter: removes rumble and handling noise below speech.
        auto_gain_control: brings quiet and loud talkers to one level.
        learned_gain: a small recurrent network helps to detect speech in noise and residual echo, for
            noise_suppression and auto_gain_control; False, and without these two: statistics alone.
        array: makes two and more microphones one beam towards who speaks, which all channels of the frame
            then hold. Their places need not be known. A frame of one channel is processed as without it.
        high_pass_hz: cut-off (-3 dB) of high_pass_filter, 20 to 300 Hz.
        gain_target_dbfs: level of active speech that auto_gain_control aims at, -40 to -6 dBFS.
        gain_max_db: largest amplification by auto_gain_control, 0 to 50 dB.
        headroom_db: least distance of a peak from full scale, 0 to 20 dB, with or without auto_gain_control.
        low_latency: less latency, for a little more distortion in double talk: the output is 2.25 ms late
            instead of 6. Set here only.
        stream_delay_ms: delay from speaker to microphone, 0 to 500 ms; None: unknown. See
            set_stream_delay_ms().
        microphone_positions_mm: places of the microphones that are used, -1000 to 1000 mm: (x, y) for each
            channel, x to the right and y forward, seen from above. With them and `array` stats() has the
            direction of the talker. Microphone frames then have that many channels. Set here only.

    Raises:
        TypeError: a flag is neither bool nor int, a parameter that is a number has another type, or the
            positions are no pairs of numbers.
        ValueError: an unknown level of noise_suppression, a number out of its range, fewer than two positions
            or more than eight, two that are the same, or positions without `array`.
        RuntimeError: stream_delay_ms is no whole number from 0 to 500.

    Sources: Enzner and Vary 2006, Kuech, Mabande and Enzner 2014 (canceller); Gerkmann and Hendriks 2012
    (noise); Ephraim and Malah 1985 (gain of the suppressor); ITU-T P.56 (level). The C headers name all.
    """

    def __init__(
        self,
        *,
        echo_cancellation: bool = False,
        noise_suppression: bool | str = False,
        high_pass_filter: bool = False,
        auto_gain_control: bool = False,
        learned_gain: bool = True,
        array: bool = False,
        high_pass_hz: float = 80.0,
        gain_target_dbfs: float = -20.0,
        gain_max_db: float = 32.0,
        headroom_db: float = 1.0,
        low_latency: bool = False,
        stream_delay_ms: int | None = None,
        microphone_positions_mm: Sequence[tuple[float, float]] = (),
    ) -> None:
        self._settings = _read(locals())  # the parameters by name, while there are no other local variables
        self._positions_mm = _positions(microphone_positions_mm)
        if self._positions_mm and not self._settings["array"]:
            raise ValueError("microphone_positions_mm: given without array, expected array=True")
        self._delay_ms: int | None = None
        self._chain: _native.Chain | None = None
        # Guards the settings and the replacement of the chain; each chain has a lock of its own for frames.
        # The only code of the caller's that can run under it is a finaliser, which may run at any time: hence
        # not a plain Lock.
        self._lock = threading.RLock()
        if stream_delay_ms is not None:
            self.set_stream_delay_ms(stream_delay_ms)
        with _fork_guard:
            _modules.add(self)

    def process_stream(self, data: Frame) -> None:
        """Process one 10 ms microphone frame in place.

        Raises:
            RuntimeError: not exactly 10 ms, an unsupported rate or channel count, another channel count than
                that of microphone_positions_mm, or a buffer that is read-only, not contiguous or released;
                nothing is changed in that case.
            TypeError: the samples are neither int16 nor bytes, or a count is not a whole number; nothing is
                changed in that case.
        """
        rate_hz, channels = _checked("process_stream", data)
        if self._positions_mm and channels != len(self._positions_mm):
            raise RuntimeError(
                f"process_stream: frame has {channels} channels, expected {len(self._positions_mm)}, "
                "as many as microphone_positions_mm"
            )
        # Read before the lock: a frame of the caller's may run any code here, even call this module.
        samples = _samples("process_stream", data)
        if samples.readonly and _made_writable(data):
            samples = _samples("process_stream", data)
        chain = self._chain
        if chain is not None and (chain.rate_hz, chain.channels) == (rate_hz, channels):
            chain.capture(samples)
            return
        with self._lock:
            chain = self._new_chain(rate_hz, channels, chain.references if chain else 1)
            chain.capture(samples)
            self._chain = chain  # last, so that a refused frame changes nothing

    def process_reverse_stream(self, data: Frame) -> None:
        """Take one 10 ms frame that the loudspeaker is about to play. The frame is not changed.

        Raises:
            RuntimeError: not exactly 10 ms, an unsupported rate or channel count, another rate than the
                microphone's, or a buffer that is not contiguous or released.
            TypeError: the samples are neither int16 nor bytes, or a count is not a whole number.
        """
        rate_hz, channels = _checked("process_reverse_stream", data)
        samples = _samples("process_reverse_stream", data)  # before the lock, as in process_stream
        references = min(channels, 2)
        chain = self._chain
        if chain is None:
            with self._lock:
                chain = self._chain or self._new_chain(rate_hz, 1, references)
                chain.render(samples, channels)
                self._chain = chain
            return
        if chain.rate_hz != rate_hz:
            raise RuntimeError(
                f"process_reverse_stream: far end at {rate_hz} Hz, "
                f"expected the microphone's {chain.rate_hz} Hz"
            )
        if chain.references < references:
            chain = self._widened(references)
        chain.render(samples, channels)

    def set_stream_delay_ms(self, delay_ms: int) -> None:
        """Set the expected delay of the echo behind the far end, 0 to 500 ms.

        It is only where the search begins: the chain estimates the delay and tracks it.

        Raises:
            RuntimeError: outside 0 to 500 ms, or not a whole number; the delay stays as it was.
        """
        try:
            delay = index(delay_ms)
        except TypeError:
            delay = -1
        if isinstance(delay_ms, bool) or not DELAY.low <= delay <= DELAY.high:
            expected = f"expected {DELAY.low:g} to {DELAY.high:g} {DELAY.unit}"
            raise RuntimeError(f"set_stream_delay_ms: got {shown(delay_ms)}, {expected}")
        with self._lock:
            self._delay_ms = delay
            if self._chain is not None:
                self._chain.set_delay_hint(delay)

    def configure(
        self,
        *,
        echo_cancellation: bool | None = None,
        noise_suppression: bool | str | None = None,
        high_pass_filter: bool | None = None,
        auto_gain_control: bool | None = None,
        learned_gain: bool | None = None,
        array: bool | None = None,
        high_pass_hz: float | None = None,
        gain_target_dbfs: float | None = None,
        gain_max_db: float | None = None,
        headroom_db: float | None = None,
    ) -> None:
        """Change settings from the next frame on, without a click; the learned state is kept.

        None leaves a setting as it is.

        Raises:
            TypeError, ValueError: as for the constructor; nothing is changed in that case.
        """
        given = dict(locals())
        wanted = _read({name: value for name, value in given.items() if value is not None})
        with self._lock:
            self._settings |= wanted
            if self._chain is not None:
                self._chain.configure(self._settings)

    def reset(self) -> None:
        """Discard the learned state; settings and delay are kept."""
        with self._lock:
            if self._chain is not None:
                self._chain.reset()
                self._hint(self._chain)

    def stats(self) -> Stats:
        """Return the figures after the last frame; before the first one the defaults of Stats."""
        chain = self._chain
        return stats_of(chain.stats()) if chain else Stats()

    def save_state(self) -> bytes:
        """Return the learned state (echo path, delay, noise, gain), about 95 KB per channel at 48 kHz,
        twice that with two loudspeakers.

        For `load_state` in a later run. Empty before the first frame. May be called from any thread.
        """
        chain = self._chain
        return chain.save() if chain else b""

    def load_state(self, state: bytes) -> None:
        """Continue from a result of `save_state`: the echo is cancelled from the first frame on.

        Best called before the first frame. Microphone frames of another rate or channel count than those of
        the saved state start the chain anew.

        Raises:
            TypeError: not bytes.
            ValueError: not a saved state, a damaged one, one of another version, one with values that cannot
                be learned, or, after the first frame, one of another rate or channel count; nothing is
                changed in that case.
        """
        state = _own_bytes(state)
        with self._lock:
            chain = self._chain
            if chain is None:
                rate_hz, channels = _native.state_shape(state)
                if rate_hz not in SAMPLE_RATES_HZ or not 1 <= channels <= _native.MAX_CHANNELS:
                    raise ValueError("load_state: not a saved state")
                chain = self._new_chain(rate_hz, channels, 1)
                if len(state) > chain.state_bytes:  # saved with two references
                    chain = self._new_chain(rate_hz, channels, 2)
            try:
                chain.restore(state)
            except ValueError as error:
                raise ValueError(f"load_state: {error}") from None
            self._chain = chain

    @property
    def latency_ms(self) -> float:
        """Delay that the chain adds in ms, which only low_latency changes; 0.0 before the first frame."""
        chain = self._chain
        return 1000.0 * chain.latency_samples / chain.rate_hz if chain else 0.0

    def _new_chain(self, rate_hz: int, channels: int, references: int) -> _native.Chain:
        chain = _native.Chain(rate_hz, channels, references, self._settings)
        # Before the first microphone frame a chain may have one channel, or those of a saved state.
        if channels == len(self._positions_mm):
            chain.set_positions(self._positions_mm)
        self._hint(chain)
        return chain

    def _widened(self, references: int) -> _native.Chain:
        """Replace the chain by one of more references that continues with what was learned."""
        with self._lock:
            chain = self._chain
            assert chain is not None
            if chain.references < references:
                learned = chain.save()
                chain = self._new_chain(chain.rate_hz, chain.channels, references)
                chain.restore(learned)
                self._chain = chain
        return chain

    def _hint(self, chain: _native.Chain) -> None:
        if self._delay_ms is not None:
            chain.set_delay_hint(self._delay_ms)


# A lock that another thread holds during a fork would stay locked in the child permanently, and its work half
# done: no module processes while the process forks.
_modules: weakref.WeakSet[AudioProcessingModule] = weakref.WeakSet()
_fork_guard = threading.RLock()  # reentrant: a finaliser, too, may create a module
_held: list[tuple[AudioProcessingModule, _native.Chain | None]] = []


def _before_fork() -> None:
    _fork_guard.acquire()
    for module in _modules:
        module._lock.acquire()
        if module._chain is not None:
            module._chain.hold()
        _held.append((module, module._chain))


def _after_fork() -> None:
    for module, chain in _held:
        if chain is not None:
            chain.let_go()
        module._lock.release()
    _held.clear()
    _fork_guard.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def stats_of(figures: Mapping[str, float]) -> Stats:
    """Return the native chain's figures, apm_stats_t, as Stats."""
    values: dict[str, Any] = dict(figures)
    for flag in (
        "converged",
        "double_talk",
        "reference_present",
        "microphone_clipping",
        "microphone_too_quiet",
    ):
        values[flag] = bool(values[flag])
    return Stats(**values)


def _read(given: Mapping[str, object]) -> dict[str, float]:
    """Return the settings among the names given, with values as the chain takes them.

    Raises TypeError or ValueError for the first one that is wrong.
    """
    settings: dict[str, float] = {}
    for name, value in given.items():
        if name in NUMBERS:
            settings[name] = _number(name, value)
        elif name == "noise_suppression":
            settings[name] = _suppression(value)
        elif name in FLAGS or name == "low_latency":
            settings[name] = bool(index(value))  # type: ignore[arg-type]
    return settings


def _number(name: str, value: object) -> float:
    low, high = NUMBERS[name].low, NUMBERS[name].high
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: got {shown(value)}, expected a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise ValueError(f"{name}: got {shown(value)}, expected {low:g} to {high:g}")
    return float(value)


def _positions(value: object) -> tuple[tuple[float, float], ...]:
    """Return places of microphones in mm; () is none."""
    name, most = "microphone_positions_mm", POSITION_MAX_MM
    expected = "expected a pair of numbers (x, y) for each microphone"
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(f"{name}: got {shown(value)}, {expected}")
    positions = []
    for pair in value:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"{name}: got {shown(pair)}, {expected}")
        for number in pair:
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError(f"{name}: got {shown(number)}, {expected}")
            if not -most <= number <= most:
                raise ValueError(f"{name}: got {shown(number)}, expected {-most} to {most} mm")
        positions.append((float(pair[0]), float(pair[1])))
    if len(positions) not in (0, *range(2, CHANNELS_MAX + 1)):
        raise ValueError(f"{name}: {len(positions)} given, expected 2 to {CHANNELS_MAX}")
    if same := next((pair for pair in positions if positions.count(pair) > 1), None):
        raise ValueError(f"{name}: {shown(same)} given twice, expected different places")
    return tuple(positions)


def _suppression(value: object) -> int:
    """Return the number of apm_noise_t: 0 is none, then the levels."""
    levels = FLAGS["noise_suppression"].choices
    if not isinstance(value, str):
        value = NOISE_SUPPRESSION_DEFAULT if index(value) else ""  # type: ignore[arg-type]
    elif value not in levels:
        expected = f"expected True, False or one of {', '.join(map(str, levels))}"
        raise ValueError(f"noise_suppression: got {shown(value)}, {expected}")
    return levels.index(value) + 1 if value else 0


def _samples(call: str, frame: Frame) -> memoryview:
    """Return a view of a frame's samples of any format; the chain checks the format."""
    data = frame.data
    try:
        return memoryview(data)
    except TypeError:
        raise TypeError(f"{call}: data is {shown(data)}, expected a buffer of int16 or bytes") from None
    except (ValueError, BufferError) as error:  # released, for one
        raise RuntimeError(f"{call}: {error}") from None


def _own_bytes(state: object) -> bytes:
    """Return a copy that cannot change while it is checked and loaded; bytes need none."""
    if isinstance(state, bytes):
        return state
    try:
        view = memoryview(state)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"load_state: got {shown(state)}, expected bytes") from None
    except (ValueError, BufferError) as error:  # released, for one
        raise ValueError(f"load_state: {error}") from None
    if view.format not in SAMPLE_FORMATS[1:]:
        raise TypeError(f"load_state: got elements of format {view.format!r}, expected bytes ('B')")
    return view.tobytes()


def _made_writable(frame: Any) -> bool:
    """Give a LiveKit frame of read-only bytes a writable copy, as LiveKit's module does; True if done."""
    data = getattr(frame, "_data", None)
    if not isinstance(data, bytes | memoryview) or not memoryview(data).readonly:
        return False
    frame._data = bytearray(data)
    return True


def _checked(call: str, frame: Frame) -> tuple[int, int]:
    rate_hz, channels, count = frame.sample_rate, frame.num_channels, frame.samples_per_channel
    try:
        rate_hz, channels, count = index(rate_hz), index(channels), index(count)
    except TypeError:
        names, given = "sample_rate, num_channels and samples_per_channel", (rate_hz, channels, count)
        raise TypeError(f"{call}: {names} are {shown(given)}, expected whole numbers") from None
    if rate_hz not in SAMPLE_RATES_HZ:
        rates = ", ".join(map(str, SAMPLE_RATES_HZ))
        raise RuntimeError(f"{call}: sample rate is {shown(rate_hz)} Hz, expected one of {rates}")
    if not 1 <= channels <= _native.MAX_CHANNELS:
        raise RuntimeError(
            f"{call}: frame has {shown(channels)} channels, expected 1 to {_native.MAX_CHANNELS}"
        )
    if count != rate_hz // FRAMES_PER_S:
        raise RuntimeError(
            f"{call}: frame has {shown(count)} samples per channel, "
            f"expected {rate_hz // FRAMES_PER_S} (10 ms at {rate_hz} Hz)"
        )
    return rate_hz, channels
