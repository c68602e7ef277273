"""Opening of devices by ALSA's own library, with the reason if one takes no sound.

pyalsaaudio can open devices, too, but 0.11 leaks memory: 80 bytes when a device cannot be opened, 50 in
info(), 65 for each format in getformats(). A lost device is tried twice a second, for months.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref, c_char_p, c_int, c_uint, c_ulong, c_void_p
from dataclasses import dataclass

from apmpi.errors import ALSA_LIBRARY

try:
    _libc, _alsa = ctypes.CDLL(None), ctypes.CDLL(ALSA_LIBRARY)
except OSError as error:
    raise ImportError(str(error), name=ALSA_LIBRARY) from None
_alsa.snd_lib_error_set_local.restype = c_void_p
_alsa.snd_lib_error_set_local.argtypes = [c_void_p]
_alsa.snd_pcm_format_name.restype = c_char_p
_alsa.snd_strerror.restype = c_char_p
for _function in ("first", "next", "end", "entry"):
    getattr(_alsa, f"snd_config_iterator_{_function}").restype = c_void_p
    getattr(_alsa, f"snd_config_iterator_{_function}").argtypes = [c_void_p]
_LocalErrorHandler = ctypes.CFUNCTYPE(None, c_char_p, c_int, c_char_p, c_int, c_char_p, c_void_p)

PLAYBACK, CAPTURE = 0, 1  # SND_PCM_STREAM_... of <alsa/pcm.h>
NONBLOCK, RW_INTERLEAVED, FORMAT_LAST = 1, 3, 52  # SND_PCM_...
TSTAMP_ENABLE = TSTAMP_TYPE_MONOTONIC = 1  # SND_PCM_...
CONFIG_STRING, CONFIG_COMPOUND = 3, 1024  # SND_CONFIG_TYPE_... of <alsa/conf.h>
# Number of names from which a definition counts as endless; ALSA itself follows a chain of 64
# (SND_CONF_MAX_HOPS), and a name may have several slaves.
DEFINITIONS_MAX = 256

# Raises AlsaError for a negative result, and returns any other.
Check = Callable[[int], int]


class AlsaError(Exception):
    """A refusal by ALSA: its error number, and its reason if it gave one."""

    def __init__(self, code: int, complaint: str) -> None:
        super().__init__(complaint or _alsa.snd_strerror(code).decode())
        self.errno = -code
        self.complaint = complaint


@dataclass(frozen=True)
class Offer:
    """Parameters of a device nearest to those requested, and its ranges.

    Periods and buffers are in samples per channel, which ALSA calls frames. The card's number is the
    kernel's, -1 for a plugin that is no card.
    """

    card_number: int
    sample_format: str
    rate_hz: int
    channels: int
    period_samples: int
    buffer_samples: int
    formats: list[str]
    rates_hz: range
    channel_counts: range


def offer(
    device: str,
    direction: int,
    formats: Sequence[str],
    rate_hz: int,
    channels: int,
    period_samples: int,
    periods: int,
) -> Offer:
    """Return the offer of a device; it is closed again. Raises AlsaError."""
    found, pcm = opened(device, direction, formats, rate_hz, channels, period_samples, periods)
    close(pcm)
    return found


def close(pcm: int) -> None:
    """Close the device of a handle."""
    _alsa.snd_pcm_close(c_void_p(pcm))


def opened(
    device: str,
    direction: int,
    formats: Sequence[str],
    rate_hz: int,
    channels: int,
    period_samples: int,
    periods: int,
) -> tuple[Offer, int]:
    """Open a device with the first of `formats` that it has and the nearest of all other parameters.

    Its transfers don't wait; its positions have times of CLOCK_MONOTONIC. Return its offer and its handle,
    which is to be closed. Raises AlsaError.
    """
    said: list[str] = []

    def check(code: int) -> int:
        if code < 0:
            # The first complaint is the cause, later ones are its consequences.
            raise AlsaError(code, said[0] if said else "")
        return code

    if command := command_of(device):
        raise AlsaError(-errno.EPERM, f"it runs the command {command!r}, expected a device that runs none")
    with complaints(said), contextlib.ExitStack() as after_an_error:
        pcm = c_void_p()
        check(_alsa.snd_pcm_open(byref(pcm), device.encode(errors="surrogateescape"), direction, NONBLOCK))
        after_an_error.callback(_alsa.snd_pcm_close, pcm)
        found = _set_up(pcm, check, formats, rate_hz, channels, period_samples, periods)
        _use_monotonic_times(pcm, check)
        after_an_error.pop_all()
        assert pcm.value is not None
        return found, pcm.value


def _set_up(
    pcm: c_void_p,
    check: Check,
    formats: Sequence[str],
    rate_hz: int,
    channels: int,
    period_samples: int,
    periods: int,
) -> Offer:
    """Set the parameters nearest to these, and return those in use."""
    with contextlib.ExitStack() as at_the_end:
        hardware, info = _described(pcm, check, at_the_end)
        known = {
            _alsa.snd_pcm_format_name(number).decode(): number
            for number in range(FORMAT_LAST + 1)
            if _alsa.snd_pcm_hw_params_test_format(pcm, hardware, number) == 0
        }

        def got(name: str, kind: type[c_int | c_uint | c_ulong], *more: object) -> int:
            value = kind()
            check(getattr(_alsa, f"snd_pcm_hw_params_get_{name}")(hardware, byref(value), *more))
            return int(value.value)

        def between(name: str, *more: object) -> range:
            return range(got(f"{name}_min", c_uint, *more), got(f"{name}_max", c_uint, *more) + 1)

        rates_hz, channel_counts = between("rate", None), between("channels")
        _alsa.snd_pcm_hw_params_set_access(pcm, hardware, RW_INTERLEAVED)
        if chosen := next(filter(known.__contains__, formats), None):
            _alsa.snd_pcm_hw_params_set_format(pcm, hardware, known[chosen])
        _alsa.snd_pcm_hw_params_set_channels(pcm, hardware, channels)
        _alsa.snd_pcm_hw_params_set_rate_near(pcm, hardware, byref(c_uint(rate_hz)), None)
        _alsa.snd_pcm_hw_params_set_period_size_near(pcm, hardware, byref(c_ulong(period_samples)), None)
        _alsa.snd_pcm_hw_params_set_periods_near(pcm, hardware, byref(c_uint(periods)), None)
        check(_alsa.snd_pcm_hw_params(pcm, hardware))
        return Offer(
            card_number=_alsa.snd_pcm_info_get_card(info),
            sample_format=_alsa.snd_pcm_format_name(got("format", c_int)).decode(),
            rate_hz=got("rate", c_uint, None),
            channels=got("channels", c_uint),
            period_samples=got("period_size", c_ulong, None),
            buffer_samples=got("buffer_size", c_ulong),
            formats=list(known),
            rates_hz=rates_hz,
            channel_counts=channel_counts,
        )


def _described(pcm: c_void_p, check: Check, at_the_end: contextlib.ExitStack) -> tuple[c_void_p, c_void_p]:
    """Return all hardware parameters of a device and its info, freed by `at_the_end`."""
    hardware, info = c_void_p(), c_void_p()
    check(_alsa.snd_pcm_hw_params_malloc(byref(hardware)))
    at_the_end.callback(_alsa.snd_pcm_hw_params_free, hardware)
    check(_alsa.snd_pcm_info_malloc(byref(info)))
    at_the_end.callback(_alsa.snd_pcm_info_free, info)
    check(_alsa.snd_pcm_info(pcm, info))
    check(_alsa.snd_pcm_hw_params_any(pcm, hardware))
    return hardware, info


def _use_monotonic_times(pcm: c_void_p, check: Check) -> None:
    software = c_void_p()
    check(_alsa.snd_pcm_sw_params_malloc(byref(software)))
    try:
        check(_alsa.snd_pcm_sw_params_current(pcm, software))
        check(_alsa.snd_pcm_sw_params_set_tstamp_mode(pcm, software, TSTAMP_ENABLE))
        check(_alsa.snd_pcm_sw_params_set_tstamp_type(pcm, software, TSTAMP_TYPE_MONOTONIC))
        check(_alsa.snd_pcm_sw_params(pcm, software))
    finally:
        _alsa.snd_pcm_sw_params_free(software)


def command_of(device: str) -> str | None:
    """Return the shell command that ALSA would run for a device, None if it would run none.

    ALSA's `file` plugin pipes its sound to a command if its file's name begins with "|". It is reachable from
    any name ("file:'|...'", "plug:...", "tee:..."), so ALSA's own definition of the name is searched.
    Raises AlsaError for a definition without end.
    """
    bases = {b"pcm": b"pcm", b"slave": b"pcm_slave", b"pcm_slave": b"pcm_slave"}
    seen = [(b"pcm", device.encode(errors="surrogateescape"))]
    with complaints([]), contextlib.ExitStack() as at_the_end:  # other errors are reported when it is opened
        top = c_void_p()
        if _alsa.snd_config_update_ref(byref(top)) < 0:
            return None
        at_the_end.callback(_alsa.snd_config_unref, top)
        for base, name in seen:  # grows during the loop
            for key, value in _definition(top, base, name):
                if key == b"file" and b"|" in value:
                    return value.decode(errors="replace").partition("|")[2].strip()
                if key in bases and (bases[key], value) not in seen:
                    seen.append((bases[key], value))
            if len(seen) > DEFINITIONS_MAX:
                raise AlsaError(-errno.ELOOP, f"its definition refers to more than {DEFINITIONS_MAX} others")
    return None


def _definition(top: c_void_p, base: bytes, name: bytes) -> list[tuple[bytes, bytes]]:
    """Return (key, text) of all texts in the definition of a name; of an alias, that of its target."""
    node = c_void_p()
    if _alsa.snd_config_search_definition(top, base, name, byref(node)) < 0:
        return []
    try:
        return [*_texts(node.value, base)]
    finally:
        _alsa.snd_config_delete(node)


def _texts(node: int | None, key: bytes) -> Iterator[tuple[bytes, bytes]]:
    kind = _alsa.snd_config_get_type(c_void_p(node))
    if kind == CONFIG_COMPOUND:
        position = _alsa.snd_config_iterator_first(node)
        while position != _alsa.snd_config_iterator_end(node):
            child, child_key = _alsa.snd_config_iterator_entry(position), c_char_p()
            _alsa.snd_config_get_id(c_void_p(child), byref(child_key))
            yield from _texts(child, child_key.value or b"")
            position = _alsa.snd_config_iterator_next(position)
    elif kind == CONFIG_STRING:
        text = c_char_p()
        _alsa.snd_config_get_string(c_void_p(node), byref(text))
        yield key, text.value or b""


@contextlib.contextmanager
def complaints(said: list[str]) -> Iterator[None]:
    """Collects in `said` the messages that ALSA would write to standard error, for apmpi's own messages.

    Applies to the calling thread only (snd_lib_error_set_local).
    """

    def keep(file: bytes, line: int, function: bytes, code: int, form: bytes, arguments: int) -> None:
        text = ctypes.create_string_buffer(512)
        # A va_list travels as a pointer (x86-64, arm64) or is one (arm).
        _libc.vsnprintf(text, ctypes.c_size_t(len(text)), form, c_void_p(arguments))
        said.append(text.value.decode(errors="replace").strip())

    handler = _LocalErrorHandler(keep)
    before = _alsa.snd_lib_error_set_local(ctypes.cast(handler, c_void_p))
    try:
        yield
    finally:
        _alsa.snd_lib_error_set_local(before)
