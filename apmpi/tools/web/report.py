"""Report of all that the page knows, as one text for a question or a bug report. It has no sound."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apmpi._version import __version__
from apmpi.cards.text_file import one_line
from apmpi.errors import EndpointError
from apmpi.service.socket_client import Subscription, figures_of

NAME_WIDTH = 20
# The service sends figures ten times a second.
PATIENCE_S = 2.0


def report(
    checks: dict[str, Any], past: dict[str, Any], figures: dict[str, Any], configuration: str | None
) -> str:
    """Return the text.

    checks, past    apmpi.tools.web.checks and past
    figures         figures_now()
    configuration   its text; None: it takes the password
    """
    lines = [
        f"apmpi {__version__} on {socket.gethostname()}, {_time(time.time())}",
        *_titled("Checks", _checks(checks)),
        *_titled("Now", _figures(figures)),
        *_titled("The last hours", _past(past)),
        *_titled("Configuration", (configuration or "(takes the password)").splitlines()),
    ]
    return "".join(f"{one_line(line)}\n" for line in lines)


def figures_now(socket_path: Path | None) -> dict[str, Any]:
    """Return the service's figures, or {"problem": ...}, a sentence on why there are none."""
    try:
        with Subscription("figures", socket_path) as service:
            end_s = time.monotonic() + PATIENCE_S
            while time.monotonic() < end_s:
                for line in service.next_lines():
                    if (figures := figures_of(line)) is not None:
                        return dict(figures)
    except (EndpointError, OSError) as error:
        return {"problem": str(error)}
    return {"problem": "the service sends no figures"}


def _titled(title: str, lines: Iterator[str] | list[str]) -> list[str]:
    return ["", title, "-" * len(title), *lines]


def _checks(checks: dict[str, Any]) -> Iterator[str]:
    for verdict, name, text, todo in checks["findings"]:
        yield f"{verdict:<6} {name:<{NAME_WIDTH}} {text}" + (f" -> {todo}" if todo else "")


def _figures(figures: dict[str, Any]) -> Iterator[str]:
    for name, value in figures.items():
        yield f"{name:<{NAME_WIDTH}} {'-' if value is None else value}"


def _past(past: dict[str, Any]) -> Iterator[str]:
    if "problem" in past:
        yield past["problem"]
        return
    yield past["sentence"]
    for time_s, text, _ in reversed(past["messages"]):
        yield f"{_time(time_s)}  {text}"
    yield ""
    yield "  ".join([f"{'time':<25}", *past["head"]])
    for time_s, texts in reversed(past["rows"]):
        yield "  ".join([f"{_time(time_s):<25}", *texts])


def _time(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(time_s))
