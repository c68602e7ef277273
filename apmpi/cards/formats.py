"""Sample formats and channel layouts: conversions from and to the interleaved int16 that apmpi processes."""

from array import array

from apmpi._cards import from_int16, level, to_int16

__all__ = ["FORMATS", "from_int16", "level", "picked", "repeated", "to_int16"]

# ALSA's names, little endian, in the order in which they are tried: the processing has 16 bits, so that no
# conversion comes first. Conversions to int16 round, those from int16 are exact (native/cards/formats.h).
FORMATS = ("S16_LE", "S32_LE", "S24_3LE", "FLOAT_LE")


def picked(samples: bytes, channels: int, wanted: tuple[int, ...]) -> bytes:
    """Return the channels `wanted`, counted from 0, of interleaved int16 of `channels`."""
    every = array("h", samples)
    out = array("h", bytes(len(samples) // channels * len(wanted)))
    for position, channel in enumerate(wanted):
        out[position :: len(wanted)] = every[channel::channels]
    return out.tobytes()


def repeated(samples: bytes, wanted: int) -> bytes:
    """Return mono int16 as interleaved int16 of `wanted` equal channels."""
    mono, out = array("h", samples), array("h", bytes(len(samples) * wanted))
    for channel in range(wanted):
        out[channel::wanted] = mono
    return out.tobytes()
