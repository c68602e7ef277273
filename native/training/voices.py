"""Speech to train on, spoken by Debian's speech programs (flite, festival, espeak-ng); nobody's recordings.

Each voice reads sentences of the Python documentation that every interpreter carries; reading speed, pitch
and vocal tract length are varied (resampling moves the last two together, as between an adult and a child).
"""

from __future__ import annotations

import io
import pydoc_data.topics
import re
import subprocess
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

RATE_HZ = 16000
SENTENCE_WORDS = range(4, 22)
FLITE_VOICES = ("kal16", "awb", "rms", "slt")
FESTIVAL_VOICES = (
    "cmu_us_slt_arctic_hts",
    "kal_diphone",
    "ked_diphone",
    "lp_diphone",
    "pc_diphone",
    "upc_ca_ona_hts",
    "czech_dita",
    "czech_machac",
    "czech_ph",
    "suo_fi_lj_diphone",
    "hy_fi_mv_diphone",
    "msu_ru_nsh_clunits",
)
ESPEAK_VOICES = tuple(
    f"{language}+{variant}"
    for language in ("en-us", "en-gb", "de", "fr-fr", "es", "it", "sv", "pl")
    for variant in ("m1", "m3", "m7", "f2", "f4", "f5")
)
# the rest is espeak-ng's, whose formants are too regular to be more
FLITE_SHARE, FESTIVAL_SHARE = 0.35, 0.5
TRACT_RATIOS = (0.8, 1.25)
CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопкрстуввхуз")


def sentences() -> list[str]:
    """Plain English sentences, without markup."""
    prose = " ".join(re.sub(r"[\s\-=*|`\"]+", " ", text) for text in pydoc_data.topics.topics.values())
    found = re.split(r"(?<=[.!?])\s+", prose)
    return [s for s in found if len(s.split()) in SENTENCE_WORDS and re.fullmatch(r"[A-Za-z ,.'?!]+", s)]


def _run(command: list[str], text: str) -> bytes:
    return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout


def _spoken(rng: np.random.Generator, text: str, scratch: Path) -> tuple[np.ndarray, int, str]:
    wav = scratch / "sentence.wav"
    kind = rng.random()
    pace = rng.uniform(0.8, 1.25)
    if kind < FLITE_SHARE:
        voice = str(rng.choice(FLITE_VOICES))
        command = [
            "flite",
            "-voice",
            voice,
            "--setf",
            f"duration_stretch={pace:.2f}",
            "-t",
            text,
            "-o",
            str(wav),
        ]
        subprocess.run(command, check=True, capture_output=True)
        samples, rate_hz = soundfile.read(wav, dtype="float32")
    elif kind < FLITE_SHARE + FESTIVAL_SHARE:
        voice = str(rng.choice(FESTIVAL_VOICES))
        if "_ru_" in voice:
            text = text.lower().translate(CYRILLIC)
        _run(["text2wave", "-eval", f"(voice_{voice})", "-o", str(wav)], text)
        if not wav.stat().st_size:  # a word that this voice cannot say
            return np.zeros(1), RATE_HZ, voice
        samples, rate_hz = soundfile.read(wav, dtype="float32")
    else:
        voice = str(rng.choice(ESPEAK_VOICES))
        speed, pitch = str(int(160 / pace)), str(rng.integers(20, 80))
        wave = _run(["espeak-ng", "--stdout", "-v", voice, "-s", speed, "-p", pitch], text)
        samples, rate_hz = soundfile.read(io.BytesIO(wave), dtype="float32")
    return samples, rate_hz, voice


def speak(minutes: float, seed: int, folder: Path) -> None:
    """Writes sentences as `VOICE__NUMBER.wav` (16 kHz, mono) until `minutes` are filled."""
    rng = np.random.default_rng(seed)
    texts = sentences()
    folder.mkdir(parents=True, exist_ok=True)
    spoken_s, number = 0.0, 0
    while spoken_s < 60 * minutes:
        samples, rate_hz, voice = _spoken(rng, str(rng.choice(texts)), folder)
        ratio = rng.uniform(*TRACT_RATIOS)
        samples = resample_poly(samples, int(100 * RATE_HZ / rate_hz / ratio + 0.5), 100)
        loudest = float(np.max(np.abs(samples), initial=0.0))
        if loudest < 0.01:
            continue
        soundfile.write(
            folder / f"{voice}-{100 * ratio:.0f}__{seed}-{number}.wav", 0.5 * samples / loudest, RATE_HZ
        )
        spoken_s += len(samples) / RATE_HZ
        number += 1
    (folder / "sentence.wav").unlink(missing_ok=True)
