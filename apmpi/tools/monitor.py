"""`apmpi monitor`: the running service, live in a terminal, or as lines of JSON for programs.

The figures come over the local socket (apmpi.service.protocol), ten lines a second; the screen fits into
80 by 24. The service may stop and start again meanwhile. The phrases for the chain's figures are in
apmpi.figures.
"""

import curses
import json
import locale
import os
import re
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apmpi.errors import CommandError, EndpointError
from apmpi.figures import CHAIN, FEATURES, SIGNALS
from apmpi.service.socket_client import Figures, Subscription, figures_of
from apmpi.units import FRAMES_PER_S

# Interval of the search for a service that has stopped.
RETRY_S = 0.5
# Longest time until a terminal whose size changed is drawn again.
REDRAW_S = 0.2

# A line of the screen: parts of text, each in one of STYLES.
Line = list[tuple[str, str]]


class Service:
    """Connection to the service, made again after the service has stopped.

    path      of its socket
    problem   why there are no figures, as a sentence; "" while there are
    """

    def __init__(self, path: Path | None) -> None:
        """Connect. Raises EndpointError if there is no service."""
        self.problem = ""
        self._path = path
        self._retry_s = 0.0
        self._subscription: Subscription | None = Subscription("figures", path)
        self.path = self._subscription.path

    def figures(self, timeout_s: float, keyboard: int | None = None) -> list[Figures]:
        """Return the figures that have come, oldest first; wait for them or a key, at most `timeout_s`."""
        if self._subscription is None and time.monotonic() >= self._retry_s:
            self._retry_s = time.monotonic() + RETRY_S
            try:
                self._subscription = Subscription("figures", self._path)
                self.path = self._subscription.path
            except EndpointError as error:
                self.problem = str(error)
        sources: list[Any] = [source for source in (self._subscription, keyboard) if source is not None]
        ready, _, _ = select.select(sources, [], [], timeout_s)
        if self._subscription is None or self._subscription not in ready:
            return []
        try:
            lines = self._subscription.next_lines()
        except EndpointError as error:
            self._subscription.close()
            self._subscription, self.problem = None, str(error)
            return []
        self.problem = ""
        return [figures for line in lines if (figures := figures_of(line))]


def main(path: Path | None, as_json: bool, seconds: float | None) -> int:
    """Show the figures until q, Ctrl-C, a closed output, or for `seconds`. Returns the exit status. Raises
    EndpointError."""
    service, end_s = Service(path), time.monotonic() + (seconds or float("inf"))
    try:
        if as_json:
            _stream(service, end_s)
        else:
            _show(service, end_s)
    except KeyboardInterrupt:
        pass  # the usual end
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has ended: no error
    return 0


def _stream(service: Service, end_s: float) -> None:
    said = ""
    while time.monotonic() < end_s:
        for figures in service.figures(RETRY_S):
            print(json.dumps(figures), flush=True)
        if service.problem != said:
            said = service.problem
            if said:
                print(f"apmpi: {said}; waiting for it", file=sys.stderr, flush=True)


def _show(service: Service, end_s: float) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("monitor: not in a terminal, expected one, or --json")
    locale.setlocale(locale.LC_ALL, "")
    try:
        curses.setupterm()
    except curses.error:
        terminal = os.environ.get("TERM", "")
        raise CommandError(f"TERM: '{terminal}' given, expected a terminal known here") from None
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # restores the screen
    try:
        curses.wrapper(_Screen(service, end_s).run)
    finally:
        signal.signal(signal.SIGTERM, before)


class _Screen:
    """Draws the figures until q is pressed."""

    def __init__(self, service: Service, end_s: float) -> None:
        self._service = service
        self._end_s = end_s
        self._figures: Figures = {}
        self._history = History()
        self._fancy = locale.nl_langinfo(locale.CODESET) == "UTF-8"

    def run(self, window: curses.window) -> None:
        """Read figures and draw them, for curses.wrapper()."""
        styles = _styles()
        window.nodelay(True)
        keyboard = sys.stdin.fileno()
        while time.monotonic() < self._end_s:
            for figures in self._service.figures(REDRAW_S, keyboard):
                self._figures = figures
                self._history.add(figures)
            if self._quits(window):
                return
            height, width = window.getmaxyx()
            lines = screen(self._figures, self._history, self._service.problem, width, self._fancy)
            if len(lines) < height:
                lines.append(_labelled("looks in at", (str(self._service.path), "dim")))
            window.erase()
            for row, line in enumerate(lines[:height]):
                column = 0
                for text, style in line:
                    # The last cell of the last row can't be written without scrolling.
                    room = width - column - (row == height - 1)
                    if room > 0:
                        window.addnstr(row, column, text, room, styles[style])
                    column += len(text)
            window.refresh()

    def _quits(self, window: curses.window) -> bool:
        while (key := window.getch()) != curses.ERR:
            if key in (ord("q"), ord("Q")):
                return True
        # A terminal that has gone gives an end, again and again, instead of keys.
        return not os.isatty(0)


def _styles() -> dict[str, int]:
    """Return the attribute of each style, in colours if the terminal has them."""
    styles = {"": curses.A_NORMAL, "bold": curses.A_BOLD, "dim": curses.A_DIM}
    styles |= {"good": curses.A_NORMAL, "bad": curses.A_REVERSE}
    if curses.has_colors():
        curses.use_default_colors()
        curses.init_pair(1, curses.COLOR_GREEN, -1)
        curses.init_pair(2, curses.COLOR_RED, -1)
        styles |= {"good": curses.color_pair(1), "bad": curses.color_pair(2) | curses.A_BOLD}
    return styles


# ---- contents of the screen

LABEL_WIDTH = 13
SCALE_DBFS = (-72, 0)
ERLE_SCALE_DB = 50.0  # the highest that occurs
BLOCKS, PLAIN_BLOCKS = " ▁▂▃▄▅▆▇█", " .:-=+*#%"
# Features with a shorter name on the screen than in the configuration.
SHORT_NAMES = {
    "noise_suppression": "noise",
    "high_pass_filter": "high-pass",
    "auto_gain_control": "gain",
    "learned_gain": "learned",
}


class History:
    """Figures over time.

    erle_db    a value for each second of the last 5 minutes
    worst_ms   largest latency of the last minute
    """

    def __init__(self) -> None:
        self.erle_db: deque[float] = deque(maxlen=300)
        self._latencies_ms: deque[float] = deque(maxlen=600)
        self._second = -1

    @property
    def worst_ms(self) -> float | None:
        return max(self._latencies_ms, default=None)

    def add(self, figures: Figures) -> None:
        """Add a line's figures."""
        if (latency_ms := figures.get("latency_max_ms")) is not None:
            self._latencies_ms.append(latency_ms)
        second = int(figures.get("frames") or 0) // FRAMES_PER_S
        if second != self._second:
            self._second = second
            self.erle_db.append(figures.get("erle_db") or 0.0)


def screen(figures: Figures, history: History, problem: str, width: int, fancy: bool) -> list[Line]:
    """Return the screen's lines, for `width` columns.

    `problem` is why there is no service, "" while there is one; `fancy` is whether the terminal has block
    characters."""
    minutes, seconds = divmod(int(figures.get("frames") or 0) // FRAMES_PER_S, 60)
    clock = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}  q quits"
    state = f"waiting for the service: {problem}" if problem else str(figures.get("state", "looking"))
    style = "bad" if problem or figures.get("waiting") else "bold"
    room = max(width - len(clock) - 1, 0)
    lines: list[Line] = [[(f"{state[:room]:<{room}} ", style), (clock, "dim")]]
    if len(state) > room:  # the rest of it below, as far as it goes
        lines.append([(state[room:], style)])
    else:
        lines.append([])
    if not figures:
        return lines
    lines += _level_lines(figures, width, fancy)
    lines += [[], *_echo_lines(figures, history, width, fancy)]
    lines += [[], *_near_lines(figures), [], *_machine_lines(figures, history)]
    if problem:
        return lines[:1] + [[(text, "dim") for text, _ in line] for line in lines[1:]]
    return lines


def _labelled(label: str, *parts: tuple[str, str]) -> Line:
    return [(f"{label:<{LABEL_WIDTH}}", "dim"), *parts]


def _level_lines(figures: Figures, width: int, fancy: bool) -> list[Line]:
    room = max(width - LABEL_WIDTH - 22, 10)
    low, high = SCALE_DBFS
    scale = [" "] * room
    for mark in range(low + 12, high, 12):
        text = str(mark)
        at = round((mark - low) / (high - low) * room) - len(text)
        scale[at : at + len(text)] = text
    lines = [_labelled("level", ("".join(scale[:room]), "dim"), ("   dBFS    peak", "dim"))]
    for name in SIGNALS:
        level, peak = figures.get(f"{name}_dbfs"), figures.get(f"{name}_peak_dbfs")
        if level is None or peak is None:
            lines.append(_labelled(name.replace("_", " "), ("no sound", "dim")))
            continue
        filled, top = (
            min(max(round((value - low) / (high - low) * room), 0), room) for value in (level, peak)
        )
        bar = ("█" if fancy else "#") * filled
        if top > filled:
            bar = f"{bar:<{top - 1}}" + ("▏" if fancy else "|")
        style = "bad" if peak > -0.1 else "good"
        lines.append(
            _labelled(name.replace("_", " "), (f"{bar:<{room}}", style), (f" {level:6.1f}  {peak:6.1f}", ""))
        )
    return lines


def _echo_lines(figures: Figures, history: History, width: int, fancy: bool) -> list[Line]:
    delay_ms = figures.get("delay_ms")
    drift = [
        f"{key[10:].replace('_', ' ')} {_number(figures[key], sign=True)}"
        for key in figures
        if key.startswith("drift_ppm_")
    ]
    room = max(width - LABEL_WIDTH - 1, 1)
    blocks = BLOCKS if fancy else PLAIN_BLOCKS
    steps = [
        blocks[min(max(round(value / ERLE_SCALE_DB * (len(blocks) - 1)), 0), len(blocks) - 1)]
        for value in list(history.erle_db)[-room:]
    ]
    known = delay_ms is not None and delay_ms >= 0
    return [
        _labelled("echo", (_phrases("echo", figures), "good" if figures.get("converged") else "")),
        _labelled("each second", ("".join(steps), "good")),
        _labelled("delay", (_phrases("delay", figures) if known else "not known yet", "")),
        _labelled("drift", (", ".join([*drift, _phrases("drift", figures)]) + " ppm", "")),
    ]


def _near_lines(figures: Figures) -> list[Line]:
    return [_labelled(line, (_phrases(line, figures), "")) for line in ("speech", "noise", "gain")]


def _phrases(line: str, figures: Figures) -> str:
    """Return what the rows of apmpi.figures have for that line; a figure without a value is shown as "?"."""
    phrases = []
    for row in CHAIN:
        value = figures.get(row.name)
        if row.line != line or (row.unknown is not None and value in (None, row.unknown)):
            continue
        phrases.append(re.sub(r"{.*}", "?", row.text) if value is None else row.text.format(value))
    return "".join(phrases)


def _machine_lines(figures: Figures, history: History) -> list[Line]:
    parts = {"capture": "capture_wait_median_ms", "processing": "processing_median_ms"}
    parts |= {"algorithm": "algorithmic_ms", "queue": "playback_queue_median_ms"}
    sums = " + ".join(f"{name} {_number(figures.get(key))}" for name, key in parts.items())
    latency = (
        f"{_number(figures.get('latency_median_ms'))} ms, at most {_number(history.worst_ms)} in a minute"
    )
    xruns = int(figures.get("xruns") or 0)
    where = [key for key in figures if key.startswith("xruns_") and figures[key]]
    lost = f"{xruns}" + (f": {', '.join(f'{key[6:]} {figures[key]}' for key in where)}" if where else "")
    share = figures.get("processor_share")
    on = [SHORT_NAMES.get(name, name.replace("_", " ")) for name in FEATURES if figures.get(name)]
    flags: Sequence[tuple[str, str]] = [
        (f"{row.text}   ", "bad" if row.name.startswith("microphone") else "good")
        for row in CHAIN
        if row.line == "now" and figures.get(row.name)
    ]
    return [
        _labelled("latency", (latency, "")),
        _labelled("", (f"= {sums}", "dim")),
        _labelled("xruns", (lost, "bad" if xruns else ""), (f", slips {figures.get('slips', 0)}", "")),
        _labelled("processor", ("?" if share is None else f"{share:.1%} of one core", "")),
        _labelled("switched on", (", ".join(on) or "nothing", "")),
        _labelled("now", *flags),
    ]


def _number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    if value is None:
        return "?"
    return f"{value:{'+' if sign else ''}.{digits}f}"
