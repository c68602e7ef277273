"""WAV files as endpoints: every sample is read, and no partial file is left."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apmpi.cards.wav import HEADER_BYTES, WavSink, WavSource, check_writable, wav_header
from apmpi.errors import EndpointError

RATE_HZ = 16000

EXAMPLES = settings(
    max_examples=400,
    derandomize=True,  # a failing test fails until it is fixed
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example overwrites the same file
)


def read_all(path: Path, rate_hz: int | None = None, channels: int | None = None) -> np.ndarray:
    """All blocks of a file, [samples with padding, channels]."""
    with WavSource(path, rate_hz, channels) as source:
        blocks = list(iter(source.read, None))
        assert all(len(block) == source.frame_samples * source.channels * 2 for block in blocks)
        assert len(blocks) == -(-source.samples // source.frame_samples)
        return np.frombuffer(b"".join(blocks), dtype="<i2").reshape(-1, source.channels)


def refusal(path: Path, rate_hz: int | None = None, channels: int | None = None) -> str:
    with pytest.raises(EndpointError) as caught:
        WavSource(path, rate_hz, channels)
    message = str(caught.value)
    print(message)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Become another user for a moment, since file permissions do not apply to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# ---- reading


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("encoding", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_read_to_the_nearest_step(
    tmp_path: Path, rng: np.random.Generator, container: str, encoding: str, channels: int
) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, rng.uniform(-1, 1, (RATE_HZ // 4, channels)), RATE_HZ, encoding, format=container)
    stored, _ = soundfile.read(path, dtype="float64", always_2d=True)  # exact for each of them
    got = read_all(path, RATE_HZ, channels)[: len(stored)]
    worst = np.max(np.abs(got - np.clip(stored * 32768, -32768, 32767)))
    print(f"worst error {worst:.6f} of a 16-bit step")
    assert worst <= (0 if encoding in ("PCM_U8", "PCM_16") else 0.5)


@pytest.mark.parametrize("encoding", ["ULAW", "ALAW"])
def test_telephone_encodings_are_read(tmp_path: Path, rng: np.random.Generator, encoding: str) -> None:
    path = tmp_path / "in.wav"
    sound = rng.uniform(-1, 1, 8000)
    soundfile.write(path, sound, 8000, encoding)
    worst = np.max(np.abs(read_all(path)[:8000, 0] - sound * 32768))
    print(f"worst error {worst:.0f}")
    assert (
        worst <= 1024 + 1
    )  # the coarsest step of G.711 is 2048/32768 of full scale: half of it, and our rounding


def test_too_loud_saturates_and_what_is_no_number_is_silence(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    sound = np.array([1.0, -1.0, 1.5, -7.0, np.inf, -np.inf, np.nan, 0.25])
    soundfile.write(path, sound, RATE_HZ, "FLOAT")
    expected = [32767, -32768, 32767, -32768, 32767, -32768, 0, 8192]
    assert read_all(path)[:8, 0].tolist() == expected


def test_the_last_block_is_padded_and_its_length_known(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, np.full(2 * 160 + 3, 7, np.int16), RATE_HZ)
    with WavSource(path) as source:
        assert (source.rate_hz, source.channels, source.frame_samples, source.samples) == (16000, 1, 160, 323)
    assert read_all(path)[:, 0].tolist() == [7] * 323 + [0] * 157


def test_another_rate_or_channel_count_names_both(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, np.zeros((480, 2)), 48000)
    assert refusal(path, 16000) == "has 48000 Hz, expected 16000 Hz"
    assert refusal(path, 48000, 1) == "has 2 channels, expected 1 channel"
    soundfile.write(path, np.zeros(441), 44100)
    assert refusal(path) == "has 44100 Hz, expected one of 8000, 16000, 32000, 48000 Hz"


def test_a_file_cut_short_is_read_as_far_as_it_goes_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "in.wav"
    sound = np.arange(1600, dtype=np.int16)
    soundfile.write(path, sound, RATE_HZ)
    os.truncate(path, 44 + 2 * 1000 + 1)  # a partial sample is no sample
    with caplog.at_level(logging.WARNING):
        assert read_all(path)[:1000, 0].tolist() == list(range(1000))
    (record,) = caplog.records
    print(record.getMessage())
    assert record.getMessage() == (
        f"{path}: is cut short (2001 of 3200 bytes of sound), processed as far as it goes"
    )


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF0000])
def test_a_recording_made_through_a_pipe_is_no_cut_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, np.arange(1600, dtype=np.int16), RATE_HZ)
    with path.open("r+b") as file:
        file.seek(40)
        file.write(struct.pack("<I", length))
    assert len(read_all(path)) == 1600
    assert not caplog.records


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, np.zeros(160_000, np.int16), RATE_HZ)
    with WavSource(path) as source:
        assert source.read()
        os.truncate(path, 44)
        with pytest.raises(EndpointError, match="ends early, expected a file that nobody changes"):
            while source.read():
                pass


def test_what_is_no_wav_file(tmp_path: Path) -> None:
    empty, text, nothing = tmp_path / "empty.wav", tmp_path / "text.wav", tmp_path / "nothing.wav"
    empty.touch()
    text.write_text("microphone: {device: x}\n" * 10)
    soundfile.write(nothing, np.zeros(0), RATE_HZ)
    flac, adpcm = tmp_path / "a.flac", tmp_path / "adpcm.wav"
    soundfile.write(flac, np.zeros(100), RATE_HZ)
    soundfile.write(adpcm, np.zeros(1000), RATE_HZ, "IMA_ADPCM")
    fifo = tmp_path / "fifo.wav"
    os.mkfifo(fifo)
    assert refusal(empty).startswith("not a WAV file (")
    assert refusal(text).startswith("not a WAV file (")
    assert refusal(nothing) == "holds no samples, expected a WAV file with sound"
    assert refusal(flac) == "is a FLAC file, expected a WAV file"
    assert refusal(adpcm) == "holds IMA_ADPCM samples, expected 16, 24 or 32-bit or float samples"
    assert refusal(tmp_path) == "is a folder, expected a WAV file"
    assert refusal(fifo) == "is a pipe, expected a WAV file"
    assert refusal(Path("/dev/zero")) == "is a device, expected a WAV file"
    missing = "cannot be read (No such file or directory), expected a WAV file"
    assert refusal(tmp_path / "missing.wav") == missing


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"ID3\x04\0\0\0\0\0\0", "an MP3"),
        (b"\xff\xfb\x90\x64" + bytes(400), "an MP3"),
        (b"OggS" + bytes(100), "an Ogg"),
        (b"FORM\0\0\1\0AIFF", "an AIFF"),
        (b"\0\0\0\x20ftypM4A ", "an MP4"),
        (b"fLaC" + bytes(100), "a FLAC"),
    ],
)
def test_other_sound_under_the_name_is_refused_before_a_decoder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beginning: bytes, name: str
) -> None:
    monkeypatch.setattr(soundfile.SoundFile, "__init__", lambda *_, **__: pytest.fail("a decoder has it"))
    path = tmp_path / "in.wav"
    path.write_bytes(beginning)
    assert refusal(path) == f"is {name} file, expected a WAV file"


def test_a_real_mp3_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.mp3", np.zeros(RATE_HZ), RATE_HZ)
    (tmp_path / "in.mp3").rename(tmp_path / "in.wav")
    assert refusal(tmp_path / "in.wav") == "is an MP3 file, expected a WAV file"


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, np.zeros(160), RATE_HZ)
    path.chmod(0)
    with nobody():
        assert refusal(path) == "cannot be read (Permission denied), expected a WAV file"


def sound_or_refusal(path: Path) -> None:
    with contextlib.suppress(EndpointError):
        read_all(path)


@EXAMPLES
@given(content=st.binary(max_size=200))
def test_any_bytes_are_sound_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in.wav"
    path.write_bytes(content)
    sound_or_refusal(path)


@EXAMPLES
@given(data=st.data())
def test_a_damaged_wav_is_sound_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "in.wav"
    encoding = data.draw(st.sampled_from(["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM"]))
    container = data.draw(st.sampled_from(["WAV", "WAVEX", "RF64"] if encoding != "IMA_ADPCM" else ["WAV"]))
    soundfile.write(path, np.linspace(-1, 1, 400), 8000, encoding, format=container)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, 120))
        content[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    sound_or_refusal(path)


# ---- writing


@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_is_read_back(tmp_path: Path, rng: np.random.Generator, channels: int) -> None:
    path = tmp_path / "out.wav"
    sound = rng.integers(-32768, 32768, (48000 + 17, channels)).astype("<i2")
    with WavSink(path, 48000, channels) as sink:
        for begin in range(0, len(sound), sink.frame_samples):
            sink.write(sound[begin : begin + sink.frame_samples].tobytes())
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["out.wav"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    assert np.array_equal(read_all(path, 48000, channels)[: len(sound)], sound)
    with wave.open(str(path)) as other:  # a reader independent of apmpi and libsndfile
        assert other.getparams()[:4] == (channels, 2, 48000, len(sound))
        assert other.readframes(len(sound)) == sound.tobytes()


def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    path.write_text("older")
    aborted = WavSink(path, RATE_HZ)
    aborted.write(bytes(320))
    aborted.abort()
    with contextlib.suppress(KeyboardInterrupt), WavSink(path, RATE_HZ) as sink:
        sink.write(bytes(320))
        raise KeyboardInterrupt
    assert path.read_text() == "older"
    assert [file.name for file in tmp_path.iterdir()] == ["out.wav"]
    with WavSink(path, RATE_HZ) as sink:
        sink.write(bytes(320))
    assert len(read_all(path)) == 160
    sink.close()  # a second call is harmless
    sink.abort()
    assert path.exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "card").mkdir()
    link = tmp_path / "out.wav"
    link.symlink_to("card/real.wav")
    with WavSink(link, RATE_HZ) as sink:
        sink.write(bytes(320))
    assert link.is_symlink()
    assert len(read_all(tmp_path / "card" / "real.wav")) == 160


def test_a_recording_is_its_owners_and_the_groups(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    before = os.umask(0)
    try:
        with WavSink(path, RATE_HZ) as sink:
            assert stat.S_IMODE((tmp_path / "out.wav.part").stat().st_mode) == 0o640
            sink.write(bytes(320))
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        os.umask(0o077)  # a stricter umask is respected
        WavSink(path, RATE_HZ).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_two_recordings_of_one_name_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with WavSink(path, RATE_HZ) as first:
        first.write(bytes([1, 2]) * 160)
        with pytest.raises(EndpointError) as caught:
            WavSink(path, RATE_HZ)
        assert str(caught.value) == f"{path}: cannot be written (another program is writing it)"
    assert np.all(read_all(path) == 0x0201)


def test_killed_in_the_middle_leaves_a_part_that_plays(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from apmpi.cards.wav import WavSink
sink = WavSink(Path(sys.argv[1]), 16000)
for _ in range(350):
    sink.write(bytes([1, 2]) * 160)
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "out.wav"
    died = subprocess.run([sys.executable, "-c", code, path], cwd=tmp_path)
    assert died.returncode == -signal.SIGKILL
    assert not path.exists()
    got = read_all(tmp_path / "out.wav.part")
    print(f"{len(got) / RATE_HZ:.2f} s of 3.50 s")
    assert 2.5 * RATE_HZ <= len(got) <= 3.5 * RATE_HZ
    assert np.all(got == 0x0201)
    with WavSink(path, RATE_HZ) as sink:  # and the next one takes its place
        sink.write(bytes(320))
    assert [file.name for file in tmp_path.iterdir()] == ["out.wav"]


@contextlib.contextmanager
def no_file_beyond(size_bytes: int) -> Iterator[None]:
    """Set a limit that the kernel offers any user; Python ignores its signal, write() fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_until_refused(sink: WavSink) -> tuple[int, str]:
    """Return (blocks written, the refusal)."""
    for written in range(100_000):
        try:
            sink.write(bytes([1, 2]) * 160)
        except EndpointError as error:
            print(error)
            return written, str(error)
    pytest.fail("nothing stopped the writing")


def test_a_full_disk_keeps_or_removes_what_was_written(tmp_path: Path) -> None:
    for keep in (True, False):
        path = tmp_path / "out.wav"
        with no_file_beyond(100_000):
            sink = WavSink(path, RATE_HZ)
            written, message = write_until_refused(sink)
            assert message == f"{path}: cannot be written (File too large)"
            if keep:
                sink.close()
            else:
                path.unlink()
                sink.abort()
        assert path.exists() == keep
        if keep:
            got = read_all(path)
            assert len(got) == written * 160
            assert np.all(got == 0x0201)
        assert not (tmp_path / "out.wav.part").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is forbidden here")
    try:
        path = tmp_path / "out.wav"
        with pytest.raises(EndpointError), WavSink(path, RATE_HZ) as sink:
            _, message = write_until_refused(sink)
            assert message == f"{path}: cannot be written (No space left on device)"
            raise EndpointError(message)
        assert list(tmp_path.iterdir()) == []
        filler = tmp_path / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(200_000))
        with pytest.raises(EndpointError, match="No space left on device"):
            WavSink(path, RATE_HZ)
        with pytest.raises(EndpointError, match="No space left on device"):
            check_writable(path)
        assert list(tmp_path.iterdir()) == [filler]
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with pytest.raises(EndpointError, match="Read-only file system"):
            WavSink(path, RATE_HZ)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    "attempt", [lambda path: WavSink(path, RATE_HZ), check_writable], ids=["open", "check"]
)
def test_places_that_take_no_file(tmp_path: Path, attempt: object) -> None:
    assert callable(attempt)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    places = {
        tmp_path / "missing" / "out.wav": "cannot be written (its folder does not exist)",
        tmp_path: "is a folder, expected a file name to write to",
        Path("/dev/null"): "is a device or pipe, expected a file name to write to",
        Path("/dev/full"): "is a device or pipe, expected a file name to write to",
        Path(__file__) / "out.wav": "cannot be written (Not a directory)",
        locked / "out.wav": "cannot be written (Permission denied)",
    }
    for path, expected in places.items():
        with (
            nobody() if path.parent == locked else contextlib.nullcontext(),
            pytest.raises(EndpointError) as caught,
        ):
            attempt(path)
        assert str(caught.value) == f"{path}: {expected}"
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_check_touches_neither_the_file_nor_a_recording_under_way(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with WavSink(path, RATE_HZ) as sink:
        sink.write(bytes(320))
        check_writable(path)
        assert [file.name for file in tmp_path.iterdir()] == ["out.wav.part"]
    assert len(read_all(path)) == 160


@pytest.mark.parametrize(
    ("samples", "container"),
    [(0, "WAV"), (1_073_741_805, "WAV"), (1_073_741_806, "RF64"), (1 << 33, "RF64")],
)
def test_a_header_beyond_4_gib_becomes_rf64(tmp_path: Path, samples: int, container: str) -> None:
    path = tmp_path / "big.wav"
    with path.open("wb") as file:
        file.write(wav_header(48000, 2, samples))
        assert file.tell() == HEADER_BYTES
        file.truncate(HEADER_BYTES + samples * 4)  # a hole: no disk is used
    with soundfile.SoundFile(path) as sound:
        assert (sound.format, sound.frames, sound.channels) == (container, samples, 2)
