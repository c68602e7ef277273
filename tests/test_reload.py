"""`systemctl reload` on the room card: the changes, the sound meanwhile, and their audible effect."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import daemon
import numpy as np
import pytest
import soundfile
from daemon import RATE_HZ, Configure, Daemon, RoomCard, level_db, write
from reference.signals import voice
from scipy.signal import butter, sosfilt

from apmpi.service.layout import taken_live
from apmpi.settings import Endpoint, Features, Settings

configure, start = daemon.configure, daemon.start  # pytest finds fixtures by their names here

RUNNING = Settings(
    microphone=Endpoint("mic"),
    speaker=Endpoint("card", channels=2),
    far_end=Endpoint("far"),
    output=Endpoint(file=Path("out.wav")),
)


@pytest.mark.parametrize(
    ("changes", "taken", "waiting"),
    [
        ({"features": Features(echo_cancellation=False)}, ["features"], []),
        ({"stream_delay_ms": 30}, ["stream_delay_ms"], []),
        ({"speaker": Endpoint("other", channels=2, line=7)}, ["speaker"], []),
        ({"microphone": Endpoint("other"), "far_end": Endpoint("x")}, ["microphone", "far_end"], []),
        ({"speaker": Endpoint("other")}, [], ["speaker"]),
        ({"speaker": None}, [], ["speaker"]),
        ({"output": Endpoint("card2")}, [], ["output"]),
        ({"output": Endpoint(file=Path("b.wav"))}, [], ["output"]),
        ({"periods": 8, "features": Features(noise_suppression=False)}, ["features"], ["periods"]),
        ({"sample_rate_hz": 16000, "keep_learned": "disk"}, [], ["sample_rate_hz", "keep_learned"]),
        # the far end's new device is the microphone's old one, which it keeps: its other change has to wait
        (
            {"microphone": Endpoint("new", channels=2), "far_end": Endpoint("mic")},
            [],
            ["microphone", "far_end"],
        ),
    ],
)
def test_what_is_taken_at_once_and_what_waits(
    changes: dict[str, object], taken: list[str], waiting: list[str]
) -> None:
    fresh = replace(RUNNING, **changes)  # type: ignore[arg-type]
    got, late = taken_live(RUNNING, fresh)
    assert late == waiting
    assert got == replace(RUNNING, **{key: changes[key] for key in taken})  # type: ignore[arg-type]


def reload(process: Daemon, path: Path, text: str) -> None:
    path.write_text(text)
    process.signal(signal.SIGHUP)
    assert "needs a restart" not in process.hear("reloaded")


def test_another_loudspeaker_does_not_interrupt_the_microphone(
    configure: Configure, room_card: RoomCard, start: type[Daemon], tmp_path: Path
) -> None:
    """The new loudspeaker's input is recorded: the far end, from about the moment of the reload."""
    path = configure()
    other = room_card(record=tmp_path / "played.wav")
    process = start(path, "--seconds", "5")
    for _ in range(4):
        process.hear("latency")
    text = path.read_text().replace("speaker: {device: room0}", f"speaker: {{device: {other}}}")
    reload(process, path, text)
    assert process.ended() == 0
    assert ", 0 xruns" in process.said.splitlines()[-2]
    assert "waiting" not in process.said
    clean, _ = soundfile.read(tmp_path / "clean.wav")
    assert len(clean) == 5 * RATE_HZ
    # Nothing of the loudspeaker reaches the microphone any more, so only its noise is left.
    print(f"{level_db(clean[-RATE_HZ:]):.1f} dBFS in the last second")
    assert level_db(clean[-RATE_HZ:]) < -60
    played, _ = soundfile.read(tmp_path / "played.wav")
    sounds = np.flatnonzero(np.abs(played) > 0.01)
    print(f"the other loudspeaker sounds for {(sounds[-1] - sounds[0]) / RATE_HZ:.2f} s")
    assert sounds[-1] - sounds[0] > 2 * RATE_HZ


def test_another_microphone_is_heard_within_two_seconds(
    configure: Configure, rng: np.random.Generator, room_card: RoomCard, start: type[Daemon], tmp_path: Path
) -> None:
    path = configure()
    near = write(tmp_path / "near.wav", voice(rng, RATE_HZ, 6.0, level_dbfs=-34.0))
    other = room_card(near=near, noise_dbfs=-75)
    process = start(path)
    for _ in range(3):
        process.hear("latency")
    began_s = time.monotonic()
    reload(
        process,
        path,
        path.read_text().replace("microphone: {device: room0}", f"microphone: {{device: {other}}}"),
    )
    process.hear("latency")
    process.hear("latency")
    took_s = time.monotonic() - began_s
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    clean, _ = soundfile.read(tmp_path / "clean.wav")
    print(f"two reports {took_s:.1f} s later, {level_db(clean[-RATE_HZ // 4 :]):.1f} dBFS at the end")
    assert took_s < 3
    assert level_db(clean[-RATE_HZ // 4 :]) > -50
    assert "waiting" not in process.said


def test_a_device_that_does_not_exist_is_waited_for_until_the_next_reload(
    configure: Configure, start: type[Daemon], tmp_path: Path
) -> None:
    path = configure()
    good = path.read_text()
    process = start(path)
    process.hear("latency")
    reload(process, path, good.replace("microphone: {device: room0}", "microphone: {device: nonsense}"))
    process.hear(r"waiting: microphone\.device: 'nonsense' does not exist")
    reload(process, path, good)
    process.hear("all devices are back")
    process.hear(r"latency \d+ ms, 0 xruns")
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def clicks_db(out: np.ndarray) -> float:
    """The loudest 5 ms above 5 kHz, where a low tone itself has nothing; after the first 0.5 s."""
    high = sosfilt(butter(6, 5000.0, "highpass", fs=RATE_HZ, output="sos"), out)[RATE_HZ // 2 :]
    blocks = high[: len(high) // 240 * 240].reshape(-1, 240)
    return float(10 * np.log10(np.max(np.mean(blocks**2, axis=1)) + 1e-12))


def test_switching_features_does_not_click(configure: Configure, start: type[Daemon], tmp_path: Path) -> None:
    """A low tone is heard; all features are switched off and on again, one by one."""
    tone = 0.2 * np.sin(2 * np.pi * 150 * np.arange(12 * RATE_HZ) / RATE_HZ)
    path = configure(near=write(tmp_path / "near.wav", tone))
    names = ("echo_cancellation", "noise_suppression", "high_pass_filter", "auto_gain_control")
    base = (
        path.read_text()
        .rsplit("features:", 1)[0]
        .replace("far_end: {file: far.wav}", "far_end: {file: quiet.wav}")
    )
    write(tmp_path / "quiet.wav", np.zeros(12 * RATE_HZ))
    loudest_db = {}
    for switched in (False, True):
        on = dict.fromkeys(names, "false")
        path.write_text(
            f"{base}features: {{{', '.join(f'{name}: {value}' for name, value in on.items())}}}\n"
        )
        process = start(path, "--seconds", "5")
        process.hear("latency")
        for name in names * 2 if switched else ():
            on[name] = "true" if on[name] == "false" else "false"
            reload(process, path, f"{base}features: {{{', '.join(f'{n}: {v}' for n, v in on.items())}}}\n")
            time.sleep(0.3)
        assert process.ended() == 0
        assert ", 0 xruns" in process.said.splitlines()[-2]
        out, _ = soundfile.read(tmp_path / "clean.wav")
        loudest_db[switched] = clicks_db(out)
        print(
            f"switched: {switched}, loudest 5 ms above 5 kHz {loudest_db[switched]:.1f} dBFS, tone -17 dBFS"
        )
    assert re.search("reloaded", process.said)
    assert loudest_db[True] < max(loudest_db[False] + 6, -75)
