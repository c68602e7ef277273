"""Conversations to train on: a talker, noise, and a loudspeaker's echo in a random room, all at 16 kHz.

Wide on purpose: every quantity is drawn from a range broader than devices show, so that the network learns
the rule rather than the room.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, fftconvolve, istft, lfilter, resample_poly, sosfilt, stft

RATE_HZ = 16000
SECONDS = 16
SAMPLES = RATE_HZ * SECONDS
ACTIVE_DBFS = -26.0
MANGLED_SHARE = 0.3
# of talkers no program spoke: with programs alone the network takes a hum or a toy's voice for noise
BUZZING_SHARE = 0.08
# of talkers who are not heard in the first seconds: their first word is the network's hardest
LATE_SHARE = 0.3


@dataclass(frozen=True)
class Scene:
    """The loudspeaker's and the microphone's signals, and the speech and noise that the latter holds.

    All float32 of SAMPLES.
    """

    far: np.ndarray
    microphone: np.ndarray
    near: np.ndarray
    noise: np.ndarray
    near_level: float  # RMS of the talker's usual speech


class Speech:
    """Sentences by voice, from a folder that voices.speak() filled."""

    def __init__(self, folders: list[Path]) -> None:
        self.by_voice: dict[str, list[np.ndarray]] = {}
        for path in sorted(p for folder in folders for p in folder.glob("*__*.wav")):
            samples, _ = soundfile.read(path, dtype="float32")
            voice = path.stem.split("__")[0]
            self.by_voice.setdefault(voice, []).append((samples * 32767).astype(np.int16))
        self.voices = sorted(self.by_voice)

    def talk(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        """One voice talking with pauses, at ACTIVE_DBFS while it speaks."""
        if rng.random() < BUZZING_SHARE:
            return _buzz(rng, samples)
        mine = self.by_voice[self.voices[rng.integers(len(self.voices))]]
        parts: list[np.ndarray] = []
        filled = 0
        while filled < samples:
            sentence = mine[rng.integers(len(mine))].astype(np.float32) / 32767
            parts += [sentence, np.zeros(int(rng.exponential(0.4) * RATE_HZ), np.float32)]
            filled += len(parts[-1]) + len(sentence)
        start = rng.integers(max(1, filled - samples))
        return to_level(np.concatenate(parts)[start : start + samples], ACTIVE_DBFS)


def _decibels(db: float) -> float:
    return float(10 ** (db / 20))


def active_rms(x: np.ndarray) -> float:
    """RMS over the 20 ms frames within 25 dB of the loud ones."""
    power = np.mean(x[: len(x) // 320 * 320].reshape(-1, 320) ** 2, axis=1)
    loud = power[power > np.percentile(power, 95) * 10**-2.5]
    return float(np.sqrt(loud.mean())) if len(loud) else 0.0


def to_level(x: np.ndarray, dbfs: float) -> np.ndarray:
    rms = active_rms(x)
    return (x * (_decibels(dbfs) / rms)).astype(np.float32) if rms > 0 else x


def _buzz(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Syllables of pulses or hiss through random resonances: G. Fant's source and filter, and no word."""
    pitch_hz, breath = rng.uniform(80, 320), rng.uniform(0.02, 0.5)
    x = np.zeros(samples, np.float32)
    at = 0
    while at < samples:
        count = min(samples - at, int(rng.uniform(0.08, 0.5) * RATE_HZ))
        bend = np.linspace(rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.2), count)
        pulses = np.diff(np.floor(np.cumsum(pitch_hz * bend) / RATE_HZ), prepend=0.0)
        source = pulses * np.sqrt(RATE_HZ / pitch_hz) + breath * rng.standard_normal(count)
        if rng.random() < 0.2:
            source = np.diff(rng.standard_normal(count), prepend=0.0)
        for low_hz, high_hz in ((250, 900), (800, 2400), (2200, 3600), (3500, 6500)):
            radius = np.exp(-np.pi * rng.uniform(60, 250) / RATE_HZ)
            turn = np.cos(2 * np.pi * rng.uniform(low_hz, high_hz) / RATE_HZ)
            resonance = lfilter([1 - radius], [1, -2 * radius * turn, radius**2], source)
            source = resonance + rng.uniform(0.05, 0.4) * source
        x[at : at + count] = source * np.hanning(count) ** 0.4 * rng.uniform(0.3, 1)
        at += count + (int(rng.exponential(0.3) * RATE_HZ) if rng.random() < 0.25 else 0)
    return to_level(sosfilt(butter(2, 90, "highpass", fs=RATE_HZ, output="sos"), x), ACTIVE_DBFS)


def _turns(rng: np.random.Generator, mean_s: float, share: float) -> np.ndarray:
    """0/1 per sample: talks for about mean_s at a time, `share` of the time; edges of 10 ms."""
    gate = np.zeros(SAMPLES + RATE_HZ, np.float32)
    at, talking = 0, rng.random() < share
    while at < SAMPLES:
        length = int(rng.exponential(mean_s * (share if talking else 1 - share) * 2 + 0.1) * RATE_HZ)
        gate[at : at + length] = talking
        at, talking = at + length, not talking
    return np.convolve(gate, np.ones(160) / 160, "same")[:SAMPLES].astype(np.float32)


def _coloured(rng: np.random.Generator, samples: int, slope_db_per_octave: float) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    octaves = np.log2(np.maximum(np.arange(len(spectrum)) * RATE_HZ / samples, 50.0) / 1000.0)
    return np.fft.irfft(spectrum * 10 ** (slope_db_per_octave * octaves / 20), samples).astype(np.float32)


def _equaliser(rng: np.random.Generator, x: np.ndarray, strength_db: float) -> np.ndarray:
    """A smooth random frequency response: what capsules and boxes do."""
    points = rng.normal(0.0, strength_db, 12)
    taps = 512
    frequency = np.geomspace(60, RATE_HZ / 2, 12)
    gain = 10 ** (np.interp(np.arange(taps // 2 + 1) * RATE_HZ / taps, frequency, points) / 20)
    response = np.roll(np.fft.irfft(gain, taps), taps // 2) * np.hanning(taps)
    return fftconvolve(x, response, "same").astype(np.float32)


def _clatter(rng: np.random.Generator) -> np.ndarray:
    """Dishes and tools: blows that ring in a few modes, alone and in bursts, in a room."""
    x = rng.uniform(0.002, 0.05) * _coloured(rng, SAMPLES, rng.uniform(-6, 0))
    blows = rng.integers(10, 120)
    times = rng.uniform(0, SECONDS, blows)
    if rng.random() < 0.5:  # one thing after the other
        times = rng.uniform(0, SECONDS, 8)[rng.integers(8, size=blows)] + rng.exponential(0.5, blows)
    for at in (times * RATE_HZ).astype(int):
        length = min(SAMPLES - at, int(rng.uniform(0.02, 0.4) * RATE_HZ))
        if length <= 0:
            continue
        t = np.arange(length) / RATE_HZ
        blow = rng.standard_normal(length) * np.exp(-t / rng.uniform(0.001, 0.01)) * rng.uniform(0, 1)
        for _ in range(rng.integers(1, 8)):
            mode_hz, decay_s = np.exp(rng.uniform(np.log(300), np.log(7800))), rng.uniform(0.005, 0.15)
            ring = np.sin(2 * np.pi * mode_hz * t + rng.uniform(0, 2 * np.pi))
            blow += rng.uniform(0, 1) * np.exp(-t / decay_s) * ring
        x[at : at + length] += (blow * 10 ** rng.uniform(-1.5, 0)).astype(np.float32)
    return fftconvolve(x, room_response(rng))[:SAMPLES]


def _noise(rng: np.random.Generator, speech: Speech) -> np.ndarray:
    kind = rng.random()
    if kind < 0.15:  # babble, for most of it across a room
        x = sum(speech.talk(rng, SAMPLES) * rng.uniform(0.3, 1) for _ in range(rng.integers(4, 9)))
        if rng.random() < 0.7:
            x = fftconvolve(x, room_response(rng))[:SAMPLES]
    elif kind < 0.27:  # keys: decaying clicks over a faint floor
        x = 0.02 * _coloured(rng, SAMPLES, -3)
        for at in rng.integers(0, SAMPLES - 4000, rng.integers(10, 80)):
            length = int(rng.uniform(200, 3000))
            click = rng.standard_normal(length) * np.exp(-np.arange(length) / (0.2 * length))
            x[at : at + length] += click * rng.uniform(0.1, 1)
    elif kind < 0.42:
        x = _clatter(rng)
    else:
        x = _coloured(rng, SAMPLES, rng.uniform(-7, 1))
        if rng.random() < 0.5:
            x = _equaliser(rng, x, 6)
        if rng.random() < 0.3:  # fan, engine: harmonics
            turn = rng.uniform(40, 300) * (
                1 + 0.01 * np.cumsum(rng.standard_normal(SAMPLES)) / np.sqrt(SAMPLES)
            )
            phase = 2 * np.pi * np.cumsum(turn) / RATE_HZ
            for harmonic in range(1, rng.integers(3, 12)):
                x += np.std(x) * rng.uniform(0, 1) * np.sin(harmonic * phase).astype(np.float32)
        if rng.random() < 0.4:  # traffic, wind: comes and goes
            swing = np.interp(
                np.arange(SAMPLES),
                np.arange(0, SAMPLES + RATE_HZ, RATE_HZ // 2),
                rng.normal(0, 4, 2 * SECONDS + 2),
            )
            x = x * 10 ** (swing / 20)
    return (x / (np.std(x) + 1e-9)).astype(np.float32)


def _music(rng: np.random.Generator) -> np.ndarray:
    """Chords, a bass and a beat: tonal, dense, without pauses."""
    beat = int(RATE_HZ * rng.uniform(0.25, 0.6))
    x = np.zeros(SAMPLES + 4 * RATE_HZ, np.float32)
    root = rng.uniform(80, 200)
    for start in range(0, SAMPLES, beat):
        length = int(beat * rng.uniform(0.8, 4))
        t = np.arange(length) / RATE_HZ
        for semitones in rng.choice([0, 3, 4, 5, 7, 9, 12, 16, 19, 24], rng.integers(1, 5), replace=False):
            note = root * 2 ** (semitones / 12)
            for harmonic in range(1, int(min(16, 7000 / note)) + 1):
                decay = np.exp(-t * rng.uniform(0.5, 4) * harmonic**0.5)
                x[start : start + length] += (
                    decay * np.sin(2 * np.pi * note * harmonic * t) / harmonic ** rng.uniform(0.8, 1.6)
                ).astype(np.float32)
        if rng.random() < 0.7:
            length = int(0.2 * RATE_HZ)
            x[start : start + length] += (
                rng.uniform(0.2, 2)
                * rng.standard_normal(length)
                * np.exp(-np.arange(length) / (0.03 * RATE_HZ))
            )
    return to_level(x[:SAMPLES], ACTIVE_DBFS)


def room_response(rng: np.random.Generator) -> np.ndarray:
    """Direct sound, sparse early reflections and an exponential tail (the shape of J. Polack's model)."""
    decay_s = rng.uniform(0.1, 0.9)
    length = int(RATE_HZ * min(decay_s, 0.6))
    t = np.arange(length) / RATE_HZ
    tail = rng.standard_normal(length) * 10 ** (-3 * t / decay_s) * (1 - np.exp(-t / 0.01))
    direct_over_tail_db = rng.uniform(-6, 15)
    tail *= _decibels(-direct_over_tail_db) / (np.linalg.norm(tail) + 1e-9)
    tail[0] += 1.0
    for _ in range(rng.integers(2, 10)):
        at = int(rng.exponential(0.01) * RATE_HZ) + 8
        if at < length:
            tail[at] += rng.uniform(-0.6, 0.6) * 10 ** (-3 * at / RATE_HZ / decay_s)
    response = fftconvolve(tail, rng.standard_normal(24) * np.exp(-np.arange(24) / 3.0) + np.eye(24)[0] * 2)
    return response.astype(np.float32)


def _loudspeaker(rng: np.random.Generator, far: np.ndarray) -> np.ndarray:
    """Return the sound of a small loudspeaker: band limits, resonances, and mostly distortion."""
    x = far / (np.max(np.abs(far)) + 1e-9)
    kind = rng.random()
    drive = _decibels(rng.uniform(-6, 20))
    if kind < 0.3:
        x = np.tanh(drive * x) / drive
    elif kind < 0.4:
        x = np.clip(drive * x, -1, 1) / drive
    elif kind < 0.6:  # a cone that moves easier one way than the other, after its own low-pass
        low = lfilter([0.1], [1, -0.9], x)
        x = x + rng.uniform(0.02, 0.3) * low**2 * np.sign(rng.normal()) - rng.uniform(0, 0.3) * low**3
    elif kind < 0.75:  # a box that rattles when it is loud
        envelope = lfilter([0.002], [1, -0.998], np.abs(x))
        rattle = rng.standard_normal(len(x)) * np.maximum(envelope - rng.uniform(0.02, 0.2), 0)
        x = x + rng.uniform(0.05, 0.4) * lfilter([1, -0.9], [1], rattle)
    x = sosfilt(butter(2, rng.uniform(60, 500), "highpass", fs=RATE_HZ, output="sos"), x)
    if rng.random() < 0.3:
        x = sosfilt(butter(2, rng.uniform(3000, 7500), "lowpass", fs=RATE_HZ, output="sos"), x)
    return _equaliser(rng, x.astype(np.float32), 5)


def _drifted(x: np.ndarray, ppm: float) -> np.ndarray:
    """Read by a clock ppm faster: linear interpolation at four times the rate is exact enough to train on."""
    dense = resample_poly(x, 4, 1)
    at = np.arange(len(x)) / (1 + ppm * 1e-6) * 4
    return np.interp(at, np.arange(len(dense)), dense).astype(np.float32)


def _mangled(rng: np.random.Generator, echo: np.ndarray) -> np.ndarray:
    """Return an echo as a device's own processing changes it, so that no linear filter predicts it."""
    _, _, spectrum = stft(echo, RATE_HZ, nperseg=320)
    kind = rng.random()
    if kind < 0.4:  # suppressor: quiet parts go, and some of the loud ones
        level = np.abs(spectrum) / (np.percentile(np.abs(spectrum), 99) + 1e-12)
        gain = np.where(level > _decibels(rng.uniform(-40, -12)), 1.0, _decibels(rng.uniform(-40, -10)))
        spectrum = spectrum * gain * (rng.random(spectrum.shape[1]) > rng.uniform(0, 0.3))
    elif kind < 0.8:  # codec, radio: phases wander
        steps = rng.standard_normal(spectrum.shape) * rng.uniform(0.05, 1.0)
        spectrum = spectrum * np.exp(1j * np.cumsum(steps, axis=1))
    else:  # automatic gain
        walk = np.cumsum(rng.standard_normal(spectrum.shape[1])) * rng.uniform(0.2, 1.0)
        spectrum = spectrum * 10 ** (np.clip(walk - walk.mean(), -12, 12) / 20)
    return istft(spectrum, RATE_HZ, nperseg=320)[1][:SAMPLES].astype(np.float32)


def _echo(rng: np.random.Generator, far: np.ndarray) -> np.ndarray:
    played = _loudspeaker(rng, far)
    delay = int(RATE_HZ * rng.uniform(0, 0.3))
    echo = fftconvolve(played, room_response(rng))[:SAMPLES]
    if rng.random() < 0.15:  # somebody moves the box
        at = rng.integers(SAMPLES // 4, 3 * SAMPLES // 4)
        blend = np.clip((np.arange(SAMPLES) - at) / (0.02 * RATE_HZ), 0, 1)
        echo = (1 - blend) * echo + blend * fftconvolve(played, room_response(rng))[:SAMPLES]
    if rng.random() < 0.15:
        echo = _drifted(echo, rng.uniform(-150, 150))
    echo = np.concatenate([np.zeros(delay), echo])[:SAMPLES]
    if rng.random() < 0.05:  # the player's buffer slips
        at, slip = rng.integers(SAMPLES // 4, 3 * SAMPLES // 4), int(RATE_HZ * rng.uniform(0.01, 0.1))
        echo = np.concatenate([echo[:at], np.zeros(slip), echo[at:]])[:SAMPLES]
    echo = echo.astype(np.float32)
    return _mangled(rng, echo) if rng.random() < MANGLED_SHARE else echo


def make(seed: int, speech: Speech) -> Scene:
    """The scene of a seed."""
    rng = np.random.default_rng([seed, 20])
    near = fftconvolve(speech.talk(rng, SAMPLES), room_response(rng))[:SAMPLES]
    near = to_level(_equaliser(rng, near, 3), ACTIVE_DBFS + rng.normal(0, 3))
    if rng.random() < 0.3:
        near = near * np.interp(
            np.arange(SAMPLES), np.linspace(0, SAMPLES, 5), 10 ** (rng.normal(0, 5, 5) / 20)
        )
    near = near * _turns(rng, rng.uniform(1, 6), rng.choice([0.3, 0.5, 0.8, 1.0]))
    if rng.random() < LATE_SHARE:
        near[: int(rng.uniform(1, 8) * RATE_HZ)] = 0
    noise = _noise(rng, speech) * _decibels(
        ACTIVE_DBFS - rng.choice([rng.uniform(-3, 25), rng.uniform(20, 60)])
    )

    kind = rng.random()
    far, echo = np.zeros(SAMPLES, np.float32), np.zeros(SAMPLES, np.float32)
    if kind < 0.82:
        far = _music(rng) if rng.random() < 0.15 else speech.talk(rng, SAMPLES)
        if rng.random() < 0.1:  # a song, or a talker with music behind
            far = far + _music(rng) * _decibels(rng.uniform(-15, 6))
        far = far * _turns(rng, rng.uniform(2, 8), rng.choice([0.5, 0.8, 1.0]))
        if rng.random() < 0.1:  # the far end's own noise comes along
            far = far + _noise(rng, speech) * _decibels(ACTIVE_DBFS - rng.uniform(10, 40))
    if kind < 0.72:  # else somebody wears headphones
        echo = to_level(_echo(rng, far), ACTIVE_DBFS + rng.uniform(-15, 25))
    far = far * _decibels(rng.uniform(-15, 10))

    microphone = near + noise + echo
    level = _decibels(rng.uniform(-24, 10))
    peak = np.max(np.abs(microphone)) * level
    if peak > 1 and rng.random() < 0.7:  # most devices leave headroom, some clip
        level /= peak
    parts = [np.clip(far, -1, 1), np.clip(level * microphone, -1, 1), level * near, level * noise]
    return Scene(*(part.astype(np.float32) for part in parts), near_level=level * _decibels(ACTIVE_DBFS))
