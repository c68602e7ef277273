"""Echo of two loudspeakers: how far apmpi, and LiveKit if installed, reduce it. `stereo.py [SCENE ...]`.

Each scene is 16 s at 16 kHz: two loudspeakers and a microphone in a shoebox room (image method), of which
the far end's two channels are played. One row a scene: reduction of the far end alone in its last 6 s; the
least reduction 250 to 500 ms after a pan; and, with a near-end talker over the last 8 s, the
ESTOI of the output with that talker's speech.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pystoi import stoi
from scipy.signal import fftconvolve

sys.path.insert(0, str(Path(__file__).parents[1]))

from reference.signals import Signal, at_level, from_int16, lag_samples, power, to_int16, voice

import apmpi

try:
    from livekit import rtc
except ImportError:
    rtc = None

RATE_HZ = 16000
FRAME = RATE_HZ // 100
SECONDS = 16.0
PAN_S = 2.0
SAMPLES = round(SECONDS * RATE_HZ)
FEATURES = {"echo_cancellation": True, "noise_suppression": True, "high_pass_filter": True}
SPEED = 343.0  # of sound, m/s
ROOM_M = np.array([4.2, 5.1, 2.6])
MICROPHONE_M = np.array([1.5, 2.3, 0.8])
REFLECTION = 0.8  # of pressure at each wall: RT60 0.35 s
NOISE_DBFS = -70.0

# ---- the room


def impulse_response(source_m: Signal) -> Signal:
    """Response from a place in the room to the microphone, 0.3 s (J. Allen, D. Berkley, JASA 65 (1979))."""
    samples = round(0.3 * RATE_HZ)
    reach = np.ceil(0.3 * SPEED / (2.0 * ROOM_M)).astype(int)
    orders = [np.arange(-n, n + 1) for n in reach]
    response = np.zeros(samples)
    for flip in itertools.product((0, 1), repeat=3):
        axes = [
            (1 - 2 * q) * source + 2.0 * n * size - microphone
            for q, source, n, size, microphone in zip(
                flip, source_m, orders, ROOM_M, MICROPHONE_M, strict=True
            )
        ]
        hits = [np.abs(n - q) + np.abs(n) for q, n in zip(flip, orders, strict=True)]
        distance = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
        count = sum(np.meshgrid(*hits, indexing="ij", sparse=True))
        at = np.round(distance / SPEED * RATE_HZ).astype(int)
        inside = at < samples
        response += np.bincount(at[inside], (REFLECTION**count / distance)[inside], samples)
    return response


def loudspeakers(apart_m: float) -> tuple[Signal, Signal]:
    """Responses of the left and the right loudspeaker, of energy 1 in the mean; the microphone is nearer to
    the left one."""
    places = (MICROPHONE_M + np.array([0.2 + side * apart_m / 2.0, 0.9, 0.2]) for side in (-1.0, 1.0))
    left, right = (impulse_response(place) for place in places)
    scale = np.sqrt(2.0 / (np.sum(left**2) + np.sum(right**2)))
    return left * scale, right * scale


# ---- far ends: (left, right)

Stereo = tuple[Signal, Signal]


def alike(rng: np.random.Generator) -> Stereo:
    v = voice(rng, RATE_HZ, SECONDS)
    return v, v


def inverted(rng: np.random.Generator) -> Stereo:
    v = voice(rng, RATE_HZ, SECONDS)
    return v, -v


def two_voices(rng: np.random.Generator) -> Stereo:
    return voice(rng, RATE_HZ, SECONDS, pitch_hz=120.0), voice(rng, RATE_HZ, SECONDS, pitch_hz=210.0)


def panned(rng: np.random.Generator) -> Stereo:
    v = voice(rng, RATE_HZ, SECONDS)
    left = np.arange(SAMPLES) / RATE_HZ % (2.0 * PAN_S) < PAN_S
    return v * left, v * ~left


def off_centre(rng: np.random.Generator) -> Stereo:
    v = voice(rng, RATE_HZ, SECONDS)
    return 0.9 * v, 0.35 * v


def two_microphones(rng: np.random.Generator) -> Stereo:
    """A talker, elsewhere every 4 s, before the two microphones of the far end's room."""
    v = voice(rng, RATE_HZ, SECONDS)
    turns = np.array_split(v, 4)
    out: list[list[Signal]] = [[], []]
    for turn in turns:
        for channel in out:
            t = np.arange(round(0.2 * RATE_HZ)) / RATE_HZ
            response = rng.standard_normal(len(t)) * 10.0 ** (-3.0 * t / 0.25) * 0.15
            response[rng.integers(0, 16)] = 1.0
            channel.append(fftconvolve(turn, response)[: len(turn)])
    return at_level(np.concatenate(out[0]), -26.0), at_level(np.concatenate(out[1]), -26.0)


def wide(rng: np.random.Generator) -> Stereo:
    """Speech in the middle, its reverberation widened by 6 dB: L = M + 2 S, R = M - 2 S."""
    mid = voice(rng, RATE_HZ, SECONDS)
    t = np.arange(round(0.4 * RATE_HZ)) / RATE_HZ
    side = at_level(fftconvolve(mid, rng.standard_normal(len(t)) * 10.0 ** (-3.0 * t / 0.4))[:SAMPLES], -32.0)
    return mid + 2.0 * side, mid - 2.0 * side


def music(rng: np.random.Generator) -> Stereo:
    """Five plucked instruments, each at a place of its own between the loudspeakers; a bass in the middle."""
    left, right = np.zeros(SAMPLES), np.zeros(SAMPLES)
    for pan in (0.5, 0.0, 0.25, 0.6, 0.8, 1.0):
        at, line = 0, np.zeros(SAMPLES)
        base = 55.0 if pan == 0.5 else float(rng.choice([131.0, 165.0, 196.0, 262.0]))
        while at < SAMPLES:
            count = min(SAMPLES - at, round(RATE_HZ * float(rng.choice([0.25, 0.375, 0.5, 1.0]))))
            t = np.arange(count) / RATE_HZ
            tone = base * 2.0 ** (rng.choice([0, 2, 4, 7, 9, 12]) / 12.0)
            for harmonic in range(1, 24):
                if harmonic * tone < 0.45 * RATE_HZ:
                    phase = rng.uniform(0.0, 2.0 * np.pi)
                    line[at : at + count] += (
                        np.sin(2.0 * np.pi * harmonic * tone * t + phase)
                        * np.exp(-t * (3.0 + 0.7 * harmonic))
                        * np.minimum(1.0, t * 200.0)
                        / harmonic
                    )
            at += count
        left += line * np.cos(0.5 * np.pi * pan)
        right += line * np.sin(0.5 * np.pi * pan)
    level = np.sqrt((power(left) + power(right)) / 2.0) / 10.0 ** (-24.0 / 20.0)
    return left / level, right / level


SCENES: dict[str, tuple[Callable[[np.random.Generator], Stereo], float]] = {
    "L = R, 1 m": (alike, 1.0),
    "L = -R, 1 m": (inverted, 1.0),
    "two voices, 0.5 m": (two_voices, 0.5),
    "two voices, 2 m": (two_voices, 2.0),
    "off centre, 1 m": (off_centre, 1.0),
    "panned, 1 m": (panned, 1.0),
    "two microphones, 1 m": (two_microphones, 1.0),
    "wide speech, 1 m": (wide, 1.0),
    "music, 1 m": (music, 1.0),
}

# ---- the chains


def processed(module: Any, frame: Any, far: Stereo, mic: Signal) -> Signal:
    """Output of the chain `module`, aligned to the microphone within 40 ms."""
    played, out = to_int16(np.column_stack(far)), to_int16(mic)
    for at in range(0, SAMPLES - FRAME + 1, FRAME):
        module.process_reverse_stream(frame(played[at : at + FRAME].tobytes(), RATE_HZ, 2, FRAME))
        block = frame(bytearray(out[at : at + FRAME].tobytes()), RATE_HZ, 1, FRAME)
        module.process_stream(block)
        out[at : at + FRAME] = np.frombuffer(block.data, np.int16)
    return from_int16(out)


def chains() -> dict[str, Callable[[Stereo, Signal], Signal]]:
    result = {
        "apmpi": lambda far, mic: processed(
            apmpi.AudioProcessingModule(**FEATURES), apmpi.AudioFrame, far, mic
        )
    }
    if rtc:
        result["livekit"] = lambda far, mic: processed(
            rtc.AudioProcessingModule(**FEATURES), rtc.AudioFrame, far, mic
        )
    return result


# ---- measures


def reduction_db(mic: Signal, out: Signal, start_s: float, end_s: float) -> float:
    part = slice(round(start_s * RATE_HZ), round(end_s * RATE_HZ))
    return 10.0 * float(np.log10((power(mic[part]) + 1e-12) / (power(out[part]) + 1e-10)))


def after_pans_db(mic: Signal, out: Signal) -> float:
    """Return the least reduction 250 to 500 ms after a pan to a loudspeaker that was heard before."""
    pans_s = np.arange(2.0 * PAN_S, SECONDS - 1.0, PAN_S)
    return min(reduction_db(mic, out, pan + 0.25, pan + 0.5) for pan in pans_s)


def main(wanted: list[str]) -> None:
    print("| scene | chain | far end alone, dB | 250 ms after a pan, dB | double talk, ESTOI |")
    print("|---|---|---|---|---|")
    for seed, (name, (far_end, apart_m)) in enumerate(SCENES.items()):
        if wanted and not any(part in name for part in wanted):
            continue
        rng = np.random.default_rng(seed)
        far, paths = far_end(rng), loudspeakers(apart_m)
        echo = sum(fftconvolve(x, path)[:SAMPLES] for x, path in zip(far, paths, strict=True))
        echo = np.concatenate([np.zeros(round(0.04 * RATE_HZ)), echo])[:SAMPLES]
        mic = echo + at_level(rng.standard_normal(SAMPLES), NOISE_DBFS)
        near = voice(rng, RATE_HZ, SECONDS, pitch_hz=160.0) * (np.arange(SAMPLES) > SAMPLES / 2)
        for chain, process in chains().items():
            alone, both = process(far, mic), process(far, mic + near)
            lag = lag_samples(both, near, round(0.04 * RATE_HZ))
            spoken = slice(SAMPLES // 2, SAMPLES - lag)
            intelligible = stoi(near[spoken], both[SAMPLES // 2 + lag :], RATE_HZ, extended=True)
            pan = f"{after_pans_db(mic, alone):.0f}" if far_end is panned else ""
            reduced = reduction_db(mic, alone, SECONDS - 6.0, SECONDS)
            print(f"| {name} | {chain} | {reduced:.0f} | {pan} | {intelligible:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
