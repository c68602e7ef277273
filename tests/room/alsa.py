"""Calls of alsa-lib that pyalsaaudio lacks, with alsa-lib's own error codes; and the room card's clock."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p
from pathlib import Path

import numpy as np

PLAYBACK, CAPTURE = 0, 1
PREPARED, RUNNING, XRUN, DISCONNECTED = 2, 3, 4, 8
FORMATS = {"S16_LE": (2, "<i2"), "S32_LE": (10, "<i4"), "FLOAT_LE": (14, "<f4")}
RW_INTERLEAVED = 3

_lib = ctypes.CDLL("libasound.so.2")
_lib.snd_pcm_open.argtypes = [c_void_p, c_char_p, c_int, c_int]
_lib.snd_pcm_readi.argtypes = _lib.snd_pcm_writei.argtypes = [c_void_p, c_void_p, c_ulong]
_lib.snd_pcm_readi.restype = _lib.snd_pcm_writei.restype = c_long
_lib.snd_pcm_avail.restype = c_long
for _name in ("close", "prepare", "start", "drop", "drain", "state", "avail", "resume", "hw_params_any"):
    getattr(_lib, f"snd_pcm_{_name}").argtypes = [c_void_p]
_lib.snd_pcm_delay.argtypes = [c_void_p, c_void_p]
_lib.snd_pcm_wait.argtypes = [c_void_p, c_int]
_lib.snd_pcm_htimestamp.argtypes = [c_void_p, c_void_p, c_void_p]


class AlsaError(Exception):
    """An alsa-lib call failed while opening; `code` is a negative errno."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: {errno.errorcode.get(-code, code)}")
        self.code = code


def _check(call: str, code: int) -> None:
    if code < 0:
        raise AlsaError(call, code)


class Pcm:
    """One stream, set to exactly these parameters. Methods return alsa-lib's values, errors included."""

    def __init__(
        self,
        name: str,
        direction: int,
        rate_hz: int = 16000,
        *,
        channels: int = 1,
        period: int = 160,
        periods: int = 4,
        sample_format: str = "S16_LE",
    ) -> None:
        self.handle = c_void_p()
        number, dtype = FORMATS[sample_format]
        self.dtype, self.channels, self.period, self.buffer = (
            np.dtype(dtype),
            channels,
            period,
            period * periods,
        )
        _check("open", _lib.snd_pcm_open(byref(self.handle), name.encode(), direction, 0))
        try:
            self._configure(rate_hz, number)
        except AlsaError:
            self.close()
            raise

    def _configure(self, rate_hz: int, sample_format: int) -> None:
        params = c_void_p()
        _check("malloc", _lib.snd_pcm_hw_params_malloc(byref(params)))
        try:
            _check("any", _lib.snd_pcm_hw_params_any(self.handle, params))
            for what, value in (
                ("access", c_int(RW_INTERLEAVED)),
                ("format", c_int(sample_format)),
                ("channels", c_uint(self.channels)),
            ):
                _check(what, getattr(_lib, f"snd_pcm_hw_params_set_{what}")(self.handle, params, value))
            for what, value in (("rate", c_uint(rate_hz)), ("period_size", c_ulong(self.period))):
                setter = getattr(_lib, f"snd_pcm_hw_params_set_{what}")
                _check(what, setter(self.handle, params, value, c_int(0)))
            setter = _lib.snd_pcm_hw_params_set_buffer_size
            _check("buffer_size", setter(self.handle, params, c_ulong(self.buffer)))
            _check("hw_params", _lib.snd_pcm_hw_params(self.handle, params))
        finally:
            _lib.snd_pcm_hw_params_free(params)

    def __enter__(self) -> Pcm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.handle:
            _lib.snd_pcm_close(self.handle)
            self.handle = c_void_p()

    def read(self, frames: int = 0) -> tuple[int, np.ndarray]:
        """Return (frames read or negative errno, samples as [frames, channels], or [frames] when mono)."""
        data = np.zeros((frames or self.period, self.channels), self.dtype)
        got = _lib.snd_pcm_readi(self.handle, data.ctypes.data, len(data))
        data = data[: max(got, 0)]
        return got, data[:, 0] if self.channels == 1 else data

    def read_exactly(self, frames: int) -> np.ndarray:
        parts = []
        while frames > 0:
            got, data = self.read(min(frames, self.period))
            _check("read", got)
            parts.append(data)
            frames -= got
        return np.concatenate(parts)

    def write(self, samples: np.ndarray) -> int:
        """Return frames written or negative errno; `samples` as read() returns them."""
        data = np.ascontiguousarray(samples, self.dtype)
        return int(_lib.snd_pcm_writei(self.handle, data.ctypes.data, len(data)))

    def __getattr__(self, call: str) -> Callable[[], int]:
        """Return prepare(), start(), drop(), drain(), state(), avail(): alsa-lib's calls without other
        arguments.
        """
        function = getattr(_lib, f"snd_pcm_{call}")
        return lambda: int(function(self.handle))

    def delay(self) -> tuple[int, int]:
        frames = c_long()
        return int(_lib.snd_pcm_delay(self.handle, byref(frames))), frames.value

    def wait(self, timeout_ms: int) -> int:
        return int(_lib.snd_pcm_wait(self.handle, timeout_ms))

    def htimestamp(self) -> tuple[int, int]:
        """Return (frames available, nanoseconds)."""
        available, stamp = c_ulong(), (c_long * 2)()
        _check("htimestamp", _lib.snd_pcm_htimestamp(self.handle, byref(available), stamp))
        return available.value, stamp[0] * 10**9 + stamp[1]


class SharedCard:
    """The header of native/roomcard/card.h, read while a stream is open."""

    def __init__(self, card: str) -> None:
        self.path = Path(f"/dev/shm/apmpi-room-{os.geteuid()}-{card}")

    def _field(self, form: str, offset: int) -> int:
        with self.path.open("rb") as file:
            return int(struct.unpack_from(form, file.read(72), offset)[0])

    @property
    def epoch_ns(self) -> int:
        return self._field("<q", 16)

    @property
    def first_captured(self) -> int:
        """Card sample of the first frame that was ever captured."""
        return self._field("<q", 48)

    @property
    def lost_ns(self) -> int:
        """Time in ns by which the machine's standstills have delayed the card's clock (card_clock.h)."""
        return (self._field("<Q", 64) & 0xFFFF_FFFF) * 8192
