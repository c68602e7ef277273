"""Echo path from loudspeaker to microphone, measured with an exponential sine sweep.

Farina, "Simultaneous measurement of impulse response and distortion with a swept-sine technique", AES 108th
convention, 2000: dividing the recorded spectrum by that of the sweep gives the impulse response. The harmonic
of order k appears as a response of its own, T ln(k) / ln(f2 / f1) earlier.
Schroeder, "New method of measuring reverberation time", JASA 37, 1965: the decay is the backward integral of
the squared response.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

SWEEP_S = 2.0
LOW_HZ, HIGH_HZ = 100.0, 16000.0  # upper end: this or 0.45 of the rate
FADE_S = 0.01
# Largest delay of the response that is searched.
LATEST_S = 1.2
# Regularisation of the division: bins this far below the sweep's strongest bin count as outside the sweep.
SPECTRUM_FLOOR_DB = -50.0
# Least ratio of the response's squared peak to the noise power of a detected response.
HEARD_DB = 20.0
# Range of the decay from which its slope is taken, straight in every room, and the least usable end of it.
DECAY_BEGIN_DB, DECAY_END_DB, DECAY_LEAST_DB = -5.0, -25.0, -15.0
# The decay ends where it comes this close to the noise.
NOISE_MARGIN_DB = 10.0
# Fundamentals for distortion: a small loudspeaker plays them, and their third harmonic is in the band.
DISTORTION_LOW_HZ, DISTORTION_HIGH_HZ = 300.0, 3000.0
HARMONICS = (2, 3, 4, 5)
# Distortion that noise may hide without the result being unknown.
HIDDEN_MAX = 0.02
# A wired channel has WIRE_PART of the energy within WIRE_WIDTH_S around the peak and WIRE_HEARD_DB above
# the noise; a room never does.
WIRE_WIDTH_S, WIRE_PART, WIRE_HEARD_DB = 0.001, 0.99, 50.0


@dataclass(frozen=True)
class Path:
    """Echo path from the loudspeaker's samples to one microphone channel.

    heard            True if the sweep was detected; the other members are valid only then
    delay_s          delay of the direct sound
    gain_db          power received over power played, mean over the sweep's frequencies
    decay_s          reverberation time (60 dB); None: hidden by noise
    distortion       harmonics over fundamental, RMS, 0.0 if below HIDDEN_MAX; None: hidden by noise
    inverted         True if the direct sound has the opposite polarity
    wire             True if the channel is a copy of what is played, without a room between
    """

    heard: bool
    delay_s: float = 0.0
    gain_db: float = 0.0
    decay_s: float | None = None
    distortion: float | None = None
    inverted: bool = False
    wire: bool = False


def sweep(rate_hz: int, peak: float) -> Samples:
    """Return SWEEP_S seconds from LOW_HZ to HIGH_HZ or 0.45 of the rate, each octave equally long."""
    high_hz = _high_hz(rate_hz)
    growth = np.log(high_hz / LOW_HZ)
    t = np.arange(round(SWEEP_S * rate_hz)) / rate_hz
    phase = 2 * np.pi * LOW_HZ * SWEEP_S / growth * (np.exp(t / SWEEP_S * growth) - 1)
    fade = np.clip(np.minimum(t, t[-1] - t) / FADE_S, 0, 1)
    return np.asarray(peak * np.sin(phase) * np.sin(fade * np.pi / 2) ** 2)


def measure(played: Samples, heard: Samples, rate_hz: int) -> Path:
    """Return the echo path. `played` is one sweep() and silence, `heard` one channel recorded meanwhile."""
    size = 1 << (2 * len(played) - 1).bit_length()
    spectrum = np.fft.rfft(played, size)
    power = np.abs(spectrum) ** 2
    floor = power.max() * 10 ** (SPECTRUM_FLOOR_DB / 10)
    response = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(spectrum) / (power + floor), size)
    later = response[: round(LATEST_S * rate_hz)]
    # Before the earliest evaluated harmonic there is only noise. Negative times are at the end of the array.
    earliest_s = _earlier_s(HARMONICS[-1] + 1, rate_hz)
    noise = response[-round((earliest_s + 0.25) * rate_hz) : -round(earliest_s * rate_hz)]
    noise_power = float(np.mean(noise**2))
    loudest = float(np.abs(later).max())
    if loudest**2 <= noise_power * 10 ** (HEARD_DB / 10) or loudest == 0.0:
        return Path(heard=False)
    # The direct sound, not the strongest one: a reflection may be stronger.
    first = int(np.argmax(np.abs(later) >= loudest / 2))
    first += int(np.argmax(np.abs(later[first : first + round(0.001 * rate_hz)])))
    # From 5 ms before it, for the ringing of the band limits, to where the decay reaches the noise.
    begin = max(first - round(0.005 * rate_hz), 0)
    body = later[begin : first + _alive_samples(later[first:], noise_power, rate_hz)]
    near = later[max(first - round(WIRE_WIDTH_S * rate_hz), 0) : first + round(WIRE_WIDTH_S * rate_hz)]
    clear = loudest**2 > noise_power * 10 ** (WIRE_HEARD_DB / 10)
    return Path(
        heard=True,
        delay_s=first / rate_hz,
        gain_db=_gain_db(body, noise, rate_hz),
        decay_s=_decay_s(later[first:], noise_power, rate_hz),
        distortion=_distortion(response, first, noise, rate_hz),
        inverted=bool(later[first] < 0),
        wire=bool(clear and np.sum(near**2) > WIRE_PART * np.sum(body**2)),
    )


def _high_hz(rate_hz: int) -> float:
    return min(HIGH_HZ, 0.45 * rate_hz)


def _earlier_s(harmonic: int, rate_hz: int) -> float:
    """Return the time by which a harmonic's response precedes the linear one."""
    return float(SWEEP_S * np.log(harmonic) / np.log(_high_hz(rate_hz) / LOW_HZ))


def _band(size: int, rate_hz: int, low_hz: float, high_hz: float) -> slice:
    return slice(int(np.ceil(low_hz * size / rate_hz)), int(high_hz * size / rate_hz))


def _gain_db(response: Samples, noise: Samples, rate_hz: int) -> float:
    """Return the mean power gain over the sweep's band. `noise` is a part without response."""

    def power(part: Samples) -> float:
        size = 1 << (max(len(response), len(noise)) - 1).bit_length()
        # Without the parts in which the sweep is faded.
        band = _band(size, rate_hz, 1.2 * LOW_HZ, _high_hz(rate_hz) / 1.2)
        return float(np.mean(np.abs(np.fft.rfft(part, size)[band]) ** 2))

    gain = power(response) - power(noise) * len(response) / len(noise)
    return float(10 * np.log10(max(gain, 1e-12)))


def _alive_samples(response: Samples, noise_power: float, rate_hz: int) -> int:
    """Return the length until the decay reaches the noise, in blocks of 10 ms."""
    block = round(0.01 * rate_hz)
    blocks = response[: len(response) // block * block].reshape(-1, block)
    alive = np.mean(blocks**2, axis=1) > noise_power * 10 ** (NOISE_MARGIN_DB / 10)
    return block * (int(np.argmin(alive)) if not alive.all() else len(alive)) or block


def _decay_s(response: Samples, noise_power: float, rate_hz: int) -> float | None:
    """Return the reverberation time from the slope between DECAY_BEGIN_DB and DECAY_END_DB, else None."""
    block = round(0.01 * rate_hz)
    part = response[: _alive_samples(response, noise_power, rate_hz)]
    if len(part) < 3 * block:
        return None
    integral = np.cumsum((part**2 - noise_power)[::-1])[::-1]
    level_db = 10 * np.log10(np.maximum(integral / integral[0], 1e-12))
    # The integral lacks the response behind the end and bends down there.
    usable_db = float(level_db[-2 * block]) + 3.0
    end_db = max(DECAY_END_DB, usable_db)
    if end_db > DECAY_LEAST_DB:
        return None
    first, last = int(np.argmax(level_db < DECAY_BEGIN_DB)), int(np.argmax(level_db < end_db))
    if last - first < block // 2:  # no decay: a wire, or free field
        return 0.0
    slope_db_s = np.polyfit(np.arange(first, last) / rate_hz, level_db[first:last], 1)[0]
    return float(-60 / slope_db_s)


def _distortion(response: Samples, first: int, noise: Samples, rate_hz: int) -> float | None:
    """Return harmonics over fundamental (RMS), each response cut out up to that of the next harmonic."""
    # All windows are as long as the shortest gap between two harmonics, so that each has the same noise.
    gap_s = _earlier_s(HARMONICS[-1], rate_hz) - _earlier_s(HARMONICS[-2], rate_hz)
    length, ahead = round(0.9 * gap_s * rate_hz), round(0.05 * gap_s * rate_hz)
    size = 1 << (length - 1).bit_length()

    def power(part: Samples, harmonic: int) -> float:
        """Return the mean power at the harmonic's frequencies."""
        band = _band(size, rate_hz, DISTORTION_LOW_HZ, min(DISTORTION_HIGH_HZ, _high_hz(rate_hz) / harmonic))
        high = harmonic * (band.stop - 1) + 1
        return float(np.mean(np.abs(np.fft.rfft(part, size))[harmonic * band.start : high : harmonic] ** 2))

    def response_of(harmonic: int) -> Samples:
        start = first - ahead - round(_earlier_s(harmonic, rate_hz) * rate_hz)
        return np.take(response, np.arange(start, start + length), mode="wrap")

    pieces = [noise[start : start + length] for start in range(0, len(noise) - length + 1, length)]
    floor = {harmonic: np.mean([power(piece, harmonic) for piece in pieces]) for harmonic in (1, *HARMONICS)}
    fundamental = power(response_of(1), 1) - floor[1]
    if fundamental <= 0:
        return None
    noise_power = float(sum(floor[harmonic] for harmonic in HARMONICS))
    power_sum = sum(power(response_of(harmonic), harmonic) for harmonic in HARMONICS)
    # Harmonics are detected if they double the noise power. Otherwise the result is 0.0, or None if the noise
    # could hide more than HIDDEN_MAX.
    if power_sum < 2 * noise_power:
        return None if noise_power > HIDDEN_MAX**2 * fundamental else 0.0
    return float(np.sqrt((power_sum - noise_power) / fundamental))
