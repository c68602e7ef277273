"""The service's last hours for the page, from the journal as `apmpi log` reads it."""

import itertools
from collections import deque
from collections.abc import Iterator

from apmpi.errors import CommandError
from apmpi.service.history import Entry, entries
from apmpi.service.journal import Event
from apmpi.tools.finding import FINE
from apmpi.tools.journal_checks import span_findings
from apmpi.tools.log import HEAD, LINES_MAX, SINCE_S, columns, spans_of, told

# The newest messages that the page shows.
MESSAGES_MAX = 30
# Priority of syslog up to which a message is a fault: "warning".
FAULT_PRIORITY = 4


def past(now_s: float) -> dict[str, object]:
    """Return the hours before `now_s` as the content of JSON.

    problem    why there is nothing to show, as a sentence; without it:
    sentence   figures of the whole time
    findings   [verdict, text, what to do] of each fault
    messages   [time, text, whether it is a fault], newest first
    head       names of the columns
    rows       [begin of the span, text of each column], newest first
    """
    since_s = now_s - SINCE_S
    messages: deque[Entry] = deque(maxlen=MESSAGES_MAX)
    try:
        found = entries(since_s, now_s)
        first = next(found, None)
        if first is None:
            hours = SINCE_S / 3600
            return {"problem": f"the journal has no entries of apmpi in the last {hours:.0f} hours"}
        found = _noting(itertools.chain([first], found), messages)
        spans = spans_of(found, first.time_s, now_s, LINES_MAX)
    except CommandError as error:
        return {"problem": str(error)}
    findings = [finding for finding in span_findings(spans.total) if finding.verdict != FINE]
    return {
        "sentence": spans.total.sentence(),
        "findings": [[finding.verdict, finding.text, finding.todo] for finding in findings],
        "messages": [[entry.time_s, told(entry), _is_fault(entry)] for entry in reversed(messages)],
        "head": HEAD,
        "rows": [[span.begin_s, columns(span)] for span in reversed(spans.in_order()) if span.reports],
    }


def _noting(found: Iterator[Entry], messages: deque[Entry]) -> Iterator[Entry]:
    """Yield the entries, and keep those that are messages."""
    for entry in found:
        if entry.event is not Event.FIGURES:
            messages.append(entry)
        yield entry


def _is_fault(entry: Entry) -> bool:
    return entry.event is None or entry.event.priority <= FAULT_PRIORITY
