"""`apmpi process`: the chain over recordings, in frames of 10 ms as in the service, faster than real time.

The input is one pair of files or a folder of them. Recordings at other rates than the chain's are resampled,
and the output is resampled back to the microphone's rate:

    microphone 44100 Hz ─► 48000 ─► chain ─► 48000 ─► 44100 Hz output
    far end    16000 Hz ─► 48000 ─────┘
"""

import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apmpi.api.apm import AudioProcessingModule
from apmpi.api.frame import AudioFrame
from apmpi.cards.resampler import Resampler
from apmpi.cards.text_file import one_line
from apmpi.cards.wav import SoundReader, WavSink, check_writable, open_sound
from apmpi.errors import CommandError, EndpointError
from apmpi.settings import CHANNELS_MAX, DEVICE_RATE_MAX_HZ, DEVICE_RATE_MIN_HZ, SAMPLE_RATES_HZ
from apmpi.tools.progress import Progress
from apmpi.units import FRAMES_PER_S, SAMPLE_BYTES

EXIT_OK, EXIT_USER = 0, 2
STANDARD_INPUT = Path("/dev/stdin")
# Length limit of a WAV file without RF64 extension, 2^32 bytes: 12 h of mono at 48 kHz.
STANDARD_INPUT_MAX_BYTES = 1 << 32
PIECE_BYTES = 1 << 16
RECORDINGS = ("*.wav", "*.flac")
NOT_WRITTEN = (".flac", ".mp3", ".ogg", ".opus", ".m4a")


@dataclass(frozen=True, slots=True)
class Job:
    far: Path | None
    mic: Path
    output: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result for one pair of files.

    seconds      length of the output
    took_s       processing time
    echo         sentence on the echo reduction
    latency_ms   delay of the output behind the microphone
    """

    seconds: float
    took_s: float
    echo: str
    latency_ms: float

    @property
    def pace(self) -> float:
        return self.seconds / self.took_s


def main(
    far: Path | None, mic: Path, output: Path, features: Mapping[str, bool], delay_ms: int | None
) -> int:
    """Process the recordings and return the exit status.

    For a folder it is 2 if a file of it could not be used; the others are processed then. Raises CommandError
    and EndpointError.
    """
    if mic.is_dir():
        return _process_folder(_jobs(far, mic, output), features, delay_ms)
    job = Job(far, mic, output)
    outcome = process(job, features, delay_ms)
    pace = f"{outcome.seconds:.1f} s in {outcome.took_s:.1f} s ({outcome.pace:.0f} times real time)"
    late = f"{outcome.latency_ms:g} ms behind the microphone"
    print(one_line(f"{output}: {pace}, {outcome.echo}, {late}"))
    return EXIT_OK


def _jobs(far: Path | None, mic: Path, output: Path) -> list[Job]:
    if far is not None and not far.is_dir():
        raise CommandError(f"{far}: is not a folder, expected one as {mic} is")
    recordings = sorted(path for pattern in RECORDINGS for path in mic.glob(pattern))
    if not recordings:
        raise CommandError(f"{mic}: holds no {' and no '.join(RECORDINGS)}, expected recordings")
    by_output: dict[str, Path] = {}
    for path in recordings:
        if (other := by_output.setdefault(f"{path.stem}.wav", path)) is not path:
            raise CommandError(f"{path}: has the name of {other} but for its end, expected one of them")
    for folder in filter(None, (far, mic)):
        if output.exists() and output.samefile(folder):
            raise CommandError(f"{output}: is the folder of an input, expected another one")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{output}: cannot be made a folder ({error.strerror})") from None
    return [Job(_partner(far, path), path, output / name) for name, path in by_output.items()]


def _partner(far: Path | None, mic: Path) -> Path | None:
    """Return the far end's file of the same name, with either suffix."""
    if far is None:
        return None
    names = [mic.name, *(f"{mic.stem}{pattern[1:]}" for pattern in RECORDINGS)]
    return next((far / name for name in names if (far / name).exists()), far / mic.name)


def _process_folder(jobs: list[Job], features: Mapping[str, bool], delay_ms: int | None) -> int:
    """Process each job, print a table and return the exit status."""
    names = [one_line(job.mic.name) for job in jobs]
    width = max(len("file"), *map(len, names))
    print(f"{'file':<{width}}  seconds  times real time  result")
    failed = 0
    for job, name in zip(jobs, names, strict=True):
        try:
            outcome = process(job, features, delay_ms)
        except (CommandError, EndpointError) as error:
            failed += 1
            print(f"{name:<{width}}  {'-':>7}  {'-':>15}  FAILED: {one_line(str(error))}", flush=True)
        else:
            figures = f"{outcome.seconds:7.1f}  {outcome.pace:15.0f}"
            print(f"{name:<{width}}  {figures}  {outcome.echo}", flush=True)
    print(f"{len(jobs) - failed} of {len(jobs)} files are in {one_line(str(jobs[0].output.parent))}")
    return EXIT_USER if failed else EXIT_OK


def process(job: Job, features: Mapping[str, bool], delay_ms: int | None) -> Outcome:
    """Process one pair of files.

    Raises CommandError and EndpointError; no output file is left then.
    """
    _check_output(job)
    with contextlib.ExitStack() as opened:
        # The far end first, so that its errors are reported before standard input is read.
        far_file = opened.enter_context(_opened(job.far, job)) if job.far else None
        microphone_file = opened.enter_context(_opened(job.mic, job))
        rate_hz, channels = microphone_file.rate_hz, microphone_file.channels
        chain_rate_hz = next((rate for rate in SAMPLE_RATES_HZ if rate >= rate_hz), SAMPLE_RATES_HZ[-1])
        frame_samples = chain_rate_hz // FRAMES_PER_S
        microphone = _Frames(microphone_file, chain_rate_hz)
        far = _Frames(far_file, chain_rate_hz) if far_file else None
        back = Resampler(chain_rate_hz, rate_hz, channels, Resampler.SINC_MEDIUM_QUALITY)
        output = opened.enter_context(WavSink(job.output, rate_hz, channels))
        samples = microphone_file.samples
        progress = opened.enter_context(Progress(None if samples is None else samples / rate_hz))

        cancels = features["echo_cancellation"] and far is not None
        wanted: dict[str, Any] = {**features, "echo_cancellation": cancels}
        apm = AudioProcessingModule(**wanted)
        if delay_ms is not None:
            apm.set_stream_delay_ms(delay_ms)
        echo_reduction_db = []
        written = 0
        started_s = time.monotonic()
        while not microphone.ended or written < microphone_file.samples_read:
            frame = AudioFrame(microphone.read(), chain_rate_hz, channels, frame_samples)
            if far:
                heard = AudioFrame(far.read(), chain_rate_hz, far.channels, frame_samples)
                apm.process_reverse_stream(heard)
            apm.process_stream(frame)
            out = back.process(bytes(frame.data))
            sample_bytes = SAMPLE_BYTES * channels
            out = out[: (microphone_file.samples_read - written) * sample_bytes]  # without padding
            output.write(out)
            written += len(out) // sample_bytes
            stats = apm.stats()
            if stats.converged and stats.reference_present:
                echo_reduction_db.append(stats.erle_db)
            progress.show(written / rate_hz)
        if not written:
            raise microphone_file.without_samples()
        took_s = time.monotonic() - started_s
        seconds, latency_ms = written / rate_hz, apm.latency_ms
    if not far:
        echo = "no far end, so no echo to cancel"
    elif echo_reduction_db:
        echo = f"echo reduced by {statistics.median(echo_reduction_db):.1f} dB"
    else:
        echo = "no echo of the far end found"
    return Outcome(seconds, took_s, echo, latency_ms)


def _check_output(job: Job) -> None:
    """Check the names before standard input is read. Raises CommandError and EndpointError."""
    if job.output.suffix.lower() in NOT_WRITTEN:
        kind = job.output.suffix[1:].upper()
        raise CommandError(f"{job.output}: is the name of a {kind} file, expected NAME.wav: WAV is written")
    if job.far == job.mic == STANDARD_INPUT:
        raise CommandError("standard input: given for --far and for --mic, expected it for one of them")
    for path in filter(None, (job.mic, job.far)):
        with contextlib.suppress(OSError):  # a path that cannot be examined is refused when it is opened
            if job.output.samefile(path):
                raise CommandError(f"{job.output}: is the input {path} too, expected another file")
    check_writable(job.output)


def _opened(path: Path, job: Job) -> SoundReader:
    """Open a recording. Raises EndpointError, or CommandError if its shape does not fit the chain."""
    if path == STANDARD_INPUT:
        reader = SoundReader(_standard_input(job.output.parent), "standard input", with_flac=True)
    else:
        reader = open_sound(path, with_flac=True)
    problem = ""
    if reader.channels > CHANNELS_MAX:
        problem = f"has {reader.channels} channels, expected at most {CHANNELS_MAX}"
    if not DEVICE_RATE_MIN_HZ <= reader.rate_hz <= DEVICE_RATE_MAX_HZ:
        problem = f"has {reader.rate_hz} Hz, expected {DEVICE_RATE_MIN_HZ} to {DEVICE_RATE_MAX_HZ} Hz"
    if problem:
        reader.close()
        raise CommandError(f"{reader.name}: {problem}")
    return reader


def _standard_input(folder: Path) -> io.FileIO:
    """Copy standard input into an unnamed file: FLAC and the length in a WAV header need a seekable file.

    The file lies in `folder`, that of the output, since that disk has to hold as much anyway. Raises
    CommandError.
    """
    try:
        if os.isatty(0):
            raise CommandError("standard input: is a terminal, expected a WAV or FLAC file: < mic.wav")
        with os.fdopen(os.dup(0), "rb") as piped, contextlib.ExitStack() as unfinished:
            kept = unfinished.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
            left = STANDARD_INPUT_MAX_BYTES
            while left and (more := piped.read(min(left, PIECE_BYTES))):
                rest = memoryview(more)
                while rest:
                    rest = rest[kept.write(rest) :]
                left -= len(more)
            if piped.read(1):
                raise CommandError(
                    f"standard input: more than {STANDARD_INPUT_MAX_BYTES >> 30} GiB, expected a recording"
                )
            kept.seek(0)
            unfinished.pop_all()
            return kept
    except OSError as error:
        raise CommandError(f"standard input: cannot be taken in ({error.strerror})") from None


class _Frames:
    """A recording at the chain's rate, in frames of 10 ms, followed by silence.

    ended   True when the recording has been read completely
    """

    def __init__(self, reader: SoundReader, rate_hz: int) -> None:
        """Prepare the resampler. Raises EndpointError if libsamplerate is needed and missing."""
        self.channels = reader.channels
        self.ended = False
        self._reader = reader
        self._frame_bytes = rate_hz // FRAMES_PER_S * SAMPLE_BYTES * reader.channels
        self._read_samples = reader.rate_hz // FRAMES_PER_S
        self._waiting = bytearray()
        self._resampler = Resampler(reader.rate_hz, rate_hz, reader.channels, Resampler.SINC_MEDIUM_QUALITY)

    def read(self) -> bytes:
        """Return the next frame, interleaved. Raises EndpointError."""
        while len(self._waiting) < self._frame_bytes:
            self._waiting += self._resampler.process(self._read())
        frame = bytes(self._waiting[: self._frame_bytes])
        del self._waiting[: self._frame_bytes]
        return frame

    def _read(self) -> bytes:
        reader, samples = self._reader, b""
        if not self.ended:
            samples = reader.read(self._read_samples).tobytes()
            whole = len(samples) == self._read_samples * SAMPLE_BYTES * self.channels
            self.ended = not whole or reader.samples_read == reader.samples
        return samples.ljust(self._read_samples * SAMPLE_BYTES * self.channels, b"\0")
