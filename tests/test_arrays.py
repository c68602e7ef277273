"""Cards of several loudspeakers and microphones: docs/arrays.md's examples, on room cards of their shape."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import daemon
import numpy as np
import pytest
import soundfile
from conftest import RoomCard
from daemon import APMPI, Daemon
from reference.signals import db, power, room, voice
from scipy.signal import fftconvolve

start = daemon.start  # pytest finds fixtures by their names here

PAGE = (Path(__file__).parents[1] / "docs/arrays.md").read_text()
EXAMPLES = dict(re.findall(r"^### (.*?)\n.*?```yaml\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
WIRED = "A linear array of four microphones with a wired reference"


def on_room_cards(yaml: str, room_card: RoomCard, folder: Path, **array: str | float | Path) -> str:
    """Return the example with a room card in place of each device.

    `array` are the options of the array's. The loopback's ends are cards that record what is played.
    """
    for number, device in enumerate(dict.fromkeys(re.findall(r'device: "(.*?)"', yaml))):
        loopback = {"record": folder / f"played{number}.wav"}
        card = room_card(**(loopback if "Loopback" in device else array))
        yaml = yaml.replace(f'"{device}"', card)
    return yaml


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_accepted_and_its_channels_open(name: str, tmp_path: Path, room_card: RoomCard) -> None:
    yaml = on_room_cards(EXAMPLES[name], room_card, tmp_path, loudspeakers=2, microphones=4, reference=1)
    (tmp_path / "apmpi.yaml").write_text(yaml)
    done = subprocess.run([APMPI, "check", "apmpi.yaml"], cwd=tmp_path, capture_output=True, text=True)
    print(yaml, done.stdout, done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        r"^microphone: device room\d opens with \d+ Hz, [268] channel", done.stdout, re.MULTILINE
    )


def test_the_wired_array_cancels_what_another_program_plays(
    tmp_path: Path, rng: np.random.Generator, room_card: RoomCard, start: type[Daemon]
) -> None:
    """aplay plays another voice at each side."""
    rate_hz, seconds = 16000, 8
    far = np.stack([voice(rng, rate_hz, seconds + 1.0) for _ in range(2)], axis=1)
    soundfile.write(tmp_path / "far.wav", far, rate_hz, subtype="PCM_16")
    responses = np.stack([0.7 * room(rng, rate_hz, 0.2) for _ in range(8)], axis=1)
    soundfile.write(tmp_path / "room.wav", responses, rate_hz, subtype="FLOAT")
    array = {"loudspeakers": 2, "microphones": 4, "reference": 1, "delay_ms": 30, "noise_dbfs": -75}
    yaml = on_room_cards(
        EXAMPLES[WIRED], room_card, tmp_path, impulse_response=tmp_path / "room.wav", **array
    )
    yaml += "features: {noise_suppression: false, auto_gain_control: false}\n"
    (tmp_path / "apmpi.yaml").write_text(yaml)
    process = start(tmp_path / "apmpi.yaml", "--seconds", str(seconds))
    process.hear("running at")
    card = re.search(r"microphone: {device: (\w+)", yaml)
    assert card
    with subprocess.Popen(["aplay", "-q", "-D", card[1], tmp_path / "far.wav"]) as aplay:
        assert process.ended() == 0
        aplay.terminate()
    output, _ = soundfile.read(tmp_path / "played1.wav")
    echo_db = min(
        db(power(sum(fftconvolve(x, responses[:, 4 * side + m]) for side, x in enumerate(far.T))))
        for m in (0, 3)
    )
    reduction_db = echo_db - db(power(output[5 * rate_hz : 7 * rate_hz]))
    print(f"echo reduced by {reduction_db:.1f} dB from 5 s on")
    assert reduction_db > 30 and "cancelling echo" in process.said
