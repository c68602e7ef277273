"""What the daemon says (apmpi.service.journal is where it goes).

A thread of its own looks at what the audio thread leaves behind (`Board`, `LatencyLog`, xrun counts) and
does all the talking, so that a slow journal or terminal costs no frame. It also takes the signals: the
audio thread is never interrupted. Neither waits for the other.

Journal entries (`journalctl -o json -t apmpi`) are an interface. Each has a MESSAGE for people and a
MESSAGE_ID (`Event`; `journalctl -x` explains them). The entry of Event.FIGURES, one per report interval, has
a field for each figure of apmpi.figures; one that does not apply is left out.
Event.XRUN has APMPI_XRUNS*, Event.RELOADED the flags. While the microphone is waited for there are no
figures.

systemd (Type=notify-reload): READY=1 after the first frame or when a device is waited for, STATUS= with each
report, WATCHDOG=1 only while frames are being finished or a device is waited for, RELOADING=1 ... READY=1
around SIGHUP, STOPPING=1 at the end. Whether sound flows shows in a file (apmpi.service.sound_mark).
"""

import gc
import math
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apmpi.api.apm import Stats
from apmpi.cards.latency import LatencyLog, LatencySummary
from apmpi.cards.realtime import give_way
from apmpi.errors import ConfigError
from apmpi.figures import CHAIN, FEATURES, QUANTILES, each_s_field, journal_field
from apmpi.service.journal import Calm, Event, notify
from apmpi.service.layout import taken_live
from apmpi.service.sound_mark import SoundMark
from apmpi.service.yaml_reader import load
from apmpi.settings import Features, Settings
from apmpi.units import FRAMES_PER_S

# How often the thread looks: soon enough for a person who stops the program, rare enough to cost nothing.
TICK_S = 0.1
# The audio thread takes new settings with its next frame, 10 ms; a device that stalls may hold it up to 0.5
# s.
APPLY_TIMEOUT_S = 1.0
# An xrun is said at once, the next ones together: a bad hour must not fill the journal.
XRUN_SILENCE_S = 10.0
# systemd's advice is half of WatchdogSec; a quarter leaves room for a tick that comes late.
WATCHDOG_FRACTION = 0.25
# The canceller's figures are noted once a second, for at most a minute: an entry has to fit into a datagram.
SECOND_S = 1.0
SECONDS_MAX = 60


# What is wrong with the microphone's level is said when it begins, and again only when it has been right for
# so long, or is still wrong an hour later.
MICROPHONE_RIGHT_S = 60.0
MICROPHONE_AGAIN_S = 3600.0
MICROPHONE_PROBLEMS = {
    "microphone_clipping": "the microphone clips: its capture level is too high, lower it (alsamixer)",
    "microphone_too_quiet": "the microphone is too quiet for the gain control to help: raise its capture "
    "level (alsamixer) or gain_max_db, or bring it closer",
}


@dataclass(slots=True)
class Board:
    """What the two threads leave for each other. Each field is a reference that is replaced as a whole, by
    one thread only, so no lock is needed and nobody ever waits."""

    settings: Settings  # by the reporter: what the audio thread is to apply
    applied: Settings  # by the audio thread: what it has applied
    core: Stats | None = None  # by the audio thread
    parked: str = ""  # by the audio thread: what it waits for, one sentence
    mono: str = ""  # by the audio thread: what is done to channels that a mean would harm, in sentences
    beats: int = 0  # by the audio thread: grows with each frame, and while it waits
    stop: bool = False  # by the reporter


@dataclass(frozen=True, slots=True)
class Figures:
    """One interval, for people and for the journal."""

    frames: int
    latency: LatencySummary | None
    xruns: Mapping[str, int]
    slips: int
    drift_ppm: Mapping[str, float]
    processor_share: float
    features: Features
    core: Stats | None
    seconds: Sequence[Stats] = ()

    def values(self) -> dict[str, object]:
        """Return the figures of apmpi.figures by name; those that do not apply are left out."""
        values: dict[str, object] = {
            "frames": self.frames,
            "slips": self.slips,
            "processor_share": self.processor_share,
        }
        values |= xrun_values(self.xruns) | flag_values(self.features)
        values |= {f"drift_ppm_{key}": ppm for key, ppm in self.drift_ppm.items()}
        if self.latency is not None:
            values["algorithmic_ms"] = self.latency.algorithmic_ms
            for name in ("total", "capture_wait", "wake_up", "processing", "playback_queue"):
                key = "latency" if name == "total" else name
                spread = getattr(self.latency, name)
                values |= {f"{key}_{part}_ms": getattr(spread, f"{part}_ms") for part in QUANTILES}
        if self.core is not None:
            values |= {row.name: getattr(self.core, row.name) for row in CHAIN}
        return values

    def fields(self) -> dict[str, str]:
        """Return the journal's fields."""
        texts = journal_fields(self.values())
        for row in CHAIN if self.seconds else ():
            if row.each_s:
                history = (_text(getattr(second, row.name)) or "nan" for second in self.seconds)
                texts[each_s_field(row.name)] = " ".join(history)
        return texts

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


def echo_state(core: Stats | None, features: Features) -> str:
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
    return {name: bool(getattr(features, name)) for name in FEATURES}


def journal_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Return the values as the journal's fields; those without a value are left out."""
    texts = {journal_field(name): _text(value) for name, value in values.items()}
    return {name: text for name, text in texts.items() if text}


def _text(value: object) -> str:
    """Flags as 0 and 1, numbers with what is known of them; nothing for what is no number."""
    if isinstance(value, bool | int):
        return str(int(value))
    return f"{value:.3f}" if isinstance(value, float) and math.isfinite(value) else ""


def watchdog_s() -> float | None:
    """How long systemd waits for a sign of life, or None (sd_watchdog_enabled(3))."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(microseconds) / 1e6 if microseconds.isdigit() and meant == str(os.getpid()) else None


@dataclass(frozen=True, slots=True)
class Moment:
    """Where figures begin or end."""

    time_s: float
    frames: int
    processor_s: float


@dataclass(frozen=True, slots=True)
class Instruments:
    """What can be read off a running loop, from any thread, without the audio thread noticing."""

    board: Board
    latency: LatencyLog
    xruns: Callable[[], dict[str, int]]
    slips: Callable[[], int]
    drift_ppm: Callable[[], dict[str, float]]

    def now(self) -> Moment:
        return Moment(time.monotonic(), self.latency.frames, time.process_time())

    def figures(self, since: Moment, seconds: Sequence[Stats] = ()) -> Figures:
        """Of the time since then."""
        now = self.now()
        return Figures(
            frames=now.frames,
            latency=self.latency.summary(since.frames),
            xruns=self.xruns(),
            slips=self.slips(),
            drift_ppm=self.drift_ppm(),
            processor_share=(now.processor_s - since.processor_s) / max(now.time_s - since.time_s, TICK_S),
            features=self.board.applied.features,
            core=self.board.core,
            seconds=seconds,
        )


class Reporter(threading.Thread):
    """Looks, speaks and takes the signals until finish()."""

    def __init__(
        self,
        voice: Calm,
        instruments: Instruments,
        config_path: Path | None,
        signals_fd: int,
        mark: SoundMark | None,
    ) -> None:
        """`signals_fd` gives each signal that arrives as a byte (signal.set_wakeup_fd)."""
        super().__init__(name="reporter", daemon=True)
        self._voice = voice
        self._instruments = instruments
        self._board = instruments.board
        self._config_path = config_path
        self._signals_fd = signals_fd
        self._mark = mark
        self._signals = select.poll()
        self._signals.register(signals_fd, select.POLLIN)
        self._finished = False
        self._watchdog_s = watchdog_s()
        self._fed_s = 0.0
        self._fed_frames = self._fed_beats = 0
        self._seconds: deque[Stats] = deque(maxlen=SECONDS_MAX)
        self._noted_s, self._noted_frames = 0.0, 0
        self._refused = ""  # why the last reload was
        self._ready = False
        self._unread: deque[tuple[str, ...]] = deque()  # what systemd waits for and has not read yet
        self._shown = self._shown_before = self._instruments.now()
        self._parked_said = ""
        self._microphone_wrong_s: dict[str, float] = {}  # when each problem was last seen,
        self._microphone_said_s: dict[str, float] = {}  # and last said
        self._mono_said: set[str] = set()
        self._xruns_said = 0
        self._xruns_said_s = -XRUN_SILENCE_S

    def finish(self, problem: str | None, *, with_figures: bool = True) -> None:
        """Last figures, then that it stopped, or the problem that stopped it. Waits for the thread.

        `with_figures` is False after an error in the program, which might be met again in them.
        """
        self._finished = True
        self.join()
        if self._mark:
            self._mark.remove()
        if with_figures:
            self._say_mono()
            self._say_xruns(time.monotonic(), at_once=True)
            self._voice.catch_up(at_once=True)
            if self._instruments.latency.frames:
                self._show(final=True)
        if problem is not None:
            self._voice.say(Event.ENDPOINT_FAILED, problem, {})
        else:
            self._voice.say(Event.STOPPED, "stopped", {})
        notify("STOPPING=1", f"STATUS={problem or 'stopped'}")

    def run(self) -> None:
        give_way()
        while not self._finished:
            if self._signals.poll(TICK_S * 1000):
                self._take(set(os.read(self._signals_fd, 64)))
            self._look(time.monotonic())

    def _take(self, signals: set[int]) -> None:
        if signals & {signal.SIGTERM, signal.SIGINT}:
            self._board.stop = True
            notify("STOPPING=1", "STATUS=stopping")
        elif signal.SIGHUP in signals:
            self._reload()

    def _look(self, now_s: float) -> None:
        frames, parked = self._instruments.latency.frames, self._board.parked
        if (frames or parked) and not self._ready:
            self._ready = True
            self._notify_until_read("READY=1", f"STATUS={self._state(self._figures(self._shown))}")
        self._notify_unread()
        if self._mark:
            self._mark.look(now_s, frames, parked)
        self._feed_watchdog(now_s, frames, parked)
        self._note_second(now_s, frames)
        self._say_parked(parked)
        self._say_microphone(now_s)
        self._say_mono()
        self._say_xruns(now_s)
        self._voice.catch_up()
        if now_s - self._shown.time_s >= self._voice.interval_s and not self._finished:
            self._show(final=False)
            # The collector is off, for a collection stops all threads. What is left of this one's work is
            # little and collected at once.
            gc.collect()

    def _notify_until_read(self, *assignments: str) -> None:
        """Sends what systemd waits for, again with each look until it has been read."""
        self._unread.append(assignments)
        self._notify_unread()

    def _notify_unread(self) -> None:
        while self._unread and notify(*self._unread[0]):
            self._unread.popleft()

    def _feed_watchdog(self, now_s: float, frames: int, parked: str) -> None:
        alive = self._board.beats != self._fed_beats if parked else frames != self._fed_frames
        if self._watchdog_s is None or not alive:
            return
        if now_s - self._fed_s >= self._watchdog_s * WATCHDOG_FRACTION:
            notify("WATCHDOG=1")
            self._fed_s, self._fed_frames, self._fed_beats = now_s, frames, self._board.beats

    def _note_second(self, now_s: float, frames: int) -> None:
        core = self._board.core
        if core is not None and frames != self._noted_frames and now_s - self._noted_s >= SECOND_S:
            self._seconds.append(core)
            self._noted_s, self._noted_frames = now_s, frames

    def _state(self, figures: Figures) -> str:
        """One sentence for `systemctl status`: what is wrong, if something is."""
        return self._board.parked or f"{self._refused}{figures.sentence()}"

    def _say_parked(self, parked: str) -> None:
        """Once when it changes: what is waited for, or that all is back."""
        if parked == self._parked_said:
            return
        self._parked_said = parked
        event, message = (Event.PARKED, parked) if parked else (Event.RESUMED, "all devices are back")
        self._voice.say(event, message, {})
        notify(f"STATUS={message}")

    def _say_microphone(self, now_s: float) -> None:
        for problem, sentence in MICROPHONE_PROBLEMS.items():
            if self._board.core is None or not getattr(self._board.core, problem):
                continue
            right_s = now_s - self._microphone_wrong_s.get(problem, -math.inf)
            said_s = now_s - self._microphone_said_s.get(problem, -math.inf)
            self._microphone_wrong_s[problem] = now_s
            if right_s >= MICROPHONE_RIGHT_S or said_s >= MICROPHONE_AGAIN_S:
                self._microphone_said_s[problem] = now_s
                self._voice.say(Event.MICROPHONE_LEVEL, sentence, {})

    def _say_mono(self) -> None:
        """Each finding once: while one speaks here and another one there, they change all day."""
        if (finding := self._board.mono) and finding not in self._mono_said:
            self._mono_said.add(finding)
            self._voice.say(Event.CHANNELS, finding, {})

    def _say_xruns(self, now_s: float, at_once: bool = False) -> None:
        xruns = self._instruments.xruns()
        fresh = sum(xruns.values()) - self._xruns_said
        if fresh and (at_once or now_s - self._xruns_said_s >= XRUN_SILENCE_S):
            where = ", ".join(f"{key} {count}" for key, count in xruns.items() if count)
            message = f"{counted(fresh, 'xrun')}, recovered; sound was lost (since the start: {where})"
            self._voice.say(Event.XRUN, message, journal_fields(xrun_values(xruns)))
            self._xruns_said += fresh
            self._xruns_said_s = now_s

    def _figures(self, since: Moment) -> Figures:
        return self._instruments.figures(since, tuple(self._seconds))

    def _show(self, final: bool) -> None:
        now = self._instruments.now()
        # Figures of the last few frames alone would say little: the last report looks back one interval more.
        short = now.frames - self._shown.frames < self._voice.interval_s / 2 * FRAMES_PER_S
        figures = self._figures(self._shown_before if final and short else self._shown)
        if not self._board.parked or figures.frames != self._shown.frames:
            self._voice.show(figures, final)
        self._seconds.clear()
        notify(f"STATUS={self._state(figures)}")
        self._shown_before, self._shown = self._shown, now

    def _reload(self) -> None:
        """Reads the configuration again; the audio thread applies it. On an error everything stays as it
        is."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify_until_read("RELOADING=1", f"MONOTONIC_USEC={now_us}")
        try:
            if self._config_path is None:
                raise ConfigError("there is no configuration file to read again")
            fresh = load(self._config_path)
        except ConfigError as error:
            message = f"{error}; the last good configuration stays in use"
            self._refused = f"reload refused: {message}; "
            self._voice.say(Event.RELOAD_FAILED, message, {})
            self._notify_until_read("READY=1", f"STATUS={message}")
            return
        self._refused = ""
        taken, waiting = taken_live(self._board.settings, fresh)
        self._board.settings = taken
        deadline_s = time.monotonic() + APPLY_TIMEOUT_S
        while self._board.applied is not taken and time.monotonic() < deadline_s and not self._finished:
            time.sleep(0.01)
        message = f"reloaded {self._config_path}"
        if waiting:
            message += f"; needs a restart to take effect: {', '.join(waiting)}"
        self._voice.say(Event.RELOADED, message, journal_fields(flag_values(taken.features)))
        self._notify_until_read("READY=1", f"STATUS={message}")
