"""The learned state is restored after a restart, however the run ended; its defects are reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import zlib
from pathlib import Path

import daemon
import numpy as np
import pytest
import soundfile
from daemon import RATE_HZ, Configure, Daemon, RoomCard, level_db
from hypothesis import given, settings
from hypothesis import strategies as st

from apmpi.service import learned
from apmpi.service.learned import Learned, LearnedError
from apmpi.settings import Endpoint, Settings

configure, start = daemon.configure, daemon.start  # pytest finds fixtures by their names here

SETTINGS = Settings(
    microphone=Endpoint("hw:1"), speaker=Endpoint("hw:1", channels=2), far_end=Endpoint("hw:2")
)
# A minute is too long for a test: saved every second, as it would be every minute.
HURRY = "from apmpi.service import learned; learned.FIRST_SAVE_S = learned.SAVE_EVERY_S = 1.0"
LEARNED = Learned(b"\x00\n\xff" * 1000, SETTINGS, {"speaker": -12.5})


def test_what_was_saved_is_taken_once(tmp_path: Path) -> None:
    path = tmp_path / "learned"
    assert learned.take(path, SETTINGS) is None
    learned.save(path, LEARNED)
    assert [file.name for file in tmp_path.iterdir()] == ["learned"]
    assert learned.take(path, SETTINGS) == LEARNED
    assert learned.take(path, SETTINGS) is None


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"microphone": Endpoint("hw:0")}, "microphone"),
        ({"speaker": Endpoint("hw:1")}, "speaker"),
        ({"far_end": None}, "far_end"),
        ({"periods": 8, "sample_rate_hz": 16000}, "periods, sample_rate_hz"),
        ({"output": Endpoint("hw:3"), "stream_delay_ms": 40, "report_interval_s": 1.0}, None),
        ({"microphone": Endpoint("hw:1", line=7)}, None),
    ],
)
def test_another_device_has_another_echo(
    changes: dict[str, object], differs: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "learned"
    learned.save(path, LEARNED)
    other = Settings(**{**{key: getattr(SETTINGS, key) for key in SETTINGS.__slots__}, **changes})  # type: ignore[arg-type]
    if differs is None:
        assert learned.take(path, other) is not None
        return
    with pytest.raises(LearnedError, match=f"learned with another {differs}$"):
        learned.take(path, other)


@settings(max_examples=200, derandomize=True)
@given(st.data())
def test_damage_is_told(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    learned.save(path, LEARNED)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 120))
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    with pytest.raises(LearnedError, match=r"damaged: (not written by this version|damaged)"):
        learned.take(path, SETTINGS)
    assert not path.exists(), "it would be met again at the next start"


def test_a_disk_that_is_full_keeps_what_was_there(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small]).returncode != 0:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        learned.save(small / "learned", LEARNED)
        with pytest.raises(OSError, match="No space"):
            learned.save(small / "learned", Learned(bytes(100_000), SETTINGS))
        assert learned.take(small / "learned", SETTINGS) == LEARNED
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_disk_that_blocks_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = threading.Event()
    monkeypatch.setattr(learned, "save", lambda path, state: blocked.wait(30))
    warnings: list[str] = []
    keeper = learned.Keeper(
        tmp_path / "learned", lambda: LEARNED, lambda: 60.0, None, warnings.append, lambda: None
    )
    keeper.start()
    began_s = time.monotonic()
    keeper.close(keep=True)
    took_s = time.monotonic() - began_s
    blocked.set()
    assert took_s < learned.CLOSE_TIMEOUT_S + 1
    assert ["the disk does not answer" in warning for warning in warnings] == [True]


def first_words_db(tmp_path: Path, seconds: float = 1.0) -> float:
    """Echo reduction in dB in the beginning of the far end."""
    far, _ = soundfile.read(tmp_path / "far.wav")
    clean, _ = soundfile.read(tmp_path / "clean.wav")
    response, _ = soundfile.read(tmp_path / "room.wav")
    count = round(seconds * RATE_HZ)
    echo = np.convolve(far[:count], response)[:count]
    late = round(0.06 * RATE_HZ)  # playout and room, more or less: the levels are of a whole second
    return level_db(echo) - level_db(clean[late : late + count])


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_the_first_second_after_a_restart_cancels(
    ended_by: signal.Signals, configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    """Stopped, and killed as by systemd's watchdog. Without a saved state, for comparison, too."""
    path = configure()
    state = tmp_path / "state"
    state.mkdir()
    first = start(path, code=HURRY, RUNTIME_DIRECTORY=str(state))
    time.sleep(6)
    first.signal(ended_by)
    assert first.ended() == (0 if ended_by == signal.SIGTERM else -signal.SIGKILL)
    # One that is killed can't remove the file of flowing sound, and may be in the middle of a save.
    left = {file.name for file in state.iterdir() if file.is_file()}
    assert left - {"sound", "learned.part"} == {"learned"}
    about = json.loads((state / "learned").read_bytes().split(b"\n")[1])
    assert about["devices"]["sample_rate_hz"] == "48000"

    second = start(path, "--seconds", "2", RUNTIME_DIRECTORY=str(state))
    assert second.ended() == 0
    assert f"goes on from what was learned before ({state}/learned)" in second.said
    again_db = first_words_db(tmp_path)
    path.write_text(path.read_text() + "keep_learned: never\n")
    third = start(path, "--seconds", "2", RUNTIME_DIRECTORY=str(state))
    assert third.ended() == 0
    anew_db = first_words_db(tmp_path)
    print(f"first second: {again_db:.1f} dB, without what was learned {anew_db:.1f} dB")
    # Cards start up to a sample apart from the time before: the first syllable's treble is not yet right.
    assert again_db > 12
    assert again_db > anew_db + 3


def test_a_clock_that_is_off_is_known_from_the_start(
    configure: Configure, room_card: RoomCard, tmp_path: Path, start: type[Daemon]
) -> None:
    """The output's card is 300 ppm fast: found in one run, and known after the first second of the next, in
    which it could not have been found.
    """
    path = configure()
    output = room_card(playback_ppm=300, delay_ms=1)
    path.write_text(path.read_text().replace("{file: clean.wav}", f"{{device: {output}}}"))
    found_ppm = []
    for seconds in ("8", "1"):
        assert start(path, "--seconds", seconds, code=HURRY, RUNTIME_DIRECTORY=str(tmp_path)).ended() == 0
        about = json.loads((tmp_path / "learned").read_bytes().split(b"\n")[1])
        found_ppm.append(about["drift_ppm"]["output"])
    print(f"found {found_ppm} ppm")
    assert found_ppm == pytest.approx([300, 300], abs=60)


def test_a_state_of_other_devices_is_not_used(
    configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    path = configure()
    learned.save(tmp_path / "learned", LEARNED)
    process = start(path, "--seconds", "1", code=HURRY, RUNTIME_DIRECTORY=str(tmp_path))
    assert process.ended() == 0
    assert "learned with another" in process.said
    assert "the echo is learned anew" in process.said
    assert (tmp_path / "learned").exists(), "this run has learned, too"


def sealed(about: str) -> bytes:
    """Contents of a file of the learned state, with these devices and clocks and a valid checksum."""
    content = about.encode() + b"\n" + LEARNED.chain
    return b"%s %08x\n" % (learned.MAGIC, zlib.crc32(content)) + content


DEVICES = json.dumps(learned._devices(SETTINGS))


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        (f'{{"devices": {DEVICES}, "drift_ppm": {{"speaker": NaN}}}}', "NaN, expected finite numbers"),
        (f'{{"devices": {DEVICES}, "drift_ppm": {{"speaker": 1e999}}}}', "too large for a float"),
        (f'{{"devices": {DEVICES}, "drift_ppm": {{"speaker": 1201.5}}}}', "speaker: 1201.5 given"),
        (
            f'{{"devices": {DEVICES}, "drift_ppm": {{"speaker": -{"9" * 19}}}}}',
            "speaker: -9999999999999999999",
        ),
        (f'{{"devices": {DEVICES}, "drift_ppm": {{"speaker": true}}}}', "speaker: True given"),
        (f'{{"devices": {DEVICES}, "drift_ppm": {{"speaker": "5"}}}}', "speaker: 5 given"),
        (
            f'{{"devices": {DEVICES}, "drift_ppm": {{"spe\\u001b": 1}}}}',
            r"'spe\x1b': 1 given, expected one of",
        ),
        (f'{{"devices": {DEVICES}, "drift_ppm": [1]}}', "it names no devices or clocks"),
        ('{"devices": 5, "drift_ppm": {}}', "it names no devices or clocks"),
        ('{"devices": [[1]], "drift_ppm": {}}', "it names no devices or clocks"),
        ('{"devices": {"x\\u001b[2J": 1}, "drift_ppm": {}}', "learned with another "),
        ('{"devices": {"\\ud800": 1}, "drift_ppm": {}}', "half a surrogate pair"),
        ('{"devices": ' + "[" * 190 + "]" * 190 + ', "drift_ppm": {}}', "nested more than 8 levels deep"),
        ('{"devices": {"a": "' + "x" * 20_000 + '"}, "drift_ppm": {}}', "expected at most 16384"),
        ("[]", "is no object"),
    ],
)
def test_a_value_that_cannot_be_is_refused_however_well_sealed(
    about: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "learned"
    path.write_bytes(sealed(about))
    with pytest.raises(LearnedError) as caught:
        learned.take(path, SETTINGS)
    print(caught.value)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400 + len(str(path))
    assert not path.exists(), "it would be met again at the next start"


def test_what_is_no_file_is_refused_and_does_not_hold_up_the_start(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "folder", tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(
            LearnedError, match=r"cannot be read \((it is not a regular file|Is a directory)\)"
        ):
            learned.take(path, SETTINGS)
        assert path.exists()


@pytest.mark.parametrize(
    ("sound_s", "keep", "left"),
    [
        (0.0, True, "before"),
        (learned.FIRST_SAVE_S - 0.01, True, "before"),
        (learned.FIRST_SAVE_S, True, "now"),
        (3600.0, False, None),
        (0.0, False, None),
    ],
)
def test_what_a_run_leaves_to_the_next(sound_s: float, keep: bool, left: str | None, tmp_path: Path) -> None:
    """A run that is too short keeps the file it found; one that failed removes even its own state."""
    path = tmp_path / "learned"
    states = {"before": LEARNED, "now": Learned(b"now", SETTINGS, {"speaker": 3.0}), None: None}
    learned.save(path, states["now"])  # type: ignore[arg-type]
    keeper = learned.Keeper(
        path,
        lambda: states["now"],
        lambda: sound_s,
        states["before"],
        print,
        lambda: None,  # type: ignore[arg-type, return-value]
    )
    keeper.start()
    keeper.close(keep=keep)
    assert learned.take(path, SETTINGS) == states[left]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_state_that_cannot_be_saved_leaves_no_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "learned"
    learned.save(path, LEARNED)
    keeper = learned.Keeper(path, lambda: 1 / 0, lambda: 60.0, LEARNED, print, lambda: None)  # type: ignore[arg-type, return-value]
    keeper.start()
    keeper.close(keep=True)
    assert not path.exists()


def test_what_made_the_program_fail_is_met_once(
    configure: Configure, tmp_path: Path, start: type[Daemon]
) -> None:
    """An error in the audio thread, after the state was saved many times: the next start is a fresh one."""
    path = configure()
    late_error = (
        "from apmpi.service import chain, learned; learned.FIRST_SAVE_S = learned.SAVE_EVERY_S = 0.2;"
        " import time; end_s = time.monotonic() + 2; process = chain.LoopChain.process;"
        " chain.LoopChain.process = lambda *given: process(*given) if time.monotonic() < end_s else 1 / 0"
    )
    process = start(path, code=late_error, RUNTIME_DIRECTORY=str(tmp_path))
    time.sleep(1.5)
    saved = (tmp_path / "learned").exists()
    assert process.ended(traceback=True) == 1
    assert "stopped by an error in the program" in process.said
    assert saved and not (tmp_path / "learned").exists()
