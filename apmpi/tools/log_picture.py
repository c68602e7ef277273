"""The picture of `apmpi log --plot`: figures over time, starts, stops and faults. Needs matplotlib."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from apmpi.service.journal import Event
from apmpi.tools.spans import DRIFTS, Span, Spans
from apmpi.units import DAY_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Kinds of entries that are shown as lines: name and colour; None: systemd reports a failure.
MARKED: dict[Event | None, tuple[str, str]] = {
    Event.STARTED: ("started", "tab:green"),
    Event.STOPPED: ("stopped", "0.5"),
    Event.PARKED: ("a device is waited for", "tab:orange"),
    Event.ENDPOINT_FAILED: ("failed", "tab:red"),
    None: ("failed", "tab:red"),
}


def drawn(spans: Spans) -> bytes:
    """Return the picture as PNG."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 13), layout="constrained")
    figure.suptitle(f"apmpi: {spans.total.sentence()}", fontsize=16)
    axes: Sequence[Axes] = figure.subplots(5, 1, sharex=True)
    latency, echo, xruns, drift, processor = axes
    found = spans.without_gaps()
    days = [_day(span.begin_s + spans.span_s / 2) for span in found]
    latency.plot(days, [span.latency_max_ms for span in found], ".-", color="tab:red")
    latency.set(title="Latency, microphone to output: the largest", ylabel="ms", ylim=(0, None))
    echo.plot(days, [span.erle_db.value for span in found], ".-", color="tab:green")
    echo.set(title="Echo reduction (ERLE), mean while the far end is heard", ylabel="dB")
    xruns.bar(days, [sum(span.xruns.values()) for span in found], width=spans.span_s / DAY_S, color="black")
    xruns.set(title="Xruns", ylabel="count")
    _draw_drift(drift, days, found)
    processor.plot(days, [100 * span.processor_share.value for span in found], ".-", color="tab:blue")
    processor.set(title="Processor", ylabel="% of one core", ylim=(0, None))
    for part in axes:
        part.grid(alpha=0.3)
    _mark(latency, axes, found)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    processor.xaxis.set_major_locator(locator)
    processor.xaxis.set_major_formatter(
        ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def _day(time_s: float) -> float:
    """Return the local time as matplotlib takes it: days since 1970."""
    return (time_s + time.localtime(time_s).tm_gmtoff) / DAY_S


def _draw_drift(axes: Axes, days: Sequence[float], found: Sequence[Span]) -> None:
    for name, where in DRIFTS.items():
        means = [span.drift_ppm[name] for span in found]
        if any(mean.count for mean in means):
            axes.plot(days, [mean.value for mean in means], ".-", label=where.replace("_", " "))
    axes.set(title="Drift of the clocks against the microphone's, compensated", ylabel="ppm")
    if axes.lines:
        axes.legend(loc="upper right")


def _mark(named: Axes, every: Sequence[Axes], found: Sequence[Span]) -> None:
    """Draw a vertical line for each entry of a kind in MARKED, and the kinds' names into `named`."""
    entries = [entry for span in found for entry in span.messages]
    marks: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        if entry.event in MARKED:
            marks.setdefault(MARKED[entry.event], []).append(_day(entry.time_s))
    for (name, colour), days in marks.items():
        for axes in every:
            lines = axes.vlines(days, 0, 1, colour, linewidth=0.8, transform=axes.get_xaxis_transform())
            if axes is named:
                lines.set_label(name)
    if marks:
        named.legend(loc="lower right")
