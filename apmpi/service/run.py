"""The daemon: one run of the loop, with its log, signals, real-time scheduling and helping threads.

main                      the audio thread: the loop (apmpi.service.loop)
reporter                  journal, systemd, signals, reloads (apmpi.service.report)
socket                    clients of the local socket (apmpi.service.socket_server)
keeper                    saves what was learned (apmpi.service.learned)
caretaker                 closes lost devices and opens them again (apmpi.cards)
read ahead, write behind  files beside devices, if there are any (apmpi.cards)

All but the first run at a lower real-time priority, or none (realtime.give_way).
"""

import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

from apmpi.cards import realtime
from apmpi.cards.clock import Timebase
from apmpi.errors import EndpointError
from apmpi.service import learned, protocol, sound_mark
from apmpi.service.instruments import Board, Instruments
from apmpi.service.journal import Event, Log, open_log, warnings_to
from apmpi.service.loop import Loop, Tap
from apmpi.service.report import Reporter
from apmpi.service.socket_server import SocketServer
from apmpi.service.systemd import notify
from apmpi.settings import Settings
from apmpi.units import FRAMES_PER_S

EXIT_OK, EXIT_FAILED, EXIT_USER = 0, 1, 2


def run(
    settings: Settings,
    *,
    config_path: Path | None = None,
    seconds: float | None = None,
    tap: Tap | None = None,
    speed: float = 1.0,
) -> int:
    """Run until SIGTERM, SIGINT, the end of a microphone file, or `seconds` of sound; from the main thread.

    `config_path` is read again on SIGHUP. `speed` is that of simulated cards whose time runs faster.
    Returns the exit status: 0, or 2 if an endpoint can't be used as configured, or 1 if a file fails later;
    the log has the reason by then. Devices that are lost are waited for.
    """
    with contextlib.ExitStack() as stack:
        signals_fd = stack.enter_context(_signals_to_pipe())
        log = open_log(settings.report_interval_s)
        stack.enter_context(warnings_to(log))
        realtime.limit_thread_memory()
        place = sound_mark.place() if settings.microphone.device else None
        mark = sound_mark.SoundMark(place) if place else None
        try:
            loop = Loop(settings, config_path, stack, tap, Timebase(speed))
        except EndpointError as error:
            log.write(Event.ENDPOINT_FAILED, str(error), {})
            notify(f"STATUS={error}")
            return EXIT_USER
        ends = loop.endpoints
        if ends.live:
            _report_refused(stack.enter_context(realtime.real_time()), log)
        failures = stack.enter_context(_errors_of_threads(loop.board))
        instruments = Instruments(loop.board, loop.latency, ends.xruns, ends.slips, ends.drift_ppm)
        reporter = Reporter(log, instruments, config_path, signals_fd, mark)
        log.write(Event.STARTED, loop.description(), {})
        keeper = _keep_learned(loop, settings, log) if ends.live else None
        if ends.live:
            _open_socket(loop, settings, instruments, log, stack)
        reporter.start()
        problem: str | None = "stopped by an error in the program"
        try:
            problem = loop.run(seconds)
        finally:
            if keeper:
                keeper.close(keep=problem is None and not failures)
            if failures:
                reporter.finish(failures[0], with_figures=False)
            else:
                reporter.finish(problem)
        return EXIT_OK if problem is None and not failures else EXIT_FAILED


@contextlib.contextmanager
def _errors_of_threads(board: Board) -> Iterator[list[str]]:
    """End the run when one of its threads ends by an error in the program: its work would be missing until
    the next start. Gives a list that gets a sentence for each; the traceback goes where Python writes it."""
    failures: list[str] = []
    before = threading.excepthook

    def note(error: threading.ExceptHookArgs) -> None:
        thread = error.thread.name if error.thread else "a thread"
        reason = traceback.format_exception_only(error.exc_type, error.exc_value)[-1].strip()
        failures.append(f"stopped by an error in the program ({thread}: {reason})")
        board.stop = True
        before(error)

    threading.excepthook = note
    try:
        yield failures
    finally:
        threading.excepthook = before


def _report_refused(refused: list[str], log: Log) -> None:
    if refused:
        hint = "sound may be interrupted when the machine is busy"
        log.write(Event.NOT_PERMITTED, f"not permitted: {', '.join(refused)}; {hint}", {})


def _keep_learned(loop: Loop, settings: Settings, log: Log) -> learned.Keeper | None:
    """Restore what an earlier run has learned, and start the thread that saves it for the next."""
    path = learned.place(settings)
    if path is None:
        return None
    before = None
    try:
        if taken := learned.take(path, settings):
            loop.go_on_from(taken)
            before = taken
            log.write(Event.CONTINUED, f"goes on from what was learned before ({path})", {})
    except ValueError as error:
        log.write(Event.STARTED_ANEW, f"{error}; the echo is learned anew", {})

    def warn(sentence: str) -> None:
        log.write(Event.WARNING, sentence, {})

    def sound_s() -> float:
        return loop.latency.frames / FRAMES_PER_S

    keeper = learned.Keeper(path, loop.snapshot, sound_s, before, warn, realtime.give_way)
    keeper.start()
    return keeper


def _open_socket(
    loop: Loop, settings: Settings, instruments: Instruments, log: Log, stack: contextlib.ExitStack
) -> None:
    """Start the thread of the local socket, if there is to be one; a socket that cannot be opened costs no
    sound."""
    path = protocol.service_path() if settings.socket == "auto" else settings.socket
    if path is None:
        return
    try:
        server = SocketServer(Path(path), settings, instruments, loop.feed, loop.channels())
    except EndpointError as error:
        log.write(Event.WARNING, str(error), {})
        return
    stack.callback(server.close)
    server.start()


@contextlib.contextmanager
def _signals_to_pipe() -> Iterator[int]:
    """Give a descriptor from which SIGTERM, SIGINT and SIGHUP are read as bytes, whichever thread the kernel
    interrupts; one that was blocked until now, too."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    try:
        yield reader
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        os.close(writer)
        os.close(reader)
