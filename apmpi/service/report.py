"""The reporter: a thread that reports the run to the journal or terminal and to systemd, and takes signals.

It reads what the audio thread publishes (apmpi.service.instruments), so that a slow journal or terminal costs
no frame, and so that no signal interrupts the audio thread. Neither waits for the other.

Journal entries (`journalctl -o json -t apmpi`) are an interface. Each has a MESSAGE for people and a
MESSAGE_ID (`Event`; `journalctl -x` explains them). The entry of Event.FIGURES, one per report interval, has
a field for each figure of apmpi.figures; one that does not apply is left out. Event.XRUN has APMPI_XRUNS*,
Event.RELOADED the features. While the microphone is waited for there are no figures.

What systemd is sent is in apmpi.service.systemd. A file shows whether sound flows (apmpi.service.sound_mark).
"""

import gc
import math
import os
import select
import signal
import threading
import time
from collections import deque
from pathlib import Path

from apmpi.api.apm import Stats
from apmpi.cards.realtime import give_way
from apmpi.errors import ConfigError
from apmpi.service.chime import Chime, is_due
from apmpi.service.instruments import Instruments, Interval, counted, flag_values, journal_fields, xrun_values
from apmpi.service.journal import Event, RateLimited
from apmpi.service.layout import taken_live
from apmpi.service.sound_mark import SoundMark
from apmpi.service.systemd import Pending, Watchdog, notify
from apmpi.service.yaml_reader import load
from apmpi.units import FRAMES_PER_S

# Interval of the thread's work: short for a person who stops the program, long enough to cost little.
TICK_S = 0.1
# The audio thread applies new settings with its next frame, 10 ms; a stalled device may delay it by up to
# 0.5 s.
APPLY_TIMEOUT_S = 1.0
# The first xrun is reported at once, further ones together: many of them must not fill the journal.
XRUN_SILENCE_S = 10.0
# The chain's figures are kept once a second, for at most a minute: an entry has to fit into a datagram.
SECOND_S = 1.0
SECONDS_MAX = 60
# A wrong microphone level is reported when it begins, again after it was right for so long,
MICROPHONE_RIGHT_S = 60.0
# and again after it has been wrong for so long.
MICROPHONE_AGAIN_S = 3600.0
# Flag of the chain's figures -> message.
MICROPHONE_PROBLEMS = {
    "microphone_clipping": "the microphone clips: its capture level is too high, lower it (alsamixer)",
    "microphone_too_quiet": "the microphone is too quiet for the gain control to help: raise its capture "
    "level (alsamixer) or gain_max_db, or bring it closer",
}


class MicrophoneLevel:
    """Decides when a wrong level of the microphone is reported. For one thread."""

    def __init__(self) -> None:
        self._wrong_s: dict[str, float] = {}  # by problem: time of its last occurrence,
        self._reported_s: dict[str, float] = {}  # and of its last report

    def due(self, core: Stats | None, now_s: float) -> list[str]:
        """Return the messages that are to be reported now."""
        messages = []
        for problem, message in MICROPHONE_PROBLEMS.items():
            if core is None or not getattr(core, problem):
                continue
            right_s = now_s - self._wrong_s.get(problem, -math.inf)
            reported_s = now_s - self._reported_s.get(problem, -math.inf)
            self._wrong_s[problem] = now_s
            if right_s >= MICROPHONE_RIGHT_S or reported_s >= MICROPHONE_AGAIN_S:
                self._reported_s[problem] = now_s
                messages.append(message)
        return messages


class Reporter(threading.Thread):
    """Reports and takes signals until finish(). All methods but __init__ and finish run in its own thread."""

    def __init__(
        self,
        log: RateLimited,
        instruments: Instruments,
        config_path: Path | None,
        signals_fd: int,
        mark: SoundMark | None,
    ) -> None:
        """`signals_fd` gives each signal that arrives as a byte (signal.set_wakeup_fd)."""
        super().__init__(name="reporter", daemon=True)
        self._log = log
        self._instruments = instruments
        self._board = instruments.board
        self._config_path = config_path
        self._signals_fd = signals_fd
        self._mark = mark
        settings = self._board.settings
        self._chimes = settings.chime and settings.speaker is not None and settings.far_end is not None
        self._signals = select.poll()
        self._signals.register(signals_fd, select.POLLIN)
        self._finished = False
        self._watchdog = Watchdog()
        self._seconds: deque[Stats] = deque(maxlen=SECONDS_MAX)
        self._noted_s, self._noted_frames = 0.0, 0
        self._refused = ""  # why the last reload was
        self._ready = False
        self._systemd = Pending()
        self._reported = self._reported_before = self._instruments.now()
        self._parked_reported = ""
        self._microphone = MicrophoneLevel()
        self._mono_reported: set[str] = set()
        self._xruns_reported = 0
        self._xruns_reported_s = -XRUN_SILENCE_S

    def finish(self, problem: str | None, *, with_figures: bool = True) -> None:
        """Report the last figures, then the end or the problem that caused it. Called once, from the main
        thread; waits for the reporter's own thread first.

        `with_figures` is False after an error in the program, which the figures might cause again.
        """
        self._finished = True
        self.join()
        if self._mark:
            self._mark.remove()
        if with_figures:
            self._report_mono()
            self._report_xruns(time.monotonic(), at_once=True)
            self._log.catch_up(at_once=True)
            if self._instruments.latency.frames:
                self._report_figures(final=True)
        if problem is not None:
            self._log.write(Event.ENDPOINT_FAILED, problem, {})
        else:
            self._log.write(Event.STOPPED, "stopped", {})
        notify("STOPPING=1", f"STATUS={problem or 'stopped'}")

    def run(self) -> None:
        """Work once a tick, and at once on a signal."""
        give_way()
        while not self._finished:
            if self._signals.poll(TICK_S * 1000):
                self._take(set(os.read(self._signals_fd, 64)))
            self._tick(time.monotonic())

    def _take(self, signals: set[int]) -> None:
        if signals & {signal.SIGTERM, signal.SIGINT}:
            self._board.stop = True
            notify("STOPPING=1", "STATUS=stopping")
        elif signal.SIGHUP in signals:
            self._reload()

    def _tick(self, now_s: float) -> None:
        board, frames, parked = self._board, self._instruments.latency.frames, self._board.parked
        if (frames or parked) and not self._ready:
            self._ready = True
            interval = self._instruments.interval(self._reported)
            self._systemd.send("READY=1", f"STATUS={self._state(interval)}")
        self._systemd.retry()
        if self._mark:
            self._mark.look(now_s, frames, parked)
            if self._chimes and self._mark.is_there:
                self._chimes = False
                self._chime()
        self._watchdog.feed(now_s, frames, board.beats, waiting=bool(parked))
        core = board.core
        self._note_second(core, now_s, frames)
        self._report_parked(parked)
        for message in self._microphone.due(core, now_s):
            self._log.write(Event.MICROPHONE_LEVEL, message, {})
        self._report_mono()
        self._report_xruns(now_s)
        self._log.catch_up()
        if now_s - self._reported.time_s >= self._log.interval_s and not self._finished:
            self._report_figures(final=False)
            # Automatic collection is off, because it stops all threads. The garbage of this thread is little
            # and is collected at once.
            gc.collect()

    def _chime(self) -> None:
        """Give the tones to the audio thread, if they are due."""
        settings = self._board.settings
        assert self._mark is not None and settings.far_end is not None
        if is_due(self._mark.path):
            self._board.chime = Chime(settings.sample_rate_hz, settings.far_end.channels)

    def _note_second(self, core: Stats | None, now_s: float, frames: int) -> None:
        if core is not None and frames != self._noted_frames and now_s - self._noted_s >= SECOND_S:
            self._seconds.append(core)
            self._noted_s, self._noted_frames = now_s, frames

    def _state(self, interval: Interval) -> str:
        """Return the sentence for `systemctl status`: what is wrong comes first."""
        return self._board.parked or f"{self._refused}{interval.sentence()}"

    def _report_parked(self, parked: str) -> None:
        """Report a change of what is waited for."""
        if parked == self._parked_reported:
            return
        self._parked_reported = parked
        event, message = (Event.PARKED, parked) if parked else (Event.RESUMED, "all devices are back")
        self._log.write(event, message, {})
        notify(f"STATUS={message}")

    def _report_mono(self) -> None:
        """Report each finding once: it changes with the position of the active talker, all day."""
        if (finding := self._board.mono) and finding not in self._mono_reported:
            self._mono_reported.add(finding)
            self._log.write(Event.CHANNELS, finding, {})

    def _report_xruns(self, now_s: float, at_once: bool = False) -> None:
        xruns = self._instruments.xruns()
        fresh = sum(xruns.values()) - self._xruns_reported
        if fresh and (at_once or now_s - self._xruns_reported_s >= XRUN_SILENCE_S):
            where = ", ".join(f"{key} {count}" for key, count in xruns.items() if count)
            message = f"{counted(fresh, 'xrun')}, recovered; sound was lost (since the start: {where})"
            self._log.write(Event.XRUN, message, journal_fields(xrun_values(xruns)))
            self._xruns_reported += fresh
            self._xruns_reported_s = now_s

    def _report_figures(self, final: bool) -> None:
        now = self._instruments.now()
        # The last few frames alone are too few for figures: the last report covers one interval more.
        short = now.frames - self._reported.frames < self._log.interval_s / 2 * FRAMES_PER_S
        since = self._reported_before if final and short else self._reported
        interval = self._instruments.interval(since, tuple(self._seconds))
        if not self._board.parked or interval.frames != self._reported.frames:
            self._log.report(interval, final)
        self._seconds.clear()
        notify(f"STATUS={self._state(interval)}")
        self._reported_before, self._reported = self._reported, now

    def _reload(self) -> None:
        """Read the configuration again; the audio thread applies it. After an error all stays as it is."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._systemd.send("RELOADING=1", f"MONOTONIC_USEC={now_us}")
        try:
            if self._config_path is None:
                raise ConfigError("there is no configuration file to read again")
            fresh = load(self._config_path)
        except ConfigError as error:
            message = f"{error}; the last good configuration stays in use"
            self._refused = f"reload refused: {message}; "
            self._log.write(Event.RELOAD_FAILED, message, {})
            self._systemd.send("READY=1", f"STATUS={message}")
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
        self._log.write(Event.RELOADED, message, journal_fields(flag_values(taken.features)))
        self._systemd.send("READY=1", f"STATUS={message}")
