"""Recording of a test signal for `apmpi doctor`, played through the loop that serves a call.

The measured delay is therefore the delay that the canceller meets. The test signal:

    silence (noise floor) ─► noise with syllables (ERLE) ─► sweep (acoustics.py) ─► silence (decay)

Of two loudspeakers both play that, then each of them a sweep alone.
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
    played      [samples, loudspeakers], -1 to 1
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


def loudspeakers(settings: Settings) -> int:
    """Return 2 if two loudspeakers are measured apart, else 1."""
    speaker = settings.speaker
    return 2 if speaker and speaker.device and speaker.channels == 2 else 1


def sweeps(count: int) -> int:
    """Return the number of sweeps for so many loudspeakers."""
    return 1 + count if count > 1 else 1


def duration_s(settings: Settings) -> float:
    """Length of the test signal."""
    return SWEEP_AT_S + sweeps(loudspeakers(settings)) * (acoustics.SWEEP_S + AFTER_SWEEP_S)


def signal(rate_hz: int, count: int) -> Samples:
    """Return the test signal for so many loudspeakers, [samples, loudspeakers], -1 to 1."""
    peak = 10 ** (PEAK_DBFS / 20)
    rng = np.random.default_rng(1)
    talk_samples = round(TALK_S * rate_hz)
    # Approximates speech: falls by 6 dB per octave above 500 Hz, four syllables a second.
    frequency_hz = np.fft.rfftfreq(talk_samples, 1 / rate_hz)
    shape = frequency_hz / 500 / (1 + (frequency_hz / 500) ** 2)
    talk = np.fft.irfft(np.fft.rfft(rng.standard_normal(talk_samples)) * shape, talk_samples)
    talk *= 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(talk_samples) / rate_hz)
    talk *= peak / np.abs(talk).max()

    def quiet(seconds: float) -> Samples:
        return np.zeros(round(seconds * rate_hz))

    sweep = np.concatenate([acoustics.sweep(rate_hz, peak), quiet(AFTER_SWEEP_S)])
    together = np.concatenate([quiet(QUIET_S), talk, quiet(AFTER_TALK_S), sweep])
    apart = [sweep[:, None] * (np.arange(count) == one) for one in range(sweeps(count) - 1)]
    return np.concatenate([np.repeat(together[:, None], count, axis=1), *apart])


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
    count, seconds = loudspeakers(settings), duration_s(settings)
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
        soundfile.write(file, signal(rate_hz, count), rate_hz, subtype="PCM_16")
        trial = replace(
            settings,
            microphone=replace(microphone, use=channels),
            far_end=Endpoint(file=file, channels=count),
            speaker=speaker,
            output=None,
        )
        loop = Loop(trial, None, stack, tap, Timebase())
        stack.enter_context(realtime.real_time())
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
            np.frombuffer(b"".join(played), "<i2").reshape(-1, count) / 32768.0,
            np.frombuffer(b"".join(heard), "<i2").reshape(-1, len(channels)) / 32768.0,
            latency,
            loop.endpoints.xruns(),
            loop.endpoints.drift_ppm(),
            after_talk[0],
        )


def paths(hearing: Hearing) -> dict[int, acoustics.Path]:
    """Return the echo path of each channel by its number on the microphone's card."""
    part = _sweep_part(hearing, 0)
    return {
        number: acoustics.measure(hearing.played[part, 0], channel[part], hearing.rate_hz)
        for number, channel in zip(hearing.channels, hearing.heard.T, strict=True)
    }


def paths_apart(hearing: Hearing, channel: int) -> list[acoustics.Path]:
    """Return the echo path of each of two loudspeakers to a channel of the microphone's card."""
    heard = hearing.heard[:, hearing.channels.index(channel)]
    parts = [_sweep_part(hearing, 1 + one) for one in range(hearing.played.shape[1])]
    return [
        acoustics.measure(hearing.played[part, one], heard[part], hearing.rate_hz)
        for one, part in enumerate(parts)
    ]


def _sweep_part(hearing: Hearing, number: int) -> slice:
    """Return the samples of a sweep and the silence after it, counted from 0."""
    length_s = acoustics.SWEEP_S + AFTER_SWEEP_S
    start_s = SWEEP_AT_S + number * length_s
    return slice(round(start_s * hearing.rate_hz), round((start_s + length_s) * hearing.rate_hz))
