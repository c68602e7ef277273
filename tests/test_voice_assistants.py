"""Wake words that are said during an answer, through the whole service and the ALSA name that programs use.

`make test-assistants` has the packages for it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import daemon
import numpy as np
import pytest
import soundfile
from conftest import RoomCard
from daemon import Daemon
from reference.signals import Signal, at_level, room
from scipy.signal import fftconvolve, resample_poly

from apmpi.tools import demo

pytest.importorskip("pymicro_wakeword", reason="needs pymicro-wakeword: make test-assistants")

from wake_words import DETECTORS, RATE_HZ, Samples, detections, spoken

# pytest finds fixtures by their names here.
start = daemon.start

PHRASE, create_detector = DETECTORS["microWakeWord"]
CARD_RATE_HZ = 48000
ECHO_DBFS = -22.0
VOICE_TO_ECHO_DB = -5.0
WORDS_AT_S = (9.0, 11.5, 14.0, 16.5)
# On a busy machine an xrun of the simulated card may cut a word. Offline all are found: make bench-wake-word.
FOUND_MIN = 3
END_S = 19.0


@pytest.fixture
def assistant(room_card: RoomCard, rng: np.random.Generator, tmp_path: Path) -> Path:
    """Return the configuration of local-programs.yaml, with a room card in place of the real one.

    Two more stand for the virtual card, and the ALSA name apmpi is made of their ends. The near end says the
    wake word at WORDS_AT_S.
    """
    near = np.zeros(round(END_S * CARD_RATE_HZ))
    for voice, at_s in enumerate(WORDS_AT_S):
        dry = resample_poly(spoken(voice, PHRASE), CARD_RATE_HZ, RATE_HZ)
        word, begin = fftconvolve(dry, room(rng, CARD_RATE_HZ)), round(at_s * CARD_RATE_HZ)
        near[begin : begin + len(word)] = at_level(word, ECHO_DBFS + VOICE_TO_ECHO_DB)
    near_wav = daemon.write(tmp_path / "near.wav", near)
    room_wav = daemon.write(tmp_path / "room.wav", room(rng, CARD_RATE_HZ))
    device = room_card(near=near_wav, impulse_response=room_wav, delay_ms=40, noise_dbfs=-70)
    played, clean = room_card("played"), room_card("clean")
    with (tmp_path / "room.conf").open("a") as conf:
        conf.write(
            f"pcm.apmpi {{ type asym playback.pcm {{ type plug slave.pcm {played} }} "
            f"capture.pcm {{ type plug slave.pcm {clean} }} }}\n"
        )
    text = (Path(__file__).parents[1] / "config/local-programs.yaml").read_text()
    for old, new in (
        ("plughw:CARD=Device,DEV=0", f"plug:{device}"),
        ("hw:CARD=Loopback,DEV=1,SUBDEV=0", played),
        ("hw:CARD=Loopback,DEV=1,SUBDEV=1", clean),
    ):
        assert old in text
        text = text.replace(old, new)
    yaml = tmp_path / "apmpi.yaml"
    yaml.write_text(text)
    return yaml


def answer() -> Signal:
    """Return what the assistant says, END_S long, at the rate of Home Assistant's voices."""
    sound = demo.speech("en-us+f2", demo.FAR_TEXT, round(END_S * demo.RATE_HZ))
    return at_level(resample_poly(sound, 22050, demo.RATE_HZ), ECHO_DBFS)


def words_found(sound: Samples) -> int:
    at_s = np.array(list(detections(create_detector(), sound))) / RATE_HZ
    print(f"found at {at_s} s")
    return int(np.sum(np.diff(at_s, prepend=-np.inf) > 1.0))


def test_the_wake_word_is_found_while_the_assistant_speaks(
    assistant: Path, tmp_path: Path, start: type[Daemon]
) -> None:
    soundfile.write(tmp_path / "answer.wav", answer(), 22050, subtype="PCM_16")
    service = start(assistant)
    service.hear("running at")
    play = ["aplay", "-q", "-D", "apmpi", tmp_path / "answer.wav"]
    listen = f"arecord -q -D apmpi -r 16000 -c 1 -f S16_LE -t raw -d {END_S:.0f}".split()
    watch = [daemon.APMPI, "record", "-o", tmp_path / "call.wav", "--seconds", f"{END_S - 1:.0f}"]
    with subprocess.Popen(play), subprocess.Popen(watch):
        clean = subprocess.run(listen, stdout=subprocess.PIPE, check=True).stdout
    call, rate_hz = soundfile.read(tmp_path / "call.wav", dtype="int16")
    assert rate_hz == RATE_HZ
    assert words_found(call[:, 1]) == 0, "the microphone's own sound is too easy"
    assert words_found(np.frombuffer(clean, np.int16)) >= FOUND_MIN
