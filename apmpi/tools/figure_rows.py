"""Rows of the running service's figures for people, as `apmpi monitor` and `apmpi web` show them.

The phrases of the chain's figures are in apmpi.figures.
"""

import re
from collections import deque
from dataclasses import dataclass

from apmpi.figures import CHAIN, FEATURES
from apmpi.service.socket_client import Figures
from apmpi.units import FRAMES_PER_S

# A part of a text, and its style: "" (plain), "dim", "good" or "bad".
Part = tuple[str, str]

# Features with a shorter name on the screen than in the configuration.
SHORT_NAMES = {
    "noise_suppression": "noise",
    "high_pass_filter": "high-pass",
    "auto_gain_control": "gain",
    "learned_gain": "learned",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of figures."""

    label: str
    parts: tuple[Part, ...]


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


def echo_row(figures: Figures) -> Row:
    """Return the row of the echo's reduction."""
    return Row("echo", ((_phrases("echo", figures), "good" if figures.get("converged") else ""),))


def path_rows(figures: Figures) -> list[Row]:
    """Return the rows of the echo's delay and of the clocks' drift."""
    delay_ms = figures.get("delay_ms")
    known = delay_ms is not None and delay_ms >= 0
    drift = [
        f"{key[10:].replace('_', ' ')} {_number(figures[key], sign=True)}"
        for key in figures
        if key.startswith("drift_ppm_")
    ]
    return [
        Row("delay", ((_phrases("delay", figures) if known else "not known yet", ""),)),
        Row("drift", ((", ".join([*drift, _phrases("drift", figures)]) + " ppm", ""),)),
    ]


def near_rows(figures: Figures) -> list[Row]:
    """Return the rows of the near end."""
    return [Row(line, ((_phrases(line, figures), ""),)) for line in ("speech", "noise", "gain")]


def machine_rows(figures: Figures, history: History) -> list[Row]:
    """Return the rows of latency, lost sound, processor, features and flags."""
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
    flags = tuple(
        (f"{row.text}   ", "bad" if row.name.startswith("microphone") else "good")
        for row in CHAIN
        if row.line == "now" and figures.get(row.name)
    )
    return [
        Row("latency", ((latency, ""),)),
        Row("", ((f"= {sums}", "dim"),)),
        Row("xruns", ((lost, "bad" if xruns else ""), (f", slips {figures.get('slips', 0)}", ""))),
        Row("processor", (("?" if share is None else f"{share:.1%} of one core", ""),)),
        Row("switched on", ((", ".join(on) or "nothing", ""),)),
        Row("now", flags),
    ]


def _phrases(line: str, figures: Figures) -> str:
    """Return what the rows of apmpi.figures have for that line; a figure without a value is shown as "?"."""
    phrases = []
    for row in CHAIN:
        value = figures.get(row.name)
        if row.line != line or (row.unknown is not None and value in (None, row.unknown)):
            continue
        phrases.append(re.sub(r"{.*}", "?", row.text) if value is None else row.text.format(value))
    return "".join(phrases)


def _number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    if value is None:
        return "?"
    return f"{value:{'+' if sign else ''}.{digits}f}"
