"""Resampling of sound that comes from programs and files; it needs no sound card and no alsa-lib."""

import ctypes

from apmpi.errors import EndpointError
from apmpi.units import SAMPLE_BYTES


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
        self._library.src_short_to_float_array.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._library.src_float_to_short_array.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        # 64 more for the start of the filter and the fraction of a sample.
        self._out_max = int(samples_max * ratio_max) + 64
        self._in = (ctypes.c_float * (samples_max * channels))()
        self._out = (ctypes.c_float * (self._out_max * channels))()
        self._rounded = (ctypes.c_int16 * (self._out_max * channels))()
        code = ctypes.c_int()
        self._state = self._library.src_new(converter, channels, ctypes.byref(code))
        if not self._state:
            raise MemoryError
        self._data = _SrcData(data_in=ctypes.addressof(self._in), data_out=ctypes.addressof(self._out))
        self._channels = channels
        self._ratio = 0.0
        self.pending = 0.0

    def process(self, samples: bytes, ratio: float) -> bytes:
        """Return `samples` resampled, `ratio` output samples for each."""
        count = len(samples) // (SAMPLE_BYTES * self._channels)
        if count * self._channels > len(self._in):
            raise RuntimeError(f"{count} samples given, expected at most {len(self._in) // self._channels}")
        self._library.src_short_to_float_array(samples, self._in, count * self._channels)
        data = self._data
        data.input_frames, data.output_frames, data.src_ratio = count, self._out_max, ratio
        code = self._library.src_process(self._state, ctypes.byref(data))
        if code != 0 or data.input_frames_used != count:
            raise RuntimeError(f"libsamplerate: error {code}, {data.input_frames_used} of {count} samples")
        # libsamplerate interpolates the ratio linearly, to reach the new one when data_out is full.
        before = self._ratio or ratio
        self._ratio = before + (ratio - before) * data.output_frames_gen / data.output_frames
        self.pending += count * (before + self._ratio) / 2 - data.output_frames_gen
        given = data.output_frames_gen * self._channels
        self._library.src_float_to_short_array(self._out, self._rounded, given)
        return ctypes.string_at(self._rounded, given * SAMPLE_BYTES)

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.src_delete(self._state)
