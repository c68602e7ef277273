"""Devices in native code: misuse is an error and no crash, and the service holds no more than it needs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import daemon
import numpy as np
import pytest
import soundfile
from daemon import RATE_HZ, Daemon

from apmpi._cards import FarQueue, Follower, Pcm, Place, PlaybackPlace
from apmpi.cards import formats
from apmpi.cards.pcm import Capture, Playback
from apmpi.errors import DeviceLost

start = daemon.start  # pytest finds fixtures by their names here

FRAME = bytes(2 * RATE_HZ // 100)
# Of the whole service, on the cards of this test, whose rings of 8 MB are a simulation's own.
RESIDENT_MAX_MB = LOCKED_MAX_MB = 60


def test_a_closed_card_is_a_lost_device(room_card: Callable[..., str]) -> None:
    name = room_card()
    capture, playback = Capture("microphone", name, RATE_HZ, 1, 4), Playback("speaker", name, RATE_HZ, 1, 4)
    follower = Follower(None, 1, RATE_HZ, RATE_HZ)
    for card in (capture, playback):
        card.close()
        card.close()
    for use in (
        capture.read,
        capture.rest,
        playback.rest,
        lambda: FarQueue(1, RATE_HZ).fill(capture, follower, 0),
        lambda: PlaybackPlace().play(playback, follower, FRAME, 0),
    ):
        with pytest.raises(DeviceLost, match="is closed"):
            use()
    assert capture.xruns == playback.xruns == 0


def test_a_part_without_a_direction_is_refused() -> None:
    """Regression: its pointer to the direction's state was null, and the process ended by a signal."""
    for part in (Pcm, Place):
        with pytest.raises(TypeError, match=r"expected (Capture or Playback|FarQueue or PlaybackPlace)"):
            part.__new__(part)


def test_frames_that_do_not_fit_are_refused(room_card: Callable[..., str]) -> None:
    """Each of these would read or write beyond a buffer."""
    name = room_card()
    capture, playback = Capture("far_end", name, RATE_HZ, 2, 4), Playback("speaker", name, RATE_HZ, 1, 4)
    same, half = Follower(None, 1, RATE_HZ, RATE_HZ), Follower(None, 1, RATE_HZ, RATE_HZ // 2)
    stereo = Follower(None, 2, RATE_HZ, RATE_HZ)
    for follower, frame, expected in (
        (same, FRAME[:-2], "a frame of 958 bytes, expected 960"),
        (half, FRAME, "48000 Hz and 1 channels, expected 24000 Hz and 1"),
        (stereo, 2 * FRAME, "48000 Hz and 1 channels, expected 48000 Hz and 2"),
    ):
        with pytest.raises(RuntimeError, match=expected):
            PlaybackPlace().play(playback, follower, frame, 0)
    for follower, queue, expected in (
        (same, FarQueue(1, RATE_HZ), "48000 Hz and 2 channels, expected 48000 Hz and 1"),
        (stereo, FarQueue(1, RATE_HZ), "48000 Hz and 2 channels, expected 48000 Hz and 1"),
        (stereo, FarQueue(2, RATE_HZ // 2), "converted to 48000 Hz, expected 24000 Hz"),
    ):
        with pytest.raises(RuntimeError, match=expected):
            queue.fill(capture, follower, 0)


def test_a_far_end_at_another_rate_on_another_clock(
    room_card: Callable[..., str], rng: np.random.Generator, tmp_path: Path
) -> None:
    """16 kHz, 300 ppm fast, for a processing at 48 kHz: each frame is complete after the first."""
    soundfile.write(tmp_path / "near.wav", 0.1 * rng.standard_normal(2 * RATE_HZ // 3), RATE_HZ // 3)
    device = room_card(near=tmp_path / "near.wav", capture_ppm=300, delay_ms=1)
    microphone = Capture("microphone", room_card(), RATE_HZ, 1, 4)
    far_end = Capture("far_end", device, RATE_HZ // 3, 1, 4)

    class Slot:
        card = microphone

    queue, follower = FarQueue(1, RATE_HZ), Follower(Slot(), 1, RATE_HZ // 3, RATE_HZ)
    frames = []
    for _ in range(150):
        microphone.read()
        queue.fill(far_end, follower, microphone.captured_ns - 8_000_000)
        frames.append(queue.take())
    levels = [formats.level(frame)[0] for frame in frames[10:] if frame]
    print(f"{follower.ppm:.0f} ppm, {len(levels)} frames, RMS {min(levels):.0f} to {max(levels):.0f}")
    assert len(levels) == 140 and queue.slips == 0
    # 0.1 of full scale, and 6 % more or less in 160 samples; a gap of half a frame would take 3 dB.
    assert min(levels) > 0.72 * 3277 and max(levels) < 1.3 * 3277
    assert follower.ppm < 0, "the far end's clock is fast: fewer samples come out than go in"
    for card in (microphone, far_end):
        card.close()


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_are_picked_and_repeated(channels: int, rng: np.random.Generator) -> None:
    samples = rng.integers(-32768, 32768, (480, channels)).astype("<i2")
    for wanted in (tuple(range(channels)), (channels - 1,), tuple(reversed(range(channels)))):
        assert formats.picked(samples.tobytes(), channels, wanted) == samples[:, wanted].tobytes()
    assert formats.picked(samples.tobytes(), channels, ()) == b""
    mono = samples[:, 0]
    assert formats.repeated(mono.tobytes(), channels) == mono.repeat(channels).tobytes()


def test_the_service_with_devices_is_small(
    room_card: Callable[..., str], tmp_path: Path, start: type[Daemon]
) -> None:
    """It loads no numpy, and its threads share one arena of 64 MiB, which counts as locked."""
    device, host = room_card(), room_card()
    path = tmp_path / "apmpi.yaml"
    path.write_text(
        f"microphone: {{device: {device}}}\nspeaker: {{device: {device}}}\n"
        f"far_end: {{device: {host}}}\noutput: {{device: {host}}}\n"
        f"report_interval_s: 0.5\nsocket: {tmp_path}/socket\nkeep_learned: ram\n"
    )
    loaded = "print('loaded', *sorted({'numpy', 'soundfile', 'alsaaudio'} & {*sys.modules}), file=sys.stderr)"
    code = f"import atexit; atexit.register(lambda: {loaded})"
    process = start(path, code=code, RUNTIME_DIRECTORY=str(tmp_path))
    process.hear("latency")
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident_mb, locked_mb = (
        int(re.search(rf"{name}:\s*(\d+) kB", status)[1]) / 1024 for name in ("VmRSS", "VmLck")
    )
    print(f"{resident_mb:.0f} MB resident, {locked_mb:.0f} MB locked")
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    assert "loaded\n" in process.said
    assert resident_mb < RESIDENT_MAX_MB
    assert locked_mb < LOCKED_MAX_MB
    assert locked_mb > 0 or os.geteuid() != 0
