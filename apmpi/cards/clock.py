"""Clocks: the time base, the drift of another card's clock against the microphone's, and resampling.

The microphone's card sets the pace. A card on another crystal gains or loses up to 48 samples a second on it
at 48 kHz (two crystals, +-500 ppm each); uncorrected, its queue would underrun or overrun within minutes and
the delay of the echo path would seem to grow. So sound to or from such a card is resampled by `Resampler`,
with the ratio that `Drift` estimates from the lateness of the sound. A card that shares the microphone's
clock needs neither: `Settling` corrects its placement to the sample, once.
"""

import ctypes
import time

import numpy as np
from numpy.typing import NDArray

from apmpi.errors import EndpointError


class Timebase:
    """Clock of the cards: CLOCK_MONOTONIC, or `speed` times as fast with a room card."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed

    def now_ns(self) -> int:
        return self.of_monotonic(time.monotonic_ns())

    def of_monotonic(self, monotonic_ns: int) -> int:
        return monotonic_ns if self._speed == 1.0 else int(monotonic_ns * self._speed)

    def real_s(self, seconds: float) -> float:
        """Return the real seconds in which `seconds` of this clock pass."""
        return seconds / self._speed


class Drift:
    """PI controller on the lateness of one card's sound, one step per frame.

    It is critically damped with the bandwidth w (rad/s): proportional gain 2 w, integral gain w^2. The
    bandwidth starts wide and narrows as 4 / (t + 1 s), about as fast as that of a regression over all
    readings, so that 1000 ppm are found to 20 ppm in 5 s and to 1 ppm in 20 s. It ends at W_FINAL: there
    positions rounded to whole samples move the sound by some hundredths of a sample, and positions rounded to
    1 ms, as USB reports them, by half a sample. After a placement, which is as exact as one reading of the
    positions, the proportional gain alone is that of a running mean (1 / t), which restores the place of the
    sound within about 0.1 s.

    ppm   card clock over microphone clock
    """

    W_FINAL = 0.1  # rad/s
    # Two crystals off by 500 ppm each, with a margin of a fifth.
    PPM_MAX = 1200.0
    # Range of the ratio: 1500 ppm are 2.6 cents, half of what a trained ear hears in a held note.
    RATIO_PPM_MAX = 1500.0
    # Limit of one reading: a larger one is false (the thread was interrupted between time and position).
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
        """Restarts the proportional gain: the sound has been placed."""
        self._since_placed_s = 0.0

    def ratio(self, late_s: float) -> float:
        """Return the card's samples per sample of the microphone for the next frame.

        late_s: lateness of the sound, by which the card's queue is too long
        """
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
    """Exact placement of the sound of a card on the microphone's clock, to the sample.

    A placement is only as exact as one reading of two positions, each rounded to a whole sample or more. The
    mean of READINGS later ones is the error of the placement in samples.
    """

    READINGS = 10

    def __init__(self) -> None:
        self.placed()

    def placed(self) -> None:
        """Restarts the readings: the sound has been placed."""
        self._readings = 0
        self._sum = self._sum_of_squares = 0.0

    def late_samples(self, late_samples: float) -> int:
        """Take one reading of the lateness; return by how many samples to correct now, which is 0 unless the
        mean of READINGS is above half a sample and three times its standard error."""
        if self._readings == self.READINGS:
            return 0
        self._readings += 1
        self._sum += late_samples
        self._sum_of_squares += late_samples**2
        if self._readings < self.READINGS:
            return 0
        mean = self._sum / self.READINGS
        variance = max(self._sum_of_squares / self.READINGS - mean**2, 0.0)
        if abs(mean) < max(0.5, 3.0 * (variance / self.READINGS) ** 0.5):
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
    """libsamplerate on a stream of interleaved int16; its ratio may change between calls without clicks.

    SINC_FASTEST: 97 dB, flat to 80 % of the band; its filter holds back 20 samples (of the lower rate),
    0.4 ms at 48 kHz. SINC_MEDIUM_QUALITY: 121 dB, 90 %, 46 samples, twice the processor time; the best one
    takes 143 samples and six times the processor time. The library is called directly because Debian has it
    and its Python packages allocate with each call. Nothing is allocated here but the bytes returned.

    pending   output samples per channel, with their fraction, that the input so far has not yet given: the
              time from the next output sample to the next input sample
    """

    SINC_MEDIUM_QUALITY, SINC_FASTEST = 1, 2

    def __init__(
        self, channels: int, samples_max: int, ratio_max: float, converter: int = SINC_FASTEST
    ) -> None:
        """For at most `samples_max` per channel in a call, and at most `ratio_max` output samples per input
        sample. Raises EndpointError if the library is missing."""
        try:
            self._library = ctypes.CDLL("libsamplerate.so.0")
        except OSError:
            problem = "different clocks or rates need libsamplerate: apt-get install libsamplerate0"
            raise EndpointError(problem) from None
        self._library.src_new.restype = ctypes.c_void_p
        self._library.src_process.argtypes = [ctypes.c_void_p, ctypes.POINTER(_SrcData)]
        self._library.src_delete.argtypes = [ctypes.c_void_p]
        self._in: NDArray[np.float32] = np.zeros((samples_max, channels), np.float32)
        # 64 more for the start of the filter and the fraction of a sample.
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
        """Return `samples` resampled, `ratio` output samples for each."""
        given = np.frombuffer(samples, "<i2").reshape(-1, self._channels)
        count = len(given)
        np.multiply(given, np.float32(1 / 32768), out=self._in[:count])
        data = self._data
        data.input_frames, data.output_frames, data.src_ratio = count, len(self._out), ratio
        code = self._library.src_process(self._state, ctypes.byref(data))
        if code != 0 or data.input_frames_used != count:
            raise RuntimeError(f"libsamplerate: error {code}, {data.input_frames_used} of {count} samples")
        # libsamplerate interpolates the ratio linearly, to reach the new one when data_out is full.
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
