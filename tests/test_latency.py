"""Latency: the arithmetic of the figures, and the measured delay of sound against them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from apmpi.cards.latency import FrameTimes, LatencyLog
from apmpi.service import run as service
from apmpi.settings import Endpoint, Features, Settings

RATE_HZ = 48000


def test_summary_is_that_of_the_frames(rng: np.random.Generator) -> None:
    log = LatencyLog(capacity_frames=1000, algorithmic_ms=6.5)
    parts = rng.gamma(2.0, 3.0, size=(2500, 3)).astype(np.float32)
    for row in parts:
        log.add(*row.tolist())
    # Of 2500 frames the last 600, then more than the log holds.
    for since_frame, count in ((1900, 600), (0, 1000)):
        summary = log.summary(since_frame)
        assert summary is not None
        assert summary.frames == count
        expected = np.sort(parts[-count:].sum(axis=1) + np.float32(6.5))
        # Nearest rank: the smallest value that so many percent of all do not exceed.
        assert summary.total.median_ms == pytest.approx(expected[count // 2 - 1])
        assert summary.total.p99_ms == pytest.approx(expected[int(np.ceil(0.99 * count)) - 1])
        assert summary.total.max_ms == pytest.approx(expected[-1])
        assert summary.capture_wait.max_ms == pytest.approx(parts[-count:, 0].max())
        assert summary.wake_up.max_ms == pytest.approx(parts[-count:, 0].max() - 10, abs=1e-5)
        assert summary.playback_queue.median_ms == pytest.approx(np.sort(parts[-count:, 2])[count // 2 - 1])
    assert log.summary(2500) is None


def test_percentile_of_one_late_frame_in_a_hundred() -> None:
    log = LatencyLog(capacity_frames=100, algorithmic_ms=0.0)
    for frame in range(100):
        log.add(30.0 if frame == 42 else 10.0, 1.0, 2.0)
    summary = log.summary(0)
    assert summary is not None
    assert (summary.total.median_ms, summary.total.p99_ms, summary.total.max_ms) == (13.0, 13.0, 33.0)


@pytest.mark.parametrize(
    ("features", "low_latency"),
    [(Features(False, False, False, False), False), (Features(), False), (Features(), True)],
    ids=["off", "on", "low latency"],
)
def test_a_click_arrives_when_the_figures_say(
    features: Features, low_latency: bool, room_card: Callable[..., str], tmp_path: Path
) -> None:
    """One card is microphone and output, and its loudspeaker reaches its microphone at a low level. So a
    click of the near end arrives twice: directly, and once more after its way through the system. The
    distance of the two, less the room's own delay, is the system's latency: counted in samples, without any
    clock. With low_latency the card is slow, so that a busy machine is not late within 1.75 ms of its time.
    """
    speed = 0.3 if low_latency else 1.0
    delay_ms, echo_gain, seconds = 100, 0.01, 4.0
    clicks = np.array([48013, 72101, 96250, 120399, 143990])  # at many positions within a frame
    near = np.zeros(int(seconds * RATE_HZ))
    near[clicks] = 0.9
    soundfile.write(tmp_path / "near.wav", near, RATE_HZ, subtype="FLOAT")
    soundfile.write(tmp_path / "room.wav", np.full(1, echo_gain), RATE_HZ, subtype="FLOAT")
    device = room_card(
        impulse_response=tmp_path / "room.wav", delay_ms=delay_ms, near=tmp_path / "near.wav", speed=speed
    )

    heard: list[bytes] = []
    said: list[FrameTimes] = []

    def tap(far: bytes, microphone: bytes, output: bytes, times: FrameTimes) -> None:
        heard.append(microphone)
        said.append(times)

    settings = Settings(
        microphone=Endpoint(device), output=Endpoint(device), features=features, low_latency=low_latency
    )
    assert service.run(settings, seconds=seconds, tap=tap, speed=speed) == 0

    microphone = np.frombuffer(b"".join(heard), dtype="<i2") / 32768
    errors_ms = []
    for click in clicks:
        assert microphone[click] > 0.8, "the talker's click is not where it was put"
        back = microphone[click + 480 : click + int(0.3 * RATE_HZ)]
        returned = click + 480 + int(np.argmax(np.abs(back)))
        took_ms = (returned - click) * 1000 / RATE_HZ - delay_ms
        errors_ms.append(took_ms - said[click // 480].total_ms)
    print(f"errors {np.round(errors_ms, 3)} ms, {said[-1].xruns} xruns, frame 200: {said[200]}")
    assert said[-1].xruns == 0, "an xrun disturbed the measurement"
    assert np.abs(errors_ms).max() < 1.0
