"""Scenes played through the chain: what the network hears of each block, and what should be left of it."""

from __future__ import annotations

import ctypes
import multiprocessing
import subprocess
from pathlib import Path

import numpy as np
import scenes
from scipy.signal import lfilter

NATIVE = Path(__file__).resolve().parents[1]
ROOMS = ("base", "kernels", "hpf", "delay", "aec", "ns", "mask", "agc", "limiter", "apm")
HOP = scenes.RATE_HZ // 100
BINS = HOP + 1
BANDS = 17
FEATURES = 5 * BANDS
# rows of the targets, each by bin
ERROR, SPEECH, REST, SPEECH_COSINE, REST_COSINE, DETAIL_BOTH, DETAIL_ECHO_ONLY = range(7)
TARGETS = 7
HIGH_PASS_HZ = 80


def build(folder: Path) -> Path:
    """The chain with its dump, as a shared library."""
    library = folder / "dump.so"
    parts = (path for room in ROOMS for path in sorted((NATIVE / room).glob("*.c")))
    sources = [str(path) for path in parts if not path.name.startswith("test_")]
    flags = ["-O3", "-shared", "-fPIC", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", f"-I{NATIVE}"]
    dump = str(Path(__file__).with_name("dump.c"))
    subprocess.run(["cc", *flags, dump, *sources, "-lm", "-o", str(library)], check=True)
    return library


def _window() -> np.ndarray:
    """The chain's analysis window (kernels/stft.c)."""
    i, rise, fade = np.arange(2 * HOP), 3 * HOP // 2, HOP // 2
    return np.where(
        i < rise, np.sin(np.pi / 2 * (i + 0.5) / rise), np.cos(np.pi / 2 * (i - rise + 0.5) / fade)
    )


def _spectra(x: np.ndarray) -> np.ndarray:
    """Block by bin, as the chain sees them: high-passed and windowed."""
    w = 2 * np.pi * HIGH_PASS_HZ / scenes.RATE_HZ
    alpha, half = np.sin(w) * np.sqrt(0.5), (1 + np.cos(w)) / 2
    passed = lfilter([half, -2 * half, half], [1 + alpha, -2 * np.cos(w), 1 - alpha], x)
    frames = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.zeros(HOP), passed]), 2 * HOP)[::HOP]
    return np.fft.rfft(frames[: len(x) // HOP] * _window())


def _sixteen_bit(x: np.ndarray) -> np.ndarray:
    return np.clip(np.round(x * 32768), -32768, 32767).astype(np.int16)


class Player:
    """Plays scenes through the chain of a library that build() made."""

    def __init__(self, library: Path, speech: scenes.Speech) -> None:
        self.native, self.speech = ctypes.CDLL(str(library)), speech
        self.native.dump_memory.restype = ctypes.c_size_t

    def play(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Features (block, FEATURES) and targets (block, TARGETS, BINS) of the scene of a seed, float16.

        Amplitudes are relative to white noise at the talker's usual level, cosines of the angle to the error.
        """
        scene = scenes.make(seed, self.speech)
        far, microphone = _sixteen_bit(scene.far), _sixteen_bit(scene.microphone)
        blocks = len(microphone) // HOP
        rows = np.zeros((blocks, self.native.dump_row_floats()), np.float32)
        memory = np.zeros(self.native.dump_memory() + 64, np.uint8)
        aligned = memory.ctypes.data + 63 & ~63
        pointers = [ctypes.c_void_p(p) for p in (aligned, far.ctypes.data, microphone.ctypes.data)]
        self.native.dump_scene(*pointers, blocks, ctypes.c_void_p(rows.ctypes.data))
        features, re, im, both, echo_only = np.split(rows, FEATURES + BINS * np.arange(4), axis=1)
        error = re + 1j * im
        speech, rest = _spectra(scene.near), _spectra(scene.near + scene.noise)
        unit = 1.0 / (scene.near_level * np.sqrt(np.sum(_window() ** 2)))
        amplitudes = [np.minimum(unit * np.abs(x), 1e3) for x in (error, speech, rest)]
        cosines = [np.real(error * np.conj(x)) / (np.abs(error) * np.abs(x) + 1e-12) for x in (speech, rest)]
        return features.astype(np.float16), np.stack([*amplitudes, *cosines, both, echo_only], 1).astype(
            np.float16
        )


_player: Player


def _start(library: Path, folders: list[Path]) -> None:
    global _player
    _player = Player(library, scenes.Speech(folders))


def _play(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return _player.play(seed)


def make(folder: Path, name: str, first_seed: int, count: int, voices: list[Path]) -> None:
    """Writes `NAME-features.npy` and `NAME-targets.npy` of `count` scenes."""
    library, blocks = build(folder), scenes.SAMPLES // HOP
    create = np.lib.format.open_memmap
    features = create(folder / f"{name}-features.npy", "w+", np.float16, (count, blocks, FEATURES))
    targets = create(folder / f"{name}-targets.npy", "w+", np.float16, (count, blocks, TARGETS, BINS))
    with multiprocessing.Pool(initializer=_start, initargs=(library, voices)) as pool:
        for i, (x, y) in enumerate(pool.imap(_play, range(first_seed, first_seed + count), chunksize=4)):
            features[i], targets[i] = x, y
