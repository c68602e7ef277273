"""Readers of outside text in Python accept or refuse it: by the documented exception, within a bounded time
and memory.

Each fuzzer mutates the files of corpus/ and the inputs made here, for --fuzz-seconds, from the --seed:

    pytest tests/fuzz --fuzz-seconds 3600 --seed 7
"""

from __future__ import annotations

import io
import json
import random
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import socket_rig
import soundfile
from socket_rig import Served

from apmpi.cards import text_file
from apmpi.cards.wav import WavSource, open_sound
from apmpi.errors import CommandError, ConfigError, EndpointError, FileError
from apmpi.service import learned, yaml_reader
from apmpi.service.learned import LearnedError
from apmpi.settings import Settings
from apmpi.tools import page

served = socket_rig.served  # pytest finds fixtures by their names here

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus")
# Longest mutated text: more than the longest that is read.
LENGTH_MAX_BYTES = 80 * 1024
# Processor time for one input. PyYAML takes up to 2 s for 64 KiB of keys; a cost that grows with the square
# of the length would take minutes.
INPUT_MAX_S = 10.0
# Memory above that at the start. A text of 64 KiB becomes a tree of about 30 MB at most.
MEMORY_MAX_BYTES = 128 * 1024 * 1024

NUMBERS = [b"0", b"-1", b"1e999", b"NaN", b"9" * 30, b"0x_", b"1.2.3.4/\xc2\xb2", b"2026-13-32", b"\xc2\xb2"]
YAML = [
    b"&a ",
    b"*a",
    b"!!bool ",
    b"!!int ",
    b"<<: ",
    b"? ",
    b"- ",
    b"[",
    b"{",
    b"}",
    b"]",
    b": ",
    b"\n",
    b"\t",
]
YAML += [
    b"'",
    b'"',
    b"\\U",
    b"\\x1b",
    b"|",
    b">",
    b"%",
    b"---\n",
    b"#",
    b"~",
    b",",
    b"  ",
    b"\xff\xfe",
    b"=",
    *NUMBERS,
]
JSON = [
    b"[",
    b"{",
    b"}",
    b"]",
    b'"',
    b":",
    b",",
    b"\\ud800",
    b"\\",
    b"null",
    b"true",
    b"\n",
    b"\x00",
    *NUMBERS,
]
CHUNKS = [
    b"RIFF",
    b"RF64",
    b"RIFX",
    b"WAVE",
    b"fmt ",
    b"data",
    b"ds64",
    b"JUNK",
    b"LIST",
    b"fLaC",
    b"fact",
    b"PEAK",
]
CHUNKS += [
    bytes(4),
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xfe\xff",
    b"\x01\x00",
    b"\x11\x00",
    b"cue ",
    b"bext",
]


class Fuzzer:
    """Inputs for some seconds, and their cost.

    seed, count   seed of the random numbers, and number of inputs
    """

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.seed = f"{request.config.getoption('--seed')} {request.node.name}"
        self.count = 0
        # None: the option is known only where this folder is named on the command line.
        self._seconds: float = request.config.getoption("--fuzz-seconds", None) or 60.0
        self._random = random.Random(self.seed)
        self._folder = folder

    def run(self, seeds: list[bytes], words: list[bytes], read: Callable[[bytes], str | None]) -> None:
        """`read` returns the sentence that refused the input, None if it was taken; an input for which it
        raises anything is kept."""
        refused, sentences, worst_s = 0, set(), 0.0
        before_bytes = _memory_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        try:
            for content in self._inputs(seeds, words):
                began_s = time.process_time()
                sentence = read(content)
                worst_s = max(worst_s, time.process_time() - began_s)
                if sentence is not None:
                    refused += 1
                    sentences.add(sentence[:40])
                    assert sentence.isprintable(), sentence
                    assert len(sentence) < 1000
                assert worst_s < INPUT_MAX_S
        except BaseException:
            kept = self._folder / "input"
            kept.write_bytes(content)
            print(f"number {self.count} of seed {self.seed!r}, kept as {kept}: {content[:300]!r}")
            raise
        grown_bytes = _memory_bytes("VmHWM") - before_bytes
        print(
            f"seed {self.seed!r}: {self.count} inputs, {refused} refused in {len(sentences)} ways, "
            f"at most {worst_s * 1000:.0f} ms and {grown_bytes / 1e6:.0f} MB more"
        )
        assert grown_bytes < MEMORY_MAX_BYTES
        assert refused > 0
        assert len(sentences) > 1

    def _inputs(self, seeds: list[bytes], words: list[bytes]) -> Iterator[bytes]:
        end_s = time.monotonic() + self._seconds
        for content in seeds:
            self.count += 1
            yield content
        while time.monotonic() < end_s:
            self.count += 1
            yield self._mutated(seeds, words)

    def _mutated(self, seeds: list[bytes], words: list[bytes]) -> bytes:
        draw = self._random
        content = bytearray(draw.choice(seeds))
        for _ in range(1 + int(draw.expovariate(0.5))):
            at = draw.randrange(len(content) + 1)
            end = min(at + int(draw.expovariate(0.1)), len(content))
            match draw.randrange(8):
                case 0:
                    content[at:at] = draw.choice(words)
                case 1:
                    content[at:end] = draw.choice(words)
                case 2:
                    content[at:end] = b""
                case 3:
                    content[at:at] = content[at:end] * draw.choice((1, 2, 9, 100, 10_000))
                case 4:
                    content[at : at + 1] = bytes([draw.randrange(256)])
                case 5:
                    other = draw.choice(seeds)
                    content[at:] = other[draw.randrange(len(other) + 1) :]
                case 6:
                    content[at:at] = draw.choice(words) * draw.choice((1, 9, 200, 20_000))
                case 7:
                    content = content[:at]
            del content[LENGTH_MAX_BYTES:]
        return bytes(content)


def _memory_bytes(name: str) -> int:
    """Return a figure of /proc/self/status."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


@pytest.fixture
def fuzzer(request: pytest.FixtureRequest, tmp_path: Path) -> Fuzzer:
    return Fuzzer(request, tmp_path)


# ---- YAML


def test_configurations(fuzzer: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "apmpi.yaml"

    def read(content: bytes) -> str | None:
        path.write_bytes(content)
        try:
            assert isinstance(yaml_reader.load(path), Settings)
        except ConfigError as error:
            assert str(error).startswith(f"{path}:")
            return str(error).removeprefix(str(path))
        return None

    examples = [path.read_bytes() for path in sorted((ROOT / "config").glob("*.yaml"))]
    without_comments = [
        b"\n".join(line.partition(b"#")[0] for line in text.splitlines()) for text in examples
    ]
    fuzzer.run([*corpus("yaml"), *without_comments], YAML, read)


def test_values_of_any_yaml(fuzzer: Fuzzer) -> None:
    def read(content: bytes) -> str | None:
        try:
            text_file.yaml_values(text_file.decoded(content, "network.yaml"), "network.yaml")
        except FileError as error:
            assert str(error).startswith("network.yaml:")
            return str(error)
        return None

    fuzzer.run(corpus("yaml"), YAML, read)


# ---- the local socket


def test_requests(fuzzer: Fuzzer, served: Served) -> None:
    """Each is answered with lines of JSON or HTTP, or not at all; a valid one after them is understood."""

    def read(content: bytes) -> str | None:
        answer = b""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(served.path))
            try:
                client.sendall(content)
                client.shutdown(socket.SHUT_WR)
                while part := client.recv(65536):
                    answer += part
            except (ConnectionError, BrokenPipeError):
                pass  # disconnected while it was still sending
        if answer.startswith(b"HTTP/1.1 "):
            return None if b" 200 " in answer.partition(b"\r\n")[0] else answer.partition(b"\r\n")[0].decode()
        lines = [json.loads(line) for line in answer.splitlines()]
        errors = [line["error"] for line in lines if "error" in line]
        return errors[0] if errors else None if lines else "nothing"

    fuzzer.run(corpus("request"), JSON, read)
    assert served.server.is_alive()
    assert read(b'{"want": "figures"}\n') is None


# ---- the learned state


def test_learned_files(fuzzer: Fuzzer, tmp_path: Path) -> None:
    """Mutated within a valid checksum, and occasionally the checksum itself."""
    path = tmp_path / "learned"
    settings = yaml_reader.parse("microphone: {device: x}", "apmpi.yaml")
    learned.save(path, learned.Learned(b"chain", settings, {"speaker": 12.5}))
    real = path.read_bytes().partition(b"\n")[2]
    number = 0

    def read(content: bytes) -> str | None:
        nonlocal number
        number += 1
        if number % 10:
            content = b"%s %08x\n" % (learned.MAGIC, zlib.crc32(content)) + content
        path.write_bytes(content)
        try:
            taken = learned.take(path, settings)
        except LearnedError as error:
            assert str(error).startswith(f"{path}: ")
            assert not path.exists()
            return str(error).removeprefix(str(path))
        assert taken is not None
        assert all(np.isfinite(ppm) for ppm in taken.drift_ppm.values())
        return None

    fuzzer.run([real, *corpus("learned")], JSON, read)


# ---- sound


def sounds() -> list[bytes]:
    """Short files of every container and encoding that is read, and of some that are refused."""
    files = []
    kinds = [
        ("WAV", name)
        for name in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "GSM610")
    ]
    kinds += [
        ("WAVEX", "PCM_16"),
        ("RF64", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("AIFF", "PCM_16"),
    ]
    kinds += [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
    for container, encoding in kinds:
        for channels in (1, 2) if encoding == "PCM_16" else (1,):
            content = io.BytesIO()
            sound = np.tile(np.linspace(-1, 1, 400)[:, None], channels)
            soundfile.write(content, sound, 8000, encoding, format=container)
            files.append(content.getvalue())
    return files


def test_sound_files_as_endpoints(fuzzer: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "in.wav"

    def read(content: bytes) -> str | None:
        path.write_bytes(content)
        try:
            with WavSource(path) as source:
                for _ in range(1000):
                    if (block := source.read()) is None:
                        break
                    assert len(block) == source.frame_samples * source.channels * 2
        except EndpointError as error:
            assert str(error).startswith(f"{path}: ")
            return str(error).removeprefix(str(path))
        return None

    fuzzer.run(sounds(), CHUNKS, read)


def test_sound_files_to_process(fuzzer: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "in.flac"

    def read(content: bytes) -> str | None:
        path.write_bytes(content)
        try:
            with open_sound(path, with_flac=True) as reader:
                for _ in range(1000):
                    if len(block := reader.read(480)) < 480:
                        break
                    assert block.dtype == np.int16 and block.shape[1] == reader.channels
        except EndpointError as error:
            assert str(error).startswith(f"{path}: ")
            return str(error).removeprefix(str(path))
        return None

    fuzzer.run(sounds(), CHUNKS, read)


# ---- recordings


def test_recordings(fuzzer: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    soundfile.write(path, np.zeros((1600, 3)), 8000)
    sound = path.read_bytes()
    number = 0

    def read(content: bytes) -> str | None:
        nonlocal number
        number += 1
        # Mostly the statistics, with a valid sound file; else the sound, with the original statistics.
        if content.startswith((b"RIFF", b"RF64")):
            path.write_bytes(content)
        else:
            path.write_bytes(sound)
            path.with_suffix(".jsonl").write_bytes(content)
        try:
            call = page.load(path)
            page.summary(call)
        except (CommandError, EndpointError) as error:
            assert str(error).startswith((f"{path}:", f"{path.with_suffix('.jsonl')}:"))
            return str(error).removeprefix(str(tmp_path))
        return None

    fuzzer.run([*corpus("statistics"), sound], [*JSON, *CHUNKS], read)
