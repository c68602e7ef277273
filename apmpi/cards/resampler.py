"""Resampling of sound that comes from programs and files; it needs no sound card and no alsa-lib."""

import ctypes

from apmpi.errors import EndpointError
from apmpi.units import FRAMES_PER_S, SAMPLE_BYTES


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
    """libsamplerate on a stream of interleaved int16 in chunks of any length; equal rates pass unchanged.

    SINC_FASTEST: 97 dB, flat to 80 % of the band; its filter holds back 20 samples (of the lower rate),
    0.4 ms at 48 kHz. SINC_MEDIUM_QUALITY: 121 dB (less than a 16-bit step), 90 %, 46 samples, twice the
    processor time; the best one takes 143 samples and six times the processor time. The library is called
    directly because Debian has it and its Python packages allocate with each call. Nothing is allocated here
    but the bytes returned.
    """

    SINC_MEDIUM_QUALITY, SINC_FASTEST = 1, 2

    def __init__(self, from_hz: int, to_hz: int, channels: int, converter: int = SINC_FASTEST) -> None:
        """Raises EndpointError if the rates differ and the library is missing."""
        self._state = None
        if from_hz == to_hz:
            return
        try:
            self._library = ctypes.CDLL("libsamplerate.so.0")
        except OSError:
            problem = "different rates need libsamplerate: apt-get install libsamplerate0"
            raise EndpointError(problem) from None
        self._library.src_new.restype = ctypes.c_void_p
        self._library.src_process.argtypes = [ctypes.c_void_p, ctypes.POINTER(_SrcData)]
        self._library.src_delete.argtypes = [ctypes.c_void_p]
        self._library.src_short_to_float_array.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._library.src_float_to_short_array.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._channels = channels
        self._piece_samples = -(-from_hz // FRAMES_PER_S)
        ratio = to_hz / from_hz
        # 64 more for the start of the filter and the fraction of a sample.
        out_max = int(self._piece_samples * ratio) + 64
        self._in = (ctypes.c_float * (self._piece_samples * channels))()
        self._out = (ctypes.c_float * (out_max * channels))()
        self._rounded = (ctypes.c_int16 * (out_max * channels))()
        self._data = _SrcData(
            data_in=ctypes.addressof(self._in),
            data_out=ctypes.addressof(self._out),
            output_frames=out_max,
            src_ratio=ratio,
        )
        code = ctypes.c_int()
        self._state = self._library.src_new(converter, channels, ctypes.byref(code))
        if not self._state:
            raise MemoryError

    def process(self, samples: bytes) -> bytes:
        """Return what can be given of `samples` resampled, after what earlier calls held back."""
        if self._state is None:
            return samples
        piece_bytes = self._piece_samples * self._channels * SAMPLE_BYTES
        pieces = range(0, len(samples), piece_bytes)
        return b"".join(self._process_piece(samples[at : at + piece_bytes]) for at in pieces)

    def _process_piece(self, samples: bytes) -> bytes:
        count = len(samples) // (SAMPLE_BYTES * self._channels)
        self._library.src_short_to_float_array(samples, self._in, count * self._channels)
        data = self._data
        data.input_frames = count
        code = self._library.src_process(self._state, ctypes.byref(data))
        if code != 0 or data.input_frames_used != count:
            raise RuntimeError(f"libsamplerate: error {code}, {data.input_frames_used} of {count} samples")
        given = data.output_frames_gen * self._channels
        self._library.src_float_to_short_array(self._out, self._rounded, given)
        return ctypes.string_at(self._rounded, given * SAMPLE_BYTES)

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.src_delete(self._state)
