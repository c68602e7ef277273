"""The daemon on a real ALSA card (the room card): its output, the faults it survives, its messages."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import alsaaudio
import daemon
import numpy as np
import pytest
import soundfile
from daemon import RATE_HZ, Configure, Daemon, RoomCard, impulse_response, level_db, talk, write
from reference.signals import voice

from apmpi import AudioFrame, AudioProcessingModule, Stats
from apmpi.api.apm import stats_of
from apmpi.cards import pcm
from apmpi.cards.latency import FrameTimes
from apmpi.service import run as service
from apmpi.service.chain import LoopChain
from apmpi.service.opening import Endpoints
from apmpi.settings import Endpoint, Features, Settings

configure, start = daemon.configure, daemon.start  # pytest finds fixtures by their names here


def remember(results: list[Any], method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The method, its results kept."""

    def remembering(self: Any) -> Any:
        results.append(method(self))
        return results[-1]

    return remembering


def card_s() -> float:
    """Return the processor time of the simulated card's own threads of this process."""
    times_ns = [
        int((task / "schedstat").read_text().split()[0])
        for task in Path("/proc/self/task").iterdir()
        if (task / "comm").read_text() == "room card\n"
    ]
    return sum(times_ns) / 1e9


def echo_db(tmp_path: Path) -> float:
    """Level of the echo at the microphone, dB."""
    far, _ = soundfile.read(tmp_path / "far.wav")
    response, _ = soundfile.read(tmp_path / "room.wav")
    count = len(far) + len(response)
    return level_db(np.fft.irfft(np.fft.rfft(far, count) * np.fft.rfft(response, count), count))


def test_echo_is_cancelled_on_the_way_to_the_output(
    configure: Configure, start: type[Daemon], tmp_path: Path
) -> None:
    process = start(configure(), "--seconds", "6")
    assert process.ended() == 0
    clean, rate_hz = soundfile.read(tmp_path / "clean.wav")
    assert (rate_hz, len(clean)) == (RATE_HZ, 6 * RATE_HZ)
    reduction_db = echo_db(tmp_path) - level_db(clean[-2 * RATE_HZ :])
    print(f"echo reduced by {reduction_db:.1f} dB in the last 2 s")
    assert reduction_db > 20
    assert re.search(r"cancelling echo: \d+ dB, latency \d+ ms, 0 xruns", process.said)


def test_the_loops_chain_gives_what_the_api_gives(rng: np.random.Generator) -> None:
    """Two channels each way, bit for bit, and a frame of another length is refused."""
    features = asdict(Features())
    chain, module = LoopChain(16000, 2, 2, features), AudioProcessingModule(**features)
    silence = AudioFrame.create(16000, 2, 160)
    module.process_stream(silence)  # the shape is known
    module.process_reverse_stream(silence)
    module.reset()
    for _ in range(50):
        far, near = rng.integers(-3000, 3000, (2, 320)).astype("<i2")
        frame = AudioFrame(bytearray(near.tobytes()), 16000, 2, 160)
        module.process_reverse_stream(AudioFrame(far.tobytes(), 16000, 2, 160))
        module.process_stream(frame)
        assert chain.process(far.tobytes(), near.tobytes()) == frame.data.tobytes()
    assert stats_of(chain.figures()) == module.stats()
    for sizes in ((640, 638), (638, 640)):
        with pytest.raises(RuntimeError, match="expected 10 ms"):
            chain.process(*map(bytes, sizes))


def test_erle_is_reported_as_it_is(
    rng: np.random.Generator, room_card: RoomCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far end alone for 7 s, double talk for 3 s, far end alone again: the reported ERLE lies within 3 dB of
    the ratio of the loop's input and output in the 2 s before. The canceller is reported as working all the
    time.
    """
    quiet = np.zeros(7 * RATE_HZ)
    write(tmp_path / "near.wav", np.concatenate([quiet, voice(rng, RATE_HZ, 3.0, level_dbfs=-20.0), quiet]))
    write(tmp_path / "far.wav", talk(rng, 15.0))
    write(tmp_path / "room.wav", impulse_response(rng))
    device = room_card(
        impulse_response=tmp_path / "room.wav", near=tmp_path / "near.wav", delay_ms=30, noise_dbfs=-75
    )
    settings = Settings(
        microphone=Endpoint(device),
        speaker=Endpoint(device),
        far_end=Endpoint(file=tmp_path / "far.wav"),
        features=Features(auto_gain_control=False),
    )
    microphones: list[float] = []
    outputs: list[float] = []
    reported: list[Mapping[str, float]] = []
    stats: list[Stats] = []  # for each block
    monkeypatch.setattr(LoopChain, "figures", remember(reported, LoopChain.figures))

    def tap(far: bytes, microphone: bytes, output: bytes, times: FrameTimes) -> None:
        for powers, block in ((microphones, microphone), (outputs, output)):
            powers.append(float(np.mean((np.frombuffer(block, dtype="<i2") / 32768) ** 2)))
        stats.append(stats_of(reported[-1]) if reported else Stats())

    assert service.run(settings, seconds=14, tap=tap) == 0
    errors_db = []
    for at_s in (6.5, 12.5, 13.9):
        before = slice(round(100 * (at_s - 2)), round(100 * at_s))
        real_db = 10 * np.log10(np.mean(microphones[before]) / np.mean(outputs[before]))
        errors_db.append(stats[before.stop].erle_db - real_db)
        print(f"at {at_s} s: {stats[before.stop].erle_db:.1f} dB reported, {real_db:.1f} dB measured")
    assert np.max(np.abs(errors_db)) < 3.0
    assert all(each.converged for each in stats[600:]), "a talker was taken for an echo that came back"
    alone, both = (
        float(np.mean([each.double_talk for each in stats[part]]))
        for part in (slice(300, 690), slice(750, 1000))
    )
    print(f"double talk reported for {both:.2f} of it, for {alone:.2f} of the far end alone")
    assert alone < 0.05
    assert both > 0.5  # The voice pauses.


def test_xruns_are_survived_and_counted(configure: Configure, start: type[Daemon], tmp_path: Path) -> None:
    process = start(configure(faults="capture:xrun@3 playback:xrun@3.5"), "--seconds", "7")
    assert process.ended() == 0
    assert re.search(
        r"\d xruns?, recovered; sound was lost \(since the start: microphone 1[,)]", process.said
    )
    # The loudspeaker's queue is 8 ms: the microphone's restart, 10 ms, may cause one more underrun.
    assert re.search(r"since the start: microphone 1, speaker [12]\)", process.said)
    clean, _ = soundfile.read(tmp_path / "clean.wav")
    assert len(clean) == 7 * RATE_HZ
    reduction_db = echo_db(tmp_path) - level_db(clean[-2 * RATE_HZ :])
    print(f"echo reduced by {reduction_db:.1f} dB from 1.5 s after the last xrun")
    assert reduction_db > 20


def test_xruns_leave_the_echo_where_it_was(
    rng: np.random.Generator, room_card: RoomCard, tmp_path: Path
) -> None:
    """Delay between the canceller's reference and its echo in the microphone, by correlation, before and
    after each kind of xrun.
    """
    write(tmp_path / "far.wav", talk(rng, 6.0))
    write(tmp_path / "room.wav", np.full(1, 0.5))
    faults = "capture:xrun@1.003 playback:xrun@2.007 both:xrun@3.0051 capture:stall@4.001+0.06"
    device = room_card(impulse_response=tmp_path / "room.wav", delay_ms=30, faults=faults)
    references: list[bytes] = []
    microphones: list[bytes] = []
    xruns: list[int] = []

    def tap(far: bytes, microphone: bytes, output: bytes, times: FrameTimes) -> None:
        references.append(far)
        microphones.append(microphone)
        xruns.append(times.xruns)

    settings = Settings(
        microphone=Endpoint(device), speaker=Endpoint(device), far_end=Endpoint(file=tmp_path / "far.wav")
    )
    assert service.run(settings, seconds=5.5, tap=tap) == 0
    reference = np.frombuffer(b"".join(references), dtype="<i2") / 32768
    microphone = np.frombuffer(b"".join(microphones), dtype="<i2") / 32768

    delays_samples = []
    for begin_s in (0.4, 1.4, 2.4, 3.4, 4.4):
        part = slice(int(begin_s * RATE_HZ), int((begin_s + 0.5) * RATE_HZ))
        count = 2 * (part.stop - part.start)
        cross = np.fft.rfft(microphone[part], count) * np.conj(np.fft.rfft(reference[part], count))
        delays_samples.append(int(np.argmax(np.fft.irfft(cross, count)[: RATE_HZ // 4])))
    print(f"delays {delays_samples} samples, xruns {xruns[-1]}")
    # 14 ms from the microphone's frame to the loudspeaker's, 30 ms of room.
    assert delays_samples[0] == pytest.approx(0.044 * RATE_HZ, abs=10)
    assert xruns[-1] >= 4
    assert np.ptp(delays_samples) <= 1


def test_a_stall_of_the_speaker_is_one_slip(configure: Configure, start: type[Daemon]) -> None:
    """150 ms in which it plays nothing: sound is left out until the streams are aligned again."""
    process = start(configure(faults="playback:stall@2+0.15"), "--seconds", "4")
    assert process.ended() == 0
    assert re.findall(r"\d+ slips?", process.said)[-1] == "1 slip"


def test_sigterm_completes_the_recording(configure: Configure, start: type[Daemon], tmp_path: Path) -> None:
    process = start(configure())
    process.hear(r"latency \d+ ms")
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    assert re.search(r"latency \d+ ms, 0 xruns.*\n(.*\n)?apmpi: stopped\n$", process.said)
    clean = soundfile.info(tmp_path / "clean.wav")
    assert (clean.samplerate, clean.channels, clean.subtype) == (RATE_HZ, 1, "PCM_16")
    assert clean.frames >= 0.5 * RATE_HZ and clean.frames % 480 == 0
    assert not list(tmp_path.glob("*.part"))


def test_sighup_switches_features_without_losing_the_echo_path(
    configure: Configure, start: type[Daemon], tmp_path: Path
) -> None:
    path = configure()
    text = path.read_text()
    process = start(path, "--seconds", "9")
    for _ in range(8):  # 4 s
        process.hear("latency")
    path.write_text(text.replace("noise_suppression: false", "echo_cancellation: false"))
    process.signal(signal.SIGHUP)
    process.hear(r"reloaded .*apmpi\.yaml$")
    process.hear("echo cancellation is off, latency")
    path.write_text(text)
    process.signal(signal.SIGHUP)
    process.hear("reloaded")
    process.hear("cancelling echo")
    assert process.ended() == 0
    clean, _ = soundfile.read(tmp_path / "clean.wav")
    loudness_db = np.array([level_db(part) for part in np.split(clean, len(clean) // 4800)])
    raw = np.flatnonzero(loudness_db > echo_db(tmp_path) - 10)
    off = raw[raw > 30]  # not the second in which the canceller still learned
    assert len(off) > 0
    off = off[off < off[0] + 30]  # it was off for 1 s; an xrun of a busy machine later on is another matter
    print(f"echo heard from {off[0] / 10} to {off[-1] / 10} s")
    # 0.2 s after it is switched on, the echo is as low as before it was switched off.
    again = off[-1] + 2
    assert np.median(loudness_db[again : again + 10]) < echo_db(tmp_path) - 20


def test_a_bad_reload_keeps_the_last_good_configuration(configure: Configure, start: type[Daemon]) -> None:
    path = configure()
    good = path.read_text()
    process = start(path)
    process.hear("latency")
    for bad, why in (
        (
            good.replace("noise_suppression", "noise_suppresion"),
            r"apmpi\.yaml:6: features\.noise_suppresion: ",
        ),
        (good[: len(good) // 2 + 3], r"apmpi\.yaml:\d+: "),
        ("microphone:\n\tdevice: x\n", r"apmpi\.yaml:2: .*tab"),
    ):
        path.write_text(bad)
        process.signal(signal.SIGHUP)
        process.hear(rf"^apmpi: .*{why}.*; the last good configuration stays in use$")
        process.hear(r"latency \d+ ms, 0 xruns")
    path.write_text(good.replace("far.wav", "other.wav"))
    process.signal(signal.SIGHUP)
    process.hear(r"reloaded .*; needs a restart to take effect: far_end$")
    process.signal(signal.SIGINT)
    assert process.ended() == 0


@pytest.mark.parametrize(
    ("fault", "key", "why"),
    [
        ("capture:unplug@1.5 capture:replug@3", "microphone", r"has gone \(unplugged\?\)"),
        ("playback:unplug@1.5 playback:replug@3", "speaker", r"has gone \(unplugged\?\)"),
        ("capture:stall@1.5+1.5", "microphone", "has stopped: no sound for 500 ms"),
        ("playback:stall@1.5+1.5", "speaker", "has stopped: played nothing for 500 ms"),
        ("capture:unplug@0 capture:replug@1.5", "microphone", "does not exist"),
        ("playback:unplug@0 playback:replug@1.5", "speaker", "does not exist"),
    ],
)
def test_a_lost_device_is_waited_for(
    fault: str, key: str, why: str, configure: Configure, start: type[Daemon], tmp_path: Path
) -> None:
    """The loss is reported once and the return once, and the echo is cancelled again."""
    process = start(configure(faults=fault), "--seconds", "6")
    assert process.ended() == 0
    assert (
        len(re.findall(rf"^apmpi: waiting: {key}\.device: 'room0' {why}$", process.said, re.MULTILINE)) == 1
    )
    assert process.said.count("waiting") == process.said.count("all devices are back") == 1
    clean, _ = soundfile.read(tmp_path / "clean.wav")
    reduction_db = echo_db(tmp_path) - level_db(clean[-RATE_HZ:])
    print(f"echo reduced by {reduction_db:.1f} dB at the end")
    assert reduction_db > 15


def test_all_devices_may_go_in_any_order(
    room_card: RoomCard, rng: np.random.Generator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Four endpoints on three cards, unplugged and plugged in again at random."""
    write(tmp_path / "host.wav", talk(rng, 20.0))
    write(tmp_path / "room.wav", impulse_response(rng))
    faults = ["capture", "playback", "capture", "playback"]
    for index in rng.permutation(4):
        out_s, back_s = 2.0 + 0.4 * rng.random(), 5.0 + 0.4 * rng.random()
        direction = faults[index]
        faults[index] = f"{direction}:unplug@{out_s:.3f} {direction}:replug@{back_s:.3f}"
    print(faults)
    room = room_card(impulse_response=tmp_path / "room.wav", delay_ms=30, faults=f"{faults[0]} {faults[1]}")
    settings = Settings(
        microphone=Endpoint(room),
        speaker=Endpoint(room),
        far_end=Endpoint(room_card(near=tmp_path / "host.wav", faults=faults[2])),
        output=Endpoint(room_card(faults=faults[3])),
        report_interval_s=60.0,
    )
    processor_s: list[float] = []
    for moment_s in (3.0, 4.5):
        threading.Timer(moment_s, lambda: processor_s.append(time.process_time() - card_s())).start()
    at_s: list[float] = []
    assert service.run(settings, seconds=6, tap=lambda *_: at_s.append(time.monotonic())) == 0
    said = capfd.readouterr().err
    print(said)
    gap_s = float(np.diff(at_s).max())
    share = (processor_s[1] - processor_s[0]) / 1.5
    print(f"without a microphone for {gap_s:.2f} s, with {share:.2%} of a processor")
    assert gap_s < 3.4 + 2.0, "it took longer than 2 s to come back"
    assert share < 0.25, "something polls: that takes most of a processor, however fast it is"
    for key in ("microphone", "far_end", "speaker", "output"):
        assert re.search(rf"waiting: .*{key}\.device", said)
    assert said.count("all devices are back") == 1


def test_what_can_not_be_opened_is_named(configure: Configure, start: type[Daemon], tmp_path: Path) -> None:
    path = configure()
    text = path.read_text()
    for change, to, sentence in (
        ("device: room0}\nspeaker", "device: nonsense}\nspeaker",
         r":1: microphone\.device: 'nonsense' does not exist \(Unknown PCM nonsense\), expected one to"),
        ("report_interval_s: 0.5", "sample_rate_hz: 16000",
         r":1: microphone\.device: 'room0' cannot do 16000 Hz, it can do 48000 Hz$"),
        ("far.wav", "missing.wav", r":3: far_end\.file: .*/missing\.wav: cannot be read"),
        ("clean.wav", "no/folder.wav", r":4: output\.file: .*/no/folder\.wav: cannot be written"),
    ):  # fmt: skip
        path.write_text(text.replace(change, to))
        process = start(path)
        assert process.ended() == 2
        assert re.search(rf"^apmpi: .*/apmpi\.yaml{sentence}", process.said, re.MULTILINE)
        assert process.said.count("\n") == 1, "more than one sentence"
        assert not list(tmp_path.glob("clean*"))


def test_a_card_in_use_is_busy(configure: Configure, start: type[Daemon]) -> None:
    path = configure()
    first = start(path)
    first.hear("latency")
    second = start(path)
    assert second.ended() == 2
    assert "microphone.device: 'room0' is busy: another program uses it" in second.said
    first.signal(signal.SIGTERM)
    assert first.ended() == 0


def test_the_holder_of_a_busy_card_is_named(tmp_path: Path) -> None:
    """A synthetic /proc, since there is no kernel sound here. The status file has the form of Linux 6.1."""
    status = tmp_path / "asound/card1/pcm0c/sub0/status"
    status.parent.mkdir(parents=True)
    status.write_text("state: RUNNING\nowner_pid   : 1234\ntrigger_time: 12.345\n")
    (tmp_path / "asound/Device").symlink_to("card1")
    closed = tmp_path / "asound/card1/pcm0p/sub0/status"
    closed.parent.mkdir(parents=True)
    closed.write_text("closed\n")
    capture, playback = alsaaudio.PCM_CAPTURE, alsaaudio.PCM_PLAYBACK
    assert pcm.busy_with("hw:1", capture, tmp_path) == ["process (1234)"]
    (tmp_path / "1234").mkdir()
    (tmp_path / "1234/comm").write_text("arecord\n")
    for device in ("hw:1", "hw:1,0", "plughw:CARD=Device,DEV=0", "sysdefault:CARD=Device"):
        assert pcm.busy_with(device, capture, tmp_path) == ["arecord (1234)"]
    assert pcm.busy_with("hw:1", playback, tmp_path) == []
    assert pcm.busy_with("hw:1,3", capture, tmp_path) == []
    assert pcm.busy_with("default", capture, tmp_path) == []


def test_a_far_end_from_a_card_in_stereo(
    configure: Configure, start: type[Daemon], rng: np.random.Generator, room_card: RoomCard, tmp_path: Path
) -> None:
    """The far end comes from a card of its own, as from a USB gadget, and is played by a mono loudspeaker."""
    path = configure()
    gadget = room_card(near=write(tmp_path / "host.wav", 0.7 * talk(rng, 12.0)))
    path.write_text(path.read_text().replace("file: far.wav", f"device: {gadget}, channels: 2"))
    process = start(path, "--seconds", "6")
    assert process.ended() == 0
    clean, _ = soundfile.read(tmp_path / "clean.wav")
    reduction_db = echo_db(tmp_path) + 20 * np.log10(0.7) - level_db(clean[-2 * RATE_HZ :])
    print(f"echo reduced by {reduction_db:.1f} dB in the last 2 s")
    assert reduction_db > 20
    assert ", 0 xruns" in process.said.splitlines()[-2]


def test_four_clocks(
    room_card: RoomCard, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Microphone, loudspeaker, far end and output on four cards, with the largest clock differences of
    crystals; then the same on one clock. At three times real time: 24 s of sound in 8. Medians, since a busy
    machine adds xruns.
    """
    speed, seconds = 3, 24.0
    write(tmp_path / "host.wav", talk(rng, seconds + 1))
    write(tmp_path / "room.wav", impulse_response(rng))
    loops: list[Any] = []
    monkeypatch.setattr(Endpoints, "drift_ppm", remember(loops, Endpoints.drift_ppm))

    def run(name: str, *ppm: float) -> tuple[float, float, FrameTimes]:
        """Median of the echo reduction in each of the last 12 s, and of the latency then; the last times."""
        microphone_ppm, speaker_ppm, far_ppm, output_ppm = ppm
        room = {
            "card": f"{tmp_path.name}-{name}", "impulse_response": tmp_path / "room.wav", "delay_ms": 30,
            "noise_dbfs": -75, "speed": speed,
            "capture_ppm": microphone_ppm, "playback_ppm": speaker_ppm,
        }  # fmt: skip
        microphone = room_card(**room)
        settings = Settings(
            microphone=Endpoint(microphone),
            speaker=Endpoint(room_card(**room) if any(ppm) else microphone),
            far_end=Endpoint(
                room_card(near=tmp_path / "host.wav", capture_ppm=far_ppm, delay_ms=1, speed=speed)
            ),
            output=Endpoint(room_card(playback_ppm=output_ppm, delay_ms=1, speed=speed)),
            features=Features(noise_suppression=False, auto_gain_control=False),
            periods=16,
        )
        heard: list[bytes] = []
        left: list[bytes] = []
        said: list[FrameTimes] = []

        def tap(far: bytes, near: bytes, out: bytes, times: FrameTimes) -> None:
            heard.append(near)
            left.append(out)
            said.append(times)

        assert service.run(settings, seconds=seconds, tap=tap, speed=speed) == 0
        before, after = (
            np.frombuffer(b"".join(frames[-1200:]), dtype="<i2").reshape(12, -1) / 32768
            for frames in (heard, left)
        )
        reduction_db = [level_db(mic) - level_db(out) for mic, out in zip(before, after, strict=True)]
        latency_ms = [times.total_ms for times in said[-1200:]]
        return float(np.median(reduction_db)), float(np.median(latency_ms)), said[-1]

    one_db, *_ = run("one", 0, 0, 0, 0)
    four_db, latency_ms, four = run("four", 500, -500, 300, -200)
    found = loops[-1]
    print(f"{one_db:.1f} dB on one clock, {four_db:.1f} dB on four: {found} ppm, {four.xruns} xruns")
    print(f"latency {latency_ms:.2f} ms, expected {four.algorithmic_ms + 26:.2f} ms")
    # 10 ppm are inaudible and harmless to the canceller; undisturbed it is 1 ppm.
    assert found["speaker"] == pytest.approx(-1000, abs=10)
    assert found["far_end"] == pytest.approx(-200, abs=10)
    assert found["output"] == pytest.approx(-700, abs=10)
    assert four_db > one_db - 3
    # 10 ms, and the queue of 16 ms that 16 periods give, to which nothing was added.
    assert latency_ms == pytest.approx(four.algorithmic_ms + 26, abs=0.5)


def test_a_full_disk_ends_it_and_leaves_no_half_recording(
    configure: Configure, start: type[Daemon], tmp_path: Path
) -> None:
    path = configure()
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", small]).returncode != 0:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        path.write_text(path.read_text().replace("clean.wav", "small/clean.wav"))
        process = start(path)
        assert process.ended() == 1
        assert f"apmpi: {small}/clean.wav: cannot be written (No space left on device)\n" in process.said
        for left in small.iterdir():
            assert soundfile.info(left).frames > 0.5 * RATE_HZ, "what is left is not a valid recording"
    finally:
        subprocess.run(["umount", small], check=True)


def test_files_alone_run_as_fast_as_they_can(
    start: type[Daemon], rng: np.random.Generator, tmp_path: Path
) -> None:
    far = talk(rng, 8.0)
    write(tmp_path / "far.wav", far[: 7 * RATE_HZ])  # ends before the microphone does: followed by silence
    write(tmp_path / "mic.wav", 0.5 * np.concatenate([np.zeros(2000), far[:-2000]]))
    path = tmp_path / "apmpi.yaml"
    path.write_text("microphone: {file: mic.wav}\nfar_end: {file: far.wav}\noutput: {file: clean.wav}\n")
    started = time.monotonic()
    process = start(path)
    assert process.ended() == 0
    assert time.monotonic() - started < 6
    clean, _ = soundfile.read(tmp_path / "clean.wav")
    assert len(clean) == 8 * RATE_HZ
    assert level_db(clean[5 * RATE_HZ : 7 * RATE_HZ]) < level_db(0.5 * far) - 20
