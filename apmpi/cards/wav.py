"""WAV files as endpoints: frames of 10 ms, interleaved 16-bit samples, as of ALSA devices (pcm.py).

Formats read: WAV, WAVEX and RF64 with 8 to 32-bit integers, 32 or 64-bit floats, mu-law or A-law. All become
int16: rounded to the nearest, saturated at full scale; a NaN becomes 0. 16-bit samples pass unchanged; 24-bit
and float ones lose at most half a 16-bit step. `apmpi process` reads FLAC as well (SoundReader).

Format written: 16-bit PCM. The file grows as NAME.part beside its place and is renamed only when complete:
the final name never has half a recording, and an older file of that name stays until then. The header is
made valid once a second, so that after SIGKILL the .part plays up to its last second. Beyond 4 GiB (12 h of
mono at 48 kHz) the header becomes RF64, in the place reserved for it (EBU Tech 3306).
"""

import logging
import os
import re
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from apmpi.cards.replace import RECORDING_MODE, Part
from apmpi.cards.text_file import open_regular
from apmpi.errors import EndpointError, FileError
from apmpi.settings import SAMPLE_RATES_HZ
from apmpi.units import FRAMES_PER_S, SAMPLE_BYTES

log = logging.getLogger(__name__)

HEADER_BYTES = 80  # RIFF 12, JUNK or ds64 36, fmt 24, data 8
UINT32_MAX = 0xFFFF_FFFF

CONTAINERS = ("WAV", "WAVEX", "RF64")
ENCODINGS = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
FLAC_ENCODINGS = ("PCM_S8", "PCM_16", "PCM_24")
# First bytes of sound files in other containers, and their names in messages.
OTHER_SOUND = {b"ID3": "an MP3", b"OggS": "an Ogg", b"FORM": "an AIFF", b"caff": "a CAF", b"fLaC": "a FLAC"}

# Lengths in a header from which the length is unknown, to the end of the file. Programs that write into a
# pipe leave a number near the largest signed or unsigned one; for such a FLAC file libsndfile reports
# 2^63 - 1 samples.
UNKNOWN_LENGTH_MIN_BYTES = 0x7FFF_0000
UNKNOWN_LENGTH_MIN_SAMPLES = 1 << 62


class _Sound(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is only read forward: soundfile would seek after each read, which libsndfile refuses at the
    end of a FLAC file of unknown length."""

    def seekable(self) -> bool:
        return False


class SoundReader:
    """Forward reader of a WAV file's samples as int16, with `with_flac` also of a FLAC file's.

    rate_hz, channels   of the file
    samples             samples per channel in the whole file; None if unknown before the end
    samples_read        samples per channel read so far
    """

    def __init__(self, file: BinaryIO, name: str, with_flac: bool = False) -> None:
        """Takes over `file`; `name` begins every message. Raises EndpointError."""
        self.name = name
        self._file = file
        self._expected = "a WAV or FLAC file" if with_flac else "a WAV file"
        try:
            self._check_beginning(os.pread(file.fileno(), 12, 0), with_flac)
            self._sound = _Sound(file.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            file.close()
            raise EndpointError(f"{name}: not {self._expected} ({error.error_string.rstrip('.')})") from None
        except OSError as error:
            file.close()
            raise EndpointError(f"{name}: cannot be read ({_reason(error)})") from None
        except EndpointError:
            file.close()
            raise
        self.rate_hz: int = self._sound.samplerate
        self.channels: int = self._sound.channels
        known = self._sound.frames < UNKNOWN_LENGTH_MIN_SAMPLES
        self.samples: int | None = self._sound.frames if known else None
        self.samples_read = 0
        try:
            self._check()
        except EndpointError:
            self.close()
            raise

    def _check_beginning(self, begin: bytes, with_flac: bool) -> None:
        """Raises EndpointError for other containers: libsndfile's other decoders get no untrusted input."""
        if begin[:4] in (b"RIFF", b"RF64") and begin[8:] == b"WAVE":
            return
        if with_flac and begin[:4] == b"fLaC":
            return
        for beginning, kind in OTHER_SOUND.items():
            if begin.startswith(beginning):
                raise EndpointError(f"{self.name}: is {kind} file, expected {self._expected}")
        if begin[4:8] == b"ftyp":
            raise EndpointError(f"{self.name}: is an MP4 file, expected {self._expected}")
        if len(begin) > 1 and begin[0] == 0xFF and begin[1] & 0xE0 == 0xE0:  # 11 bits that begin each frame
            raise EndpointError(f"{self.name}: is an MP3 file, expected {self._expected}")
        raise EndpointError(f"{self.name}: not {self._expected} (Format not recognised)")

    def _check(self) -> None:
        sound = self._sound
        if sound.subtype not in (ENCODINGS if sound.format in CONTAINERS else FLAC_ENCODINGS):
            expected = "expected 16, 24 or 32-bit or float samples"
            raise EndpointError(f"{self.name}: holds {sound.subtype} samples, {expected}")
        if self.samples == 0:
            raise self.without_samples()
        # libsndfile reads a truncated file without an error; its log has the length in the header.
        promise = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
        if promise and int(promise[2]) < int(promise[1]) < UNKNOWN_LENGTH_MIN_BYTES:
            extent = f"{promise[2]} of {promise[1]} bytes of sound"
            log.warning("%s: is cut short (%s), processed as far as it goes", self.name, extent)

    def without_samples(self) -> EndpointError:
        return EndpointError(f"{self.name}: holds no samples, expected {self._expected} with sound")

    def read(self, samples: int) -> NDArray[np.int16]:
        """Return the next ones as (samples, channels), fewer at the end of the file. Raises EndpointError."""
        expected = samples if self.samples is None else min(samples, self.samples - self.samples_read)
        try:
            read = self._sound.read(expected, dtype="float64", always_2d=True)
        except soundfile.SoundFileError as error:
            reason = getattr(error, "error_string", "").removeprefix("Error : ").rstrip(".") or "damaged"
            raise EndpointError(
                f"{self.name}: cannot be read on ({reason}), expected a file that is whole"
            ) from None
        if self.samples is not None and len(read) < expected:
            raise EndpointError(
                f"{self.name}: ends early, expected a file that nobody changes while it is read"
            )
        self.samples_read += len(read)
        full_scale = np.clip(np.nan_to_num(read, nan=0.0), -1.0, 1.0)
        rounded: NDArray[np.int16] = np.minimum(np.rint(full_scale * 32768.0), 32767).astype("<i2")
        return rounded

    def close(self) -> None:
        self._sound.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_sound(path: Path, with_flac: bool = False) -> SoundReader:
    """Return a reader of the file. Raises EndpointError."""
    try:
        file = open_regular(path, "a WAV or FLAC file" if with_flac else "a WAV file")
    except FileError as error:
        raise EndpointError(str(error)) from None
    return SoundReader(file, str(path), with_flac)


class WavSource:
    """A WAV file read in frames of 10 ms.

    rate_hz, channels   of the file
    frame_samples       samples per channel in one frame
    samples             samples per channel in the whole file; zeros pad the last frame
    """

    def __init__(self, path: Path, rate_hz: int | None = None, channels: int | None = None) -> None:
        """Opens `path`. Raises EndpointError, also if it has another `rate_hz` or `channels` than given."""
        self._reader = open_sound(path)
        try:
            self._check(rate_hz, channels)
        except EndpointError:
            self.close()
            raise
        self.rate_hz, self.channels = self._reader.rate_hz, self._reader.channels
        self.samples = self._reader.samples or 0
        self.frame_samples = self.rate_hz // FRAMES_PER_S

    def _check(self, rate_hz: int | None, channels: int | None) -> None:
        reader = self._reader
        if reader.samples is None:
            raise EndpointError(f"{reader.name}: says nothing of its length, expected a WAV file that does")
        if rate_hz is not None and reader.rate_hz != rate_hz:
            raise EndpointError(f"{reader.name}: has {reader.rate_hz} Hz, expected {rate_hz} Hz")
        if reader.rate_hz not in SAMPLE_RATES_HZ:
            rates = ", ".join(map(str, SAMPLE_RATES_HZ))
            raise EndpointError(f"{reader.name}: has {reader.rate_hz} Hz, expected one of {rates} Hz")
        if channels is not None and reader.channels != channels:
            raise EndpointError(f"{reader.name}: has {_count(reader.channels)}, expected {_count(channels)}")

    def read(self) -> bytes | None:
        """Return the next frame, all channels interleaved, None after the end. Raises EndpointError."""
        if self._reader.samples_read == self.samples:
            return None
        frame = self._reader.read(self.frame_samples)
        return frame.tobytes() + bytes((self.frame_samples - len(frame)) * self.channels * SAMPLE_BYTES)

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WavSink:
    """A 16-bit WAV file that has its name from close() on, complete, and not before.

    Leaving a `with` statement closes the file, or aborts it after an exception.
    """

    def __init__(self, path: Path, rate_hz: int, channels: int = 1) -> None:
        """Opens PATH.part. Raises EndpointError."""
        self.rate_hz = rate_hz
        self.channels = channels
        self.frame_samples = rate_hz // FRAMES_PER_S
        self._path = path
        target = _target(path)
        self._samples = 0
        self._samples_in_header = 0
        try:
            self._part = Part(target, RECORDING_MODE)
        except OSError as error:
            raise _write_failure(path, error) from None
        self._file = self._part.file
        try:
            self._part.write(wav_header(rate_hz, channels, 0))
        except OSError as error:
            self.abort()
            raise _write_failure(self._path, error) from None

    def write(self, samples: bytes) -> None:
        """Appends interleaved samples, usually `frame_samples` per channel.

        Raises EndpointError (disk full, for instance). Samples written before remain: close() keeps them,
        abort() removes them.
        """
        try:
            self._part.write(samples)
            self._samples += len(samples) // (SAMPLE_BYTES * self.channels)
            if self._samples - self._samples_in_header >= self.rate_hz:
                self._update_header()
        except OSError as error:
            raise _write_failure(self._path, error) from None

    def close(self) -> None:
        """Completes and renames the file. Raises EndpointError. A second close() does nothing."""
        if self._file.closed:
            return
        try:
            self._file.truncate(HEADER_BYTES + self._samples * SAMPLE_BYTES * self.channels)
            self._update_header()
            self._part.finish()
        except OSError as error:
            raise _write_failure(self._path, error) from None

    def abort(self) -> None:
        """Removes the unfinished file; nothing gets the final name. After close() it does nothing."""
        self._part.abort()

    def _update_header(self) -> None:
        os.pwrite(self._file.fileno(), wav_header(self.rate_hz, self.channels, self._samples), 0)
        self._samples_in_header = self._samples

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception: object, *_: object) -> None:
        try:
            if exception is None:
                self.close()
        finally:
            self.abort()


def wav_header(rate_hz: int, channels: int, samples: int) -> bytes:
    """Return the HEADER_BYTES in front of `samples` per channel of 16 bits.

    RIFF has 32-bit lengths. A longer file is RF64, whose ds64 chunk takes the place of the JUNK chunk.
    """
    sample_bytes = SAMPLE_BYTES * channels
    data_bytes = samples * sample_bytes
    riff_bytes = HEADER_BYTES - 8 + data_bytes
    if riff_bytes < UINT32_MAX:
        riff = struct.pack("<4sI4s4sI28x", b"RIFF", riff_bytes, b"WAVE", b"JUNK", 28)
    else:
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, riff_bytes, data_bytes, samples, 0)
        riff = struct.pack("<4sI4s", b"RF64", UINT32_MAX, b"WAVE") + sizes
    pcm, rate_bytes, sample_bits = 1, rate_hz * sample_bytes, 8 * SAMPLE_BYTES
    form = struct.pack("<HHIIHH", pcm, channels, rate_hz, rate_bytes, sample_bytes, sample_bits)
    data = struct.pack("<4sI", b"data", min(data_bytes, UINT32_MAX))
    return riff + struct.pack("<4sI", b"fmt ", len(form)) + form + data


def check_writable(path: Path) -> None:
    """Raises EndpointError if WavSink could not write here. Leaves the file and its .part as they are."""
    target = _target(path)
    try:
        with tempfile.TemporaryFile(dir=target.parent, buffering=0) as file:
            file.write(bytes(HEADER_BYTES))
    except OSError as error:
        raise _write_failure(path, error) from None


def _target(path: Path) -> Path:
    """Return the path of the file itself, behind symbolic links. Raises EndpointError if it is no file."""
    target = Path(os.path.realpath(path))
    try:
        # As root a rename would even put a file in the place of /dev/null.
        if target.exists() and not target.is_file():
            raise EndpointError(f"{path}: is a {_kind(path)}, expected a file name to write to")
    except OSError as error:
        raise _write_failure(path, error) from None
    return target


def _write_failure(path: Path, error: OSError) -> EndpointError:
    reason = "its folder does not exist" if isinstance(error, FileNotFoundError) else _reason(error)
    return EndpointError(f"{path}: cannot be written ({reason})")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "device or pipe"


def _count(channels: int) -> str:
    return f"{channels} channel{'s' if channels != 1 else ''}"
