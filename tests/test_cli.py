"""The command as a user types it: what it prints, what it leaves behind, how it ends."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

APMPI = Path(sys.executable).with_name("apmpi")


def apmpi(
    *arguments: object, cwd: Path, prepare: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [APMPI, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=60, preexec_fn=prepare
    )
    print(f"$ apmpi {arguments}\n{done.stdout}{done.stderr}exit status {done.returncode}")
    return done


def refusal(*arguments: object, cwd: Path, prepare: Callable[[], None] | None = None) -> str:
    """The one sentence of a user's mistake. What is in `cwd` stays as it was."""
    before = sorted(cwd.rglob("*"))
    done = apmpi(*arguments, cwd=cwd, prepare=prepare)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("apmpi: ")
    assert sorted(cwd.rglob("*")) == before
    return line.removeprefix("apmpi: ")


def power_db(sound: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(sound)) + 1e-12))


def echoing_room(
    folder: Path, rng: np.random.Generator, rate_hz: int, seconds: int, channels: int = 1
) -> None:
    """far.wav: noise in bursts; mic.wav: its echo, 40 ms later and 6 dB down in each channel."""
    samples = rate_hz * seconds
    bursts = np.repeat(rng.uniform(0.3, 1, samples // (rate_hz // 10)), rate_hz // 10)
    far = 0.1 * bursts * rng.standard_normal(samples)
    decay = np.exp(-np.arange(rate_hz // 20) / (rate_hz / 100))
    late = np.zeros(rate_hz // 25)
    heard = []
    for _ in range(channels):
        path = rng.standard_normal(len(decay)) * decay
        path *= 0.5 / np.linalg.norm(path)
        size = 1 << (samples + len(path)).bit_length()
        echo = np.fft.irfft(np.fft.rfft(far, size) * np.fft.rfft(path, size))[:samples]
        heard.append(np.concatenate([late, echo])[:samples] + 1e-4 * rng.standard_normal(samples))
    soundfile.write(folder / "far.wav", far, rate_hz)
    soundfile.write(folder / "mic.wav", np.stack(heard, axis=1), rate_hz)


def silence(path: Path, seconds: float = 0.1, rate_hz: int = 48000, channels: int = 1) -> None:
    soundfile.write(path, np.zeros((round(seconds * rate_hz), channels)), rate_hz)


# ---- process


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (16000, 2), (32000, 1), (48000, 1)])
def test_process_takes_the_echo_out(
    tmp_path: Path, rng: np.random.Generator, rate_hz: int, channels: int
) -> None:
    echoing_room(tmp_path, rng, rate_hz, 5, channels)
    done = apmpi("process", "--far", "far.wav", "--mic", "mic.wav", "-o", "out.wav", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""  # no terminal: no progress
    summary = (
        r"out\.wav: 5\.0 s in \d+\.\d s \(\d+ times real time\), "
        r"echo reduced by (\d+\.\d) dB, (\d+(\.\d+)?) ms behind the microphone\n"
    )
    told = re.fullmatch(summary, done.stdout)
    assert told
    assert float(told[1]) > 10
    assert 0 < float(told[2]) <= 10
    microphone, _ = soundfile.read(tmp_path / "mic.wav", always_2d=True)
    output, got_rate_hz = soundfile.read(tmp_path / "out.wav", always_2d=True)
    assert got_rate_hz == rate_hz
    assert output.shape == microphone.shape
    for channel in range(channels):
        last = slice(3 * rate_hz, None)
        reduction_db = power_db(microphone[last, channel]) - power_db(output[last, channel])
        print(f"channel {channel}: {reduction_db:.1f} dB less echo")
        assert reduction_db > 20


def test_process_without_any_feature_is_the_microphone_a_little_later(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    # Far below the limiter; an odd length, so that the last frame is a partial one.
    sound = (3000 * rng.standard_normal(16000 + 77)).round().astype(np.int16)
    soundfile.write(tmp_path / "mic.wav", sound, 16000)
    flags = ("--no-aec", "--no-ns", "--no-hpf", "--no-agc")
    done = apmpi("process", "--mic", "mic.wav", "-o", "out.wav", *flags, cwd=tmp_path)
    assert "no far end, so no echo to cancel" in done.stdout
    output, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert len(output) == len(sound)
    told = re.search(r"([\d.]+) ms behind", done.stdout)
    assert told
    late = round(float(told[1]) * 16)
    error_db = power_db(output[late:].astype(float) - sound[: len(sound) - late]) - power_db(
        sound.astype(float)
    )
    print(f"{late} samples late, error {error_db:.1f} dB")
    assert error_db < -40


def test_process_forgives_a_far_end_that_is_shorter_and_has_other_channels(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    echoing_room(tmp_path, rng, 16000, 2)
    far, _ = soundfile.read(tmp_path / "far.wav")
    soundfile.write(tmp_path / "far.wav", np.stack([far[:16000]] * 2, axis=1), 16000)
    done = apmpi(
        "process", "--far", "far.wav", "--mic", "mic.wav", "-o", "out.wav", "--delay-ms", "40", cwd=tmp_path
    )
    assert done.returncode == 0
    assert soundfile.info(tmp_path / "out.wav").frames == 32000


def test_process_says_that_a_file_was_cut_and_goes_on(tmp_path: Path) -> None:
    silence(tmp_path / "mic.wav")
    os.truncate(tmp_path / "mic.wav", 44 + 2 * 1000)
    done = apmpi("process", "--mic", "mic.wav", "-o", "out.wav", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == (
        "apmpi: mic.wav: is cut short (2000 of 9600 bytes of sound), processed as far as it goes\n"
    )
    assert soundfile.info(tmp_path / "out.wav").frames == 1000


def test_process_refuses_in_one_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    silence(tmp_path / "mic.wav")
    silence(tmp_path / "slow.wav", rate_hz=7999)
    silence(tmp_path / "fast.wav", rate_hz=192_001)
    soundfile.write(tmp_path / "song.mp3", np.zeros(48000), 48000)
    (tmp_path / "song.mp3").rename(tmp_path / "song.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    silence(tmp_path / "nine.wav", channels=9)
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "link.wav").symlink_to("mic.wav")
    mic, out = ("--mic", "mic.wav"), ("-o", "out.wav")
    rates = "expected 8000 to 192000 Hz"
    mistakes: dict[tuple[str, ...], str] = {
        (*mic, *out, "--far", "slow.wav"): f"slow.wav: has 7999 Hz, {rates}",
        ("--mic", "fast.wav", *out): f"fast.wav: has 192001 Hz, {rates}",
        ("--mic", "song.wav", *out): "song.wav: is an MP3 file, expected a WAV or FLAC file",
        ("--mic", "pipe.wav", *out): "pipe.wav: is a pipe, expected a WAV or FLAC file",
        (*mic, "-o", "out.flac"): ("out.flac: is the name of a FLAC file, expected NAME.wav: WAV is written"),
        ("--mic", "-", "--far", "-", *out): (
            "standard input: given for --far and for --mic, expected it for one of them"
        ),
        ("--mic", "nine.wav", *out): "nine.wav: has 9 channels, expected at most 8",
        (*mic, *out, "--far", "nine.wav"): "nine.wav: has 9 channels, expected at most 8",
        ("--mic", "no.wav", *out): (
            "no.wav: cannot be read (No such file or directory), expected a WAV or FLAC file"
        ),
        ("--mic", "text.wav", *out): "text.wav: not a WAV or FLAC file (Format not recognised)",
        (*mic, "-o", "no/out.wav"): "no/out.wav: cannot be written (its folder does not exist)",
        (*mic, "-o", "."): ".: is a folder, expected a file name to write to",
        (*mic, "-o", "/dev/full"): "/dev/full: is a device or pipe, expected a file name to write to",
        (*mic, "-o", "link.wav"): "link.wav: is the input mic.wav too, expected another file",
        (*mic,): "the following arguments are required: -o/--output (see apmpi process --help)",
        (*mic, *out, "--delay-ms", "501"): (
            "argument --delay-ms: '501' given, expected a whole number from 0 to 500 (ms) "
            "(see apmpi process --help)"
        ),
        (*mic, *out, "--loud"): "unrecognized arguments: --loud (see apmpi --help)",
    }
    for arguments, expected in mistakes.items():
        assert refusal("process", *arguments, cwd=tmp_path) == expected


def test_process_on_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    silence(tmp_path / "mic.wav", seconds=5)

    def no_file_beyond_100_kb() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    message = refusal(
        "process", "--mic", "mic.wav", "-o", "out.wav", cwd=tmp_path, prepare=no_file_beyond_100_kb
    )
    assert message == "out.wav: cannot be written (File too large)"


def test_process_of_folders_is_a_table(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("heard", "played"):
        (tmp_path / name).mkdir()
    echoing_room(tmp_path, rng, 16000, 4)
    (tmp_path / "mic.wav").rename(tmp_path / "heard/a.wav")
    (tmp_path / "far.wav").rename(tmp_path / "played/a.wav")
    silence(tmp_path / "heard/alone.wav")
    silence(tmp_path / "heard/slow.wav", rate_hz=6000)
    silence(tmp_path / "played/slow.wav")
    silence(tmp_path / "heard/z.flac", rate_hz=44100)
    silence(tmp_path / "played/z.wav")
    done = apmpi("process", "--far", "played", "--mic", "heard", "-o", "clean", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr == ""
    head, *rows, last = done.stdout.splitlines()
    assert head == "file       seconds  times real time  result"
    assert re.fullmatch(r"a\.wav          4\.0 +\d+  echo reduced by \d+\.\d dB", rows[0])
    assert rows[1].endswith(
        "FAILED: played/alone.wav: cannot be read (No such file or directory), expected a WAV or FLAC file"
    )
    assert "FAILED: heard/slow.wav: has 6000 Hz" in rows[2]
    assert rows[3].startswith("z.flac  ")
    assert last == "2 of 4 files are in clean"
    assert sorted(path.name for path in (tmp_path / "clean").iterdir()) == ["a.wav", "z.wav"]
    (tmp_path / "heard/slow.wav").unlink()
    assert apmpi("process", "--mic", "heard", "-o", "more/clean", cwd=tmp_path).returncode == 0
    assert refusal("process", "--mic", "heard", "-o", "heard", cwd=tmp_path).startswith(
        "heard: is the folder of"
    )
    assert refusal("process", "--mic", "more", "-o", "out", cwd=tmp_path) == (
        "more: holds no *.wav and no *.flac, expected recordings"
    )
    silence(tmp_path / "heard/z.wav")
    assert refusal("process", "--mic", "heard", "-o", "out", cwd=tmp_path) == (
        "heard/z.wav: has the name of heard/z.flac but for its end, expected one of them"
    )
    assert refusal("process", "--mic", "heard", "--far", "no", "-o", "out", cwd=tmp_path) == (
        "no: is not a folder, expected one as heard is"
    )


@pytest.mark.parametrize(
    ("rate_hz", "far_rate_hz"),
    [(11025, 8000), (16000, 44100), (44100, 16000), (44100, 44100), (48000, 96000), (192_000, 8000)],
)
def test_process_of_any_rates_takes_the_echo_out(
    tmp_path: Path, rng: np.random.Generator, rate_hz: int, far_rate_hz: int
) -> None:
    """A room at 8 kHz, so that each rate has all of it, far end and microphone brought to theirs by FFT."""
    echoing_room(tmp_path, rng, 8000, 5)
    for name, wanted_hz in (("far", far_rate_hz), ("mic", rate_hz)):
        sound, _ = soundfile.read(tmp_path / f"{name}.wav")
        there = np.fft.irfft(np.fft.rfft(sound), 5 * wanted_hz) * (wanted_hz / 8000)
        soundfile.write(tmp_path / f"{name}.flac", there, wanted_hz, "PCM_24")
    done = apmpi("process", "--far", "far.flac", "--mic", "mic.flac", "-o", "out.wav", cwd=tmp_path)
    assert done.returncode == 0
    microphone, _ = soundfile.read(tmp_path / "mic.flac")
    output, got_rate_hz = soundfile.read(tmp_path / "out.wav")
    assert got_rate_hz == rate_hz
    assert len(output) == len(microphone)
    last = slice(3 * rate_hz, None)
    reduction_db = power_db(microphone[last]) - power_db(output[last])
    print(f"{reduction_db:.1f} dB less echo")
    assert reduction_db > 20


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 44100, 88200, 96000, 192_000])
def test_process_of_any_rate_without_any_feature_is_the_microphone_a_little_later(
    tmp_path: Path, rng: np.random.Generator, rate_hz: int
) -> None:
    """Noise in 80 % of the chain's band, compared with itself moved by the delay that is told."""
    samples = 2 * rate_hz + 777
    frequency_hz = np.fft.rfftfreq(samples, 1 / rate_hz)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[frequency_hz > 0.4 * min(rate_hz, 48000)] = 0
    sound = np.fft.irfft(spectrum, samples)
    soundfile.write(tmp_path / "mic.wav", 0.1 * sound / sound.std(), rate_hz, "FLOAT")
    flags = ("--no-aec", "--no-ns", "--no-hpf", "--no-agc")
    done = apmpi("process", "--mic", "mic.wav", "-o", "out.wav", *flags, cwd=tmp_path)
    told = re.search(r"([\d.]+) ms behind", done.stdout)
    assert told
    microphone, _ = soundfile.read(tmp_path / "mic.wav")
    output, _ = soundfile.read(tmp_path / "out.wav")
    assert len(output) == len(microphone)
    late_s = float(told[1]) / 1000
    expected = np.fft.irfft(np.fft.rfft(microphone) * np.exp(-2j * np.pi * frequency_hz * late_s), samples)
    inner = slice(rate_hz // 4, -rate_hz // 4)  # the shift goes round
    error_db = power_db(output[inner] - expected[inner]) - power_db(expected[inner])
    print(f"error {error_db:.1f} dB")
    # Three roundings to 16 bits, each 101 dB below full scale (a twelfth of a squared step): 76 dB below this
    # sound at most.
    assert error_db < -70


def test_process_of_a_cd_keeps_all_its_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    """However the end falls between the blocks of both rates."""
    for samples in (1, 440, 441, 442, 44100, 44101):
        soundfile.write(tmp_path / "mic.wav", rng.uniform(-0.5, 0.5, (samples, 2)), 44100)
        assert apmpi("process", "--mic", "mic.wav", "-o", "out.wav", cwd=tmp_path).returncode == 0
        info = soundfile.info(tmp_path / "out.wav")
        assert (info.frames, info.channels, info.samplerate) == (samples, 2, 44100)


@pytest.mark.parametrize("kind", ["wav", "flac", "flac of unknown length", "wav of unknown length"])
def test_process_reads_standard_input(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    container = kind[:4].strip()
    path = tmp_path / f"mic.{container}"
    soundfile.write(path, rng.uniform(-0.5, 0.5, 44100), 44100)
    content = bytearray(path.read_bytes())
    if kind == "flac of unknown length":  # 36 bits of STREAMINFO, behind 4 + 4 + 13 bytes and 4 bits
        content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])
    elif kind == "wav of unknown length":
        content[40:44] = b"\xff\xff\xff\xff"
    expected = apmpi("process", "--mic", path.name, "-o", "expected.wav", cwd=tmp_path)
    assert expected.returncode == 0
    path.unlink()
    done = subprocess.run(
        [APMPI, "process", "--mic", "-", "-o", "out.wav"], cwd=tmp_path, input=content, capture_output=True
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and done.stderr == b""
    assert (tmp_path / "out.wav").read_bytes() == (tmp_path / "expected.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.wav", "out.wav"]


def test_standard_input_that_is_no_sound(tmp_path: Path) -> None:
    command = [APMPI, "process", "--mic", "-", "-o", "out.wav"]
    inputs = {b"": "Format not recognised", b"no sound": "Format not recognised"}
    for content, reason in inputs.items():
        done = subprocess.run(command, cwd=tmp_path, input=content, capture_output=True)
        assert done.returncode == 2
        assert done.stderr.decode() == f"apmpi: standard input: not a WAV or FLAC file ({reason})\n"
    terminal, other_end = pty.openpty()
    try:
        done = subprocess.run(command, cwd=tmp_path, stdin=other_end, capture_output=True, timeout=30)
    finally:
        os.close(terminal)
        os.close(other_end)
    assert done.returncode == 2
    assert b"standard input: is a terminal, expected a WAV or FLAC file" in done.stderr
    closed = subprocess.run(
        ["sh", "-c", f"{APMPI} process --mic - -o out.wav <&-"], cwd=tmp_path, capture_output=True
    )
    print(closed.stderr)
    assert closed.returncode == 2
    assert closed.stderr.startswith(b"apmpi: standard input: ")
    assert not list(tmp_path.iterdir())


def test_a_flac_file_cut_short_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    soundfile.write(tmp_path / "mic.flac", rng.uniform(-0.5, 0.5, 44100), 44100)
    os.truncate(tmp_path / "mic.flac", 20_000)
    assert refusal("process", "--mic", "mic.flac", "-o", "out.wav", cwd=tmp_path) == (
        "mic.flac: cannot be read on (flac decoder lost sync), expected a file that is whole"
    )


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_process_stopped_in_the_middle_leaves_nothing_behind(tmp_path: Path, stop: signal.Signals) -> None:
    silence(tmp_path / "mic.wav", seconds=600)
    running = subprocess.Popen(
        [APMPI, "process", "--mic", "mic.wav", "-o", "out.wav"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = tmp_path / "out.wav.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 100_000):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(stop)
    _, complaint = running.communicate(timeout=30)
    assert running.returncode == 128 + stop
    assert complaint == ""
    assert [file.name for file in tmp_path.iterdir()] == ["mic.wav"]


def test_process_shows_progress_in_a_terminal(tmp_path: Path) -> None:
    silence(tmp_path / "mic.wav", seconds=60)
    terminal, other_end = pty.openpty()
    command = [APMPI, "process", "--mic", "mic.wav", "-o", "out.wav"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=other_end) as running:
        os.close(other_end)
        shown = b""
        with contextlib.suppress(OSError):  # how the end of a terminal looks on Linux
            while piece := os.read(terminal, 4096):
                shown += piece
    os.close(terminal)
    assert running.returncode == 0
    done_s = [int(number) for number in re.findall(rb"\r\[#* *\] (\d+) of 60 s", shown)]
    print(done_s)
    assert len(done_s) >= 2
    assert done_s == sorted(done_s)
    assert shown.endswith(b"\r\x1b[K")


def test_process_shows_no_progress_of_an_unknown_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mic.flac", np.zeros(48000 * 60), 48000)
    content = bytearray((tmp_path / "mic.flac").read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # the length in samples
    (tmp_path / "mic.flac").write_bytes(content)
    terminal, other_end = pty.openpty()
    command = [APMPI, "process", "--mic", "mic.flac", "-o", "out.wav"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=other_end, timeout=60)
    os.close(other_end)
    with contextlib.suppress(OSError):
        assert os.read(terminal, 4096) == b""
    os.close(terminal)
    assert done.returncode == 0
    assert soundfile.info(tmp_path / "out.wav").frames == 48000 * 60


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    silence(tmp_path / "mic.wav")
    name = os.fsdecode(b"K\xfcche.wav")
    done = apmpi("process", "--mic", "mic.wav", "-o", name, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("K\\udcfcche.wav: 0.1 s")
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("run", "--config", "x"), "x"),
        (("check", "x"), "x"),
        (("doctor", "x", "--no-sound"), "x"),
        (("process", "--mic", "x", "-o", "out.wav"), "x"),
        (("process", "--mic", "mic.wav", "--far", "x", "-o", "out.wav"), "x"),
        (("process", "--mic", "mic.wav", "-o", "x"), "x"),
        (("report", "x"), "x.jsonl"),
        (("report", "call.wav"), "call.wav"),
        (("run", "--config", "file.yaml"), "x"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_nothing_waits_for_the_other_end_of_a_pipe(
    tmp_path: Path, arguments: tuple[str, ...], name: str
) -> None:
    for pipe in ("x", "x.jsonl", "call.wav"):
        os.mkfifo(tmp_path / pipe)
    silence(tmp_path / "mic.wav")
    channels = '{"far_end": 1, "microphone": 1, "output": 1}'
    (tmp_path / "call.jsonl").write_text(
        f'{{"recording": {{"sample_rate_hz": 8000, "channels": {channels}}}}}\n'
    )
    (tmp_path / "file.yaml").write_text("microphone: {file: x}\n")
    done = apmpi(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{name}: is a " in done.stderr and "pipe, expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_that_would_steer_the_terminal_are_printed_as_escapes(tmp_path: Path) -> None:
    name = "\x1b[2J\r\n\u202eold"
    shown = r"\x1b[2J\r\n\u202eold"
    silence(tmp_path / f"{name}.wav")
    os.truncate(tmp_path / f"{name}.wav", 44 + 2 * 1000)
    (tmp_path / f"{name}.yaml").write_text(f"microphone: {{file: '{shown}'}}\n")
    (tmp_path / "mics").mkdir()
    (tmp_path / "mics" / f"{name}.wav").touch()
    for arguments in (
        ("process", "--mic", f"{name}.wav", "-o", f"{name}-out.wav"),
        ("process", "--mic", f"{name}.flac", "-o", "out.wav"),
        ("process", "--mic", "mics", "-o", f"clean {name}"),
        ("check", f"{name}.yaml"),
        ("run", "--config", f"{name}.yml"),
        ("report", f"{name}.wav"),
        ("doctor", "--device", name, "--no-sound"),
        ("check", "apmpi.yaml", name),
    ):
        done = apmpi(*arguments, cwd=tmp_path)
        said = done.stdout + done.stderr
        assert shown in said
        assert all(line.isprintable() for line in said.splitlines())
        assert "Traceback" not in said


# ---- check


def test_check_of_a_configuration_that_works(tmp_path: Path, room_card: Callable[..., str]) -> None:
    room = room_card()
    silence(tmp_path / "far.wav", seconds=2.5)
    (tmp_path / "apmpi.yaml").write_text(
        f"microphone: {{device: {room}}}\nspeaker: {{device: {room}}}\n"
        "features: {auto_gain_control: false}\nfar_end: {file: far.wav}\noutput: {file: out.wav}\n"
    )
    before = sorted(tmp_path.iterdir())
    done = apmpi("check", "apmpi.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines()[:5] == [
        "apmpi.yaml: valid, 48000 Hz, echo_cancellation, noise_suppression, high_pass_filter, learned_gain",
        f"microphone: device {room} opens with 48000 Hz, 1 channel(s)",
        "far_end: file far.wav holds 2.5 s, 1 channel(s)",
        f"speaker: device {room} opens with 48000 Hz, 1 channel(s)",
        "output: file out.wav can be written",
    ]
    assert sorted(tmp_path.iterdir()) == before


def test_check_names_each_endpoint_that_does_not_work(tmp_path: Path) -> None:
    silence(tmp_path / "far.wav", rate_hz=16000)
    (tmp_path / "apmpi.yaml").write_text(
        "# a loudspeaker that is not plugged in\nmicrophone:\n  device: hw:CARD=Missing\n"
        "far_end: {file: far.wav}\nspeaker: {device: hw:CARD=Missing}\noutput: {file: no/out.wav}\n"
    )
    done = apmpi("check", "apmpi.yaml", cwd=tmp_path)
    assert done.returncode == 2
    found = [line.removeprefix("apmpi: apmpi.yaml:") for line in done.stderr.splitlines()]
    assert found[0].startswith("3: microphone.device: 'hw:CARD=Missing' does not exist")
    assert found[1] == "4: far_end.file: far.wav: has 16000 Hz, expected 48000 Hz"
    assert found[2].startswith("5: speaker.device: 'hw:CARD=Missing' does not exist")
    assert found[3] == "6: output.file: no/out.wav: cannot be written (its folder does not exist)"
    assert len(found) == 4
    assert re.search(r"^devices to record from: \S", done.stdout, re.MULTILINE)
    assert re.search(r"^devices to play on: \S", done.stdout, re.MULTILINE)


def test_check_of_what_is_no_configuration_still_lists_the_devices(tmp_path: Path) -> None:
    (tmp_path / "apmpi.yaml").write_text("microphone:\n  devcie: hw:0\n")
    done = apmpi("check", "apmpi.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "apmpi: apmpi.yaml:2: microphone.devcie: unknown key, expected one of device, file, channels, use, "
        "positions_mm; did you mean device?\n"
    )
    assert "devices to record from:" in done.stdout


# ---- run


def test_run_does_offline_what_process_does(tmp_path: Path, rng: np.random.Generator) -> None:
    echoing_room(tmp_path, rng, 16000, 3)
    (tmp_path / "apmpi.yaml").write_text(
        "sample_rate_hz: 16000\nmicrophone: {file: mic.wav}\n"
        "far_end: {file: far.wav}\noutput: {file: run.wav}\n"
    )
    assert apmpi("run", "--config", "apmpi.yaml", cwd=tmp_path).returncode == 0
    assert (
        apmpi("process", "--far", "far.wav", "--mic", "mic.wav", "-o", "process.wav", cwd=tmp_path).returncode
        == 0
    )
    ran, _ = soundfile.read(tmp_path / "run.wav", dtype="int16")
    processed, _ = soundfile.read(tmp_path / "process.wav", dtype="int16")
    assert np.array_equal(ran, processed)


def test_run_refuses_in_one_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("microphone: {device: x}\nperiods: 1\n")
    missing = tmp_path / "missing.yaml"
    missing.write_text("microphone: {file: mic.wav}\noutput: {file: out.wav}\n")
    assert refusal("run", "--config", "no.yaml", cwd=tmp_path).startswith(
        "no.yaml: cannot be read (No such file"
    )
    message = refusal("run", "--config", "bad.yaml", cwd=tmp_path)
    assert message == "bad.yaml:2: periods: 1 given, expected a whole number from 2 to 16"
    message = refusal("run", "--config", "bad.yaml", "--seconds", "-3", cwd=tmp_path)
    assert message == "argument --seconds: '-3' given, expected seconds above 0 (see apmpi run --help)"
    assert (
        refusal("run", cwd=tmp_path)
        == "the following arguments are required: --config (see apmpi run --help)"
    )
    done = apmpi("run", "--config", "missing.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "missing.yaml:1: microphone" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == [bad, missing]


# ---- help


def test_version_and_help(tmp_path: Path) -> None:
    assert apmpi("--version", cwd=tmp_path).stdout == f"apmpi {importlib.metadata.version('apmpi')}\n"
    overview = apmpi("--help", cwd=tmp_path).stdout
    for command in (
        "run",
        "check",
        "setup",
        "doctor",
        "monitor",
        "record",
        "report",
        "process",
        "demo",
        "completion",
    ):
        assert re.search(rf"^    {command}\s+\w", overview, re.MULTILINE)
        text = apmpi(command, "--help", cwd=tmp_path).stdout
        assert re.search(rf"^example: apmpi {command}\b", text, re.MULTILINE)
    assert "exit status: 0 done; 1 something failed" in overview
    assert refusal(cwd=tmp_path) == "the following arguments are required: COMMAND (see apmpi --help)"
