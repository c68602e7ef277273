"""`apmpi monitor`: the running service, live in a terminal, or as lines of JSON for programs.

The figures come over the local socket (apmpi.service.protocol), ten lines a second; the screen fits into
80 by 24. The service may stop and start again meanwhile. The rows are those of apmpi.tools.figure_rows.
"""

import curses
import json
import locale
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from apmpi.errors import CommandError
from apmpi.figures import SIGNALS
from apmpi.service.live_figures import RETRY_S, LiveFigures
from apmpi.service.socket_client import Figures
from apmpi.tools.figure_rows import History, Part, Row, echo_row, machine_rows, near_rows, path_rows
from apmpi.units import FRAMES_PER_S

# Longest time until a terminal whose size changed is drawn again.
REDRAW_S = 0.2

# A line of the screen.
Line = list[Part]


def main(path: Path | None, as_json: bool, seconds: float | None) -> int:
    """Show the figures until q, Ctrl-C, a closed output, or for `seconds`. Returns the exit status. Raises
    EndpointError."""
    service, end_s = LiveFigures(path), time.monotonic() + (seconds or float("inf"))
    service.connect()
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


def _stream(service: LiveFigures, end_s: float) -> None:
    said = ""
    while time.monotonic() < end_s:
        for figures in service.next(RETRY_S):
            print(json.dumps(figures), flush=True)
        if service.problem != said:
            said = service.problem
            if said:
                print(f"apmpi: {said}; waiting for it", file=sys.stderr, flush=True)


def _show(service: LiveFigures, end_s: float) -> None:
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

    def __init__(self, service: LiveFigures, end_s: float) -> None:
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
            for figures in self._service.next(REDRAW_S, keyboard):
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
    lines += [[], *_rows([echo_row(figures)]), _erle_line(history, width, fancy), *_rows(path_rows(figures))]
    lines += [[], *_rows(near_rows(figures)), [], *_rows(machine_rows(figures, history))]
    if problem:
        return lines[:1] + [[(text, "dim") for text, _ in line] for line in lines[1:]]
    return lines


def _labelled(label: str, *parts: Part) -> Line:
    return [(f"{label:<{LABEL_WIDTH}}", "dim"), *parts]


def _rows(rows: Iterable[Row]) -> list[Line]:
    return [_labelled(row.label, *row.parts) for row in rows]


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


def _erle_line(history: History, width: int, fancy: bool) -> Line:
    room = max(width - LABEL_WIDTH - 1, 1)
    blocks = BLOCKS if fancy else PLAIN_BLOCKS
    steps = [
        blocks[min(max(round(value / ERLE_SCALE_DB * (len(blocks) - 1)), 0), len(blocks) - 1)]
        for value in list(history.erle_db)[-room:]
    ]
    return _labelled("each second", ("".join(steps), "good"))
