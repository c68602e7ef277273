"""The examples, run as a reader runs them, with the room card as ALSA's default device."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RoomCard, needs_livekit
from reference.signals import db, from_int16, power, to_int16, voice

EXAMPLES = Path(__file__).parent / "examples"
RATE_HZ = 48000


def read_wav(path: Path) -> np.ndarray:
    samples, rate_hz = soundfile.read(path)
    assert rate_hz == RATE_HZ and samples.ndim == 1
    return np.asarray(samples)


def write_wav(path: Path, sound: np.ndarray) -> Path:
    soundfile.write(path, to_int16(sound), RATE_HZ)
    return path


@pytest.fixture
def default_card(room_card: RoomCard, tmp_path: Path) -> Callable[..., None]:
    """default_card(delay_ms=40, ...): a room card that programs find as "default"."""

    def configure(**options: str | float | Path) -> None:
        name = room_card(**options)
        with (tmp_path / "room.conf").open("a") as conf:
            conf.write(f'pcm.!default {{ type plug\n slave.pcm "{name}" }}\n')

    return configure


def run(name: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return done.stdout


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        assert example.name in tested or f'"{example.stem}"' in tested, example.name


def test_noise_suppression(default_card: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """Noise is reduced by 6 dB or more, speech by no more than 2 dB."""
    talker = np.concatenate([np.zeros(2 * RATE_HZ), voice(rng, RATE_HZ, 2.0, -20.0)])
    default_card(near=write_wav(tmp_path / "near.wav", talker), noise_dbfs=-45)
    run("noise_suppression.py", tmp_path, "4")
    noisy, clean = read_wav(tmp_path / "noisy.wav"), read_wav(tmp_path / "clean.wav")
    still, loud = slice(RATE_HZ, 19 * RATE_HZ // 10), slice(2 * RATE_HZ, None)
    noise_db = db(power(noisy[still])) - db(power(clean[still]))
    voice_db = db(power(noisy[loud])) - db(power(clean[loud]))
    print(f"noise {noise_db:.1f} dB less, voice {voice_db:.1f} dB")
    assert noise_db > 6.0 and abs(voice_db) < 2.0


@pytest.mark.parametrize("example", ["all_features.py", "media_devices.py"])
def test_a_far_end_that_is_played_does_not_come_back(
    default_card: Any, tmp_path: Path, rng: np.random.Generator, example: str
) -> None:
    """After four seconds of far-end speech its echo is 20 dB down in each example."""
    far = voice(rng, RATE_HZ, 5.0, -20.0)
    default_card(delay_ms=40)
    said = run(example, tmp_path, str(write_wav(tmp_path / "far.wav", far)))
    late = slice(4 * RATE_HZ, 9 * RATE_HZ // 2)
    echo_db = db(power(far[late])) - db(power(read_wav(tmp_path / "clean.wav")[late]))
    print(f"echo {echo_db:.1f} dB less")
    assert "behind the far end" in said and echo_db > 20.0


@pytest.mark.parametrize("speaks", [True, False])
def test_interruptible(default_card: Any, tmp_path: Path, rng: np.random.Generator, speaks: bool) -> None:
    """The voice stops within 3 s of the near end's first word, and never because of its own echo."""
    answer = voice(rng, RATE_HZ, 8.0 if speaks else 5.0, -26.0)
    words = voice(rng, RATE_HZ, 5.0, -20.0)
    near = np.concatenate([np.zeros(4 * RATE_HZ), words]) * speaks
    default_card(delay_ms=40, near=write_wav(tmp_path / "near.wav", near), noise_dbfs=-70)
    said = run("interruptible.py", tmp_path, str(write_wav(tmp_path / "answer.wav", answer)))
    if speaks:
        assert 4.0 <= float(said.split()[1]) < 7.0
    else:
        assert said == "answer: all of it\n"


def test_frame_rates(tmp_path: Path) -> None:
    said = run("frame_rates.py", tmp_path).splitlines()
    assert [line.split(":")[0] for line in said] == ["8000 Hz", "16000 Hz", "32000 Hz", "48000 Hz"]


def test_error_handling(tmp_path: Path) -> None:
    assert run("error_handling.py", tmp_path).splitlines() == [
        "processed",
        "APM processing failed: process_stream: frame has 960 samples per channel, "
        "expected 480 (10 ms at 48000 Hz)",
        "skipped",
        "processed",
    ]


def test_adaptive(default_card: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """Near-end speech far above the noise: from the default of 18 dB down to 6."""
    near = voice(rng, RATE_HZ, 4.0, -20.0)
    default_card(near=write_wav(tmp_path / "near.wav", near), noise_dbfs=-70)
    said = run("adaptive.py", tmp_path, "4").splitlines()
    print(said)
    assert [line.rsplit(": ")[-1] for line in said] == ["18 dB", "12 dB", "6 dB"]


@needs_livekit
def test_capture_loop(default_card: Any, tmp_path: Path) -> None:
    default_card(noise_dbfs=-40)
    assert run("capture_loop.py", tmp_path, "1") == "processed-audio: 1 s, 0 frames dropped\n"


@needs_livekit
def test_livekit_room(
    default_card: Any, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the server is LiveKit's own: a participant speaks, it is played here, and the published
    track has little of its echo.
    """
    from livekit import rtc

    far = voice(rng, RATE_HZ, 5.0, -20.0)
    default_card(delay_ms=40)
    published: list[np.ndarray] = []
    listening: list[asyncio.Task[None]] = []

    class RoomWithoutServer:
        """A room without a server: calls back and takes tracks like LiveKit's, and receives the published
        ones.
        """

        def __init__(self) -> None:
            self.handlers: dict[str, Callable[..., None]] = {}
            self.local_participant = self
            self.speaker = rtc.AudioSource(RATE_HZ, 1)

        def on(self, event: str) -> Callable[[Callable[..., None]], None]:
            return lambda handler: self.handlers.__setitem__(event, handler)

        async def connect(self, url: str, token: str) -> None:
            assert (url, token) == ("wss://room", "token")
            track = rtc.LocalAudioTrack.create_audio_track("far", self.speaker)
            self.handlers["track_subscribed"](track, None, None)
            listening.append(asyncio.create_task(self.speak()))

        async def speak(self) -> None:
            for at in range(0, len(far), 480):
                frame = rtc.AudioFrame(to_int16(far[at : at + 480]).tobytes(), RATE_HZ, 1, 480)
                await self.speaker.capture_frame(frame)

        async def publish_track(self, track: Any) -> None:
            listening.append(asyncio.create_task(self.listen(rtc.AudioStream(track, sample_rate=RATE_HZ))))

        async def listen(self, stream: rtc.AudioStream) -> None:
            try:
                async for event in stream:
                    published.append(np.frombuffer(event.frame.data, np.int16).copy())
            finally:
                await stream.aclose()

        async def disconnect(self) -> None:
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
            await self.speaker.aclose()

    example = _imported("livekit_room")
    monkeypatch.setattr(example, "Room", RoomWithoutServer)
    asyncio.run(example.main("wss://room", "token", 5.0))
    out = from_int16(np.concatenate(published))
    late = slice(4 * RATE_HZ, 9 * RATE_HZ // 2)
    echo_db = db(power(far[late])) - db(power(out[late]))
    print(f"{len(out) / RATE_HZ:.1f} s published, echo {echo_db:.1f} dB less")
    assert len(out) > 9 * RATE_HZ // 2 and echo_db > 15.0


def _imported(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
