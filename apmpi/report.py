"""What the daemon says: to the journal and systemd when it is a service, to standard error in a terminal.

A thread of its own looks at what the audio thread leaves behind (`Board`, `LatencyLog`, xrun counts) and
does all the talking, so that a slow journal or terminal costs no frame. It also takes the signals: the
audio thread is never interrupted. Neither waits for the other.

Journal entries (`journalctl -o json -t apmpi`) are an interface. Each has a MESSAGE for people and a
MESSAGE_ID (`Event`; `journalctl -x` explains them). The entry of Event.FIGURES, one per report interval,
has these fields, over the interval unless said otherwise; a field that doesn't apply is left out:

    APMPI_FRAMES                                  10 ms frames since the start
    APMPI_LATENCY_MEDIAN_MS _P99_MS _MAX_MS       microphone to output, the sum of the next four
    (apmpi.latency) APMPI_CAPTURE_WAIT_MEDIAN_MS _P99_MS _MAX_MS
    APMPI_PROCESSING_MEDIAN_MS _P99_MS _MAX_MS
    APMPI_PLAYBACK_QUEUE_MEDIAN_MS _P99_MS _MAX_MS
    APMPI_ALGORITHMIC_MS
    APMPI_XRUNS                                   of all devices since the start, and by device:
    APMPI_XRUNS_MICROPHONE _FAR_END _SPEAKER _OUTPUT
    APMPI_SLIPS                                   how often samples were left out or silence put in, since the
                                                  start, because a card's clock is not the microphone's
    APMPI_PROCESSOR_SHARE                         of one core: 1.0 is all of it
    APMPI_ECHO_CANCELLATION _NOISE_SUPPRESSION _HIGH_PASS_FILTER _AUTO_GAIN_CONTROL    0 or 1
    APMPI_ERLE_DB                                 how much quieter the echo leaves than it came
    APMPI_ERL_DB                                  how much quieter the echo comes than it was played
    APMPI_DELAY_MS _DELAY_CONFIDENCE              loudspeaker to microphone; 0 to 1
    APMPI_CONVERGED _DOUBLE_TALK _REFERENCE_PRESENT _MICROPHONE_CLIPPING               0 or 1, at this moment
    APMPI_SPEECH_PROBABILITY _NOISE_FLOOR_DBFS _AGC_GAIN_DB                            at this moment

Event.XRUN has APMPI_XRUNS*, Event.RELOADED the flags. While the microphone is waited for there are no
figures.

systemd (Type=notify-reload): READY=1 after the first frame or when a device is waited for, STATUS= with each
report, WATCHDOG=1 only while frames are being finished or a device is waited for, RELOADING=1 ... READY=1
around SIGHUP, STOPPING=1 at the end.
"""

import enum
import gc
import importlib
import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from apmpi.config import ConfigError, Features, Settings, load
from apmpi.latency import LatencyLog, LatencySummary, Spread

FRAMES_PER_S = 100

# How often the thread looks: soon enough for a person who stops the program, rare enough to cost nothing.
TICK_S = 0.1
# A terminal's line is read while it changes.
LIVE_LINE_S = 0.5
# The audio thread takes new settings with its next frame, 10 ms; a device that stalls may hold it up to 0.5
# s.
APPLY_TIMEOUT_S = 1.0
# An xrun is said at once, the next ones together: a bad hour must not fill the journal.
XRUN_SILENCE_S = 10.0
# systemd's advice is half of WatchdogSec; a quarter leaves room for a tick that comes late.
WATCHDOG_FRACTION = 0.25
# Everything else on the machine may wait for a sentence to be written, the audio thread may not: lower than
# its priority. Still real time, or a busy machine would keep this thread from giving the interpreter back.
REPORTER_PRIORITY = 1

JOURNAL_SOCKET = "/run/systemd/journal/socket"


class Event(enum.Enum):
    """What is said, with its MESSAGE_ID (in apmpi.catalog too) and its priority (syslog)."""

    STARTED = "7e49ee7e82cd4ceda39fcac244c34a66", 5
    STOPPED = "acce15f3a4c247f0ba3ffb70adefbcb0", 5
    FIGURES = "3296f0870c8748d2858faedcc104b2a3", 6
    XRUN = "63654467293d425dafb709c35ad3e749", 4
    RELOADED = "aab1ec01371b4ac182a4011c7f7e3cd1", 5
    RELOAD_FAILED = "0f989861912744d1ac3ae22ed3893f67", 3
    ENDPOINT_FAILED = "8a490739a8584a689b9b76b5b3e20067", 3
    NOT_PERMITTED = "55e766fadd004446b7e76db2a9c9d080", 4
    PARKED = "b0a54101503d491abc65e1ded02fbc03", 4
    RESUMED = "c15c72f1bf6947899be577e1bfaae3a5", 5
    CONTINUED = "04be75cc710543cdaef7563f8613a959", 5
    STARTED_ANEW = "d030671e8d5a402ebe5ea0294ae5b177", 4
    WARNING = "34781a29b95a4175b754063fb055fa2b", 4

    def __init__(self, message_id: str, priority: int) -> None:
        self.message_id = message_id
        self.priority = priority


class CoreStats(Protocol):
    """What is used of apmpi.apm.Stats here."""

    @property
    def erle_db(self) -> float: ...
    @property
    def converged(self) -> bool: ...
    @property
    def reference_present(self) -> bool: ...


CORE_FIELDS = (
    "erle_db", "erl_db", "delay_ms", "delay_confidence", "drift_ppm", "converged", "double_talk",
    "reference_present", "microphone_clipping", "speech_probability", "noise_floor_dbfs", "agc_gain_db",
)  # fmt: skip


@dataclass(slots=True)
class Board:
    """What the two threads leave for each other. Each field is a reference that is replaced as a whole, by
    one thread only, so no lock is needed and nobody ever waits."""

    settings: Settings  # by the reporter: what the audio thread is to apply
    applied: Settings  # by the audio thread: what it has applied
    core: CoreStats | None = None  # by the audio thread
    parked: str = ""  # by the audio thread: what it waits for, one sentence
    stop: bool = False  # by the reporter


@dataclass(frozen=True, slots=True)
class Figures:
    """One interval, for people and for the journal."""

    frames: int
    latency: LatencySummary | None
    xruns: Mapping[str, int]
    slips: int
    processor_share: float
    features: Features
    core: CoreStats | None

    def fields(self) -> dict[str, str]:
        """Journal fields, as listed in the module's docstring."""
        values: dict[str, object] = {
            "frames": self.frames,
            "slips": self.slips,
            "processor_share": self.processor_share,
        }
        values |= xrun_values(self.xruns) | flag_values(self.features)
        if self.latency is not None:
            values["algorithmic_ms"] = self.latency.algorithmic_ms
            for name in ("total", "capture_wait", "processing", "playback_queue"):
                spread: Spread = getattr(self.latency, name)
                key = "latency" if name == "total" else name
                values[f"{key}_median_ms"] = spread.median_ms
                values[f"{key}_p99_ms"] = spread.p99_ms
                values[f"{key}_max_ms"] = spread.max_ms
        if self.core is not None:
            values |= {name: getattr(self.core, name) for name in CORE_FIELDS}
        return journal_fields(values)

    def sentence(self) -> str:
        """ "cancelling echo: 32 dB, latency 21 ms, 0 xruns"."""
        parts = [echo_state(self.core, self.features)]
        if self.latency is not None:
            parts.append(f"latency {self.latency.total.median_ms:.0f} ms")
        parts.append(counted(sum(self.xruns.values()), "xrun"))
        if self.slips:
            parts.append(counted(self.slips, "slip"))
        return ", ".join(parts)

    def line(self) -> str:
        """The sentence and what a person at a terminal wants beside it."""
        minutes, seconds = divmod(self.frames // FRAMES_PER_S, 60)
        line = f"{minutes}:{seconds:02d}  {self.sentence()}"
        if self.latency is not None:
            total = self.latency.total
            line += f", 99 % below {total.p99_ms:.1f} ms, at most {total.max_ms:.1f} ms"
        return f"{line}, processor {self.processor_share:.1%}"


def counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def echo_state(core: CoreStats | None, features: Features) -> str:
    if not features.echo_cancellation:
        return "echo cancellation is off"
    if core is None:
        return "starting"
    if not core.reference_present:
        return "nothing is played"
    return f"{'cancelling echo' if core.converged else 'learning the echo'}: {core.erle_db:.0f} dB"


def xrun_values(xruns: Mapping[str, int]) -> dict[str, object]:
    return {"xruns": sum(xruns.values()), **{f"xruns_{key}": count for key, count in xruns.items()}}


def flag_values(features: Features) -> dict[str, object]:
    return {field.name: getattr(features, field.name) for field in fields(features)}


def journal_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Upper case with the prefix; flags as 0 and 1, numbers with what is known of them, none that is no
    number."""
    texts = {}
    for name, value in values.items():
        if isinstance(value, bool | int):
            texts[f"APMPI_{name.upper()}"] = str(int(value))
        elif isinstance(value, float) and math.isfinite(value):
            texts[f"APMPI_{name.upper()}"] = f"{value:.3f}"
    return texts


class Voice(Protocol):
    """Where words go."""

    def say(self, event: Event, message: str, values: Mapping[str, str]) -> None: ...
    def show(self, figures: Figures, final: bool) -> None: ...

    interval_s: float  # between two show()


class Journal:
    """Structured entries. An entry is left out, and counted, rather than waited for."""

    def __init__(self, send: Callable[..., object], interval_s: float) -> None:
        self.interval_s = interval_s
        self._send = send
        self._left_out = 0
        # systemd-python holds the interpreter while it waits for journald; so ask first whether it would
        # wait.
        self._probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def say(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        if not self._takes_entries():
            self._left_out += 1
            return
        if self._left_out:
            message += f" ({self._left_out} earlier entries were left out: the journal did not take them)"
            self._left_out = 0
        self._send(
            message,
            MESSAGE_ID=event.message_id,
            PRIORITY=str(event.priority),
            SYSLOG_IDENTIFIER="apmpi",
            CODE_FILE=__file__,  # given, or the stack would be searched for it
            CODE_FUNC=event.name.lower(),
            **values,
        )

    def show(self, figures: Figures, final: bool) -> None:
        self.say(Event.FIGURES, figures.sentence(), figures.fields())

    def _takes_entries(self) -> bool:
        poll = select.poll()
        poll.register(self._probe, select.POLLOUT)
        try:
            self._probe.connect(JOURNAL_SOCKET)  # anew each time: journald may have been restarted
        except OSError:
            return False
        # A connected datagram socket is writable only if the receiver's queue has room.
        return any(events & select.POLLOUT for _, events in poll.poll(0))


class Terminal:
    """Standard error: one line that changes, or where that can't be, a line per interval."""

    def __init__(self, interval_s: float, *, to_journal: bool) -> None:
        self._live = sys.stderr.isatty()
        self._open_line = False
        self._to_journal = to_journal  # journald reads "<priority>" at the beginning of a line
        self.interval_s = min(interval_s, LIVE_LINE_S) if self._live else interval_s

    def say(self, event: Event, message: str, values: Mapping[str, str]) -> None:
        prefix = f"<{event.priority}>" if self._to_journal else "apmpi: "
        self._write(f"{self._end_line()}{prefix}{message}\n")

    def show(self, figures: Figures, final: bool) -> None:
        if not self._live:
            self._write(f"{'<6>' if self._to_journal else ''}{figures.line()}\n")
            return
        width = os.get_terminal_size(2).columns or None  # 0: a terminal that doesn't know
        self._write("\r\x1b[K" + (f"{figures.line()}\n" if final else figures.line()[:width]))
        self._open_line = not final

    def _end_line(self) -> str:
        ended, self._open_line = self._open_line, False
        return "\n" if ended else ""

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # a terminal that was closed is no reason to stop
            pass


def voice(interval_s: float) -> Voice:
    """The journal for a service, otherwise the terminal. systemd-python may be missing: then say so and go
    on."""
    if not stderr_is_journal():
        return Terminal(interval_s, to_journal=False)
    try:
        journal: Any = importlib.import_module("systemd.journal")
    except ImportError:
        terminal = Terminal(interval_s, to_journal=True)
        hint = "python3-systemd is not installed, so journal entries have no fields; install it"
        terminal.say(Event.WARNING, hint, {})
        return terminal
    return Journal(journal.send, interval_s)


def stderr_is_journal() -> bool:
    """Whether journald reads our standard error: then it would be rude not to speak its language."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def notify(state: str) -> None:
    """One datagram to systemd, if it started us (sd_notify(3)). Not through systemd-python: that holds the
    interpreter while it waits."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # abstract name
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(state.encode(), address)
        except OSError as error:
            logging.getLogger(__name__).warning("systemd does not hear us: %s", error.strerror)


def watchdog_s() -> float | None:
    """How long systemd waits for a sign of life, or None (sd_watchdog_enabled(3))."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(microseconds) / 1e6 if microseconds.isdigit() and meant == str(os.getpid()) else None


@dataclass(frozen=True, slots=True)
class _Moment:
    """Where figures begin or end."""

    time_s: float
    frames: int
    processor_s: float


class Reporter(threading.Thread):
    """Looks, speaks and takes the signals until finish()."""

    def __init__(
        self,
        voice: Voice,
        board: Board,
        latency: LatencyLog,
        xruns: Callable[[], dict[str, int]],
        slips: Callable[[], int],
        config_path: Path | None,
        signals_fd: int,
    ) -> None:
        """`signals_fd` gives each signal that arrives as a byte (signal.set_wakeup_fd)."""
        super().__init__(name="reporter", daemon=True)
        self._voice = voice
        self._board = board
        self._running = board.applied
        self._latency = latency
        self._xruns = xruns
        self._slips = slips
        self._config_path = config_path
        self._signals_fd = signals_fd
        self._signals = select.poll()
        self._signals.register(signals_fd, select.POLLIN)
        self._finished = False
        self._watchdog_s = watchdog_s()
        self._fed_s = 0.0
        self._fed_frames = 0
        self._ready = False
        self._shown = self._shown_before = self._now()
        self._parked_said = ""
        self._xruns_said = 0
        self._xruns_said_s = -XRUN_SILENCE_S

    def finish(self, problem: str | None) -> None:
        """Last figures, then that it stopped, or the problem that stopped it. Waits for the thread."""
        self._finished = True
        self.join()
        self._say_xruns(time.monotonic(), at_once=True)
        if self._latency.frames:
            self._show(final=True)
        if problem is not None:
            self._voice.say(Event.ENDPOINT_FAILED, problem, {})
        else:
            self._voice.say(Event.STOPPED, "stopped", {})
        notify(f"STOPPING=1\nSTATUS={problem or 'stopped'}")

    def run(self) -> None:
        give_way()
        try:
            while not self._finished:
                if self._signals.poll(TICK_S * 1000):
                    self._take(set(os.read(self._signals_fd, 64)))
                self._look(time.monotonic())
        finally:
            self._board.stop = True  # nobody must run on without a voice and deaf to signals

    def _take(self, signals: set[int]) -> None:
        if signals & {signal.SIGTERM, signal.SIGINT}:
            self._board.stop = True
            notify("STOPPING=1\nSTATUS=stopping")
        elif signal.SIGHUP in signals:
            self._reload()

    def _look(self, now_s: float) -> None:
        frames, parked = self._latency.frames, self._board.parked
        if (frames or parked) and not self._ready:
            self._ready = True
            notify(f"READY=1\nSTATUS={parked or self._figures(self._shown).sentence()}")
        self._feed_watchdog(now_s, frames, parked)
        self._say_parked(parked)
        self._say_xruns(now_s)
        if now_s - self._shown.time_s >= self._voice.interval_s and not self._finished:
            self._show(final=False)
            # The collector is off, for a collection stops all threads. What is left of this one's work is
            # little and collected at once.
            gc.collect()

    def _feed_watchdog(self, now_s: float, frames: int, parked: str) -> None:
        if self._watchdog_s is None or (frames == self._fed_frames and not parked):
            return
        if now_s - self._fed_s >= self._watchdog_s * WATCHDOG_FRACTION:
            notify("WATCHDOG=1")
            self._fed_s, self._fed_frames = now_s, frames

    def _say_parked(self, parked: str) -> None:
        """Once when it changes: what is waited for, or that all is back."""
        if parked == self._parked_said:
            return
        self._parked_said = parked
        event, message = (Event.PARKED, parked) if parked else (Event.RESUMED, "all devices are back")
        self._voice.say(event, message, {})
        notify(f"STATUS={message}")

    def _say_xruns(self, now_s: float, at_once: bool = False) -> None:
        xruns = self._xruns()
        fresh = sum(xruns.values()) - self._xruns_said
        if fresh and (at_once or now_s - self._xruns_said_s >= XRUN_SILENCE_S):
            where = ", ".join(f"{key} {count}" for key, count in xruns.items() if count)
            message = f"{counted(fresh, 'xrun')}, recovered; sound was lost (since the start: {where})"
            self._voice.say(Event.XRUN, message, journal_fields(xrun_values(xruns)))
            self._xruns_said += fresh
            self._xruns_said_s = now_s

    def _figures(self, since: _Moment) -> Figures:
        now = self._now()
        return Figures(
            frames=now.frames,
            latency=self._latency.summary(since.frames),
            xruns=self._xruns(),
            slips=self._slips(),
            processor_share=(now.processor_s - since.processor_s) / max(now.time_s - since.time_s, TICK_S),
            features=self._board.applied.features,
            core=self._board.core,
        )

    def _show(self, final: bool) -> None:
        now = self._now()
        # Figures of the last few frames alone would say little: the last report looks back one interval more.
        short = now.frames - self._shown.frames < self._voice.interval_s / 2 * FRAMES_PER_S
        figures = self._figures(self._shown_before if final and short else self._shown)
        if not self._board.parked or figures.frames != self._shown.frames:
            self._voice.show(figures, final)
        notify(f"STATUS={self._board.parked or figures.sentence()}")
        self._shown_before, self._shown = self._shown, now

    def _now(self) -> _Moment:
        return _Moment(time.monotonic(), self._latency.frames, time.process_time())

    def _reload(self) -> None:
        """Reads the configuration again; the audio thread applies it. On an error everything stays as it
        is."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            if self._config_path is None:
                raise ConfigError("there is no configuration file to read again")
            fresh = load(self._config_path)
        except ConfigError as error:
            message = f"{error}; the last good configuration stays in use"
            self._voice.say(Event.RELOAD_FAILED, message, {})
            notify(f"READY=1\nSTATUS={message}")
            return
        self._board.settings = fresh
        deadline_s = time.monotonic() + APPLY_TIMEOUT_S
        while self._board.applied is not fresh and time.monotonic() < deadline_s and not self._finished:
            time.sleep(0.01)
        message = f"reloaded {self._config_path}"
        if fixed := changed_at_restart(self._running, fresh):
            message += f"; needs a restart to take effect: {', '.join(fixed)}"
        self._voice.say(Event.RELOADED, message, journal_fields(flag_values(fresh.features)))
        notify(f"READY=1\nSTATUS={message}")


def changed_at_restart(running: Settings, fresh: Settings) -> list[str]:
    """Keys that differ and that a reload can't change: they are about devices, files and buffers."""
    live = ("features", "stream_delay_ms")
    names = (field.name for field in fields(Settings) if field.name not in live)
    return [name for name in names if getattr(running, name) != getattr(fresh, name)]


def give_way() -> None:
    """Puts the calling thread below the audio thread, if that one is real time."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REPORTER_PRIORITY))
