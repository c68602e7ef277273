"""Figures of spans of time, from the entries of the journal (apmpi.service.history)."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from apmpi.figures import CLOCKS, DEVICES
from apmpi.service.history import Entry
from apmpi.service.instruments import counted
from apmpi.service.journal import Event
from apmpi.units import FRAMES_PER_S

# Most messages that a span keeps; of further ones it keeps the count.
MESSAGES_MAX = 5
# Names of the drifts in apmpi.figures -> for people.
DRIFTS = {f"drift_ppm_{clock}": clock for clock in CLOCKS} | {"drift_ppm": "in the sound"}
# Figures that count from a run's start.
COUNTED = ("frames", *(f"xruns_{device}" for device in DEVICES))


@dataclass(slots=True)
class Mean:
    """Mean of the values added; nan without any."""

    total: float = 0.0
    count: int = 0

    def add(self, values: Iterable[float]) -> None:
        """Add the values; nan is left out."""
        for value in values:
            if not math.isnan(value):
                self.total += value
                self.count += 1

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else math.nan


@dataclass(slots=True)
class Span:
    """Figures of one span of time.

    begin_s           since 1970
    reports           count of the entries with figures
    counts            growth of the figures COUNTED
    latency_max_ms    largest latency of a frame, and
    processing_max_ms largest processing time of one; nan: not known
    erle_db           of the seconds with far-end sound
    drift_ppm         by name in apmpi.figures
    events            count of the other entries by kind; None: systemd reports a failure
    messages          the first of them, and
    last              the last of each kind
    """

    begin_s: float
    reports: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    latency_max_ms: float = math.nan
    processing_max_ms: float = math.nan
    erle_db: Mean = field(default_factory=Mean)
    drift_ppm: dict[str, Mean] = field(default_factory=lambda: defaultdict(Mean))
    processor_share: Mean = field(default_factory=Mean)
    events: Counter[Event | None] = field(default_factory=Counter)
    messages: list[Entry] = field(default_factory=list)
    last: dict[Event | None, Entry] = field(default_factory=dict)

    @property
    def xruns(self) -> dict[str, int]:
        """Xruns by device, of those that had any."""
        return {device: count for device in DEVICES if (count := self.counts[f"xruns_{device}"])}

    def sentence(self) -> str:
        """Return the figures in short: "3.2 h of sound, latency at most 24 ms, 2 xruns (speaker 2)"."""
        parts = [f"{_duration(self.counts['frames'] / FRAMES_PER_S)} of sound"]
        if not math.isnan(self.latency_max_ms):
            parts.append(f"latency at most {self.latency_max_ms:.1f} ms")
        where = ", ".join(f"{device} {count}" for device, count in self.xruns.items())
        parts.append(counted(sum(self.xruns.values()), "xrun") + (f" ({where})" if where else ""))
        return ", ".join(parts)


class Spans:
    """Spans of equal length, and their total, filled entry by entry."""

    def __init__(self, begin_s: float, span_s: float) -> None:
        self.total = Span(begin_s)
        self.span_s = span_s
        self._by_number: dict[int, Span] = {}
        self._last: dict[tuple[str, str], dict[str, float]] = {}  # counts of each run

    def in_order(self) -> list[Span]:
        """Return the spans that have entries, oldest first."""
        return [self._by_number[number] for number in sorted(self._by_number)]

    def without_gaps(self) -> list[Span]:
        """Return the same with an empty span for each that has no entries."""
        numbers = range(min(self._by_number), max(self._by_number) + 1)
        return [self._by_number.get(number) or self._empty(number) for number in numbers]

    def _empty(self, number: int) -> Span:
        return Span(self.total.begin_s + number * self.span_s)

    def add(self, entry: Entry) -> None:
        """Add an entry; those of one run come in their order."""
        number = math.floor((entry.time_s - self.total.begin_s) / self.span_s)
        span = self._by_number.setdefault(number, self._empty(number))
        grown = self._grown(entry)
        for place in (span, self.total):
            place.counts.update(grown)
            if entry.event is Event.FIGURES:
                _add_figures(place, entry)
            else:
                _add_event(place, entry)

    def _grown(self, entry: Entry) -> dict[str, int]:
        """Return by how much the counts of the entry's run have grown.

        A run that began before the first entry counts from its own first entry."""
        counts = {name: entry.figures[name] for name in COUNTED if name in entry.figures}
        if entry.event is Event.STARTED:
            self._last[entry.run] = dict.fromkeys(COUNTED, 0.0)
        last = self._last.setdefault(entry.run, {})
        grown = {name: max(round(count - last.get(name, count)), 0) for name, count in counts.items()}
        last.update(counts)
        return grown


def _duration(seconds: float) -> str:
    """Return "3.2 h", "12 min", "40 s"."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _add_figures(span: Span, entry: Entry) -> None:
    span.reports += 1
    span.latency_max_ms = _larger(span.latency_max_ms, entry, "latency_max_ms")
    span.processing_max_ms = _larger(span.processing_max_ms, entry, "processing_max_ms")
    heard = entry.each_s.get("reference_present", [])
    erle_db = entry.each_s.get("erle_db", [])
    span.erle_db.add(value for value, present in zip(erle_db, heard, strict=False) if present == 1)
    for name in DRIFTS:
        span.drift_ppm[name].add([_figure(entry, name)])
    span.processor_share.add([_figure(entry, "processor_share")])


def _add_event(span: Span, entry: Entry) -> None:
    span.events[entry.event] += 1
    span.last[entry.event] = entry
    if len(span.messages) < MESSAGES_MAX:
        span.messages.append(entry)


def _larger(value: float, entry: Entry, name: str) -> float:
    """Return the larger of `value` and the entry's figure; either may be nan."""
    figure = _figure(entry, name)
    return figure if math.isnan(value) or figure > value else value


def _figure(entry: Entry, name: str) -> float:
    return entry.figures.get(name, math.nan)
