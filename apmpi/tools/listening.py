"""Recording of a test signal for `apmpi doctor`, played through the loop that serves a call.

The measured delay is therefore the delay that the canceller meets. The test signal:

    silence (noise floor) ─► noise with syllables (ERLE) ─► sweep (acoustics.py) ─► silence (decay)
"""

import contextlib
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from apmpi.api.apm import Stats
from apmpi.cards import realtime
from apmpi.cards.clock import Timebase
from apmpi.cards.latency import FrameTimes, LatencySummary
from apmpi.errors import EndpointError
from apmpi.service.loop import Loop
from apmpi.settings import CHANNELS_MAX, Endpoint, Settings
from apmpi.tools import acoustics
from apmpi.units import FRAMES_PER_S

Samples = NDArray[np.float64]

# Peak level of speech: loud enough for a room, too low to make small loudspeakers rattle.
PEAK_DBFS = -12.0
QUIET_S, TALK_S, AFTER_TALK_S, AFTER_SWEEP_S = 1.5, 4.0, 1.0, 1.5
SWEEP_AT_S = QUIET_S + TALK_S + AFTER_TALK_S
# The loop is stopped if it takes this much longer than the signal, since a device has gone meanwhile.
PATIENCE_S = 5.0


@dataclass(frozen=True)
class Hearing:
    """Recording of the test signal, and figures of the loop that played it.

    channels    numbers of the recorded channels on the microphone's card, counted from 1
    played      [samples], -1 to 1
    heard       [samples, channels], -1 to 1
    xruns       by endpoint
    drift_ppm   by endpoint, relative to the microphone's clock
    core        figures of the chain at the end of the noise
    """

    rate_hz: int
    channels: tuple[int, ...]
    played: Samples
    heard: Samples
    latency: LatencySummary
    xruns: dict[str, int]
    drift_ppm: dict[str, float]
    core: Stats


def duration_s() -> float:
    """Length of the test signal."""
    return SWEEP_AT_S + acoustics.SWEEP_S + AFTER_SWEEP_S


def signal(rate_hz: int) -> Samples:
    """Return the test signal, -1 to 1."""
    peak = 10 ** (PEAK_DBFS / 20)
    rng = np.random.default_rng(1)
    count = round(TALK_S * rate_hz)
    # Approximates speech: falls by 6 dB per octave above 500 Hz, four syllables a second.
    frequency_hz = np.fft.rfftfreq(count, 1 / rate_hz)
    shape = frequency_hz / 500 / (1 + (frequency_hz / 500) ** 2)
    talk = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * shape, count)
    talk *= 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(count) / rate_hz)
    talk *= peak / np.abs(talk).max()

    def quiet(seconds: float) -> Samples:
        return np.zeros(round(seconds * rate_hz))

    sweep = acoustics.sweep(rate_hz, peak)
    return np.concatenate([quiet(QUIET_S), talk, quiet(AFTER_TALK_S), sweep, quiet(AFTER_SWEEP_S)])


def _channels(settings: Settings) -> tuple[int, ...]:
    """Return the numbers of the measured channels of the microphone's card, counted from 1, ascending.

    All of them, or the first CHANNELS_MAX with the configured ones before the others.
    """
    configured = [number + 1 for number in settings.near_channels + settings.reference_channels]
    every = [*configured, *range(1, settings.microphone.channels + 1)]
    return tuple(sorted([*dict.fromkeys(every)][:CHANNELS_MAX]))


def listen(settings: Settings) -> Hearing:
    """Play the test signal and record it. Raises EndpointError.

    Without a speaker device it is played on the microphone's card.
    """
    rate_hz, microphone, channels = settings.sample_rate_hz, settings.microphone, _channels(settings)
    speaker = (
        settings.speaker
        if settings.speaker and settings.speaker.device
        else Endpoint(device=microphone.device)
    )
    played: list[bytes] = []
    heard: list[bytes] = []
    after_talk: list[Stats] = []

    def tap(far: bytes, near: bytes, _: bytes, __: FrameTimes) -> None:
        played.append(far)
        heard.append(near)
        if len(heard) == round((QUIET_S + TALK_S) * FRAMES_PER_S) and loop.board.core:
            after_talk.append(loop.board.core)

    with contextlib.ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "doctor.wav"
        soundfile.write(file, signal(rate_hz), rate_hz, subtype="PCM_16")
        trial = replace(
            settings,
            microphone=replace(microphone, use=channels),
            far_end=Endpoint(file=file),
            speaker=speaker,
            output=None,
        )
        loop = Loop(trial, None, stack, tap, Timebase())
        stack.enter_context(realtime.real_time())
        seconds = duration_s()
        stop = threading.Timer(seconds + PATIENCE_S, setattr, (loop.board, "stop", True))
        stop.daemon = True
        stop.start()
        stack.callback(stop.cancel)
        problem = loop.run(seconds) or loop.board.parked
        latency = loop.latency.summary(0)
        if problem or len(heard) < round(seconds * FRAMES_PER_S) or not after_talk or latency is None:
            raise EndpointError(problem or "the devices gave less sound than expected")
        return Hearing(
            rate_hz,
            channels,
            np.frombuffer(b"".join(played), "<i2") / 32768.0,
            np.frombuffer(b"".join(heard), "<i2").reshape(-1, len(channels)) / 32768.0,
            latency,
            loop.endpoints.xruns(),
            loop.endpoints.drift_ppm(),
            after_talk[0],
        )


def paths(hearing: Hearing) -> dict[int, acoustics.Path]:
    """Return the echo path of each channel by its number on the microphone's card."""
    part = slice(
        round(SWEEP_AT_S * hearing.rate_hz),
        round((SWEEP_AT_S + acoustics.SWEEP_S + AFTER_SWEEP_S) * hearing.rate_hz),
    )
    return {
        number: acoustics.measure(hearing.played[part], channel[part], hearing.rate_hz)
        for number, channel in zip(hearing.channels, hearing.heard.T, strict=True)
    }
