"""The command `apmpi`.

Exit status: 0 done, 2 a mistake of the user's (one sentence on standard error), 130 stopped with Ctrl-C.
Each command imports what it needs: `process` runs without ALSA, `run` without what `demo` draws with.
"""

import argparse
import contextlib
import importlib.metadata
import io
import logging
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn, Self

from apmpi import config
from apmpi.config import ConfigError, Endpoint, EndpointError, Settings
from apmpi.wav import WavSink, WavSource


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    # A file name may hold bytes that are no text; saying it must not be what fails.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="apmpi: %(message)s")
    try:
        status: int = given.command(given)
        return status
    except (ConfigError, EndpointError) as error:
        return _mistake(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _mistake(error: object) -> int:
    print(f"apmpi: {error}", file=sys.stderr)
    return 2


# ---- run, demo


def run(given: argparse.Namespace) -> int:
    from apmpi import loop

    return loop.run(config.load(given.config), config_path=given.config, seconds=given.seconds)


def demo(given: argparse.Namespace) -> int:
    from apmpi import demo

    return demo.main(given.folder, given.seconds, given.device)


# ---- monitor


def monitor(given: argparse.Namespace) -> int:
    from apmpi import monitor

    return monitor.main(given.socket, given.json, given.seconds)


# ---- record, report


def record(given: argparse.Namespace) -> int:
    from apmpi import record

    with Progress(given.seconds) as progress:
        return record.main(given.output, given.seconds, given.megabytes, given.socket, progress.show)


def report(given: argparse.Namespace) -> int:
    from apmpi import page

    return page.main(given.file, given.output or given.file.with_suffix(".html"))


# ---- check


def check(given: argparse.Namespace) -> int:
    """The configuration, then each endpoint opened as `run` would open it, then what devices there are."""
    try:
        problems = _check_endpoints(given.file, config.load(given.file))
    except ConfigError as error:
        problems = [str(error)]
    for problem in problems:
        _mistake(problem)
    _list_devices()
    return 2 if problems else 0


def _check_endpoints(path: Path, settings: Settings) -> list[str]:
    """Prints what is right, returns what is wrong."""
    from apmpi.endpoint_check import endpoint_state

    switched_on = ", ".join(name for name, on in asdict(settings.features).items() if on) or "no feature"
    print(f"{path}: valid, {settings.sample_rate_hz} Hz, {switched_on}")
    problems = []
    # All stay open until the last has been tried: a card may do one direction or the other, but not both.
    with contextlib.ExitStack() as opened:
        for key in ("microphone", "far_end", "speaker", "output"):
            endpoint: Endpoint | None = getattr(settings, key)
            if endpoint is None:
                continue
            try:
                print(f"{key}: {endpoint_state(key, endpoint, settings, opened)}")
            except EndpointError as error:
                named = error if endpoint.device else f"{key}.file: {error}"
                problems.append(f"{path}:{endpoint.line}: {named}")
    return problems


def _list_devices() -> None:
    import alsaaudio

    for title, direction in (("record from", alsaaudio.PCM_CAPTURE), ("play on", alsaaudio.PCM_PLAYBACK)):
        names = alsaaudio.pcms(direction)
        print(f"devices to {title}:", ", ".join(names) or "none")


# ---- doctor


def doctor(given: argparse.Namespace) -> int:
    from apmpi import doctor

    return doctor.main(given.file, given.device, not given.no_sound)


# ---- process


def process(given: argparse.Namespace) -> int:
    """The chain over recordings: every 10 ms as the daemon would do it, but as fast as the computer can."""
    from apmpi import AudioFrame, AudioProcessingModule

    # SIGTERM (timeout, a shutdown) leaves through the `with` below too, which removes the unfinished output.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with contextlib.ExitStack() as opened:
        microphone = opened.enter_context(WavSource(given.mic))
        far = opened.enter_context(WavSource(given.far)) if given.far else None
        rate_hz, channels, block_samples = microphone.rate_hz, microphone.channels, microphone.block_samples
        if far and far.rate_hz != rate_hz:
            raise EndpointError(f"{given.far}: has {far.rate_hz} Hz, expected {rate_hz} Hz as in {given.mic}")
        for path, source in ((given.mic, microphone), (given.far, far)):
            if source and source.channels > config.CHANNELS_MAX:
                limit = f"expected at most {config.CHANNELS_MAX}"
                raise EndpointError(f"{path}: has {source.channels} channels, {limit}")
        for path in filter(None, (given.mic, given.far)):
            if given.output.exists() and given.output.samefile(path):
                raise EndpointError(f"{given.output}: is the input {path} too, expected another file")
        output = opened.enter_context(WavSink(given.output, rate_hz, channels))
        progress = opened.enter_context(Progress(microphone.samples / rate_hz))

        apm = AudioProcessingModule(
            echo_cancellation=given.echo_cancellation and far is not None,
            noise_suppression=given.noise_suppression,
            high_pass_filter=given.high_pass_filter,
            auto_gain_control=given.auto_gain_control,
        )
        if given.delay_ms is not None:
            apm.set_stream_delay_ms(given.delay_ms)
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
        seconds = microphone.samples / rate_hz
        latency_ms = apm.latency_ms
    pace = f"{seconds:.1f} s in {took_s:.1f} s ({seconds / took_s:.0f} times real time)"
    if not far:
        echo = "no far end, so no echo to cancel"
    elif echo_reduction_db:
        echo = f"echo reduced by {statistics.median(echo_reduction_db):.1f} dB"
    else:
        echo = "no echo of the far end found"
    print(f"{given.output}: {pace}, {echo}, {latency_ms:g} ms behind the microphone")
    return 0


class Progress:
    """A line that grows on standard error while something takes time; nothing when that is not a terminal."""

    WIDTH = 40
    REFRESH_S = 0.1

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._shown = sys.stderr.isatty()
        self._next_s = 0.0

    def show(self, done_s: float) -> None:
        """`done_s` of the total, in seconds of sound."""
        if not self._shown or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + self.REFRESH_S
        bar = "#" * round(self.WIDTH * done_s / self._total_s)
        sys.stderr.write(f"\r[{bar:<{self.WIDTH}}] {done_s:.0f} of {self._total_s:.0f} s")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")  # the finished bar makes room for what comes after it
            sys.stderr.flush()


# ---- arguments


class _Parser(argparse.ArgumentParser):
    """argparse with our one sentence instead of a usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"apmpi: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="apmpi", description="A microphone and a loudspeaker without echo and noise.")
    parser.add_argument("--version", action="version", version=f"apmpi {importlib.metadata.version('apmpi')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        function: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            function.__name__, help=text, description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: {example}",
        )  # fmt: skip
        added.set_defaults(command=function)
        return added

    added = command(run, "run the device", "apmpi run --config /etc/apmpi/apmpi.yaml")
    added.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML configuration")
    added.add_argument("--seconds", type=_seconds, metavar="N", help="stop after N seconds (default: never)")

    added = command(monitor, "show the running service, live", "apmpi monitor")
    added.add_argument("--json", action="store_true", help="a line of JSON ten times a second instead")
    added.add_argument("--seconds", type=_seconds, metavar="N", help="stop after N seconds (default: never)")
    _add_socket(added)

    added = command(
        record, "record what the running service hears and does", "apmpi record -o call.wav --seconds 30"
    )
    added.description = """Record far end, microphone and output of the running service as channels of one WAV
        file, with its figures beside it as lines of JSON (FILE.jsonl). Ctrl-C ends it before its time."""
    added.add_argument(
        "-o", "--output", type=Path, required=True, metavar="WAV", help="where the recording goes"
    )
    added.add_argument(
        "--seconds", type=_seconds, default=60.0, metavar="N", help="length at most (default: 60)"
    )
    added.add_argument(
        "--megabytes", type=_megabytes, default=1000.0, metavar="N", help="size at most (default: 1000)"
    )
    _add_socket(added)

    added = command(report, "make a page of a recording, with pictures and players", "apmpi report call.wav")
    added.add_argument("file", type=Path, metavar="WAV", help="of apmpi record")
    added.add_argument(
        "-o", "--output", type=Path, metavar="HTML", help="where it goes (default: WAV's name with .html)"
    )

    added = command(
        check, "say what is wrong with a configuration, and which devices exist", "apmpi check apmpi.yaml"
    )
    added.add_argument("file", type=Path, metavar="FILE", help="YAML configuration")

    added = command(
        doctor, "measure cards and room, and say what to do", "apmpi doctor --device plughw:CARD=Device"
    )
    added.description = """Look at the machine, open the devices, play noise and a sweep (10 s), listen, and
        say what is fine, and what is wrong and what to do. Stop the service first: systemctl stop apmpi."""
    added.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="YAML configuration, if not one card"
    )
    added.add_argument(
        "--device", metavar="ALSA", help="card with microphone and loudspeaker (default: the first)"
    )
    added.add_argument("--no-sound", action="store_true", help="play nothing")

    added = command(
        process, "run recordings through the chain", "apmpi process --far far.wav --mic mic.wav -o clean.wav"
    )
    added.description = """Run recordings through the chain. The output is exactly as long as the
        microphone's file and a few milliseconds behind it (the chain's delay, told at the end)."""
    added.add_argument(
        "--far", type=Path, metavar="WAV",
        help="what the loudspeaker played, starting with the microphone's file (shorter: silence follows)",
    )  # fmt: skip
    added.add_argument("--mic", type=Path, required=True, metavar="WAV", help="what the microphone heard")
    added.add_argument(
        "-o", "--output", type=Path, required=True, metavar="WAV", help="where the result goes"
    )
    for flag, feature in FEATURE_FLAGS.items():
        added.add_argument(flag, dest=feature, action="store_false", help=f"without {feature}")
    added.add_argument(
        "--delay-ms",
        type=_delay_ms,
        metavar="N",
        help="loudspeaker to microphone, if known (default: found out)",
    )

    added = command(
        demo,
        "a call on a simulated sound card, with figures and recordings",
        "apmpi demo --folder build/demo",
    )
    added.add_argument("--folder", type=Path, required=True, help="where recordings and the picture go")
    added.add_argument("--seconds", type=_seconds, default=30.0, metavar="N", help="length (default: 30)")
    added.add_argument("--device", metavar="ALSA", help="use this sound card, for example plughw:CARD=Device")
    return parser


def _add_socket(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="the service's socket (default: the user's own, then the system's)",
    )


FEATURE_FLAGS = {
    "--no-aec": "echo_cancellation",
    "--no-ns": "noise_suppression",
    "--no-hpf": "high_pass_filter",
    "--no-agc": "auto_gain_control",
}


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} given, expected seconds above 0")


def _megabytes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} given, expected megabytes above 0")


def _delay_ms(text: str) -> int:
    low, high = config.STREAM_DELAY_MIN_MS, config.STREAM_DELAY_MAX_MS
    with contextlib.suppress(ValueError):
        if low <= int(text) <= high:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} given, expected a whole number from {low} to {high} (ms)")
