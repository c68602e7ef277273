"""The clocks' PI loop, its resampler and the placing of sound, each against known input."""

from __future__ import annotations

import numpy as np
import pytest

from apmpi.cards.clock import Drift, Resampler, Settling

FRAME_S = 0.01
RATE_HZ = 48000


def follow(
    drift: Drift, true_ppm: float, seconds: float, noise_s: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lateness (s) and ppm found after each block, of a card that is `true_ppm` off and whose positions are
    rounded to `noise_s`."""
    count = int(seconds / FRAME_S)
    noise = (noise_s * (rng.random(count) - 0.5)).tolist()
    late, found = np.zeros(count), np.zeros(count)
    late_s = 0.0
    for block in range(count):
        ratio = drift.ratio(late_s + noise[block])
        late_s += (ratio - 1 - true_ppm * 1e-6) * FRAME_S
        late[block], found[block] = late_s, drift.ppm
    return late, found


@pytest.mark.parametrize("true_ppm", [-1000, -30, 0, 1000])
@pytest.mark.parametrize("noise_s", [1 / RATE_HZ, 0.001], ids=["to the sample", "to the millisecond"])
def test_a_clock_is_found_within_20_s(true_ppm: float, noise_s: float, rng: np.random.Generator) -> None:
    late, found = follow(Drift(FRAME_S), true_ppm, 60, noise_s, rng)
    error_ppm = np.abs(found[2000:] - true_ppm).max()
    first_ms, later_ms = np.abs(late[:2000]).max() * 1e3, np.abs(late[2000:]).max() * 1e3
    wander_samples = late[2000:].std() * RATE_HZ
    print(f"from 20 s on within {error_ppm:.2f} ppm; late {first_ms:.3f} ms, then {later_ms:.4f} ms")
    # A regression over 20 s of positions rounded to 1 ms is as good as 1.1 ppm; the loop need not be better
    # than ten times that, and what matters is that the sound stays where it is.
    assert error_ppm < 12
    assert first_ms < 1.0
    assert later_ms < 0.1
    assert wander_samples < 1.0


def test_nothing_grows_in_24_hours(rng: np.random.Generator) -> None:
    """A day on crystals that warm up each hour, by 17 ppm, and cool down at once."""
    drift, late_s, worst_s, worst_ratio = Drift(FRAME_S), 0.0, 0.0, 0.0
    hour = 360_000
    for _ in range(24):
        true_ppm = 500 + 20 * np.sin(np.arange(hour) / hour)
        for noise, ppm in zip(rng.random(hour).tolist(), true_ppm.tolist(), strict=True):
            ratio = drift.ratio(late_s + (noise - 0.5) / RATE_HZ)
            late_s += (ratio - 1 - ppm * 1e-6) * FRAME_S
            worst_s = max(worst_s, abs(late_s))
            worst_ratio = max(worst_ratio, abs(ratio - 1))
    print(f"at most {worst_s * RATE_HZ:.2f} samples from its place, ratio off by {worst_ratio * 1e6:.0f} ppm")
    assert worst_s * RATE_HZ < 48


def test_a_placement_is_made_good_at_once(rng: np.random.Generator) -> None:
    """An offset after an xrun, about a sample, is corrected at once, and the ratio stays."""
    drift = Drift(FRAME_S, ppm=300)
    follow(drift, 300, 60, 1 / RATE_HZ, rng)
    drift.placed()
    late_s = 1.0 / RATE_HZ
    for _ in range(100):
        late_s += (drift.ratio(late_s) - 1 - 300e-6) * FRAME_S
    print(f"{late_s * RATE_HZ:.3f} samples late 1 s later, {drift.ppm:.2f} ppm")
    assert abs(late_s) * RATE_HZ < 0.15
    assert drift.ppm == pytest.approx(300, abs=1)


@pytest.mark.parametrize("wrong_samples", [-3, -1, 0, 1, 2])
def test_settling_finds_by_how_many_samples_it_was_wrong(
    wrong_samples: int, rng: np.random.Generator
) -> None:
    settling = Settling()
    settling.placed()
    at = wrong_samples
    for _ in range(200):
        at -= settling.late_samples(at + rng.random() - 0.5)
    assert at == 0


def test_settling_ignores_a_reading_in_which_the_machine_stood_still() -> None:
    """The card is 3 samples late, one reading 10 ms off."""
    settling = Settling()
    settling.placed()
    readings = [3.2, 2.9, 3.1, 2.8, 483.0, 3.0, 3.1, 2.9, 3.0, 3.2]
    assert [settling.late_samples(late_samples) for late_samples in readings] == [0] * 9 + [3]


def test_settling_leaves_alone_what_it_can_not_know(rng: np.random.Generator) -> None:
    """Positions that jump by a millisecond: a correction would be as wrong as the error that it corrects."""
    settling = Settling()
    corrections = [settling.late_samples(48 * (rng.random() - 0.5)) for _ in range(300)]
    assert np.abs(corrections).sum() < 10


@pytest.mark.parametrize("out_hz", [16000, 44100, 48000, 144000])
def test_resampled_sound_is_the_same_sound(rng: np.random.Generator, out_hz: int) -> None:
    """A tone below 80 % of the lower band in chunks of random lengths, compared with the tone itself."""
    in_hz, tone_hz, count = 48000, 1000.0, 96000
    resampler = Resampler(in_hz, out_hz, 2)
    sound = 20000 * np.sin(2 * np.pi * tone_hz * np.arange(count) / in_hz)
    stereo = np.stack([sound, -sound], axis=1).round().astype("<i2")
    parts = np.split(stereo, np.sort(rng.integers(0, count, 50)))
    out = b"".join(resampler.process(part.tobytes()) for part in parts)
    left, right = np.frombuffer(out, "<i2").reshape(-1, 2).T.astype(np.float64)
    assert np.array_equal(left, -right)
    expected = 20000 * np.sin(2 * np.pi * tone_hz * np.arange(len(left)) / out_hz)
    begun = out_hz // 100  # the first 10 ms are the beginning of the filter
    worst = float(np.abs(left - expected)[begun:].max())
    held_ms = 1000 * (count / in_hz - len(left) / out_hz)
    print(f"worst error {worst:.1f} of 20000, {held_ms:.2f} ms held back by the filter")
    assert worst < 3
    assert 0 <= held_ms < 1.5
