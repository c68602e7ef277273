"""Channels of any polarity, delay, level and noise become a mono sound that contains all of the speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from daemon import level_db
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apmpi.cards.downmix import Downmix
from apmpi.service import run as service
from apmpi.settings import Endpoint, Features, Settings

SECONDS, DECIDED_S = 4, 2
RATES_HZ = (8000, 16000, 32000, 48000)


def voice(seed: int, rate_hz: int, level: float = 0.1) -> np.ndarray:
    """Noise with the long-term spectrum, the syllables and the pauses of speech."""
    rng, count = np.random.default_rng(seed), SECONDS * rate_hz
    frequencies_hz = np.fft.rfftfreq(count, 1 / rate_hz)
    shape = frequencies_hz / 500 / (1 + (frequencies_hz / 500) ** 2)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * shape, count)
    noise *= 0.5 - 0.5 * np.cos(2 * np.pi * 3.1 * np.arange(count) / rate_hz)
    return np.asarray(noise * level / noise.std())


def to_int16(sound: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(sound * 32768), -32768, 32767).astype("<i2")


def mixed(sound: np.ndarray, rate_hz: int, *, every: bool = False) -> tuple[np.ndarray, Downmix]:
    """`sound` as [samples, channels], -1 to 1."""
    downmix = Downmix(rate_hz, range(1, sound.shape[1] + 1), every=every)
    frames = to_int16(sound).reshape(-1, rate_hz // 100, sound.shape[1])
    out = b"".join(downmix.mix(frame.tobytes(), frame.tobytes()) for frame in frames)
    return np.frombuffer(out, "<i2") / 32768, downmix


def bands_db(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """Levels in dB in thirds of an octave from 125 Hz to 8 kHz."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequencies_hz = np.fft.rfftfreq(len(sound), 1 / rate_hz)
    centres_hz = [hz for hz in 125 * 2 ** (np.arange(19) / 3) if hz < 0.45 * rate_hz]
    edges_hz = [(hz * 2 ** (-1 / 6), hz * 2 ** (1 / 6)) for hz in centres_hz]
    return np.array([
        10 * np.log10(power[(frequencies_hz >= low) & (frequencies_hz < high)].sum() + 1e-12)
        for low, high in edges_hz
    ])  # fmt: skip


@settings(max_examples=150, derandomize=True)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    signs=st.lists(st.sampled_from([1, -1]), min_size=2, max_size=8),
    delays=st.lists(st.integers(0, 20), min_size=8, max_size=8),
    seed=st.integers(0, 1000),
)
@example(rate_hz=48000, signs=[1, -1], delays=[0] * 8, seed=1)
@example(rate_hz=48000, signs=[1, 1], delays=[0, 20] * 4, seed=1)
def test_nothing_of_a_voice_is_lost_whatever_polarity_and_delay_its_channels_have(
    rate_hz: int, signs: list[int], delays: list[int], seed: int
) -> None:
    """The speech has its level from the first frame on; the mean of the channels would lose 90 dB of it, or
    the bands of a comb filter.
    """
    clean = voice(seed, rate_hz)
    rng = np.random.default_rng(seed)
    noise = 10 ** (-65 / 20) * rng.standard_normal((len(clean), len(signs)))
    channels = [sign * np.roll(clean, delay) for sign, delay in zip(signs, delays, strict=False)]
    out, _ = mixed(np.stack(channels, axis=1) + noise, rate_hz)
    half_s = rate_hz // 2
    starts = [level_db(out[at : at + half_s]) - level_db(clean[at : at + half_s]) for at in (0, half_s)]
    decided = slice(DECIDED_S * rate_hz, None)
    bands = bands_db(out[decided], rate_hz) - bands_db(clean[decided], rate_hz)
    print(f"{rate_hz} Hz, signs {signs}, delays {delays[: len(signs)]}: {np.round(starts, 2)} dB,")
    print(f"bands {bands.min():.2f} to {bands.max():.2f} dB")
    assert max(map(abs, starts)) < 1
    # Two channels at 1/sqrt(2) of correlation lose 0.7 dB as a whole; up to 2 dB of it at the band's edge.
    assert bands.min() > -2 and bands.max() < 1


def test_opposite_polarity_is_aligned_and_said() -> None:
    clean = voice(1, 48000, level=10 ** (-22.4 / 20))
    for every in (False, True):
        out, downmix = mixed(np.stack([clean, -clean], axis=1), 48000, every=every)
        print(f"every={every}: {level_db(out):.1f} dBFS of {level_db(clean):.1f}; {downmix.finding}")
        assert level_db(out) == pytest.approx(-22.4, abs=0.5)
        assert downmix.finding == "channel 2 is opposite in polarity to channel 1 and aligned with it"


def test_channels_that_are_alike_are_averaged_against_their_noise() -> None:
    rng = np.random.default_rng(1)
    clean = voice(1, 48000)
    noise = 10 ** (-50 / 20) * rng.standard_normal((len(clean), 4))
    out, downmix = mixed(clean[:, np.newaxis] + noise, 48000)
    left_db = level_db((out - clean)[DECIDED_S * 48000 :])
    print(f"noise {left_db:.1f} dBFS of -50")
    assert left_db == pytest.approx(-56, abs=0.3)
    assert downmix.finding == ""


@pytest.mark.parametrize("better", [0, 1])
def test_of_channels_that_are_not_alike_the_better_one_is_taken(better: int) -> None:
    """The other channel is a loud hum, is dead, is far away in the noise, or clips."""
    clean, count = voice(1, 48000), SECONDS * 48000
    rng = np.random.default_rng(2)
    good = clean + 10 ** (-65 / 20) * rng.standard_normal(count)
    late = np.roll(clean, 7)
    others = {
        "hum": 0.3 * np.sin(2 * np.pi * 150 * np.arange(count) / 48000),
        "dead": np.zeros(count),
        "far": 0.1 * late + 10 ** (-45 / 20) * rng.standard_normal(count),
        "clips": 40 * late,
    }
    for name, other in others.items():
        pair = [good, other] if better == 0 else [other, good]
        out, downmix = mixed(np.stack(pair, axis=1), 48000)
        decided = slice(DECIDED_S * 48000, None)
        error_db = min(level_db((out - sign * clean)[decided]) for sign in (1, -1)) - level_db(clean)
        print(f"{name}: {error_db:.1f} dB; {downmix.finding}")
        assert error_db < -40, name
        left_out = f"channel {2 - better} is left out of the mono sound, not like channel {better + 1} in"
        assert downmix.finding.startswith(left_out)


def test_music_keeps_all_its_channels() -> None:
    left, right = voice(1, 48000), voice(2, 48000)
    out, downmix = mixed(np.stack([left, right], axis=1), 48000, every=True)
    assert downmix.finding == ""
    assert np.abs(out - (left + right) / 2).max() <= 1.01 / 32768


def test_a_change_is_no_click_and_keeps_the_polarity() -> None:
    """The first microphone is covered after 2 s; the second one, of opposite polarity, replaces it."""
    time_s = np.arange(SECONDS * 48000) / 48000
    tone = 0.3 * np.sin(2 * np.pi * 200 * time_s) * (0.5 - 0.5 * np.cos(2 * np.pi * 3 * time_s))
    covered = np.where(time_s < 2, 1.0, 0.001)
    out, downmix = mixed(np.stack([tone * covered, -0.5 * tone], axis=1), 48000)
    assert downmix.finding.startswith("channel 1 is left out")
    steps = np.abs(np.diff(out))
    at = np.abs(np.arange(len(steps)) - 2 * 48000) > 480  # the cover itself is a click
    largest = 0.3 * 2 * np.pi * 200 / 48000  # of the tone at its peak
    print(f"largest step {steps[at].max():.4f}, the tone's own {largest:.4f}")
    assert steps[at].max() < 1.1 * largest
    last = slice(-48000, None)
    assert np.dot(out[last], tone[last]) > 0


def test_steady_noise_decides_nothing() -> None:
    rng = np.random.default_rng(1)
    noise = 0.01 * rng.standard_normal(SECONDS * 48000)
    out, downmix = mixed(np.stack([noise, -noise], axis=1), 48000)
    assert downmix.finding == ""
    assert level_db(out) == pytest.approx(level_db(noise), abs=0.1)


@pytest.mark.parametrize("polarity", [1, -1])
def test_a_stereo_microphone_to_a_mono_output(
    polarity: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clean = voice(1, 48000, level=10 ** (-22.4 / 20))
    soundfile.write(tmp_path / "mic.wav", np.stack([clean, polarity * clean], axis=1), 48000)
    off = Features(False, False, False, False)
    given = Settings(
        microphone=Endpoint(file=tmp_path / "mic.wav", channels=2),
        output=Endpoint(file=tmp_path / "out.wav"),
        features=off,
    )
    assert service.run(given) == 0
    out, _ = soundfile.read(tmp_path / "out.wav")
    print(f"{level_db(out):.1f} dBFS")
    assert level_db(out) == pytest.approx(-22.4, abs=0.5)
    said = capfd.readouterr().err
    finding = "microphone: channel 2 is opposite in polarity to channel 1 and aligned with it"
    assert said.count(finding) == (polarity == -1)
