"""The room card through its users: aplay, arecord, pyalsaaudio and alsa-lib itself, on the real plugin."""

from __future__ import annotations

import errno
import itertools
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import alsaaudio
import numpy as np
import pytest
import soundfile
from room.alsa import CAPTURE, DISCONNECTED, PLAYBACK, RUNNING, XRUN, AlsaError, Pcm, SharedCard

RATE_HZ = 16000
BLOCK = 160  # 10 ms

RoomCard = Callable[..., str]
_numbers = itertools.count()


@pytest.fixture
def card() -> str:
    """Name of a card that has not been used before: its clock starts when the test opens it."""
    return f"test-{os.getpid()}-{next(_numbers)}"


def ramp_wav(path: Path, seconds: float, rate_hz: int = RATE_HZ) -> Path:
    """Near-end signal in which every sample is its own index (modulo 2^15)."""
    soundfile.write(
        path, (np.arange(int(seconds * rate_hz)) % 32768).astype("<i2"), rate_hz, subtype="PCM_16"
    )
    return path


def ramp_index(samples: np.ndarray) -> np.ndarray:
    """Indices in ramp_wav, unwrapped."""
    index = samples.astype(np.int64)
    return index + 32768 * np.cumsum(np.diff(index, prepend=index[:1]) < 0)


def pyalsa(
    name: str, direction: int, rate_hz: int = RATE_HZ, block: int = BLOCK, periods: int = 4
) -> alsaaudio.PCM:
    return alsaaudio.PCM(
        type=alsaaudio.PCM_CAPTURE if direction == CAPTURE else alsaaudio.PCM_PLAYBACK,
        mode=alsaaudio.PCM_NORMAL,
        device=name,
        rate=rate_hz,
        channels=1,
        format=alsaaudio.PCM_FORMAT_S16_LE,
        periodsize=block,
        periods=periods,
    )


def play_and_capture(name: str, sound: np.ndarray, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    """Play int16 samples, [samples] or [samples, channels], once and capture so many channels from before
    they start to half a second after their end; a thread feeds the loudspeaker.

    The buffers are large and the end follows the sound, so that the test depends on the sound and not on
    when a busy machine comes to play it.
    """
    period = rate_hz // 4
    played = sound.shape[1] if sound.ndim > 1 else 1
    with Pcm(name, CAPTURE, rate_hz, channels=channels, period=period, periods=8) as capture:
        assert capture.start() == 0

        def play() -> None:
            with Pcm(name, PLAYBACK, rate_hz, channels=played, period=period, periods=8) as playback:
                assert playback.write(sound) == len(sound)
                playback.drain()

        player = threading.Thread(target=play)
        player.start()
        captured = []
        while player.is_alive():
            captured.append(capture.read_exactly(period))
        captured.append(capture.read_exactly(rate_hz // 2))
    return np.concatenate(captured)


# --- programs and processes ---


def test_aplay_and_arecord_in_two_processes_hear_each_other(
    room_card: RoomCard, card: str, tmp_path: Path
) -> None:
    seconds, rate_hz = 1.0, 48000
    tone = 0.25 * np.sin(2 * np.pi * 1000 * np.arange(int(seconds * rate_hz)) / rate_hz)
    soundfile.write(tmp_path / "tone.wav", tone, rate_hz, subtype="PCM_16")
    soundfile.write(tmp_path / "h.wav", np.array([0.0, 0.5], np.float32), rate_hz, subtype="FLOAT")
    name = room_card(
        card=card, impulse_response=tmp_path / "h.wav", delay_ms=20, record=tmp_path / "played.wav"
    )

    form = ["-f", "S16_LE", "-r", str(rate_hz), "-c", "1"]
    arecord = subprocess.Popen(["arecord", "-q", "-D", name, *form, "-d", "2", tmp_path / "mic.wav"])
    time.sleep(0.3)
    aplay = subprocess.run(["aplay", "-q", "-D", name, tmp_path / "tone.wav"], capture_output=True, text=True)
    assert (aplay.returncode, aplay.stderr) == (0, "")
    assert arecord.wait(timeout=20) == 0

    captured, played = soundfile.read(tmp_path / "mic.wav")[0], soundfile.read(tmp_path / "played.wav")[0]
    start, heard = np.flatnonzero(played)[0], np.flatnonzero(captured)[0]
    length = len(tone) - 1
    error = np.abs(captured[heard : heard + length] - 0.5 * played[start : start + length]).max()
    print(f"worst sample error {error * 32768:.2f} LSB")
    assert error <= 1 / 32768
    assert not SharedCard(card).path.exists()  # the last process has cleaned up


def test_killed_peer_and_stale_file_do_no_harm(room_card: RoomCard, card: str, tmp_path: Path) -> None:
    shared = SharedCard(card)
    shared.path.write_bytes(b"\xa5" * 3_000_000)  # left by something else
    shared.path.chmod(0o600)
    name = room_card(card=card, near=ramp_wav(tmp_path / "near.wav", 30))
    arguments = ["-q", "-D", name, "-f", "S16_LE", "-r", str(RATE_HZ), "-c", "1", "-t", "raw"]

    arecord = subprocess.Popen(["arecord", *arguments, "/dev/null"])
    time.sleep(0.3)
    first_epoch_ns = shared.epoch_ns
    arecord.send_signal(signal.SIGKILL)
    arecord.wait()
    assert shared.path.exists()  # no process could clean up

    with Pcm(name, CAPTURE) as capture:
        assert shared.epoch_ns > first_epoch_ns  # a new card, its clock at 0
        assert capture.read_exactly(BLOCK)[0] == 0  # and its near-end signal from the beginning
        aplay = subprocess.Popen(["aplay", *arguments, "/dev/zero"])
        time.sleep(0.1)
        aplay.send_signal(signal.SIGKILL)
        aplay.wait()
        assert Pcm(name, PLAYBACK).close() is None  # its direction is free again
        with pytest.raises(AlsaError, match="EBUSY"):
            Pcm(name, CAPTURE)
    shared.path.unlink()


# --- the acoustic path and the time axis ---


@pytest.mark.parametrize("rate_hz", [8000, 16000, 32000, 48000])
@pytest.mark.parametrize("first", [CAPTURE, PLAYBACK])
def test_delay_is_exact_to_the_sample(
    room_card: RoomCard, card: str, tmp_path: Path, rng: np.random.Generator, rate_hz: int, first: int
) -> None:
    block, delay_ms = rate_hz // 100, 35
    response = np.zeros(rate_hz // 50, np.float32)
    response[[0, 7, rate_hz // 60]] = [0.1, 0.6, -0.2]
    soundfile.write(tmp_path / "h.wav", response, rate_hz, subtype="FLOAT")
    soundfile.write(tmp_path / "near.wav", np.zeros(10), rate_hz)
    name = room_card(
        card=card,
        impulse_response=tmp_path / "h.wav",
        near=tmp_path / "near.wav",
        delay_ms=delay_ms,
        record=tmp_path / "played.wav",
    )
    # Long buffers: the position of the sound is tested, not the speed at which a busy machine runs this test.
    queued = 24
    streams = {d: pyalsa(name, d, rate_hz, block, 32) for d in (first, 1 - first)}
    sound = rng.integers(-8000, 8000, (queued + 14) * block).astype("<i2")

    def begin_playback() -> None:
        assert streams[PLAYBACK].write(sound[: queued * block].tobytes()) == queued * block

    captured = []
    if first == PLAYBACK:
        begin_playback()
        time.sleep(0.0131)
    for i in range(queued + 34):
        length, data = streams[CAPTURE].read()
        assert length == block
        captured.append(np.frombuffer(data, "<i2"))
        if first == CAPTURE and i == 3:
            begin_playback()
        at = (i if first == PLAYBACK else i - 4) * block + queued * block
        if at >= queued * block:
            piece = sound[at : at + block] if at < len(sound) else np.zeros(block, "<i2")
            assert streams[PLAYBACK].write(piece.tobytes()) == block
    heard = np.concatenate(captured).astype(float)
    capture_start = SharedCard(card).first_captured
    for stream in streams.values():
        stream.close()

    played = soundfile.read(tmp_path / "played.wav", dtype="int16")[0].astype(float)
    echo = np.concatenate([np.zeros(delay_ms * rate_hz // 1000), np.convolve(played, response)])
    expected = echo[capture_start : capture_start + len(heard)]
    worst = np.abs(heard[: len(expected)] - expected).max()
    print(f"loudest expected {np.abs(expected).max():.0f}, worst error {worst:.2f} LSB, limit 0.51")
    assert np.abs(expected).max() > 3000
    assert worst <= 0.51  # rounding to 16 bit, and some float roundings


@pytest.mark.parametrize("speed", [1, 10])
def test_blocks_come_at_the_card_s_pace(room_card: RoomCard, card: str, speed: int) -> None:
    capture = pyalsa(room_card(card=card, speed=speed), CAPTURE, block=BLOCK, periods=32)
    blocks = 100 * speed
    capture.read()
    arrivals = [time.monotonic()]
    for _ in range(blocks):
        assert capture.read()[0] == BLOCK
        arrivals.append(time.monotonic())
    capture.close()
    elapsed = arrivals[-1] - arrivals[0]
    late_ms = 1e3 * (np.diff(arrivals).max() - 0.01 / speed)
    print(f"{blocks} blocks in {elapsed:.4f} s, latest block {late_ms:.2f} ms late")
    # The first block may be read late, by half a buffer (160 ms) at most, but never early.
    assert 1.0 - 0.16 / speed < elapsed < 1.2


@pytest.mark.skipif(
    not hasattr(alsaaudio.PCM, "polldescriptors_revents"), reason="pyalsaaudio 0.10 can't say what woke it"
)
def test_poll_wakes_once_a_period(room_card: RoomCard, card: str) -> None:
    capture = pyalsa(room_card(card=card), CAPTURE, periods=16)
    capture.read()
    poll = select.poll()
    for descriptor, events in capture.polldescriptors():
        poll.register(descriptor, events)
    wakes, reads = 0, 0
    while reads < 40:
        ready = poll.poll(1000)
        wakes += 1
        if capture.polldescriptors_revents(ready) & select.POLLIN:
            assert capture.read()[0] == BLOCK
            reads += 1
    capture.close()
    print(f"{wakes} wake-ups for {reads} blocks")
    assert wakes <= reads + 4  # occasionally slightly early


def test_timestamps_delay_and_avail_agree(room_card: RoomCard, card: str) -> None:
    name = room_card(card=card)
    with Pcm(name, CAPTURE, periods=50) as capture, Pcm(name, PLAYBACK, periods=50) as playback:
        assert playback.write(np.zeros(40 * BLOCK)) == 40 * BLOCK
        assert playback.state() == RUNNING  # alsa-lib's start threshold is one frame
        assert capture.start() == 0
        worst = 0.0
        first_frames, first_ns = frames_and_time(capture, SharedCard(card))
        for _ in range(20):
            time.sleep(0.007)
            before = time.monotonic_ns()
            assert before <= capture.htimestamp()[1] <= time.monotonic_ns()  # CLOCK_MONOTONIC
            frames, ns = frames_and_time(capture, SharedCard(card))
            worst = max(worst, abs((frames - first_frames) - (ns - first_ns) * 1e-9 * RATE_HZ))
            # Each value between two readings, since the card's clock runs on between calls.
            earlier, (code, queued), later = playback.avail(), playback.delay(), playback.avail()
            assert code == 0 and playback.buffer - later <= queued <= playback.buffer - earlier
            earlier, (code, waiting), later = capture.avail(), capture.delay(), capture.avail()
            assert code == 0 and earlier <= waiting <= later
        print(f"time stamps: worst {worst:.2f} frames, limit 2")
        assert worst < 2


# --- clocks ---


def test_both_clocks_drift_as_told(room_card: RoomCard, card: str) -> None:
    """The frequency of a sine is scaled by both clock errors, and the sine stays a sine."""
    playback_ppm, capture_ppm, seconds, frequency_hz = 300.0, -150.0, 30, 1000.0
    name = room_card(card=card, playback_ppm=playback_ppm, capture_ppm=capture_ppm, delay_ms=20, speed=20)
    t = np.arange(seconds * RATE_HZ) / RATE_HZ
    sound = np.rint(16000 * np.sin(2 * np.pi * frequency_hz * t)).astype("<i2")
    heard = play_and_capture(name, sound).astype(float)

    start = int(np.flatnonzero(np.abs(heard) > 1000)[0]) + RATE_HZ // 10
    heard = heard[start : start + (seconds - 1) * RATE_HZ]
    n = np.arange(len(heard))
    rotated = heard * np.exp(-2j * np.pi * frequency_hz * n / RATE_HZ)
    window = RATE_HZ // 10  # whole periods
    phase = np.unwrap(np.angle(rotated[: len(n) // window * window].reshape(-1, window).mean(axis=1)))
    slope = np.polyfit(np.arange(len(phase)) * window, phase, 1)[0] * RATE_HZ / (2 * np.pi)
    measured_ppm = slope / frequency_hz * 1e6
    expected_ppm = ((1 + playback_ppm * 1e-6) / (1 + capture_ppm * 1e-6) - 1) * 1e6

    exact = 2 * np.pi * frequency_hz * (1 + expected_ppm * 1e-6) * n / RATE_HZ
    basis = np.stack([np.cos(exact), np.sin(exact)], axis=1)
    residual = heard - basis @ np.linalg.lstsq(basis, heard, rcond=None)[0]
    residual_db = 20 * np.log10(residual.std() / heard.std())
    print(
        f"drift {measured_ppm:.3f} ppm, expected {expected_ppm:.3f}; residual {residual_db:.1f} dB, limit -80"
    )
    assert measured_ppm == pytest.approx(expected_ppm, abs=0.05)
    assert residual_db < -80


def frames_and_time(capture: Pcm, shared: SharedCard) -> tuple[int, int]:
    """Return frames and time in ns of the fastest of 20 readings, since the card runs on during one."""
    looks = []
    for _ in range(20):
        began_ns = time.monotonic_ns()
        frames, ns = capture.htimestamp()
        looks.append((time.monotonic_ns() - began_ns, frames, ns - shared.lost_ns))
    return min(looks)[1:]


@pytest.mark.parametrize("ppm", [0, 500, -500])
def test_the_pointer_runs_at_its_own_rate(room_card: RoomCard, card: str, ppm: int) -> None:
    speed = 4
    name = room_card(card=card, capture_ppm=ppm, delay_ms=10, speed=speed)
    with Pcm(name, CAPTURE, period=8192, periods=16) as capture:
        assert capture.start() == 0
        first_frames, first_ns = frames_and_time(capture, SharedCard(card))
        time.sleep(1.8)  # the buffer holds 2.05 s
        frames, ns = frames_and_time(capture, SharedCard(card))
    measured_ppm = ((frames - first_frames) / ((ns - first_ns) * 1e-9 * speed * RATE_HZ) - 1) * 1e6
    # A fast card moves in steps of 30 us (FAST_STEP_NS), lost time is known to 8 us; a reading takes time.
    print(f"pointer {measured_ppm:.1f} ppm, expected {ppm}, limit +-60")
    assert measured_ppm == pytest.approx(ppm, abs=60)


# --- the microphone's signal ---


@pytest.mark.parametrize("clip_db", [0, 12])
def test_overdriven_loudspeaker(room_card: RoomCard, card: str, clip_db: int) -> None:
    frequency_hz, amplitude, seconds = 500, 0.5, 4
    name = room_card(card=card, clip_db=clip_db, speed=20)
    t = np.arange(seconds * RATE_HZ) / RATE_HZ
    sine = np.rint(32768 * amplitude * np.sin(2 * np.pi * frequency_hz * t))
    heard = play_and_capture(name, sine.astype("<i2"))

    def harmonics_db(signal: np.ndarray) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(signal[:RATE_HZ] * np.hanning(RATE_HZ)))
        levels = 20 * np.log10(spectrum[[frequency_hz * k for k in (1, 3, 5)]] + 1e-9)
        return levels[1:] - levels[0]

    start = int(np.flatnonzero(heard)[0]) + RATE_HZ
    measured = harmonics_db(heard[start:].astype(float))
    drive = 10 ** (clip_db / 20)
    model = harmonics_db(np.tanh(drive * sine[:RATE_HZ] / 32768) / drive)
    print(f"harmonics 3 and 5: {measured.round(2)} dB, tanh gives {model.round(2)} dB")
    if clip_db == 0:
        assert measured.max() < -85
    else:
        assert measured == pytest.approx(model, abs=0.1)


def test_talker_starts_with_the_first_captured_sample_and_noise_repeats(
    room_card: RoomCard, card: str, tmp_path: Path
) -> None:
    near = ramp_wav(tmp_path / "near.wav", 0.5)
    quiet = room_card(card=f"{card}-a", near=near)
    noisy = [room_card(card=f"{card}-{suffix}", noise_dbfs=-40, speed=10) for suffix in "bc"]
    with Pcm(quiet, CAPTURE, periods=50) as capture:
        samples = capture.read_exactly(RATE_HZ)
    assert np.array_equal(samples[: RATE_HZ // 2], np.arange(RATE_HZ // 2))
    assert not samples[RATE_HZ // 2 :].any()  # silence after its end

    heard = []
    for name in noisy:
        with Pcm(name, CAPTURE, periods=50) as capture:
            heard.append(capture.read_exactly(RATE_HZ).astype(float))
    level_db = 20 * np.log10(heard[0].std() / 32768)
    correlation = np.corrcoef(heard[0][:-1], heard[0][1:])[0, 1]
    print(f"noise {level_db:.2f} dBFS, neighbours correlate by {correlation:.4f}")
    assert level_db == pytest.approx(-40, abs=0.2)
    assert abs(correlation) < 0.03 and abs(heard[0].mean()) < 10


@pytest.mark.parametrize("sample_format", ["S16_LE", "S32_LE", "FLOAT_LE"])
def test_formats_and_channels(room_card: RoomCard, card: str, sample_format: str) -> None:
    """The loudspeaker plays the mean of all channels; every microphone channel is the same."""
    name = room_card(card=card)
    full = 1.0 if sample_format == "FLOAT_LE" else 32768.0 if sample_format == "S16_LE" else 2.0**31
    sound = np.stack([np.full(800, 0.5), np.full(800, -0.25), np.full(800, 0.5)], axis=1) * full
    options = {"sample_format": sample_format, "periods": 20}
    with (
        Pcm(name, CAPTURE, channels=2, **options) as capture,
        Pcm(name, PLAYBACK, channels=3, **options) as playback,
    ):
        assert capture.start() == 0
        assert playback.write(sound) == 800
        heard = capture.read_exactly(1600) / full
    assert np.array_equal(heard[:, 0], heard[:, 1])
    assert set(np.round(heard[:, 0], 4)) == {0.0, 0.25}
    assert np.count_nonzero(heard[:, 0]) == 800


def test_the_last_channel_may_be_the_wire_to_the_loudspeaker(
    room_card: RoomCard, card: str, rng: np.random.Generator
) -> None:
    """The same sound, a delay earlier than at the microphones."""
    name = room_card(card=card, reference=1, delay_ms=20)
    sound = rng.integers(-9000, 9000, 800)
    with Pcm(name, CAPTURE, channels=3, periods=20) as capture, Pcm(name, PLAYBACK, periods=20) as playback:
        assert capture.start() == 0
        assert playback.write(sound) == 800
        heard = capture.read_exactly(1600)
    starts = [int(np.flatnonzero(channel)[0]) for channel in heard.T]
    assert starts[0] == starts[1] == starts[2] + 320
    for channel, at in zip(heard.T, starts, strict=True):
        assert np.array_equal(channel[at : at + 800], sound[np.flatnonzero(sound)[0] :][:800])


# --- two loudspeakers, several microphones ---


def test_every_pair_has_an_echo_path_of_its_own(
    room_card: RoomCard, card: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Sample exact, with an inverted loudspeaker, an inverted and a dead microphone."""
    microphones, delay_ms = 4, 10
    responses = rng.uniform(-0.05, 0.05, (300, 2 * microphones)).astype(np.float32)
    soundfile.write(tmp_path / "h.wav", responses, RATE_HZ, subtype="FLOAT")
    soundfile.write(tmp_path / "near.wav", np.zeros(10), RATE_HZ)
    name = room_card(
        card=card,
        loudspeakers=2,
        microphones=microphones,
        impulse_response=tmp_path / "h.wav",
        inverted="loudspeaker2 microphone2",
        dead="microphone3",
        delay_ms=delay_ms,
        record=tmp_path / "played.wav",
    )
    sound = rng.integers(-8000, 8000, (4000, 2))
    with (
        Pcm(name, CAPTURE, channels=microphones + 1, periods=60) as capture,
        Pcm(name, PLAYBACK, channels=2, periods=60) as playback,
    ):
        assert capture.start() == 0
        assert playback.write(sound) == len(sound)
        heard = capture.read_exactly(6000).astype(float)
        capture_start = SharedCard(card).first_captured
    played, _ = soundfile.read(tmp_path / "played.wav", dtype="int16")
    assert np.array_equal(played[np.flatnonzero(played.any(axis=1))[0] :][: len(sound)], sound)

    for microphone, gain in enumerate((1, -1, 0, 1)):
        pairs = (
            sign * np.convolve(played[:, left_right].astype(float), responses[:, 4 * left_right + microphone])
            for left_right, sign in enumerate((1, -1))
        )
        echo = np.concatenate([np.zeros(delay_ms * RATE_HZ // 1000), gain * sum(pairs)])
        expected = echo[capture_start : capture_start + len(heard)]
        worst, loudest = np.abs(heard[: len(expected), microphone] - expected).max(), np.abs(expected).max()
        print(f"microphone {microphone + 1}: loudest expected {loudest:.0f}, worst error {worst:.2f} LSB")
        assert loudest > 3000 or gain == 0
        assert worst <= 0.52  # rounding to 16 bit, and some float roundings
    assert not heard[:, microphones].any()  # a channel without a microphone


def test_what_a_loudspeaker_plays_and_the_wires_to_both(room_card: RoomCard, card: str) -> None:
    """Left plays the odd channels, right the even ones, and a stream of one channel is on both."""
    name = room_card(card=card, loudspeakers=2, microphones=2, reference=1)
    frames = 800
    with Pcm(name, CAPTURE, channels=6, periods=50) as capture:
        assert capture.start() == 0
        for level, truth in (([4000.0], [4000, 4000]), ([1000.0, -2000, 3000], [2000, -2000])):
            with Pcm(name, PLAYBACK, channels=len(level), periods=20) as playback:
                sound = np.tile(level, (frames, 1))
                assert playback.write(sound[:, 0] if len(level) == 1 else sound) == frames
                heard = capture.read_exactly(2 * frames)
            assert not heard[:, 2:4].any()  # neither microphone nor wire
            for wire, value in zip(heard[:, 4:].T, truth, strict=True):
                assert set(wire) == {0, value} and np.count_nonzero(wire) == frames


def test_the_generated_room_sounds_as_a_room(
    room_card: RoomCard, card: str, rng: np.random.Generator
) -> None:
    """The direct sound of each pair comes first and is strongest, after the time for 13 to 27 cm; the noise
    of two microphones is not alike.
    """
    name = room_card(card=card, loudspeakers=2, microphones=4, noise_dbfs=-60)
    sound = np.zeros((4200, 2))
    sound[200, 0] = sound[2200, 1] = 30000  # after a silence, since playback may start with the capture
    heard = play_and_capture(name, sound, channels=4).astype(float)
    left = int(np.argmax(np.abs(heard[:, 0])))
    delays = [np.argmax(np.abs(heard[left - 20 + at : left + 500 + at]), axis=0) for at in (0, 2000)]
    print("direct sounds relative to the first, samples:", (np.array(delays) - 20).tolist())
    for late, nearest in zip(delays, (0, 3), strict=True):
        assert np.argmin(late) == nearest and max(late) - min(late) >= 4
        assert np.all(np.diff(late if nearest == 0 else late[::-1]) >= 0)
    noise = heard[-3000:]
    assert 20 * np.log10(noise.std(axis=0) / 32768) == pytest.approx([-60] * 4, abs=0.5)
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.1


def test_plug_converts_what_the_card_does_not_do(room_card: RoomCard, card: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "h.wav", np.array([1.0]), 48000)
    name = room_card(card=card, impulse_response=tmp_path / "h.wav", noise_dbfs=-30)
    command = ["arecord", "-q", "-D", f"plug:{name}", "-f", "S16_LE", "-r", "44100", "-c", "2", "-d", "1"]
    done = subprocess.run([*command, tmp_path / "mic.wav"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    heard, rate_hz = soundfile.read(tmp_path / "mic.wav")
    assert rate_hz == 44100 and heard.shape == (44100, 2) and heard.std() > 0.02


# --- the application is late ---


def sleep(card: str, seconds: float) -> float:
    """Return the least card time in s that passes, since the card's clock stands still with the machine."""
    before_ns = SharedCard(card).lost_ns
    time.sleep(seconds)
    return seconds - (SharedCard(card).lost_ns - before_ns) / 1e9


def test_overrun_is_seen_and_time_goes_on(room_card: RoomCard, card: str, tmp_path: Path) -> None:
    name = room_card(card=card, near=ramp_wav(tmp_path / "near.wav", 2))
    with Pcm(name, CAPTURE) as capture:
        assert ramp_index(capture.read_exactly(3 * BLOCK))[-1] == 3 * BLOCK - 1
        slept_s = sleep(card, 0.2)  # the buffer holds 40 ms
        assert capture.read()[0] == -errno.EPIPE and capture.state() == XRUN
        assert (
            capture.read()[0] == -errno.EPIPE
            and capture.delay()[0] == -errno.EPIPE
            and capture.wait(0) == -errno.EPIPE
        )
        assert capture.prepare() == 0
        after = ramp_index(capture.read_exactly(3 * BLOCK))
        print(f"{after[0] - 3 * BLOCK} samples lost in 200 ms or more")
        assert after[0] >= slept_s * RATE_HZ  # the near-end signal in between is lost
        assert np.array_equal(np.diff(after), np.ones(3 * BLOCK - 1))


def test_pyalsaaudio_recovers_from_an_overrun(room_card: RoomCard, card: str) -> None:
    capture = pyalsa(room_card(card=card), CAPTURE)
    assert capture.read()[0] == BLOCK
    time.sleep(0.2)
    assert capture.read() == (-errno.EPIPE, b"")
    assert [capture.read()[0] for _ in range(5)] == [BLOCK] * 5
    capture.close()


def test_underrun_is_seen_and_silent(room_card: RoomCard, card: str, tmp_path: Path) -> None:
    name = room_card(card=card, record=tmp_path / "played.wav")
    sound = np.full(2 * BLOCK, 1000)
    with Pcm(name, PLAYBACK) as playback:
        assert playback.write(sound) == 2 * BLOCK
        slept_s = sleep(card, 0.1)
        assert playback.write(sound) == -errno.EPIPE and playback.state() == XRUN
        assert playback.delay()[0] == -errno.EPIPE and playback.avail() == -errno.EPIPE
        assert playback.prepare() == 0 and playback.write(2 * sound) == 2 * BLOCK
        assert playback.drain() == 0
    played = soundfile.read(tmp_path / "played.wav", dtype="int16")[0]
    first, second = np.flatnonzero(played == 1000), np.flatnonzero(played == 2000)
    assert len(first) == len(second) == 2 * BLOCK and np.ptp(first) == np.ptp(second) == 2 * BLOCK - 1
    assert second[0] - first[0] > slept_s * RATE_HZ
    assert np.count_nonzero(played) == 4 * BLOCK


def test_dropped_sound_is_not_heard(room_card: RoomCard, card: str, tmp_path: Path) -> None:
    name = room_card(card=card, record=tmp_path / "played.wav")
    with Pcm(name, CAPTURE, periods=50) as capture, Pcm(name, PLAYBACK, periods=50) as playback:
        assert capture.start() == 0
        assert playback.write(np.full(40 * BLOCK, 1000)) == 40 * BLOCK
        slept_s = sleep(card, 0.1)
        assert playback.drop() == 0
        heard = np.count_nonzero(capture.read_exactly(45 * BLOCK))
    print(f"heard {heard / RATE_HZ * 1e3:.1f} ms of 400 ms queued, dropped after 100 ms")
    assert slept_s * RATE_HZ <= heard < 0.3 * RATE_HZ
    assert np.count_nonzero(soundfile.read(tmp_path / "played.wav", dtype="int16")[0]) == heard


# --- scheduled faults ---


def feed(playback: Pcm, results: list[tuple[float, int]], seconds: float) -> None:
    """Write silence in blocks, noting (time, answer), until an error after which prepare fails."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        code = playback.write(np.zeros(BLOCK))
        results.append((time.monotonic(), code))
        if code < 0 and playback.prepare() < 0:
            return


def drink(capture: Pcm, results: list[tuple[float, int]], seconds: float) -> None:
    """Read in blocks, noting (time, answer), until an error after which prepare fails."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        code, _ = capture.read()
        results.append((time.monotonic(), code))
        if code < 0 and capture.prepare() < 0:
            return


STREAMS = {"capture": (CAPTURE, drink), "playback": (PLAYBACK, feed)}


@pytest.mark.parametrize("direction", STREAMS)
def test_xrun_on_schedule(room_card: RoomCard, card: str, direction: str) -> None:
    name = room_card(card=card, faults=f"{direction}:xrun@0.5")
    which, use = STREAMS[direction]
    results: list[tuple[float, int]] = []
    with Pcm(name, which, periods=16) as pcm:  # longer than the pauses of a busy machine
        epoch = SharedCard(card).epoch_ns * 1e-9
        use(pcm, results, 1.0)
    errors = [(when - epoch, code) for when, code in results if code < 0]
    print(f"error at {errors[0][0]:.4f} s")
    assert [code for _, code in errors] == [-errno.EPIPE]
    assert 0.5 <= errors[0][0] < 0.7
    assert results[-1][1] == BLOCK  # and continued


@pytest.mark.parametrize("direction", STREAMS)
def test_unplugged_and_plugged_in_again(room_card: RoomCard, card: str, direction: str) -> None:
    name = room_card(card=card, faults=f"{direction}:unplug@0.4 {direction}:replug@0.8")
    which, use = STREAMS[direction]
    other, use_other = STREAMS["playback" if direction == "capture" else "capture"]
    results: list[tuple[float, int]] = []
    others: list[tuple[float, int]] = []
    with Pcm(name, other, periods=16) as pcm_other, Pcm(name, which, periods=16) as pcm:
        epoch = SharedCard(card).epoch_ns * 1e-9
        thread = threading.Thread(target=use_other, args=(pcm_other, others, 1.2))
        thread.start()
        use(pcm, results, 5)
        when, code = results[-1]
        print(f"unplugging seen {1e3 * (when - epoch - 0.4):.1f} ms after it, {len(results)} blocks before")
        assert code == -errno.ENODEV and 0.4 <= when - epoch < 0.6
        assert all(code > 0 for _, code in results[:-1])
        assert pcm.state() == DISCONNECTED
        for call in ("prepare", "start", "drop", "delay"):
            answer = getattr(pcm, call)()
            assert (answer[0] if call == "delay" else answer) in (-errno.ENODEV, -errno.EBADFD), call
        begin = time.monotonic()
        pcm.close()
        assert time.monotonic() - begin < 0.1  # a disconnected device must not block

        refused = 0
        while True:
            try:
                again = Pcm(name, which, periods=16)
                break
            except AlsaError as error:
                assert error.code == -errno.ENODEV
                refused += 1
                time.sleep(0.01)
        assert refused > 0 and 0.8 <= time.monotonic() - epoch < 1.0
        use(again, results, 0.2)  # the schedule continues, it does not start again
        assert results[-1][1] == BLOCK
        again.close()
        thread.join()
    assert [code for _, code in others if code < 0] == []  # the other direction was not affected


def test_handle_stays_dead_after_replugging(room_card: RoomCard, card: str) -> None:
    name = room_card(card=card, faults="both:unplug@0.1 both:replug@0.2")
    with Pcm(name, CAPTURE) as capture:
        time.sleep(0.3)
        assert capture.prepare() == -errno.ENODEV
    capture = pyalsa(name, CAPTURE)
    assert capture.read()[0] == BLOCK
    capture.close()


def test_pyalsaaudio_sees_no_such_device(room_card: RoomCard, card: str) -> None:
    name = room_card(card=card, faults="both:unplug@0.3")
    capture, playback = pyalsa(name, CAPTURE), pyalsa(name, PLAYBACK)
    with pytest.raises(alsaaudio.ALSAAudioError, match="No such device"):
        for _ in range(100):
            capture.read()
    with pytest.raises(alsaaudio.ALSAAudioError, match="No such device"):
        playback.write(bytes(2 * BLOCK))
    capture.close()
    playback.close()
    with pytest.raises(alsaaudio.ALSAAudioError, match="No such device"):
        pyalsa(name, CAPTURE)


def test_stalled_microphone_loses_time_not_order(room_card: RoomCard, card: str, tmp_path: Path) -> None:
    stall_s = 0.5
    near = ramp_wav(tmp_path / "near.wav", 3)
    name = room_card(card=card, near=near, faults=f"capture:stall@0.3+{stall_s}")
    parts, longest = [], 0.0
    with Pcm(name, CAPTURE, periods=16) as capture:
        for _ in range(80):
            begin = time.monotonic()
            parts.append(capture.read_exactly(BLOCK))  # no error
            longest = max(longest, time.monotonic() - begin)
    steps = np.diff(ramp_index(np.concatenate(parts)))
    print(f"longest wait {longest:.3f} s; jump of {steps.max() - 1} samples")
    assert stall_s - 0.15 < longest < stall_s + 0.2
    assert np.count_nonzero(steps != 1) == 1 and steps.max() == 1 + stall_s * RATE_HZ


def test_stalled_loudspeaker_plays_everything_later(room_card: RoomCard, card: str, tmp_path: Path) -> None:
    name = room_card(card=card, faults="playback:stall@0.25+0.125", record=tmp_path / "played.wav")
    sound = np.arange(1, 50 * BLOCK + 1)
    with Pcm(name, PLAYBACK, period=BLOCK, periods=16) as playback:
        for at in range(0, len(sound), BLOCK):
            assert playback.write(sound[at : at + BLOCK]) == BLOCK
        assert playback.drain() == 0
    played = soundfile.read(tmp_path / "played.wav", dtype="int16")[0]
    positions = np.flatnonzero(played)
    assert np.array_equal(played[positions], sound)
    gaps = np.flatnonzero(np.diff(positions) != 1)
    assert len(gaps) == 1
    assert positions[gaps[0]] == int(0.25 * RATE_HZ) - 1
    assert positions[gaps[0] + 1] == int(0.375 * RATE_HZ)


def test_aplay_lives_through_an_xrun(room_card: RoomCard, card: str) -> None:
    name = room_card(card=card, faults="playback:xrun@0.4")
    command = [
        "aplay",
        "-D",
        name,
        "-f",
        "S16_LE",
        "-r",
        str(RATE_HZ),
        "-c",
        "1",
        "-t",
        "raw",
        "-d",
        "1",
        "/dev/zero",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert done.stderr.count("underrun") == 1


# --- the record ---


def test_record_is_a_valid_wav_at_any_time(room_card: RoomCard, card: str, tmp_path: Path) -> None:
    path = tmp_path / "played.wav"
    name = room_card(card=card, record=path, speed=4)
    sound = np.arange(1, RATE_HZ + 1)
    lengths = []
    for _ in range(2):  # the second stream continues the first one's record
        with Pcm(name, PLAYBACK, periods=64) as playback:
            for part in np.split(sound, 5):  # 50 ms, which last until the file has been read
                assert playback.write(part) == len(part)
                info = soundfile.info(path)
                assert (info.samplerate, info.channels, info.subtype) == (RATE_HZ, 1, "PCM_16")
                assert path.stat().st_size == 44 + 2 * info.frames
                lengths.append(info.frames)
            assert playback.drain() == 0
            closed_s = (time.monotonic_ns() - SharedCard(card).epoch_ns) * 4e-9
    played, _ = soundfile.read(path, dtype="int16")
    assert np.all(np.diff(lengths) >= 0) and lengths[-1] > RATE_HZ
    assert np.array_equal(played[played != 0], np.tile(sound, 2))
    print(f"record ends {1e3 * (len(played) / RATE_HZ - closed_s):.1f} ms of card time after closing")
    assert len(played) / RATE_HZ == pytest.approx(closed_s, abs=0.2)


# --- the user's mistakes ---


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"delay_ms": -1}, "delay_ms: -1, expected a number from 0 to 1000"),
        ({"delay_ms": "long"}, "delay_ms: expected a number from 0 to 1000"),
        ({"clip_db": 41}, "clip_db: 41, expected a number from 0 to 40"),
        ({"noise_dbfs": 3}, "noise_dbfs: 3, expected a number from -120 to 0"),
        ({"playback_ppm": 20000}, "playback_ppm: 20000, expected a number from -10000 to 10000"),
        ({"speed": 0}, "speed: 0, expected a number from 0.1 to 1000"),
        ({"card": "a/b"}, "card: \"a/b\", expected 1 to 64 letters, digits, '-', '_' or '.'"),
        ({"card": 7}, "card: expected a text in quotes"),
        ({"colour": "red"}, "colour: unknown option, expected one of card impulse_response delay_ms"),
        ({"faults": "capture:burn@1"}, 'faults: "capture:burn@1", expected capture|playback|both:xrun@T'),
        ({"near": "/nowhere/near.wav"}, "near: /nowhere/near.wav: No such file or directory"),
        ({"impulse_response": "{stereo}"}, "impulse_response: {stereo}: 2 channels, expected 1"),
        (
            {"impulse_response": "{bits24}"},
            "{bits24}: WAV format 1 with 24 bits, expected 16-bit PCM or 32-bit float",
        ),
        (
            {"impulse_response": "{cut}"},
            "{cut}: truncated, the header promises 3200 bytes of samples, the file has 1600",
        ),
        ({"impulse_response": "{cd}"}, "{cd} has 44100 Hz, expected 8000, 16000, 32000 or 48000 Hz"),
        ({"impulse_response": "{long}"}, "{long} lasts 1.50 s, expected at most 1 s"),
        (
            {"impulse_response": "{h8}", "near": "{h16}"},
            "near: {h16} has 16000 Hz, expected 8000 Hz as in impulse_response",
        ),
        (
            {"impulse_response": "{stereo}", "loudspeakers": 2, "microphones": 4},
            "impulse_response: {stereo}: 2 channels, expected 8",
        ),
        ({"near": "{stereo}", "loudspeakers": 2}, "near: {stereo}: 2 channels, expected 1"),
        ({"near": "{stereo}", "microphones": 4}, "near: {stereo}: 2 channels, expected 1 or 4"),
        ({"loudspeakers": 3}, "loudspeakers: 3, expected a number from 1 to 2"),
        ({"microphones": 1.5}, "microphones: 1.5, expected a whole number"),
        (
            {"dead": "loudspeaker1 microphone2"},
            'dead: "microphone2", expected loudspeaker1 to loudspeaker1 or microphone1 to microphone1',
        ),
        ({"format": "U8"}, 'format: "U8", expected S16_LE, S24_3LE, S32_LE or FLOAT_LE'),
        (
            {"playback_ppm": 100, "capture_ppm": 5},
            "delay_ms: 0, expected at least 2 with these playback_ppm and capture_ppm",
        ),
    ],
)
def test_wrong_options_are_one_clear_sentence(
    room_card: RoomCard, card: str, tmp_path: Path, options: dict[str, str | float], sentence: str
) -> None:
    files = {
        kind: str(tmp_path / f"{kind}.wav") for kind in ("stereo", "bits24", "cut", "cd", "long", "h8", "h16")
    }
    soundfile.write(files["stereo"], np.zeros((100, 2)), RATE_HZ)
    soundfile.write(files["bits24"], np.zeros(100), RATE_HZ, subtype="PCM_24")
    soundfile.write(files["cut"], np.zeros(1600), RATE_HZ)
    os.truncate(files["cut"], 44 + 1600)
    soundfile.write(files["cd"], np.zeros(100), 44100)
    soundfile.write(files["long"], np.zeros(24000), RATE_HZ)
    soundfile.write(files["h8"], np.zeros(100), 8000)
    soundfile.write(files["h16"], np.zeros(100), 16000)
    options = {
        key: value.format(**files) if isinstance(value, str) else value for key, value in options.items()
    }

    name = room_card(**{"card": card, **options})
    command = [
        "arecord",
        "-D",
        name,
        "-q",
        "-f",
        "S16_LE",
        "-r",
        str(RATE_HZ),
        "-c",
        "1",
        "-d",
        "1",
        "-t",
        "raw",
        "/dev/null",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    print(done.stderr)
    ours = [line for line in done.stderr.splitlines() if sentence.format(**files) in line]
    assert done.returncode != 0 and len(ours) == 1
    assert re.search("Invalid argument|No such file|Unable to install hw params", done.stderr)


def test_the_example_configuration_names_every_option(tmp_path: Path, room_card: RoomCard, card: str) -> None:
    """config/room-card.conf works unchanged, and with every example in it switched on."""
    room_card(card=card)
    library = re.search('lib "(.*?)"', (tmp_path / "room.conf").read_text())
    assert library is not None
    soundfile.write(tmp_path / "x.wav", np.zeros(100), RATE_HZ)
    text = (Path(__file__).parents[2] / "config" / "room-card.conf").read_text()
    text = re.sub('lib ".*"', library[0], text).replace('card "demo"', f'card "{card}"')
    everything = re.sub(r"^    #(\w+ \S+)", r"    \1", text, flags=re.MULTILINE)
    everything = re.sub('"/path/to/.*?wav"', f'"{tmp_path}/x.wav"', everything)
    source = (Path(__file__).parents[2] / "native" / "roomcard" / "options.c").read_text()
    options = re.findall(r'^        \{"(\w+)", ', source, flags=re.MULTILINE)
    assert len(options) == 17 and all(
        re.search(rf"^    {option} ", everything, re.MULTILINE) for option in options
    )
    for version in (text, everything):
        (tmp_path / "example.conf").write_text(version)
        done = subprocess.run(
            ["arecord", "-q", "-D", "room", *f"-f S16_LE -r {RATE_HZ} -c 1 -s 1000 -t raw /dev/null".split()],
            env={**os.environ, "ALSA_CONFIG_PATH": f"/usr/share/alsa/alsa.conf:{tmp_path}/example.conf"},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_missing_card_name(room_card: RoomCard, tmp_path: Path) -> None:
    room_card()  # for its configuration file
    with (tmp_path / "room.conf").open("a") as file:
        file.write("pcm.nameless { type apmpi_room }\n")
    done = subprocess.run(
        ["arecord", "-D", "nameless", "-d", "1", "/dev/null"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "card: missing, expected the name that playback and capture share" in done.stderr


def test_one_rate_and_one_speed_for_both_directions(
    room_card: RoomCard, card: str, capfd: pytest.CaptureFixture[str]
) -> None:
    slow, fast = room_card(card=card), room_card(card=card, speed=2)
    with Pcm(slow, CAPTURE, 16000):
        with pytest.raises(AlsaError) as failure:
            Pcm(slow, PLAYBACK, 48000)
        assert failure.value.code == -errno.EINVAL
        with pytest.raises(AlsaError) as failure:
            Pcm(fast, PLAYBACK, 16000)
        assert failure.value.code == -errno.EINVAL
        assert "speed: 2, but the card" in capfd.readouterr().err
    with Pcm(slow, PLAYBACK, 48000):  # no other stream is open now
        pass


def test_record_that_can_not_be_written(
    room_card: RoomCard, card: str, capfd: pytest.CaptureFixture[str]
) -> None:
    name = room_card(card=card, record="/nowhere/played.wav")
    with pytest.raises(AlsaError) as failure:
        Pcm(name, PLAYBACK)
    assert failure.value.code == -errno.ENOENT
    assert "record: /nowhere/played.wav: No such file or directory" in capfd.readouterr().err


# --- cost ---


@pytest.mark.parametrize(("rate_hz", "speed"), [(16000, 20), (48000, 4)])
def test_half_a_second_of_room_is_cheap(
    room_card: RoomCard, card: str, tmp_path: Path, rng: np.random.Generator, rate_hz: int, speed: int
) -> None:
    response = rng.standard_normal(rate_hz // 2) * np.exp(-np.arange(rate_hz // 2) / (0.05 * rate_hz)) / 50
    soundfile.write(tmp_path / "h.wav", response, rate_hz, subtype="FLOAT")
    name = room_card(card=card, impulse_response=tmp_path / "h.wav", delay_ms=30, speed=speed)
    seconds = speed
    sound = rng.integers(-8000, 8000, seconds * rate_hz).astype("<i2")
    begin, begin_cpu = time.monotonic(), time.process_time()
    heard = play_and_capture(name, sound, rate_hz)  # raises on an xrun
    elapsed, cpu = time.monotonic() - begin, time.process_time() - begin_cpu
    print(
        f"{seconds + 1} card seconds at {rate_hz} Hz: {elapsed:.2f} s, {100 * cpu / elapsed:.0f} % of a core"
    )
    assert np.abs(heard).max() > 1000
    assert cpu / elapsed < 0.5
