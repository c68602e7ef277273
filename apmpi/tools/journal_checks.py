"""Checks of the service's last day for `apmpi doctor`, from its entries in the journal."""

import time
from collections.abc import Iterator
from pathlib import Path

from apmpi.errors import CommandError
from apmpi.service.history import entries
from apmpi.service.instruments import counted
from apmpi.service.journal import JOURNAL_SOCKET, Event
from apmpi.tools.finding import FINE, NOTE, WRONG, Finding
from apmpi.tools.spans import Span, Spans
from apmpi.units import DAY_S, FRAME_MS, FRAMES_PER_S

# An xrun loses some ten milliseconds of sound. One in ten minutes is noticed in every call.
XRUNS_AN_HOUR_MAX = 6.0
# An hour at least counts, so that one xrun of a short run is not a rate.
HOURS_MIN = 1.0
# Kinds of entries that are worth a note, with what to do; None: systemd reports a failure.
NOTED: tuple[tuple[Event | None, str, str], ...] = (
    (
        Event.PARKED,
        "a device was waited for",
        "check plug and cable; on a weak USB port use a hub with its own power supply",
    ),
    (Event.ENDPOINT_FAILED, "the service could not go on", "journalctl -x -u apmpi explains it"),
    (None, "systemd saw the service fail", "journalctl -u apmpi shows what came before"),
)


def journal_findings(now_s: float) -> Iterator[Finding]:
    """Yield the findings of the last day; none without journald or without entries of the service."""
    if not Path(JOURNAL_SOCKET).exists():
        return
    day = Spans(now_s - DAY_S, DAY_S)
    try:
        for entry in entries(now_s - DAY_S, now_s):
            day.add(entry)
    except CommandError as error:
        yield Finding("last day", NOTE, f"not known: {error}")
        return
    if day.in_order():
        yield from span_findings(day.total)


def span_findings(day: Span) -> Iterator[Finding]:
    """Yield what the figures and messages of that day show, with what to do."""
    hours = max(day.counts["frames"] / FRAMES_PER_S / 3600, HOURS_MIN)
    verdict, todo = FINE, ""
    if xruns := sum(day.xruns.values()):
        verdict = WRONG if xruns / hours > XRUNS_AN_HOUR_MAX else NOTE
        todo = "if xruns go on: less load, a stronger power supply, or more periods in apmpi.yaml"
    yield Finding("last day", verdict, day.sentence(), todo)
    if day.processing_max_ms > FRAME_MS:
        text = f"processing took up to {day.processing_max_ms:.1f} ms for {FRAME_MS:.0f} ms of sound"
        yield Finding("last day", NOTE, text, "apmpi log shows when; stop what else used the processor then")
    for event, what, todo in NOTED:
        if event in day.events:
            yield _often(day, event, what, todo)


def _often(day: Span, event: Event | None, what: str, todo: str) -> Finding:
    """Return a note of how often there was an entry of that kind, with its last message."""
    last = day.last[event]
    when = time.strftime("%H:%M", time.localtime(last.time_s))
    times = counted(day.events[event], "time")
    return Finding("last day", NOTE, f"{what} {times}, last at {when}: {last.message}", todo)
