"""`apmpi process`: the chain over recordings, every 10 ms as the service would do it, but as fast as the
computer can. One pair of files, or a folder of them."""

import contextlib
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from apmpi.apm import AudioProcessingModule
from apmpi.config import CHANNELS_MAX, EndpointError
from apmpi.frame import AudioFrame
from apmpi.progress import Progress
from apmpi.wav import WavSink, WavSource

EXIT_OK, EXIT_USER = 0, 2


@dataclass(frozen=True, slots=True)
class Job:
    far: Path | None
    mic: Path
    output: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """echo: what became of it, in words; latency_ms: of the output behind the microphone."""

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
    """Returns the exit status: of a folder 2 if one of its files could not be used; the others are done then.
    Raises EndpointError."""
    if mic.is_dir():
        return _process_folder(_jobs(far, mic, output), features, delay_ms)
    job = Job(far, mic, output)
    outcome = process(job, features, delay_ms)
    pace = f"{outcome.seconds:.1f} s in {outcome.took_s:.1f} s ({outcome.pace:.0f} times real time)"
    print(f"{output}: {pace}, {outcome.echo}, {outcome.latency_ms:g} ms behind the microphone")
    return EXIT_OK


def _jobs(far: Path | None, mic: Path, output: Path) -> list[Job]:
    if far is not None and not far.is_dir():
        raise EndpointError(f"{far}: is not a folder, expected one as {mic} is")
    names = sorted(path.name for path in mic.glob("*.wav"))
    if not names:
        raise EndpointError(f"{mic}: holds no *.wav, expected recordings")
    for folder in filter(None, (far, mic)):
        if output.exists() and output.samefile(folder):
            raise EndpointError(f"{output}: is the folder of an input, expected another one")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EndpointError(f"{output}: cannot be made a folder ({error.strerror})") from None
    return [Job(far / name if far else None, mic / name, output / name) for name in names]


def _process_folder(jobs: list[Job], features: Mapping[str, bool], delay_ms: int | None) -> int:
    """Prints a table."""
    width = max(len("file"), *(len(job.mic.name) for job in jobs))
    print(f"{'file':<{width}}  seconds  times real time  result")
    failed = 0
    for job in jobs:
        try:
            outcome = process(job, features, delay_ms)
        except EndpointError as error:
            failed += 1
            print(f"{job.mic.name:<{width}}  {'-':>7}  {'-':>15}  FAILED: {error}", flush=True)
        else:
            figures = f"{outcome.seconds:7.1f}  {outcome.pace:15.0f}"
            print(f"{job.mic.name:<{width}}  {figures}  {outcome.echo}", flush=True)
    print(f"{len(jobs) - failed} of {len(jobs)} files are in {jobs[0].output.parent}")
    return EXIT_USER if failed else EXIT_OK


def process(job: Job, features: Mapping[str, bool], delay_ms: int | None) -> Outcome:
    """One pair of files. Raises EndpointError; there is no output then."""
    with contextlib.ExitStack() as opened:
        microphone = opened.enter_context(WavSource(job.mic))
        far = opened.enter_context(WavSource(job.far)) if job.far else None
        rate_hz, channels, block_samples = microphone.rate_hz, microphone.channels, microphone.block_samples
        if far and far.rate_hz != rate_hz:
            raise EndpointError(f"{job.far}: has {far.rate_hz} Hz, expected {rate_hz} Hz as in {job.mic}")
        for path, source in ((job.mic, microphone), (job.far, far)):
            if source and source.channels > CHANNELS_MAX:
                limit = f"expected at most {CHANNELS_MAX}"
                raise EndpointError(f"{path}: has {source.channels} channels, {limit}")
        for path in filter(None, (job.mic, job.far)):
            if job.output.exists() and job.output.samefile(path):
                raise EndpointError(f"{job.output}: is the input {path} too, expected another file")
        output = opened.enter_context(WavSink(job.output, rate_hz, channels))
        progress = opened.enter_context(Progress(microphone.samples / rate_hz))

        wanted = {**features, "echo_cancellation": features["echo_cancellation"] and far is not None}
        apm = AudioProcessingModule(**wanted)
        if delay_ms is not None:
            apm.set_stream_delay_ms(delay_ms)
        echo_reduction_db = []
        started_s = time.monotonic()
        for number, block in enumerate(iter(microphone.read, None)):
            if far:
                heard = far.read() or bytes(far.block_samples * far.channels * 2)
                apm.process_reverse_stream(AudioFrame(heard, rate_hz, far.channels, block_samples))
            frame = AudioFrame(block, rate_hz, channels, block_samples)
            apm.process_stream(frame)
            done = number * block_samples
            output.write(bytes(frame.data[: (microphone.samples - done) * channels]))  # no padding
            stats = apm.stats()
            if stats.converged and stats.reference_present:
                echo_reduction_db.append(stats.erle_db)
            progress.show(done / rate_hz)
        took_s = time.monotonic() - started_s
        seconds, latency_ms = microphone.samples / rate_hz, apm.latency_ms
    if not far:
        echo = "no far end, so no echo to cancel"
    elif echo_reduction_db:
        echo = f"echo reduced by {statistics.median(echo_reduction_db):.1f} dB"
    else:
        echo = "no echo of the far end found"
    return Outcome(seconds, took_s, echo, latency_ms)
