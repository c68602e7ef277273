"""Clocks: what the time is, how far another card's clock is off the microphone's, and sound moved from one
to the other.

The microphone's card sets the pace. A card on another crystal gains or loses up to 100 samples a second on it
(+-500 ppm each); left alone, its queue would run dry or over within minutes and the echo path would seem to
grow. So what goes to or comes from such a card is resampled by `Resampler`, with the ratio that `Drift` finds
from how early or late the sound is. A card that shares the microphone's clock needs neither: `Settling` puts
it in place to the sample, once.
"""

import ctypes
import time

import numpy as np
from numpy.typing import NDArray

from apmpi.errors import EndpointError


class Timebase:
    """What the time is for the cards: CLOCK_MONOTONIC, unless a room card lives `speed` times as fast."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed

    def now_ns(self) -> int:
        return self.of_monotonic(time.monotonic_ns())

    def of_monotonic(self, monotonic_ns: int) -> int:
        return monotonic_ns if self._speed == 1.0 else int(monotonic_ns * self._speed)

    def real_s(self, seconds: float) -> float:
        """How long somebody must really wait for `seconds` to pass."""
        return seconds / self._speed


class Drift:
    """A PI loop on how late the sound of one card is, one step for each block.

    The loop is critically damped with the bandwidth w (rad/s): proportional gain 2 w, integral gain w^2. It
    starts wide and narrows as 4 / (t + 1 s), about as fast as a regression over all that was seen would, so
    that 1000 ppm are found to 20 ppm in 5 s and to 1 ppm in 20 s, and stays at W_FINAL: there the rounding of
    positions to whole samples moves the sound by some hundredths of a sample, and one of 1 ms, as USB has it,
    by half a sample. After a placement, which is as good as a single look at the positions, the proportional
    gain alone is that of a running mean (1 / t): it puts the sound where it was within some 0.1 s.

    ppm   how much faster the card's clock is than the microphone's
    """

    W_FINAL = 0.1
    # Two crystals off by 500 ppm each, and a bit.
    PPM_MAX = 1200.0
    # The ratio's whole range: 1500 ppm are 2.6 cents, half of what a trained ear hears in a held note.
    RATIO_PPM_MAX = 1500.0
    # What is further off was a look at a bad moment (the thread was stopped between time and position).
    ERROR_MAX_S = 0.002

    def __init__(self, frame_s: float, ppm: float = 0.0) -> None:
        self._frame_s = frame_s
        self._integral = ppm * 1e-6
        self._since_start_s = 0.0
        self._since_placed_s = 0.0

    @property
    def ppm(self) -> float:
        return self._integral * 1e6

    def placed(self) -> None:
        """The sound has just been put where it belongs."""
        self._since_placed_s = 0.0

    def ratio(self, late_s: float) -> float:
        """How many samples the card needs for one of the microphone's, in the next block. `late_s`: by how
        much its queue of sound is too long."""
        late_s = min(max(late_s, -self.ERROR_MAX_S), self.ERROR_MAX_S)
        w = max(self.W_FINAL, 4.0 / (self._since_start_s + 1.0))
        proportional = max(2.0 * w, 1.0 / (self._since_placed_s + 0.1))
        self._since_start_s += self._frame_s
        self._since_placed_s += self._frame_s
        limit = self.PPM_MAX * 1e-6
        self._integral = min(max(self._integral - w * w * late_s * self._frame_s, -limit), limit)
        limit = self.RATIO_PPM_MAX * 1e-6
        return 1.0 + min(max(self._integral - proportional * late_s, -limit), limit)


class Settling:
    """For a card with the microphone's clock: puts the sound where it belongs, to the sample.

    A placement is only as exact as one look at two positions, each rounded to a whole sample or worse. The
    mean of some looks later says by how many samples it was wrong.
    """

    LOOKS = 10

    def __init__(self) -> None:
        self.placed()

    def placed(self) -> None:
        """The sound has just been put about where it belongs."""
        self._looks = 0
        self._sum = self._sum_of_squares = 0.0

    def late_samples(self, late_samples: float) -> int:
        """`late_samples`: one look. Returns by how many samples to correct now; 0 nearly always."""
        if self._looks == self.LOOKS:
            return 0
        self._looks += 1
        self._sum += late_samples
        self._sum_of_squares += late_samples**2
        if self._looks < self.LOOKS:
            return 0
        mean = self._sum / self.LOOKS
        variance = max(self._sum_of_squares / self.LOOKS - mean**2, 0.0)
        if abs(mean) < max(0.5, 3.0 * (variance / self.LOOKS) ** 0.5):
            return 0
        self.placed()
        return round(mean)


class _SrcData(ctypes.Structure):
    """SRC_DATA of samplerate.h."""

    _fields_ = (
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("input_frames", ctypes.c_long),
        ("output_frames", ctypes.c_long),
        ("input_frames_used", ctypes.c_long),
        ("output_frames_gen", ctypes.c_long),
        ("end_of_input", ctypes.c_int),
        ("src_ratio", ctypes.c_double),
    )


class Resampler:
    """libsamplerate on a stream of interleaved int16, its ratio moving from block to block without a click.

    SINC_FASTEST: 97 dB, flat to 80 % of the band; 20 samples (of the lower rate) wait in the filter, 0.4 ms
    at 48 kHz. SINC_MEDIUM_QUALITY: 121 dB, 90 %, 46 samples, twice the processor; the best one takes 143
    samples and six times the processor. It is called directly because it is in Debian, and its Python
    packages allocate for each block. Nothing is allocated here but the bytes returned.

    pending   output samples per channel that the input so far is still worth, with their fraction: the next
              one to come out belongs this much before the next one to go in
    """

    SINC_MEDIUM_QUALITY, SINC_FASTEST = 1, 2

    def __init__(
        self, channels: int, samples_max: int, ratio_max: float, converter: int = SINC_FASTEST
    ) -> None:
        """Blocks of at most `samples_max` per channel; `ratio_max` samples out for one in. Raises
        EndpointError if the library is missing."""
        try:
            self._library = ctypes.CDLL("libsamplerate.so.0")
        except OSError:
            problem = "different clocks or rates need libsamplerate: apt-get install libsamplerate0"
            raise EndpointError(problem) from None
        self._library.src_new.restype = ctypes.c_void_p
        self._library.src_process.argtypes = [ctypes.c_void_p, ctypes.POINTER(_SrcData)]
        self._library.src_delete.argtypes = [ctypes.c_void_p]
        self._in: NDArray[np.float32] = np.zeros((samples_max, channels), np.float32)
        # The filter's start and the fraction of a sample come on top.
        self._out: NDArray[np.float32] = np.zeros((int(samples_max * ratio_max) + 64, channels), np.float32)
        code = ctypes.c_int()
        self._state = self._library.src_new(converter, channels, ctypes.byref(code))
        if not self._state:
            raise MemoryError
        self._data = _SrcData(data_in=self._in.ctypes.data, data_out=self._out.ctypes.data)
        self._channels = channels
        self._ratio = 0.0
        self.pending = 0.0

    def process(self, samples: bytes, ratio: float) -> bytes:
        """The samples that `samples` give, `ratio` for each."""
        block = np.frombuffer(samples, "<i2").reshape(-1, self._channels)
        count = len(block)
        np.multiply(block, np.float32(1 / 32768), out=self._in[:count])
        data = self._data
        data.input_frames, data.output_frames, data.src_ratio = count, len(self._out), ratio
        code = self._library.src_process(self._state, ctypes.byref(data))
        if code != 0 or data.input_frames_used != count:
            raise RuntimeError(f"libsamplerate: error {code}, {data.input_frames_used} of {count} samples")
        # The ratio moves evenly from where it was, and would be there when all of data_out were filled.
        before = self._ratio or ratio
        self._ratio = before + (ratio - before) * data.output_frames_gen / data.output_frames
        self.pending += count * (before + self._ratio) / 2 - data.output_frames_gen
        out = self._out[: data.output_frames_gen]
        np.multiply(out, np.float32(32768), out=out)
        np.rint(out, out=out)
        np.clip(out, -32768, 32767, out=out)
        return out.astype("<i2").tobytes()

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.src_delete(self._state)
