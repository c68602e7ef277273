"""The demonstration as a user runs it: its sound, its figures, and its messages about what is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from apmpi.cards.latency import FrameTimes
from apmpi.tools import demo

APMPI = Path(sys.executable).with_name("apmpi")


def run_demo(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [APMPI, "demo", "--folder", folder, *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def power_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples**2)))


@pytest.mark.real_time
def test_a_call_through_the_whole_daemon(tmp_path: Path) -> None:
    seconds = 12
    done = run_demo(tmp_path / "demo", "--seconds", str(seconds))
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr

    sound = {}
    for name in ("far", "mic", "out"):
        sound[name], rate_hz = soundfile.read(tmp_path / "demo" / f"{name}.wav")
        assert rate_hz == 48000
        assert len(sound[name]) == pytest.approx(seconds * rate_hz, abs=0.05 * rate_hz), name

    # Second half of the far end alone: the echo reduction measured in the files is the printed one. 20 dB are
    # easy with the room card's plain echo path; the quality of the canceller has tests of its own.
    alone = slice(seconds * 48000 // 6, seconds * 48000 // 3)
    reduction_db = power_db(sound["mic"][alone]) - power_db(sound["out"][alone])
    told = re.search(r"^Echo reduction +(-?[\d.]+) dB", done.stdout, re.MULTILINE)
    assert told is not None
    print(f"echo reduction {reduction_db:.1f} dB")
    assert reduction_db > 20
    assert float(told[1]) == pytest.approx(reduction_db, abs=1.0)

    # The near end alone, last third, is still there.
    near = slice(seconds * 48000 * 2 // 3, None)
    kept_db = power_db(sound["out"][near]) - power_db(sound["mic"][near])
    print(f"near end changed by {kept_db:.1f} dB")
    assert kept_db > -6

    latency = re.search(r"^Latency +median ([\d.]+) ms", done.stdout, re.MULTILINE)
    assert latency is not None
    assert 10 < float(latency[1]) < 60
    picture = (tmp_path / "demo" / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 50_000


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--seconds", "3"], {}, "apmpi: 3 seconds are too few, expected at least 6"),
        ([], {"PATH": "/nowhere"}, "apmpi: espeak-ng, which speaks the call, is not installed: "),
    ],
)
def test_what_it_lacks_is_said_in_one_sentence(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    done = run_demo(tmp_path / "demo", *arguments, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence) and done.stderr.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_demo(tmp_path / "file" / "demo")
    assert done.returncode == 2
    assert done.stderr == f"apmpi: {tmp_path}/file/demo: Not a directory\n"


def test_the_room_is_as_described(rng: np.random.Generator) -> None:
    response = demo.room_impulse_response(rng)
    energy_db = 10 * np.log10(np.sum(response**2))
    # Decay from Schroeder's backward integral, between 5 and 25 dB below its start, without the direct sound.
    tail = response[100:]
    decay_db = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))
    begin, end = np.argmax(decay_db < -5), np.argmax(decay_db < -25)
    rt60_s = 3 * (end - begin) / demo.RATE_HZ
    print(f"energy {energy_db:.2f} dB, RT60 {rt60_s:.3f} s")
    assert energy_db == pytest.approx(demo.ECHO_PATH_DB, abs=0.01)
    assert rt60_s == pytest.approx(demo.RT60_S, rel=0.1)


def test_figures_tell_what_was_put_in(rng: np.random.Generator) -> None:
    """A microphone 20 dB above the output, and frames that took 10 + 0.5 + 8 + 0 ms."""
    recording = demo.Recording()
    for _ in range(900):
        mic = rng.normal(0, 3000, demo.FRAME_SAMPLES)
        frame = mic.astype("<i2").tobytes()
        recording.tap(frame, frame, (mic / 10).astype("<i2").tobytes(), FrameTimes(10.0, 0.5, 0.0, 8.0, 2))
    figures = demo.measure(recording, 9.0)
    assert figures.reduction_db == pytest.approx(20, abs=0.05)
    assert figures.total_ms == pytest.approx(np.full(900, 18.5))
    assert figures.processing_ms == 0.5
    assert figures.xruns == 2


def test_spoken_text_repeats_where_it_ends() -> None:
    short = demo.speech("en-us", "Yes.", 48000)
    assert len(short) == 48000
    assert np.abs(short).max() == pytest.approx(demo.PEAK, rel=0.01)
    assert np.abs(short[-24000:]).max() > demo.PEAK / 2, "the second half is silent"
