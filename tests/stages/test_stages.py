"""Every stage beside its float64 model, over the same seeded signals.

Tolerances are those of single-precision rounding, derived beside each test; the worst errors are printed.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from reference import (
    aec,
    agc,
    array,
    delay,
    direction,
    drift,
    hpf,
    jump,
    limiter,
    ns,
    resampler,
    residual,
    saturation,
    stft,
)
from reference.mask import Mask
from reference.signals import RATES_HZ, Signal, at_level, float32, room, voice
from scipy.signal import lfilter

EPS = 2.0**-24  # rounding of one single-precision operation, relative
SMALLEST = 2.0**-149  # smallest subnormal float

Floats = npt.NDArray[np.float32]
Stages = Any  # of conftest.py: calls the library


def check(what: str, error: float, bound: float) -> None:
    print(f"{what}: worst error {error:.2e}, bound {bound:.2e}")
    assert error <= bound, what


def cruel(rng: np.random.Generator, count: int) -> dict[str, Signal]:
    """Adverse signals within [-1, 1]."""
    t = np.arange(count)
    return {
        "noise": np.clip(0.3 * rng.standard_normal(count), -1.0, 1.0),
        "full-scale square": np.where(t // 40 % 2, 1.0, -1.0),
        "Nyquist": np.where(t % 2, 1.0, -1.0),
        "constant": np.ones(count),
        "impulse": np.eye(1, count, 10)[0],
        "subnormal": 1e-40 * rng.standard_normal(count),
        "sound, then subnormal, then sound": rng.standard_normal(count)
        * np.where((t // (count // 3)) == 1, 1e-39, 0.3),
        "zeros": np.zeros(count),
    }


def misaligned(x: Floats, floats: int) -> Floats:
    """Return a copy whose address is `floats` floats after a multiple of 64 bytes."""
    room = np.empty(x.size + 32, np.float32)
    start = (-room.ctypes.data // 4) % 16 + floats
    view = room[start : start + x.size].reshape(x.shape)
    view[...] = x
    assert view.ctypes.data % 64 == 4 * floats
    return view


# ---------- fft and stft


@pytest.mark.parametrize("size", [160, 320, 640, 960])
def test_fft(stages: Stages, rng: np.random.Generator, size: int) -> None:
    """Each of log2(size) levels adds one rounding to every value (Higham 2002, 24.1): an RMS error of EPS
    sqrt(levels) of the signal's norm; six times that is exceeded by no value. A rounded factor scales a line
    as a whole: EPS."""
    for name, x in cruel(rng, size).items():
        x = float32(x)
        re, im, back = (np.zeros(n, np.float32) for n in (size // 2 + 1, size // 2 + 1, size))
        stages.call("fft_run", size, x, re, im, back)
        right = np.fft.rfft(x.astype(np.float64))
        sigma = EPS * np.sqrt(np.log2(size)) * np.linalg.norm(x.astype(np.float64))
        tiny = size * SMALLEST
        check(
            f"{name}, spectrum",
            np.max(np.abs(re + 1j * im - right)),
            6 * sigma + EPS * np.max(np.abs(right)) + tiny,
        )
        check(
            f"{name}, back", np.max(np.abs(back - x)), 6 * np.sqrt(2.0) * sigma / np.sqrt(size) + EPS + tiny
        )


@pytest.mark.parametrize("part", [2, 8], ids=["default", "low_latency"])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_stft(stages: Stages, rng: np.random.Generator, rate_hz: int, part: int) -> None:
    """A random gain, as by the model; then a gain of one, which must give the input."""
    hop, blocks = rate_hz // 100, 30
    late = hop // part
    for name, x in cruel(rng, blocks * hop).items():
        x = float32(x)
        rms = np.sqrt(np.max(np.mean(x.astype(np.float64).reshape(blocks, hop) ** 2, axis=1)))
        sigma = EPS * np.sqrt(np.log2(2 * hop) + 2) * rms  # as in test_fft, two windows more
        tiny = hop * SMALLEST
        for gains in (rng.uniform(0.0, 1.0, (blocks, hop + 1)), np.ones((blocks, hop + 1))):
            model, bank = stft.Stft(hop, late), stages.new("stft", hop, late)
            outs, rights, spectrum_error, line = [], [], 0.0, 0.0
            for block, gain in zip(x.reshape(blocks, hop), float32(gains), strict=True):
                re, im, out = (np.zeros(n, np.float32) for n in (hop + 1, hop + 1, hop))
                stages.call("stft_run", bank, block, gain, re, im, out)
                spectrum = model.analyse(block.astype(np.float64))
                spectrum_error = max(spectrum_error, float(np.max(np.abs(re + 1j * im - spectrum))))
                line = max(line, float(np.max(np.abs(spectrum))))
                outs.append(out)
                rights.append(model.synthesise(spectrum * gain))
            out, right = np.concatenate(outs), np.concatenate(rights)
            check(f"{name}, spectrum", spectrum_error, 6 * sigma * np.sqrt(2 * hop) + EPS * line + tiny)
            # the synthesis window is up to 2 where the analysis window is low: up to twice the error
            check(f"{name}, output", np.max(np.abs(out - right)), 2 * 6 * np.sqrt(2.0) * sigma + EPS + tiny)
        wanted = np.concatenate([np.zeros(late), x[:-late]])
        check(
            f"{name}, reconstruction", np.max(np.abs(out - wanted)), 2 * 6 * np.sqrt(2.0) * sigma + EPS + tiny
        )


# ---------- high-pass


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_hpf(stages: Stages, rng: np.random.Generator, rate_hz: int) -> None:
    """Two errors: of the rounded coefficients, which is computed; and of nine roundings a sample, each within
    EPS of a term no larger than twice the signal, which leave through 1/A(z)."""
    cutoff_hz, count = 80.0, rate_hz
    b, a = hpf.coefficients(rate_hz, cutoff_hz)
    spread = np.linalg.norm(lfilter([1.0], a, np.eye(1, count)[0]))
    for name, x in cruel(rng, count).items():
        x = float32(x)
        right = hpf.process(x.astype(np.float64), rate_hz, cutoff_hz)
        rounded = lfilter(float32(b).astype(np.float64), float32(a).astype(np.float64), x.astype(np.float64))
        whole, handle = x.copy(), stages.new("hpf", rate_hz, cutoff_hz)
        stages.call("hpf_run", handle, whole, count)
        largest = max(np.max(np.abs(right)), np.max(np.abs(x)))
        sigma = np.sqrt(9.0 / 3.0) * EPS * 2 * largest * spread
        tiny = 9 * SMALLEST * np.sum(np.abs(lfilter([1.0], a, np.eye(1, count)[0])))
        check(name, np.max(np.abs(whole - right)), np.max(np.abs(rounded - right)) + 6 * sigma + tiny)

        stages.call("hpf_again", handle)
        split = misaligned(x, 1)
        for start, stop in itertools.pairwise([0, 1, 4, 333, 960, count]):
            stages.call("hpf_run", handle, split[start:stop], stop - start)
        assert np.array_equal(split, whole), "a reset, other pieces or another address give another result"


# ---------- limiter


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_limiter(stages: Stages, rng: np.random.Generator, rate_hz: int) -> None:
    channels, count, lookahead = 2, rate_hz // 2, rate_hz // 1000
    release = 1.0 - np.exp(-1.0 / (limiter.C.RELEASE_S * rate_hz))
    for name, first in cruel(rng, count).items():
        x = float32(np.stack([3.0 * first, 0.5 * rng.standard_normal(count) * (name != "zeros")]))
        right = limiter.process(x.T.astype(np.float64), rate_hz, 1.0).T
        handle = stages.new("limiter", rate_hz, channels, 1.0)
        whole = x.copy()
        stages.call("limiter_run", handle, whole, count)
        # The release stops when release * (1 - gain) rounds to nothing, at EPS/2; 1 - exp() is off by EPS/2,
        # remembered for 1/release samples. The box sums `lookahead` gains.
        bound = np.max(np.abs(x)) * (EPS / release + (lookahead + 4) * EPS)
        check(name, np.max(np.abs(whole - right)), bound)
        ceiling = 10.0 ** (-1.0 / 20.0)
        check(f"{name}, over the ceiling", np.max(np.abs(whole)) - ceiling, (lookahead + 4) * EPS)

        stages.call("limiter_again", handle)
        pieces = []
        for start, stop in itertools.pairwise([0, 1, 4, 333, 960, count]):
            piece = misaligned(x[:, start:stop], 3)
            stages.call("limiter_run", handle, piece, stop - start)
            pieces.append(piece)
        assert np.array_equal(np.concatenate(pieces, axis=1), whole)


# ---------- gain


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_agc(stages: Stages, rng: np.random.Generator, rate_hz: int) -> None:
    channels, hop, blocks = 2, rate_hz // 100, 900
    x = voice(rng, rate_hz, blocks / 100.0)
    x *= np.repeat(10.0 ** (rng.uniform(-25.0, 15.0, 9) / 20.0), 100 * hop)
    x = float32(np.stack([x, 0.3 * x])).reshape(channels, blocks, hop)
    probability = float32(np.clip(rng.uniform(-0.2, 1.2, blocks), 0.0, 1.0))
    probability[550:800] = 0.0  # longer than the pause after which the gain is lowered
    power = float32(np.mean(x**2, axis=(0, 2)))
    handle, model = stages.new("agc", -20.0, 32.0), agc.Agc(-20.0, 32.0)
    first, worst_db, worst = [], 0.0, 0.0
    for b in range(blocks):
        enabled = not 400 <= b < 450
        block = misaligned(x[:, b], 1)
        gain_db = stages.call(
            "agc_run",
            handle,
            block,
            channels,
            hop,
            float(power[b]),
            float(probability[b]),
            enabled,
            returns=ctypes.c_float,
        )
        given = float(power[b]), float(probability[b])
        right = model.process(x[:, b].T.astype(np.float64), *given, enabled)
        worst_db = max(worst_db, abs(gain_db - model.applied_db))
        worst = max(worst, float(np.max(np.abs(block - right.T)) / max(np.max(np.abs(right)), 1e-9)))
        first.append(block)
    # Levels stay below 64 dB, where a rounding is 2^-19 dB; one a block, all of which add up.
    bound_db = blocks * 2.0**-19
    check("gain in dB", worst_db, bound_db)
    check("samples, relative", worst, bound_db * np.log(10.0) / 20.0 + 8 * EPS)

    stages.call("agc_again", handle)
    for b in range(blocks):
        block = float32(x[:, b])
        stages.call(
            "agc_run",
            handle,
            block,
            channels,
            hop,
            float(power[b]),
            float(probability[b]),
            not 400 <= b < 450,
            returns=ctypes.c_float,
        )
        assert np.array_equal(block, first[b])


# ---------- delay


@pytest.mark.parametrize("true_blocks", [0, 4, 37, 100])
def test_delay(stages: Stages, rng: np.random.Generator, true_blocks: int) -> None:
    lags, hop, blocks = 101, 80, 600
    far = voice(rng, 8000, blocks / 100.0)
    echo = np.concatenate([np.zeros(true_blocks * hop), 0.3 * far])[: len(far)]
    mic = echo + at_level(rng.standard_normal(len(far)), -60.0)
    far[450 * hop :] = 0.0  # then only the microphone
    mic[450 * hop :] = voice(rng, 8000, 1.5)

    def frames(x: Signal) -> np.ndarray:
        padded = np.concatenate([np.zeros(hop), x])
        return np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[::hop]).astype(
            np.complex64
        )

    handle, model = stages.new("delay", lags), delay.Delay(lags)
    runs: list[list[tuple[int, float]]] = []
    for run in range(2):
        runs.append([])
        worst = worst_confidence = largest = 0.0
        found = None
        for b, (far_now, mic_now) in enumerate(zip(frames(far), frames(mic), strict=True)):
            score, confidence = np.zeros(lags, np.float32), ctypes.c_float()
            parts = [float32(part) for part in (far_now.real, far_now.imag, mic_now.real, mic_now.imag)]
            if b in (580, 585):  # a far-end block alone: all lags grow
                stages.call("delay_step", handle, *parts[:2])
                if run == 0:
                    model.push(far_now.astype(complex))
                    model.slip(1)
            if b == 590:  # a microphone block alone: they shrink
                stages.call("delay_step", handle, None, None)
                if run == 0:
                    model.slip(-1)
            best = stages.call(
                "delay_run", handle, *parts, ctypes.byref(confidence), score, returns=ctypes.c_int
            )
            runs[run].append((best, confidence.value))
            if run == 0:
                model.push(far_now.astype(complex))
                model.process(mic_now.astype(complex))
                worst = max(worst, float(np.max(np.abs(score - model.score))))
                worst_confidence = max(worst_confidence, abs(confidence.value - model.confidence))
                largest = max(largest, float(np.max(model.score)))
                assert best == model.best, f"block {b}"
                found = b if found is None and best == true_blocks else found
        if run == 0:
            print(f"found after {found} blocks, of which {true_blocks} are the delay itself")
            assert found is not None and found - true_blocks < 150
            assert model.best == min(true_blocks + 2, lags - 1) - 1
            # Averages remember 1/rate roundings of EPS; a score holds four of them, squared.
            bound = 8 * EPS * (1.0 / delay.C.LEVEL_RATE + 1.0 / delay.C.CROSS_RATE) + 64 * EPS
            check("score, of the largest", worst / largest, bound)
            # contrast = lags * share of the score; the confidence divides it by the range of contrasts
            check(
                "confidence",
                worst_confidence,
                2 * bound * lags / (delay.C.SURE_CONTRAST - delay.C.CHANCE_CONTRAST),
            )
        stages.call("delay_again", handle)
    assert runs[0] == runs[1], "a reset detector is not a fresh one"


# ---------- drift


@pytest.mark.parametrize("a_block_late", [True, False])
@pytest.mark.parametrize("rate_hz", [8000, 48000])
def test_resampler(stages: Stages, rng: np.random.Generator, rate_hz: int, a_block_late: bool) -> None:
    """A varying slide, over more than a block in both directions. A rounded position is off by EPS per block,
    pi times that in phase at the Nyquist frequency; a sum has 64 products."""
    hop, blocks = rate_hz // 100, 3500
    x = float32(at_level(rng.standard_normal(blocks * hop), -15.0)).reshape(blocks, hop)
    slides = float32(0.9 * np.sin(2.0 * np.pi * np.arange(blocks) / blocks) * (np.arange(blocks) > 5))
    handle, model = stages.new("resampler", hop), resampler.Resampler(hop)
    first, counts, worst = [], [], 0.0
    for run in range(2):
        for b in range(blocks):
            if b == 5:
                stages.call("resampler_begin", handle, int(a_block_late))
                model.start(a_block_late)
            out = np.zeros(2 * hop, np.float32)
            count = stages.call("resampler_run", handle, float(slides[b]), x[b], out, returns=ctypes.c_int)
            if run:
                assert np.array_equal(out, first[b]), "a reset resampler is not a fresh one"
                continue
            first.append(out)
            rights = model.push(float(slides[b]), x[b].astype(np.float64))
            counts.append(count)
            assert count == len(rights)
            for n, right in enumerate(rights):
                worst = max(worst, float(np.max(np.abs(out[n * hop : (n + 1) * hop] - right))))
        stages.call("resampler_again", handle)
    print(f"{counts.count(2)} times two blocks, {counts.count(0)} times none")
    assert counts.count(2) > 0 and counts.count(0) > 0
    loudest = float(np.max(np.abs(x)))
    check("samples", worst, loudest * EPS * (6 * np.pi * np.sqrt(blocks) + 64))


def test_resampler_is_a_delay(stages: Stages) -> None:
    """A tone below 0.7 of the Nyquist frequency gives the same tone, sampled by the other clock."""
    hop, blocks, slide = 160, 600, 0.048  # 300 ppm
    t, worst = np.arange(blocks * hop), -np.inf
    for share in (0.01, 0.1, 0.3, 0.5, 0.7):
        x = float32(0.5 * np.cos(np.pi * share * t)).reshape(blocks, hop)
        handle, out = stages.new("resampler", hop), []
        stages.call("resampler_begin", handle, 1)
        for block in x:
            pair = np.zeros(2 * hop, np.float32)
            count = stages.call("resampler_run", handle, slide, block, pair, returns=ctypes.c_int)
            out += list(pair[: count * hop])
        n = np.arange(len(out))
        error = np.array(out) - 0.5 * np.cos(np.pi * share * n * (1.0 - slide / hop))
        worst = max(worst, float(20.0 * np.log10(np.max(np.abs(error[hop:])) / 0.5)))
    print(f"worst error {worst:.0f} dB below the tone")
    assert worst < -50.0


def test_drift(stages: Stages, rng: np.random.Generator) -> None:
    """A loop with a canceller whose path follows a hundredth of the lag per block: the rate is found as by
    the model, nothing is steered without a drift, and a drift that reduces less of the echo is withdrawn.
    Roundings add up over the steered blocks, relative to the largest lag."""
    hop, blocks = 160, 3000
    for ppm, reduction_with in ((0.0, 100.0), (3.0, 100.0), (-300.0, 100.0), (-300.0, 20.0)):
        handle, model = stages.new("drift", hop), drift.Drift(hop)
        lag, worst, rate, steered = 0.0, 0.0, ctypes.c_float(), []
        for b in range(blocks):
            information = float(np.float32(rng.uniform(0.0, 3e4) * (b % 400 < 300)))
            seen = float(np.float32(information * lag + 0.5 * np.sqrt(information) * rng.standard_normal()))
            steered.append(model.steering)
            given = seen, information, reduction_with if model.steering else 100.0
            slide = stages.call("drift_run", handle, *given, ctypes.byref(rate), returns=ctypes.c_float)
            right = model.process(*given)
            worst = max(worst, abs(slide - right), abs(rate.value - model.rate))
            lag = 0.99 * lag + 1e-6 * ppm * hop - right
        print(f"{ppm:+.0f} ppm: found {1e6 * model.rate / hop:+.2f}")
        check("slide in samples", worst, 1e-4)
        if reduction_with < 100.0:
            assert np.any(np.diff(np.array(steered, int)) < 0), "the test must see a drift withdrawn"
            continue
        assert model.steering == (ppm != 0.0)
        assert 1e6 * model.rate / hop == pytest.approx(ppm, abs=1.0)


# ---------- loudspeaker


@pytest.mark.parametrize("truth", [0.0, 8.0, 16.0])
def test_saturation(stages: Stages, rng: np.random.Generator, truth: float) -> None:
    """Syllables through a loudspeaker of that drive and a filter of one tap, with a near end of the same
    level: the drive is the model's and near the true one; none is applied for a linear loudspeaker. The slope
    is a quotient of differences that lose two digits, and its roundings are averaged over two seconds."""
    hop, blocks = 160, 6000
    handle, model = stages.new("saturation"), saturation.Saturation()
    levels = np.repeat(10.0 ** (rng.uniform(-30.0, -14.0, blocks // 20) / 20.0), 20)
    far = float32(levels[:, None] * rng.standard_normal((blocks, hop)))
    talks = np.repeat(rng.uniform(size=blocks // 50) < 0.5, 50)
    near = 0.05 * talks[:, None] * rng.standard_normal((blocks, hop))
    drives, given_parts = [], []
    tap, error_power, worst, saturated = 0.8, 1e-3, 0.0, []
    for x, near_end in zip(far, near, strict=True):
        s, given = model.process(x.astype(np.float64)), misaligned(x, 1)
        stages.call("saturation_apply", handle, given, hop)
        saturated.append(np.max(np.abs(given - s)))
        error = saturation.bent(x.astype(np.float64), truth) + near_end - tap * s
        error_power += 0.1 * (np.mean(error**2) - error_power)
        parts = np.mean(s**2), np.mean((tap * s) ** 2) / error_power, np.mean(tap * s * error) / error_power
        tap += 0.02 * np.dot(error, s) / (np.dot(s, s) + hop * error_power)
        given_parts.append([float(np.float32(part)) for part in parts])
        drives.append(stages.call("saturation_run", handle, *given_parts[-1], returns=ctypes.c_float))
        model.learn(*given_parts[-1])
        worst = max(worst, abs(drives[-1] - model.drive))
    stages.call("saturation_again", handle)
    again = [stages.call("saturation_run", handle, *parts, returns=ctypes.c_float) for parts in given_parts]
    assert again == drives, "a reset gives another result"
    print(f"drive {truth:g}: found {drives[-1]:.2f}")
    check("drive", worst, 100 * 200 * EPS * saturation.C.MOST_DRIVE)
    # the block from which it counts as overdriven may differ
    check("saturated far end", float(np.quantile(saturated, 1.0 - 3 / blocks)), 1e-3)
    assert (
        drives[-1] < saturation.C.NO_LONGER if truth == 0.0 else drives[-1] == pytest.approx(truth, rel=0.2)
    )


# ---------- echo canceller


AEC_BLOCKS = 400
AEC_MOVES = {20: 3, 250: 1}  # window by block
AEC_SLIPS = {255: 1, 262: -1, 264: -1, 265: -1, 270: 1}


def aec_signals(rng: np.random.Generator, rate_hz: int, references: int) -> tuple[Floats, Floats]:
    """Return far end, (references, samples), and microphone: an echo, double talk from block 150 to 200,
    another room from 280 on. A side is that of a talker who moves, and of a second one from 120 on."""
    hop, seconds, count = rate_hz // 100, AEC_BLOCKS / 100.0, AEC_BLOCKS * (rate_hz // 100)
    far = voice(rng, rate_hz, seconds, -20.0)[None]
    t = np.arange(count) // hop
    if references == 2:
        second = voice(rng, rate_hz, seconds, -26.0, pitch_hz=150.0) * (t >= 120)
        far = np.stack([far[0], far[0] * np.where(t < 80, 0.9, -0.7) + second])
    rooms = [[np.r_[np.zeros(4 * hop), room(rng, rate_hz, 0.2)] for _ in far] for _ in range(2)]
    used = far * np.stack([np.ones(count, bool), paired_block(t)])[:references]
    echoes = [sum(np.convolve(x, h)[:count] for x, h in zip(used, path, strict=True)) for path in rooms]
    near = voice(rng, rate_hz, seconds, -26.0, pitch_hz=180.0)
    mic = np.where(t < 280, echoes[0], -echoes[1]) + near * ((t >= 150) & (t < 200))
    return float32(far), float32(mic + at_level(rng.standard_normal(count), -70.0))


def paired_block(block: npt.NDArray[np.int_] | int) -> npt.NDArray[np.bool_]:
    """True in blocks in which the side is in use: not in the first, and not for half a second later on."""
    return (np.asarray(block) >= 30) & ((np.asarray(block) < 205) | (np.asarray(block) >= 255))


def move_aec(stages: Stages, handle: object, model: aec.Canceller, block: int) -> None:
    """Apply the moves of the path and of its window that belong ahead of a block."""
    late_samples = {230: model.hop // 3, 240: 0}
    if block in AEC_MOVES:
        stages.call("aec_move", handle, AEC_MOVES[block])
        model.set_delay(AEC_MOVES[block])
    if block in late_samples:
        stages.call("aec_late", handle, late_samples[block])
        model.delay_path(late_samples[block])
    if block in AEC_SLIPS:
        stages.call("aec_step", handle, AEC_SLIPS[block], 14)
        model.slip(AEC_SLIPS[block], 14)


@pytest.mark.parametrize(("rate_hz", "references"), [(8000, 1), (48000, 1), (16000, 2)])
def test_aec(stages: Stages, rng: np.random.Generator, rate_hz: int, references: int) -> None:
    """Convergence, a moved window, double talk, blocks without learning, another room: as by the model.
    Rounding: EPS of the signal for each level of three transforms, for every partition's product and for each
    of the about 100 blocks that a path is averaged over, all independent; worst of many, so six sigma."""
    hop, partitions, blocks, total = rate_hz // 100, 16, 30, AEC_BLOCKS
    far, mic = aec_signals(rng, rate_hz, references)
    loudest = np.sqrt(np.max(np.mean(mic.astype(np.float64).reshape(total, hop) ** 2, axis=1)))
    bound = 6 * EPS * np.sqrt(3 * np.log2(2 * hop)) * np.sqrt(partitions) * np.sqrt(100.0) * loudest

    handle = stages.new("aec", hop, references, partitions, blocks)
    model = aec.Canceller(hop, partitions, blocks, references)
    unlearned = range(220, 226)
    first, worst, worst_confidence, lags = [], 0.0, 0.0, []
    for b in range(total):
        at = slice(b * hop, (b + 1) * hop)
        move_aec(stages, handle, model, b)
        echo, error = np.zeros(hop, np.float32), np.zeros(hop, np.float32)
        near_speech = 0.7 if 150 <= b < 200 else 0.0
        block = np.ascontiguousarray(far[:, at])
        paired = references == 2 and bool(paired_block(b))
        exact = block.astype(np.float64), mic[at].astype(np.float64)
        if b in unlearned:
            stages.call("aec_guess", handle, block, paired, mic[at], echo, error)
            rights = model.predict(*exact, paired)
        else:
            stages.call("aec_run", handle, block, paired, mic[at], near_speech, echo, error)
            rights = model.process(*exact, near_speech, paired)
        first.append(error)
        worst = max(
            worst, *(float(np.max(np.abs(x - y))) for x, y in zip((echo, error), rights, strict=True))
        )
        lag, information = ctypes.c_float(), ctypes.c_float()
        stages.call("aec_lag", handle, ctypes.byref(lag), ctypes.byref(information))
        confidence = stages.call("aec_confident", handle, returns=ctypes.c_float)
        worst_confidence = max(worst_confidence, abs(confidence - model.confidence))
        lags.append([lag.value, information.value, model.lag_sum, model.lag_information])
    lag_sum, information, right_sum, right_information = np.array(lags).T
    # sums of products of two spectra, each as exact as the error's samples are to the loudest
    heard = right_information > 1e-2 * np.max(right_information)
    check("confidence", worst_confidence, 1e-3)
    check("information", np.max(np.abs(information[heard] / right_information[heard] - 1.0)), 1e-3)
    check(
        "lag, of its deviation", np.max(np.abs(lag_sum - right_sum) / np.sqrt(right_information + 1e-9)), 1e-2
    )
    print(f"{rate_hz} Hz: the shadow filter was better {model.rescues} times")
    assert model.rescues > 0, "the test must see the shadow filter lead"
    check("samples", worst, bound)

    stages.call("aec_again", handle)
    for b in range(total // 4):
        at = slice(b * hop, (b + 1) * hop)
        if b in AEC_MOVES:
            stages.call("aec_move", handle, AEC_MOVES[b])
        echo, error = np.zeros(hop, np.float32), np.zeros(hop, np.float32)
        far_at = misaligned(np.ascontiguousarray(far[:, at]), 1)
        paired = references == 2 and bool(paired_block(b))
        stages.call("aec_run", handle, far_at, paired, misaligned(mic[at], 2), 0.0, echo, error)
        assert np.array_equal(error, first[b]), "a reset, or another address, gives another result"


@pytest.mark.parametrize("late_ms", [37.3, -22.1])
@pytest.mark.parametrize("rate_hz", [8000, 48000])
def test_jump(stages: Stages, rng: np.random.Generator, rate_hz: int, late_ms: float) -> None:
    """Near-end speech beside an echo gives no jump; then the echo jumps, and the jump is found, as by the
    model. The evidence is a mean of at most 160 bins, each as exact as a sum of transforms."""
    hop, total, talks, jumps = rate_hz // 100, 360, slice(110, 125), 300
    count = total * hop
    late = round(late_ms * rate_hz / 1000.0)
    echo = at_level(rng.standard_normal(count), -26.0)
    heard = np.where(np.arange(count) < jumps * hop, echo, np.roll(echo, late))
    near = at_level(rng.standard_normal(count), -25.0) * (np.arange(count) // hop >= talks.start)
    near[talks.stop * hop :] = 0.0
    mic = float32(heard + near + at_level(rng.standard_normal(count), -60.0))
    estimate, usual = float32(echo), np.full(hop + 1, hop * 10.0 ** (-60.0 / 10.0), np.float32)
    handle, model = stages.new("jump", hop), jump.Jump(hop)
    worst, searched, found = 0.0, 0, {}
    for run in range(2):
        for b in range(total):
            at, evidence = slice(b * hop, (b + 1) * hop), ctypes.c_float()
            given = [mic[at], estimate[at], usual]
            if run:
                given = [misaligned(x, 3) for x in given]
            samples = stages.call("jump_run", handle, *given, ctypes.byref(evidence), returns=ctypes.c_int)
            if run:
                assert samples == found.get(b, 0), "a reset, or another address, gives another result"
                continue
            right = model.process(*(x.astype(np.float64) for x in given))
            assert samples == right
            worst = max(worst, abs(evidence.value - model.evidence))
            searched += model.searched_blocks > 0 and talks.start <= b < talks.stop
            if samples:
                found[b] = samples
        stages.call("jump_again", handle)
    print(f"{searched} blocks searched in double talk; found {found}, {late} is true")
    assert searched > 0, "the test must see a search without a result"
    assert list(found.values()) == [late] and jumps < min(found) < jumps + 20
    check("evidence", worst, 1e-3)


# ---------- suppression


def spectra(x: Signal, hop: int) -> np.ndarray:
    """Return the spectrum of every block by the suppressor's filter bank, (blocks, bins)."""
    bank = stft.Stft(hop)
    return np.array([bank.analyse(block) for block in x.reshape(-1, hop)])


def padded(x: npt.ArrayLike, hop: int) -> Floats:
    """Return hop + 1 bins padded with zeros to whole vectors of eight, the widest of a kernel."""
    out = np.zeros((hop + 8) // 8 * 8, np.float32)
    out[: hop + 1] = x
    return out


@pytest.mark.parametrize("rate_hz", [8000, 48000])
def test_residual(stages: Stages, rng: np.random.Generator, rate_hz: int) -> None:
    """Far end alone, double talk, near end alone, silence, an echo that may have moved, and an estimate that
    is no echo; from the first second on a part of the echo is not predictable by a filter. The regression
    averages 50 blocks and sums up to 100 bins; roundings add up like noise."""
    hop, blocks = rate_hz // 100, 500
    bins, count, t = hop + 1, blocks * hop, np.arange(blocks * hop) // hop
    far = voice(rng, rate_hz, blocks / 100.0) * ((t < 200) | (t >= 320))
    near = voice(rng, rate_hz, blocks / 100.0, pitch_hz=180.0) * ((t >= 100) & (t < 280) | (t >= 400))
    echo = far * np.where(t < 400, 1.0, 0.5)
    left = np.where(t < 400, np.where(t < 100, 0.03, 0.1) * far, -echo)
    unpredicted = 0.2 * np.abs(far) * rng.standard_normal(count) * ((t >= 100) & (t < 400))
    heard = near + left + unpredicted + at_level(rng.standard_normal(count), -70.0)
    parts = [spectra(x, hop) for x in (heard, echo, 3.0 * far)]
    noise = np.full(bins, 1e-7 * np.sum(stft.windows(hop)[0] ** 2))
    handle, model = stages.new("residual", hop), residual.Residual(bins)
    first, convergences, worst, worst_convergence, highest = [], [], 0.0, 0.0, 0.0
    for run in range(2):
        for b in range(blocks):
            error, estimate, playing = (part[b] for part in parts)
            cross = padded((error * np.conj(estimate)).real, hop)
            given = [
                padded(np.abs(error) ** 2, hop),
                padded(np.abs(estimate) ** 2, hop),
                cross,
                padded(noise, hop),
                padded(np.abs(playing) ** 2, hop),
            ]
            if run:
                given = [misaligned(x, 3) for x in given]
            power = np.zeros(len(cross), np.float32)
            moved = 0.6 if 340 <= b < 350 else 0.0
            convergence = stages.call("residual_run", handle, *given, moved, power, returns=ctypes.c_float)
            if run:
                assert np.array_equal(power, first[b]), "a reset, or another address, gives another result"
                continue
            first.append(power)
            right = model.process(*(x[:bins].astype(np.float64) for x in given), moved)
            worst = max(worst, float(np.max(np.abs(power[:bins] - right) / (right + 1e-6 * noise))))
            worst_convergence = max(worst_convergence, abs(convergence - model.convergence))
            convergences.append(convergence)
            highest = max(highest, float(np.max(right)))
            assert not np.any(power[bins:])
        stages.call("residual_again", handle)
    assert highest > 0.0
    print(f"convergence up to {max(convergences):.2f}, later down to {min(convergences[100:]):.2f}")
    assert max(convergences) > 0.9 and min(convergences[100:]) < 1.0
    check("power, relative", worst, 6 * EPS * np.sqrt(50.0 * 100.0))
    check("convergence", worst_convergence, 6 * EPS * np.sqrt(50.0 * 100.0))


@pytest.mark.parametrize("channels", [2, 4, 8])
def test_array(stages: Stages, rng: np.random.Generator, channels: int) -> None:
    """Noise, speech in it from one side, then from another, residual echo in some bands, silence; channel 0
    is covered at first. Averages sum up to 150 blocks, whose roundings the equations amplify by their
    condition, about rows / LOADING at most."""
    hop, blocks = 80, 400
    bins, count, t = hop + 1, blocks * hop, np.arange(blocks * hop) // hop
    near = voice(rng, 8000, blocks / 100.0, -25.0) * (t >= 60)
    paths = [rng.standard_normal((channels, 30)) * 0.8 ** np.arange(30) for _ in range(2)]
    heard = np.where(t < 200, *(np.array([lfilter(h, 1.0, near) for h in path]) for path in paths))
    heard = heard + 0.003 * rng.standard_normal((channels, count)) + 0.003 * rng.standard_normal(count)
    heard[0] *= np.where(t < 300, 0.01, 1.0)
    heard[:, (t >= 250) & (t < 260)] = 0.0
    spectrum = np.array([spectra(x, hop) for x in heard])  # channels, blocks, bins
    window_power = float(np.float32(np.sum(stft.windows(hop)[0] ** 2)))
    presence = np.clip((t[::hop] >= 60) * rng.uniform(0.7, 1.3, blocks), 0.0, 1.0)
    echoes = rng.uniform(0.0, 1e-4, (blocks, bins)) * (rng.uniform(size=(blocks, 1)) < 0.2)
    handle, model = (
        stages.new("array", hop, channels, window_power),
        array.Array(channels, bins, window_power),
    )
    first: list[Floats] = []
    references, error, size = set(), 0.0, 0.0
    for run in range(2):
        for b in range(blocks):
            now = np.stack([padded(x.real, hop) for x in spectrum[:, b]])
            imaginary = np.stack([padded(x.imag, hop) for x in spectrum[:, b]])
            if run:
                now, imaginary = misaligned(now, 3), misaligned(imaginary, 1)
            power, beam = np.zeros(now.shape[1], np.float32), np.zeros((2, now.shape[1]), np.float32)
            given = (now, imaginary, padded(echoes[b], hop), float(presence[b]), power, beam)
            reference = stages.call("array_run", handle, *given, returns=ctypes.c_int)
            if run:
                assert np.array_equal(beam, first[b]), "a reset, or another address, gives another result"
                continue
            first.append(beam)
            single = now[:, :bins].astype(np.float64) + 1j * imaginary[:, :bins]
            right = model.put(single.T)
            model.learn(padded(echoes[b], hop)[:bins].astype(np.float64), float(np.float32(presence[b])))
            assert reference == model.reference and not np.any(beam[:, bins:])
            references.add(reference)
            error += float(np.sum(np.abs(beam[0, :bins] + 1j * beam[1, :bins] - right) ** 2))
            size += float(np.sum(np.abs(single) ** 2)) / channels
        gain_db = stages.call("array_gain", handle, returns=ctypes.c_float)
        stages.call("array_again", handle)
    print(f"references {references}, noise attenuated by {gain_db:.2f} dB, model {model.gain_db():.2f}")
    assert references != {0} and abs(gain_db - model.gain_db()) < 0.02
    check("beam", np.sqrt(error / size), EPS * np.sqrt(150.0) * 2 * channels / array.C.LOADING)


# Places of microphones in mm, x to the right and y forward.
PLACES = {
    "2 in a line that points forward": ((0.0, -30.0), (0.0, 30.0)),
    "4 in a line": ((-52.5, 0.0), (-17.5, 0.0), (17.5, 0.0), (52.5, 0.0)),
    "8": ((0, 40), (28, 28), (40, 0), (28, -28), (0, -40), (-28, -28), (-40, 0), (-28, 28)),
}


@pytest.mark.parametrize("rate_hz", [8000, 48000])
@pytest.mark.parametrize("places", PLACES)
def test_direction(stages: Stages, rng: np.random.Generator, rate_hz: int, places: str) -> None:
    """A talker in front, then at the back, then nobody, with noise and with residual echo in some bins.
    Rounding of phases and sums moves the vertex of the parabola: by at most 0.0003 degrees in these cases."""
    hop, blocks, positions = rate_hz // 100, 800, np.array(PLACES[places], float)
    t, hz = np.arange(blocks * hop) // hop, np.fft.rfftfreq(blocks * hop, 1.0 / rate_hz)
    said = np.fft.rfft(voice(rng, rate_hz, blocks / 100.0, -25.0))
    heard = np.zeros((len(positions), blocks * hop))
    for degrees, spoken in ((30.0, t < 200), (170.0, (t >= 200) & (t < 400))):
        towards = np.array([np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])
        lead_s = positions @ towards / direction.C.SOUND_MM_PER_S
        heard += np.fft.irfft(said * np.exp(2j * np.pi * hz * lead_s[:, None])) * spoken
    heard += 0.001 * rng.standard_normal(heard.shape)
    spectrum = np.array([spectra(x, hop) for x in heard])  # channels, blocks, bins
    window_power = float(np.float32(np.sum(stft.windows(hop)[0] ** 2)))
    presence = np.float32(rng.uniform(0.3, 1.0, blocks) * (t[::hop] < 400))
    echoes = rng.uniform(0.0, 1e-3, (blocks, hop + 1)) * (rng.uniform(size=(blocks, 1)) < 0.2)
    noise = padded(np.full(hop + 1, 1e-6 * window_power), hop)
    handle = stages.new("direction", hop, len(positions), window_power)
    bins = stages.call("direction_at", handle, float32(positions), returns=ctypes.c_int)
    model = direction.Direction(positions, bins, window_power)
    first: list[float] = []
    wrong, worst = 0, 0.0
    for run in range(2):
        for b in range(blocks):
            re, im = (np.stack([padded(part(x), hop) for x in spectrum[:, b]]) for part in (np.real, np.imag))
            power, echo = padded(np.abs(spectrum[0, b]) ** 2, hop), padded(echoes[b], hop)
            given = (re, im, power, echo, noise)
            if run:
                given = tuple(misaligned(x, 3) for x in given)
            found = stages.call("direction_run", handle, *given, float(presence[b]), returns=ctypes.c_float)
            if run:
                assert found == first[b], "a reset, or another address, gives another result"
                continue
            first.append(found)
            beam = (x[: hop + 1].astype(np.float64) for x in (power, echo, noise))
            model.process(
                re[:, : hop + 1].astype(np.float64) + 1j * im[:, : hop + 1], *beam, float(presence[b])
            )
            apart = abs((found - model.degrees + 180.0) % 360.0 - 180.0)
            wrong += apart > 1.0  # another maximum, as high within rounding
            worst = max(worst, apart if apart <= 1.0 else 0.0)
        stages.call("direction_again", handle)
    print(f"found {first[190]:.1f} and {first[390]:.1f} degrees, another maximum in {wrong} blocks")
    mirrored = places == "4 in a line"
    assert abs(first[190] - 30.0) < 5.0 and abs(first[390] - (10.0 if mirrored else 170.0)) < 5.0
    assert first[0] == first[-1] == direction.C.DIRECTION_UNKNOWN and first[600] > 0.0
    assert wrong == 0
    check("direction in degrees", worst, 0.01)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attenuation_db", [18.0, 0.0])
@pytest.mark.parametrize("rate_hz", [8000, 48000])
def test_ns(
    stages: Stages, rng: np.random.Generator, rate_hz: int, attenuation_db: float, masked: bool
) -> None:
    """Noise that begins, speech in it, more noise, clicks, echo in some bands, with a mask and without. A bin
    within rounding of a threshold (is this more echo than noise?) may fall to the other side: one in ten
    thousand at most."""
    hop, blocks = rate_hz // 100, 700
    bins, count, t = hop + 1, blocks * hop, np.arange(blocks * hop) // hop
    near = voice(rng, rate_hz, blocks / 100.0) * ((t >= 150) & (t < 450))
    near += at_level(rng.standard_normal(count), -20.0) * ((t >= 500) & (t % 12 < 2))
    hiss = at_level(rng.standard_normal(count), -55.0) * np.select(
        [t < 30, t < 400, t < 650], [0.1, 1.0, 3.0]
    )
    heard = spectra(near + hiss, hop)
    window_power = float(np.float32(np.sum(stft.windows(hop)[0] ** 2)))
    echoes = np.where(
        rng.uniform(size=(blocks, 1)) < 0.5, 0.0, np.abs(heard) ** 2 * rng.uniform(size=heard.shape) ** 4
    )
    echoes[:120] = 0.0
    converged, confidences = float32(rng.uniform(size=(2, blocks)))
    masks, talks = float32(rng.uniform(size=(blocks, 2, bins))), float32(rng.uniform(size=blocks))
    handle = stages.new("ns", hop, window_power, attenuation_db)
    model = ns.Suppressor(bins, window_power, attenuation_db)
    first: list[Floats] = []
    errors, fills, levels, worst_speech, most_foreground, most_clicks = [], [], [], 0.0, 0.0, 0.0
    tonality, worst_tonality, largest_rise = [], 0.0, 0.0
    for run in range(2):
        for b in range(blocks):
            if b in (0, 550):  # another level on the way
                now_db = 6.0 if b and attenuation_db else attenuation_db
                stages.call("ns_attenuate", handle, now_db)
                model.configure(now_db)
            re, im, echo = padded(heard[b].real, hop), padded(heard[b].imag, hop), padded(echoes[b], hop)
            power = re * re + im * im
            gain, noise = np.zeros_like(re), np.zeros_like(re)
            out_re, out_im = misaligned(re, run), misaligned(im, run)
            speech = stages.call(
                "ns_run",
                handle,
                out_re,
                out_im,
                power,
                echo,
                float32([*padded(masks[b][0], hop), *padded(masks[b][1], hop), talks[b]]) if masked else None,
                float(converged[b]),
                float(confidences[b]),
                gain,
                noise,
                returns=ctypes.c_float,
            )
            if run:
                assert np.array_equal(out_re, first[b]), "a reset, or another address, gives another result"
                continue
            first.append(out_re)
            exact = re[:bins].astype(float) + 1j * im[:bins], echo[:bins].astype(float)
            mask = tuple(row.astype(np.float64) for row in masks[b])
            judged = (mask[0], mask[1], float(talks[b])) if masked else None
            before = np.sum(model.noise)
            right, comfort = model.process(*exact, judged, float(converged[b]), float(confidences[b]))
            largest_rise = max(largest_rise, np.sum(model.noise) / before if b > 50 else 0.0)
            tonality.append(model.steady.tonality)
            tonal = stages.call("ns_tonality", handle, returns=ctypes.c_float)
            worst_tonality = max(worst_tonality, abs(tonal - tonality[-1]))
            errors.append(
                np.maximum(np.abs(gain[:bins] - right) / right, np.abs(noise[:bins] / model.noise - 1.0))
            )
            worst_speech = max(worst_speech, abs(speech - model.speech_probability))
            most_foreground = max(most_foreground, model.near_end.foreground)
            most_clicks = max(most_clicks, model.clatter.clicks)
            fills.append((out_re - gain * re)[:bins] + 1j * (out_im - gain * im)[:bins])
            levels.append(comfort)
        stages.call("ns_again", handle)
    print(f"foreground up to {most_foreground:.2f}, {most_clicks:.1f} clicks, tonality {max(tonality):.3f}")
    assert largest_rise > 2.0, f"steady noise: the noise floor rose by a factor of {largest_rise:.1f} at once"
    assert most_foreground > 0.5 and (most_clicks > 2.0) == masked
    # Twenty operations a block, remembered by the prior for 1/0.05 blocks; and twice that, since gains feed
    # back.
    bound = 20 * EPS * 20 * 2
    error = np.array(errors)
    print(f"gain and noise: {np.mean(error > bound):.1e} of the bins fell to the other side of a threshold")
    check("gain and noise, relative", float(np.quantile(error, 1.0 - 1e-4)), bound)
    check("speech probability", worst_speech, bound)
    check("tonality", worst_tonality, 2 * EPS * ns.C.TONALITY_PARTS * ns.C.PART_BLOCKS)
    # comfort noise: uniform within its level in both parts, so of a third of its power each; none elsewhere
    fill, level = np.array(fills), np.array(levels)
    rounding = 4 * EPS * np.abs(heard)
    over = np.maximum(np.abs(fill.real), np.abs(fill.imag)) > level * (1.0 + 1e-3) + rounding
    assert np.mean(over) < 1e-4
    if np.any(level):
        share = np.mean(np.abs(fill[level > 0]) ** 2) / np.mean(level[level > 0] ** 2)
        print(f"comfort noise in {np.mean(level > 0):.1%} of the bins, power {share:.3f} of its square level")
        assert share == pytest.approx(2.0 / 3.0, rel=0.2)


def test_ns_level(stages: Stages, rng: np.random.Generator) -> None:
    """Near-end speech in noise that changes by 60 dB in both directions, with echoes: the level as in the
    model, each level at some time, without oscillation. Five roundings a block, averaged over 1/0.005 blocks
    like noise.
    """
    blocks = 6000
    noise = 1e-3 * 10.0 ** (3.0 * np.sin(np.arange(blocks) / 900.0))
    talks = rng.uniform(size=blocks) < 0.6
    heard = noise + talks * rng.exponential(size=blocks)
    echo = heard * (rng.uniform(size=blocks) < 0.1)
    powers = float32(np.stack([heard, noise, echo, talks * rng.uniform(0.4, 1.0, blocks)]))
    handle, model = stages.new("ns_level"), ns.Level()
    runs: list[list[int]] = []
    worst_db, snr_db = 0.0, ctypes.c_float()
    for run in range(2):
        levels = []
        for b in range(blocks):
            given = [float(x) for x in powers[:, b]]
            levels.append(
                stages.call("ns_level_run", handle, *given, ctypes.byref(snr_db), returns=ctypes.c_int)
            )
            if run == 0:
                assert levels[-1] == model.process(*given), b
                worst_db = max(worst_db, abs(snr_db.value - model.snr_db))
        runs.append(levels)
        stages.call("ns_level_again", handle)
    changes = np.count_nonzero(np.diff(runs[0]))
    print(f"{changes} changes of level in a minute")
    check("ratio in dB", worst_db, 4.34 * 5 * EPS * 200)
    assert runs[0] == runs[1] and set(runs[0]) == {0, 1, 2, 3}
    assert changes <= 14  # two and a half passes through three edges, less those that the start leaves out


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
def test_mask(stages: Stages, rng: np.random.Generator, rate_hz: int) -> None:
    """Synthetic powers, among them silence, full scale and near-end speech without an echo. Inputs of a layer
    are rounded to 1/127 of the loudest, and a float's rounding occasionally moves such a step: one input with
    a weight of 1, remembered for about ten blocks, behind the sigmoid's slope. Before the first such step
    nothing but a float's rounding differs.
    """
    hop, blocks = rate_hz // 100, 400
    bins = hop + 1
    window_power = float(np.float32(np.sum(stft.windows(hop)[0] ** 2)))
    levels_db = rng.uniform(-100, 0, (blocks // 20, 6, 1)).repeat(20, axis=0)
    powers = hop**2 * 10 ** (levels_db / 10) * rng.exponential(size=(blocks, 6, bins))
    powers[:, 2] *= rng.uniform(-0.5, 0.5, (blocks, 1))  # the cross power has a sign
    powers[100:120] = 0.0
    powers[300:] = hop**2 * 1e-9
    powers[300:, 1:4] = powers[300:, 5:] = 0.0
    # syllables over noise: harmonics of 200 Hz, down by 6 dB an octave above 0.5 kHz
    voice = (np.arange(bins) % 4 == 0) / (1.0 + np.arange(bins) / 10.0) ** 2
    powers[300:, 0] *= 1.0 + 1e4 * (np.arange(100) % 50 < 30)[:, None] * voice
    handle, model = stages.new("mask", hop, window_power), Mask(bins, window_power)
    first: list[Floats] = []
    errors: list[float] = []
    lowest, highest = 1.0, 0.0
    for run in range(2):
        for b in range(blocks):
            given = np.array([padded(row, hop) for row in powers[b]])
            masks = np.zeros((2, given.shape[1]), np.float32)
            speech = stages.call("mask_run", handle, misaligned(given, run), masks, returns=ctypes.c_float)
            if run:
                assert np.array_equal(masks, first[b]), "a reset, or another address, gives another result"
                continue
            first.append(masks)
            *rights, right_speech = model.process(*given[:, :bins].astype(np.float64))
            errors.append(max(float(np.max(np.abs(masks[:, :bins] - rights))), abs(speech - right_speech)))
            lowest, highest = min(lowest, float(np.min(rights[0]))), max(highest, float(np.max(rights[0])))
        stages.call("mask_again", handle)
    print(f"{rate_hz} Hz: speech gains from {lowest:.3f} to {highest:.3f}")
    assert lowest < 0.1 and highest > 0.7, "the test must see both"
    check("masks", max(errors), 10 / 127 / 4)
    check("masks, a twentieth of the blocks", float(np.quantile(errors, 0.05)), 200 * EPS)
