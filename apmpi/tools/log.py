"""`apmpi log`: the service's history from the journal, as a table with its messages, a picture, or JSON."""

import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from apmpi.cards.text_file import printable
from apmpi.errors import CommandError
from apmpi.service.history import FOLDERS, Entry, entries
from apmpi.service.instruments import counted
from apmpi.tools.spans import DRIFTS, Span, Spans
from apmpi.units import DAY_S

# Default of --since.
SINCE_S = 6 * 3600.0
# Most lines of figures: a screen or two.
LINES_MAX = 40
# Most points of the picture: it is 1300 pixels wide.
POINTS_MAX = 600
# Lengths of a span: whole parts of a minute, an hour or a day, then whole days.
SPANS_S = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY_S)
ANALYZE_TIMEOUT_S = 10.0
# Names of the columns of figures.
HEAD = ("latency ms", "ERLE dB", "xruns", "drift ppm", "processor")


def main(since: str | None, picture: Path | None, as_json: bool) -> int:
    """Show the entries since that time, and return the exit status. Raises CommandError.

    since   a time as journalctl takes it; None: six hours ago
    """
    if picture is not None:
        _ask_for_matplotlib()
    until_s = time.time()
    since_s = until_s - SINCE_S if since is None else time_of(since, until_s)
    found = entries(since_s, until_s)
    first = next(found, None)
    if first is None:
        folders = " and ".join(map(str, FOLDERS))
        raise CommandError(
            f"no entries of apmpi since {_date(since_s)} in the journal ({folders}); "
            "systemctl status apmpi shows whether the service runs"
        )
    found = itertools.chain([first], found)
    try:
        if as_json:
            for entry in found:
                print(json_line(entry))
        elif picture is not None:
            _draw(picture, spans_of(found, first.time_s, until_s, POINTS_MAX))
        else:
            print("\n".join(table(spans_of(found, first.time_s, until_s, LINES_MAX))))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has ended: no error
    return 0


def time_of(text: str, now_s: float) -> float:
    """Return the time that systemd.time(7) gives the text, since 1970. Raises CommandError."""
    command = ["systemd-analyze", "timestamp", "--", text]
    try:
        done = subprocess.run(
            command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, timeout=ANALYZE_TIMEOUT_S
        )
    except FileNotFoundError:
        raise CommandError(
            "systemd-analyze, which reads --since, is not installed: apt install systemd"
        ) from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"systemd-analyze gave no answer within {ANALYZE_TIMEOUT_S:.0f} s") from None
    lines = dict(line.strip().split(b": ", 1) for line in done.stdout.splitlines() if b": " in line)
    seconds = lines.get(b"UNIX seconds", b"").removeprefix(b"@")
    time_s = float(seconds) if done.returncode == 0 and seconds else math.inf
    if time_s >= now_s:
        raise CommandError(
            f"--since: {printable(text)!r} given, expected a time in the past as of systemd.time(7): "
            "'2 hours ago', 'today', '2026-01-31 12:00', '-1h'"
        )
    return time_s


def json_line(entry: Entry) -> str:
    """Return an entry as one line of JSON; a second without a value is null."""
    values = {
        name: [None if math.isnan(value) else value for value in values]
        for name, values in entry.each_s.items()
    }
    content = {
        "time_s": round(entry.time_s, 3),
        "event": "failed" if entry.event is None else entry.event.name.lower(),
        "message": entry.message,
        "figures": entry.figures,
        "each_s": values,
    }
    return json.dumps(content, allow_nan=False)


def spans_of(found: Iterator[Entry], first_s: float, until_s: float, most: int) -> Spans:
    """Return the entries as at most `most` spans, which begin at whole multiples of their length."""
    extent_s = until_s - first_s
    span_s = next(
        # One more than fits into the time, since the first span begins before the first entry.
        (length_s for length_s in SPANS_S if extent_s / length_s + 1 <= most),
        math.ceil(extent_s / (most - 1) / DAY_S) * DAY_S,
    )
    offset_s = time.localtime(first_s).tm_gmtoff
    spans = Spans((first_s + offset_s) // span_s * span_s - offset_s, span_s)
    for entry in found:
        spans.add(entry)
    return spans


# ---- the table


def table(spans: Spans) -> Iterator[str]:
    """Yield the lines: figures of each span, the messages of that time, and the total."""
    yield f"{'time':<14}  {_aligned(HEAD)}"
    for span in spans.in_order():
        if span.reports:
            yield f"{_clock(span.begin_s)}  {_aligned(columns(span))}"
        for entry in span.messages:
            yield f"{_clock(entry.time_s)}  {told(entry)}"
        if more := span.events.total() - len(span.messages):
            yield f"{'':<14}  and {counted(more, 'more message')}: journalctl -x -t apmpi"
    yield f"\nsince {_date(spans.total.begin_s)}, {_length(spans.span_s)} a line: {spans.total.sentence()}"
    yield "latency: largest; ERLE: mean while the far end is heard; drift: of the clock that differs most;"
    yield "processor: mean, of one core. journalctl -x -t apmpi explains the messages."


def columns(span: Span) -> tuple[str, ...]:
    """Return the span's figures as texts, for the columns of HEAD."""
    drift = ""
    if means := {name: mean.value for name, mean in span.drift_ppm.items() if mean.count}:
        name = max(means, key=lambda name: abs(means[name]))
        drift = f"{means[name]:+.1f} {DRIFTS[name]}" if abs(means[name]) >= 0.05 else "0"
    return (
        _number(span.latency_max_ms, ".1f"),
        _number(span.erle_db.value, ".1f"),
        str(sum(span.xruns.values())),
        drift or "-",
        _number(span.processor_share.value, ".1%"),
    )


def _aligned(texts: tuple[str, ...]) -> str:
    latency, erle, xruns, drift, share = texts
    return f"{latency:>10}  {erle:>7}  {xruns:>5}  {drift:<19}  {share:>9}"


def told(entry: Entry) -> str:
    """Return what happened, with the message if that says more."""
    if entry.event is None:
        return entry.message
    subject = entry.event.subject
    return subject if entry.message.lower() in subject.lower() else f"{subject}: {entry.message}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _date(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))


def _clock(time_s: float) -> str:
    """Return the local time without the year, which the last lines have."""
    return time.strftime("%m-%d %H:%M:%S", time.localtime(time_s))


def _length(span_s: float) -> str:
    for unit_s, unit in ((DAY_S, "day"), (3600, "hour"), (60, "minute")):
        if span_s >= unit_s:
            return counted(round(span_s / unit_s), unit)
    return counted(round(span_s), "second")


# ---- the picture


def _ask_for_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401 - asked before the work, not after it
    except ImportError:
        raise CommandError(
            "matplotlib, which draws the picture, is not installed: apt install python3-matplotlib, or "
            "pip install 'apmpi[demo]'"
        ) from None


def _draw(path: Path, spans: Spans) -> None:
    """Write the picture. Raises CommandError."""
    from apmpi.cards.replace import replace
    from apmpi.tools.log_picture import drawn

    try:
        replace(path, drawn(spans))
    except OSError as error:
        raise CommandError(f"{path}: cannot be written ({error.strerror})") from None
    print(f"{printable(str(path), 200)}: {_length(spans.span_s)} a point, {spans.total.sentence()}")
