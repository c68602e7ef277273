"""The command `apmpi`.

Exit status: EXIT_STATUS, with one sentence on standard error where it is not 0.
Each command imports its own modules: `process` runs without ALSA, `run` without matplotlib.
"""

import argparse
import contextlib
import io
import logging
import math
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from apmpi._version import __version__
from apmpi.cards.text_file import one_line
from apmpi.errors import ALSA_MISSING, ALSA_MODULES, CommandError, ConfigError, EndpointError
from apmpi.service import yaml_reader
from apmpi.settings import STREAM_DELAY_MAX_MS, STREAM_DELAY_MIN_MS, Settings
from apmpi.tools.progress import Progress

EXIT_STATUS = """exit status: 0 done; 1 something failed on the way (run, record) or is wrong (doctor); 2 a
    mistake of the user's; 130 stopped with Ctrl-C where that is not the usual end"""


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    # A file name may hold bytes that are not UTF-8; printing it must not raise.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("apmpi: %(message)s"))
    logging.basicConfig(handlers=[handler])
    try:
        status: int = given.command(given)
        return status
    except (CommandError, ConfigError, EndpointError) as error:
        return _mistake(error)
    except ImportError as error:
        if error.name not in ALSA_MODULES:
            raise
        return _mistake(ALSA_MISSING.format(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


class _OneLine(logging.Formatter):
    """Messages as one printable line each: names of files and devices may hold control characters."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


def _mistake(error: object) -> int:
    print(f"apmpi: {one_line(str(error))}", file=sys.stderr)
    return 2


# ---- run, demo


def run(given: argparse.Namespace) -> int:
    # A reload (SIGHUP) would end the program until the loop handles signals: it is blocked until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from apmpi.service import run as service

    return service.run(yaml_reader.load(given.config), config_path=given.config, seconds=given.seconds)


def demo(given: argparse.Namespace) -> int:
    from apmpi.tools import demo

    return demo.main(given.folder, given.seconds, given.device)


# ---- completion


def completion(given: argparse.Namespace) -> int:
    print(Path(__file__).with_name("completion").joinpath(given.shell).read_text(), end="")
    return 0


# ---- monitor


def monitor(given: argparse.Namespace) -> int:
    from apmpi.tools import monitor

    return monitor.main(given.socket, given.json, given.seconds)


# ---- web


def web(given: argparse.Namespace) -> int:
    from apmpi.tools.web import command
    from apmpi.tools.web.configuration import Configuration

    if given.set_password:
        return command.set_password(given.config)
    if given.set_metrics_token:
        return command.set_metrics_token(given.config)
    configuration = Configuration(given.config, given.hand_over, given.socket, given.password_hint)
    return command.main(given.address, given.port, given.socket, configuration, given.metrics_hint)


# ---- log


def log(given: argparse.Namespace) -> int:
    from apmpi.tools import log

    return log.main(given.since, given.plot, given.json)


# ---- record, report


def record(given: argparse.Namespace) -> int:
    from apmpi.tools import record

    with Progress(given.seconds) as progress:
        return record.main(given.output, given.seconds, given.megabytes, given.socket, progress.show)


def report(given: argparse.Namespace) -> int:
    from apmpi.tools import page

    return page.main(given.file, given.output or given.file.with_suffix(".html"))


# ---- check


def check(given: argparse.Namespace) -> int:
    """Check the configuration, open each endpoint as `run` would, and list the devices."""
    try:
        problems = _check_endpoints(given.file, yaml_reader.load(given.file))
    except ConfigError as error:
        problems = [str(error)]
    for problem in problems:
        _mistake(problem)
    _list_devices()
    return 2 if problems else 0


def _check_endpoints(path: Path, settings: Settings) -> list[str]:
    """Print the endpoints that open, and return the errors of the others."""
    from apmpi.tools.endpoint_check import endpoint_states

    switched_on = ", ".join(name for name, on in asdict(settings.features).items() if on) or "no feature"
    print(one_line(f"{path}: valid, {settings.sample_rate_hz} Hz, {switched_on}"))
    problems = []
    for key, endpoint, found in endpoint_states(settings):
        if isinstance(found, str):
            print(one_line(f"{key}: {found}"))
        else:
            named = found if endpoint.device else f"{key}.file: {found}"
            problems.append(f"{path}:{endpoint.line}: {named}")
    return problems


def _list_devices() -> None:
    from apmpi.cards import alsa, pcm

    for title, direction in (("record from", alsa.CAPTURE), ("play on", alsa.PLAYBACK)):
        print(f"devices to {title}:", one_line(", ".join(pcm.names(direction))) or "none")


# ---- doctor


def doctor(given: argparse.Namespace) -> int:
    from apmpi.tools import doctor

    return doctor.main(given.file, given.device, not given.no_sound)


# ---- setup


def setup(given: argparse.Namespace) -> int:
    from apmpi.tools import setup

    return setup.main(given.yes, given.device, not given.no_sound)


# ---- process


def process(given: argparse.Namespace) -> int:
    from apmpi.tools import process

    # SIGTERM (from timeout, or a shutdown) raises SystemExit, so that the unfinished output is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    features = {feature: getattr(given, feature) for feature in FEATURE_FLAGS.values()}
    return process.main(given.far, given.mic, given.output, features, given.delay_ms)


# ---- arguments


class _Parser(argparse.ArgumentParser):
    """argparse that reports a mistake as one sentence instead of the usage text."""

    # As argparse of Python 3.14 has it: an argument that begins like a negative number is a value, so that
    # `--since -1h` works. No option begins so.
    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"apmpi: {one_line(message)} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands, in the order of `apmpi --help`."""
    root = _Parser(
        prog="apmpi", description="A microphone and a loudspeaker without echo and noise.", epilog=EXIT_STATUS
    )
    root.add_argument("--version", action="version", version=f"apmpi {__version__}")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command, add_arguments, text, example in COMMANDS:
        added = commands.add_parser(
            command.__name__, help=text, description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: apmpi {command.__name__} {example}".rstrip(),
        )  # fmt: skip
        added.set_defaults(command=command)
        add_arguments(added)
    return root


def _run_arguments(added: argparse.ArgumentParser) -> None:
    added.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML configuration")
    added.add_argument("--seconds", type=_seconds, metavar="N", help="stop after N seconds (default: never)")


def _monitor_arguments(added: argparse.ArgumentParser) -> None:
    added.add_argument("--json", action="store_true", help="a line of JSON ten times a second instead")
    added.add_argument("--seconds", type=_seconds, metavar="N", help="stop after N seconds (default: never)")
    _add_socket(added)


def _web_arguments(added: argparse.ArgumentParser) -> None:
    added.description = """Show the running service as a page for browsers, until Ctrl-C. Whoever reaches the
        address sees it; whoever has the password may change the configuration, too. Takes aiohttp (Debian:
        python3-aiohttp)."""
    added.add_argument(
        "--address", default="127.0.0.1", metavar="ADDR",
        help="listen there; :: for all addresses (default: 127.0.0.1, for this computer alone)",
    )  # fmt: skip
    added.add_argument(
        "--port", type=_port, default=8080, metavar="N", help="port, 0 for any free one (default: 8080)"
    )
    added.add_argument(
        "--config", type=Path, default=yaml_reader.SYSTEM_FILE, metavar="FILE",
        help=f"the service's configuration (default: {yaml_reader.SYSTEM_FILE})",
    )  # fmt: skip
    added.add_argument(
        "--set-password", action="store_true",
        help="ask for the page's password, or read it from standard input, and keep its hash beside FILE",
    )  # fmt: skip
    text = "the same for the token with which Prometheus may read /metrics"
    added.add_argument("--set-metrics-token", action="store_true", help=text)
    text = "put an accepted configuration there instead, for the unit that takes it over"
    added.add_argument("--hand-over", type=Path, metavar="FILE", help=text)
    text = "what the page says on how to set a password, while none is set (default: with --set-password)"
    added.add_argument("--password-hint", default=PASSWORD_HINT, metavar="TEXT", help=text)
    text = "what /metrics says on how to set a token, while none is set (default: with --set-metrics-token)"
    added.add_argument("--metrics-hint", default=METRICS_HINT, metavar="TEXT", help=text)
    _add_socket(added)


def _log_arguments(added: argparse.ArgumentParser) -> None:
    added.description = """Show the service's last hours from the journal: for each span of time the largest
        latency, the echo reduction (ERLE), xruns, drift and processor, and its messages in between. For root
        and the group systemd-journal."""
    added.add_argument(
        "--since", metavar="TIME",
        help="begin, as journalctl takes it: '2 hours ago', today, '2026-01-31 12:00', -1h (default: -6h)",
    )  # fmt: skip
    form = added.add_mutually_exclusive_group()
    form.add_argument("--plot", type=Path, metavar="PNG", help="a picture instead")
    form.add_argument("--json", action="store_true", help="a line of JSON for each entry instead")


def _record_arguments(added: argparse.ArgumentParser) -> None:
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


def _report_arguments(added: argparse.ArgumentParser) -> None:
    added.add_argument("file", type=Path, metavar="WAV", help="of apmpi record")
    added.add_argument(
        "-o", "--output", type=Path, metavar="HTML", help="where it goes (default: WAV's name with .html)"
    )


def _check_arguments(added: argparse.ArgumentParser) -> None:
    added.add_argument("file", type=Path, metavar="FILE", help="YAML configuration")


def _doctor_arguments(added: argparse.ArgumentParser) -> None:
    added.description = """Look at the machine, open the devices, play noise and a sweep (10 s), listen, and
        say what is fine, and what is wrong and what to do. Stop the service first: systemctl stop apmpi."""
    added.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="YAML configuration, if not one card"
    )
    added.add_argument(
        "--device", metavar="ALSA", help="card with microphone and loudspeaker (default: the first)"
    )
    added.add_argument("--no-sound", action="store_true", help="play nothing")


def _setup_arguments(added: argparse.ArgumentParser) -> None:
    added.description = """Choose microphone and loudspeaker, measure them as doctor does, write the service's
        configuration (/etc/apmpi/apmpi.yaml; an earlier one is kept under another name) and start it. Needs
        root."""
    added.add_argument("--yes", action="store_true", help="take every default instead of asking")
    added.add_argument("--device", metavar="ALSA", help="card with microphone and loudspeaker")
    added.add_argument("--no-sound", action="store_true", help="play and measure nothing")


def _process_arguments(added: argparse.ArgumentParser) -> None:
    added.description = """Run recordings through the chain: WAV or FLAC, 8 to 192 kHz; a - is standard input.
        The output is a WAV file of the microphone's rate, exactly as long as the microphone's file and a few
        milliseconds behind it (the chain's delay, told at the end). From a folder every *.wav and *.flac of
        the microphone's is taken, each with the far end's file of the same name."""
    added.add_argument(
        "--far", type=_recording, metavar="PATH",
        help="what the loudspeaker played, starting with the microphone's file (shorter: silence follows)",
    )  # fmt: skip
    added.add_argument(
        "--mic", type=_recording, required=True, metavar="PATH", help="what the microphone heard"
    )
    added.add_argument(
        "-o", "--output", type=Path, required=True, metavar="WAV", help="where the result goes"
    )
    for flag, feature in FEATURE_FLAGS.items():
        added.add_argument(flag, dest=feature, action="store_false", help=f"without {feature}")
    text = "loudspeaker to microphone, if known (default: found out)"
    added.add_argument("--delay-ms", type=_delay_ms, metavar="N", help=text)


def _demo_arguments(added: argparse.ArgumentParser) -> None:
    added.add_argument("--folder", type=Path, required=True, help="where recordings and the picture go")
    added.add_argument("--seconds", type=_seconds, default=30.0, metavar="N", help="length (default: 30)")
    added.add_argument("--device", metavar="ALSA", help="use this sound card, for example plughw:CARD=Device")


def _completion_arguments(added: argparse.ArgumentParser) -> None:
    added.add_argument("shell", choices=SHELLS)


def _add_socket(command: argparse.ArgumentParser) -> None:
    text = "the service's socket (default: the user's own, then the system's)"
    command.add_argument("--socket", type=Path, metavar="PATH", help=text)


PORT_MAX = 65535
PASSWORD_HINT = "on the computer itself: sudo apmpi web --set-password"
METRICS_HINT = "on the computer itself: sudo apmpi web --set-metrics-token"

# Made by .ci/completion.py.
SHELLS = ("bash", "zsh", "fish")

FEATURE_FLAGS = {
    "--no-aec": "echo_cancellation",
    "--no-ns": "noise_suppression",
    "--no-hpf": "high_pass_filter",
    "--no-agc": "auto_gain_control",
}


Command = Callable[[argparse.Namespace], int]
# A command, the function that adds its arguments, its help, and the arguments of its example.
COMMANDS: tuple[tuple[Command, Callable[[argparse.ArgumentParser], None], str, str], ...] = (
    (run, _run_arguments, "run the device", "--config /etc/apmpi/apmpi.yaml"),
    (monitor, _monitor_arguments, "show the running service, live", ""),
    (web, _web_arguments, "show the running service as a page for browsers", "--address ::"),
    (log, _log_arguments, "show the last hours of the service, from the journal", "--since today"),
    (record, _record_arguments, "record what the running service hears and does", "-o call.wav --seconds 30"),
    (report, _report_arguments, "make a page of a recording, with pictures and players", "call.wav"),
    (check, _check_arguments,
     "say what is wrong with a configuration, and which devices exist", "apmpi.yaml"),
    (setup, _setup_arguments, "choose the devices, measure them and start the service", ""),
    (doctor, _doctor_arguments, "measure cards and room, and say what to do", "--device plughw:CARD=Device"),
    (process, _process_arguments,
     "run recordings through the chain", "--far far.wav --mic mic.wav -o clean.wav"),
    (demo, _demo_arguments,
     "a call on a simulated sound card, with figures and recordings", "--folder build/demo"),
    (completion, _completion_arguments, "print what a shell needs to complete commands", "bash > apmpi.bash"),
)  # fmt: skip


def _recording(text: str) -> Path:
    return Path("/dev/stdin" if text == "-" else text)


def _seconds(text: str) -> float:
    return _positive(text, "seconds")


def _megabytes(text: str) -> float:
    return _positive(text, "megabytes")


def _positive(text: str, unit: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} given, expected {unit} above 0")


def _delay_ms(text: str) -> int:
    low, high = STREAM_DELAY_MIN_MS, STREAM_DELAY_MAX_MS
    with contextlib.suppress(ValueError):
        if low <= int(text) <= high:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} given, expected a whole number from {low} to {high} (ms)")


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= int(text) <= PORT_MAX:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} given, expected a port from 0 to {PORT_MAX}")
