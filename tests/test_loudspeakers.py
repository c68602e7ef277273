"""Two loudspeakers that play different things: recordings, the service, and a card that records both."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from reference.signals import Signal, at_level, db, power, room, voice
from scipy.signal import fftconvolve

from apmpi.service import run as service
from apmpi.settings import Endpoint, Features, Settings

RATE_HZ, SECONDS = 16000, 8.0
LATE = slice(round(5.0 * RATE_HZ), None)
CANCELLATION = Features(
    echo_cancellation=True, noise_suppression=False, high_pass_filter=False, auto_gain_control=False
)


def two_talkers(rng: np.random.Generator) -> Signal:
    """Far end, (samples, 2): one at each side."""
    return np.stack([voice(rng, RATE_HZ, SECONDS), voice(rng, RATE_HZ, SECONDS)], axis=1)


def echo_of(rng: np.random.Generator, loudspeakers: Signal) -> Signal:
    """Microphone signal: each loudspeaker's sound by a path of its own, 40 ms late, and noise."""
    paths = [np.concatenate([np.zeros(RATE_HZ // 25), room(rng, RATE_HZ, 0.2)]) for _ in loudspeakers.T]
    echo = sum(fftconvolve(x, path)[: len(x)] for x, path in zip(loudspeakers.T, paths, strict=True))
    return echo + at_level(rng.standard_normal(len(echo)), -75.0)


def reduced_db(mic: Signal, out: Path) -> float:
    result = db(power(mic[LATE]) / power(soundfile.read(out)[0][LATE]))
    print(f"echo reduced by {result:.1f} dB")
    return result


def test_process_takes_the_echo_of_both_out(tmp_path: Path, rng: np.random.Generator) -> None:
    far = two_talkers(rng)
    mic = echo_of(rng, far)
    soundfile.write(tmp_path / "far.wav", far, RATE_HZ)
    soundfile.write(tmp_path / "mic.wav", mic, RATE_HZ)
    apmpi = Path(sys.executable).with_name("apmpi")
    command = [apmpi, "process", "--far", "far.wav", "--mic", "mic.wav", "-o", "out.wav"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = re.search(r"echo reduced by (\d+\.\d) dB", done.stdout)
    assert said, done.stdout
    assert float(said[1]) > 20
    assert reduced_db(mic, tmp_path / "out.wav") > 25


@pytest.mark.parametrize("loudspeakers", [1, 2])
def test_service_with_a_far_end_in_stereo(
    tmp_path: Path, rng: np.random.Generator, loudspeakers: int
) -> None:
    """Both channels are played, or their mean by a single loudspeaker."""
    far = two_talkers(rng)
    mic = echo_of(rng, far if loudspeakers == 2 else far.mean(axis=1, keepdims=True))
    soundfile.write(tmp_path / "far.wav", far, RATE_HZ)
    soundfile.write(tmp_path / "mic.wav", mic, RATE_HZ)
    given = Settings(
        sample_rate_hz=RATE_HZ,
        microphone=Endpoint(file=tmp_path / "mic.wav"),
        far_end=Endpoint(file=tmp_path / "far.wav", channels=2),
        speaker=Endpoint(file=tmp_path / "played.wav", channels=loudspeakers),
        output=Endpoint(file=tmp_path / "out.wav"),
        features=CANCELLATION,
    )
    assert service.run(given) == 0
    assert soundfile.info(tmp_path / "played.wav").channels == loudspeakers
    assert reduced_db(mic, tmp_path / "out.wav") > 25


def test_service_with_a_hardware_reference_of_two_channels(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    """The channels that an array records of its loudspeakers cancel in their mean; the echo does not."""
    far = voice(rng, RATE_HZ, SECONDS)[:, None] * [[1.0, -1.0]]
    mic = echo_of(rng, far)
    soundfile.write(tmp_path / "array.wav", np.column_stack([mic, far]), RATE_HZ)
    given = Settings(
        sample_rate_hz=RATE_HZ,
        microphone=Endpoint(file=tmp_path / "array.wav", channels=3, use=(1,)),
        far_end=Endpoint(microphone_channels=(2, 3), channels=2),
        output=Endpoint(file=tmp_path / "out.wav"),
        features=CANCELLATION,
    )
    assert service.run(given) == 0
    assert reduced_db(mic, tmp_path / "out.wav") > 25
    said = capfd.readouterr().err
    print(said)
    assert "cancelling echo" in said
