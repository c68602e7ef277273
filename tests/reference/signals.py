"""Seeded sound for the tests: a voice, a room, a conversation, and measures of the output.

Signals are float64 in [-1, 1); levels are RMS in dBFS over the whole signal unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, correlate, fftconvolve, lfilter, sosfilt

Signal = npt.NDArray[np.float64]

RATES_HZ = (8000, 16000, 32000, 48000)


def db(power: float) -> float:
    """Power in dB; -300 dB for 0."""
    return 10.0 * float(np.log10(max(power, 1e-30)))


def power(x: Signal) -> float:
    """Mean square."""
    return float(np.mean(np.square(x)))


def at_level(x: Signal, level_dbfs: float) -> Signal:
    return x * (10.0 ** (level_dbfs / 20.0) / np.sqrt(power(x)))


def voice(
    rng: np.random.Generator, rate_hz: int, seconds: float, level_dbfs: float = -26.0, pitch_hz: float = 0.0
) -> Signal:
    """Return a signal that a speech detector accepts: pulses of a varying pitch and breath noise through
    three formants that change with each syllable, four syllables per second, with pauses; 100 Hz to 0.45
    rate_hz."""
    samples = round(seconds * rate_hz)
    pitch_hz = pitch_hz or float(rng.uniform(100.0, 220.0))
    out = np.zeros(samples)
    at = 0
    while at < samples:
        count = min(samples - at, round(rate_hz * rng.uniform(0.12, 0.3)))
        t = np.arange(count) / rate_hz
        glide = pitch_hz * (1.0 + rng.uniform(-0.15, 0.15) + rng.uniform(-0.2, 0.2) * t / 0.2)
        cycles = np.cumsum(glide) / rate_hz
        pulses = np.diff(np.floor(cycles), prepend=0.0)
        source = pulses * np.sqrt(rate_hz / pitch_hz) + 0.2 * rng.standard_normal(count)
        if rng.uniform() < 0.25:  # a fricative
            source = np.diff(rng.standard_normal(count), prepend=0.0) * 0.5
        for low, high in ((300.0, 800.0), (900.0, 2200.0), (2300.0, 3400.0)):
            centre, width = rng.uniform(low, high), 120.0
            radius = np.exp(-np.pi * width / rate_hz)
            turn = np.cos(2.0 * np.pi * centre / rate_hz)
            source = (
                lfilter([1.0 - radius], [1.0, -2.0 * radius * turn, radius * radius], source) + 0.2 * source
            )
        out[at : at + count] = (
            source * np.sin(np.pi * (t + 0.5 / rate_hz) * rate_hz / count) ** 0.7 * rng.uniform(0.4, 1.0)
        )
        at += count + (round(rate_hz * rng.uniform(0.15, 0.4)) if rng.uniform() < 0.2 else 0)
    band = butter(2, [100.0, 0.45 * rate_hz], "bandpass", fs=rate_hz, output="sos")
    return at_level(sosfilt(band, out), level_dbfs)


def room(rng: np.random.Generator, rate_hz: int, rt60_s: float = 0.3) -> Signal:
    """Return an impulse response of energy 1: a direct sound, then noise that decays by 60 dB in rt60_s."""
    t = np.arange(round(rt60_s * rate_hz)) / rate_hz
    response = rng.standard_normal(len(t)) * 10.0 ** (-3.0 * t / rt60_s)
    response[0] = 2.0 * np.sqrt(rate_hz * rt60_s / 50.0)
    return response / np.sqrt(np.sum(response**2))


@dataclass(frozen=True)
class Scene:
    """A far end, the microphone signal, and its near end and echo."""

    rate_hz: int
    far: Signal
    mic: Signal
    near: Signal
    echo: Signal


def scene(
    rng: np.random.Generator,
    rate_hz: int,
    seconds: float,
    *,
    near_from_s: float = np.inf,
    far_until_s: float = np.inf,
    delay_ms: float = 40.0,
    noise_dbfs: float = -70.0,
    near_dbfs: float = -26.0,
) -> Scene:
    """Return a scene: a far end at -26 dBFS, its echo of about that level in a room of RT60 0.3 s, a near end
    from near_from_s on, and noise."""
    samples = round(seconds * rate_hz)
    t = np.arange(samples) / rate_hz
    far = voice(rng, rate_hz, seconds, pitch_hz=120.0) * (t < far_until_s)
    echo = fftconvolve(far, room(rng, rate_hz))[:samples]
    echo = np.concatenate([np.zeros(round(delay_ms * rate_hz / 1000)), echo])[:samples]
    near = voice(rng, rate_hz, seconds, near_dbfs, pitch_hz=190.0) * (t >= near_from_s)
    noise = at_level(rng.standard_normal(samples), noise_dbfs)
    return Scene(rate_hz, far, near + echo + noise, near, echo)


def to_int16(x: Signal) -> npt.NDArray[np.int16]:
    return np.clip(np.round(x * 32768.0), -32768, 32767).astype(np.int16)


def from_int16(x: npt.NDArray[np.int16]) -> Signal:
    return x.astype(np.float64) / 32768.0


def float32(x: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return a contiguous copy in single precision."""
    return np.array(x, np.float32, order="C")


def lag_samples(out: Signal, reference: Signal, most: int) -> int:
    """Lag of `out` behind `reference` in samples, 0 to most."""
    cross = correlate(out, reference, mode="full", method="fft")[len(reference) - 1 : len(reference) + most]
    return int(np.argmax(np.abs(cross)))


def si_sdr_db(out: Signal, reference: Signal) -> float:
    """Scale-invariant signal-to-distortion ratio in dB of two aligned signals."""
    target = reference * (np.dot(out, reference) / np.dot(reference, reference))
    return db(power(target) / max(power(out - target), 1e-30))
