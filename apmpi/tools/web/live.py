"""Live figures for the page: one reader of the local socket for all viewers, while there are any.

Each viewer gets events of server-sent events (HTML standard, 9.2), as bytes:

    levels   {"far_end": [rms_dbfs, peak_dbfs], ...} for each line of the socket; null without sound
    state    {"sentence": ..., "kind": ..., "problem": bool, "rows": [[label, [[text, style], ...]], ...]}
             twice a second; `kind` is the sentence without its figures
    curve    echo reduction in dB for each second of the last 5 minutes, once a second
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from apmpi.figures import SIGNALS
from apmpi.service.live_figures import RETRY_S, LiveFigures
from apmpi.service.socket_client import Figures
from apmpi.tools.figure_rows import History, echo_row, machine_rows, near_rows, path_rows

# More viewers at a time are a mistake or an attack.
VIEWERS_MAX = 32
# Most events that wait for a slow viewer: those of two seconds; further ones are left out for that viewer.
QUEUE_EVENTS_MAX = 30
# The socket's lines come ten times a second. Text that changes more often than twice cannot be read.
LINES_A_STATE = 5
LINES_A_CURVE = 10

# None ends the viewer's connection.
Queue = asyncio.Queue[bytes | None]


class TooManyViewers(RuntimeError):
    """All places are taken; the sentence is for the user."""


class Live:
    """Reader of the local socket and the queues of its viewers. For the event loop's thread."""

    def __init__(self, socket_path: Path | None) -> None:
        self._socket_path = socket_path
        self._viewers: set[Queue] = set()
        self._reader: asyncio.Task[None] | None = None
        self._last: dict[str, bytes] = {}  # by kind of event, for a new viewer

    @contextlib.contextmanager
    def viewer(self) -> Iterator[Queue]:
        """Give a viewer's queue of events. Raises TooManyViewers."""
        if len(self._viewers) >= VIEWERS_MAX:
            raise TooManyViewers(f"{VIEWERS_MAX} others look at the page already, expected fewer")
        queue: Queue = asyncio.Queue(QUEUE_EVENTS_MAX)
        for event in self._last.values():
            queue.put_nowait(event)
        self._viewers.add(queue)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        try:
            yield queue
        finally:
            self._viewers.discard(queue)

    async def close(self) -> None:
        """End the viewers' connections and the reader."""
        for queue in self._viewers:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        self._viewers.clear()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        """Read the socket until the last viewer has gone."""
        client, history, count = LiveFigures(self._socket_path), History(), 0
        figures: Figures = {}
        try:
            while self._viewers:
                lines = await asyncio.to_thread(client.next, RETRY_S)
                for figures in lines:
                    history.add(figures)
                    self._publish("levels", levels(figures))
                    if count % LINES_A_CURVE == 0:
                        self._publish("curve", [round(value, 1) for value in history.erle_db])
                    if count % LINES_A_STATE == 0:
                        self._publish("state", state(figures, history, ""))
                    count += 1
                if not lines and client.problem:
                    self._publish("state", state(figures, history, client.problem))
        finally:
            self._reader = None
            self._last.clear()
            client.close()

    def _publish(self, kind: str, content: object) -> None:
        event = sse(kind, content)
        self._last[kind] = event
        for queue in self._viewers:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(event)


def sse(kind: str, content: object) -> bytes:
    """Return one event; its JSON has no line breaks."""
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n".encode()


def levels(figures: Figures) -> dict[str, list[float | None]]:
    """Return RMS and peak of each signal in dBFS, None without sound."""
    return {name: [figures.get(f"{name}_dbfs"), figures.get(f"{name}_peak_dbfs")] for name in SIGNALS}


def state(figures: Figures, history: History, problem: str) -> dict[str, object]:
    """Return the content of a state event; `problem` is why there is no service, "" while there is one."""
    sentence = f"waiting for the service: {problem}" if problem else str(figures.get("state", ""))
    rows = []
    if figures:
        rows = [echo_row(figures), *path_rows(figures), *near_rows(figures), *machine_rows(figures, history)]
    return {
        "sentence": sentence,
        "kind": sentence if problem or figures.get("waiting") else _without_figures(sentence),
        "problem": bool(problem or figures.get("waiting")),
        "rows": [[row.label, row.parts] for row in rows],
    }


def _without_figures(sentence: str) -> str:
    """Return "cancelling echo" of "cancelling echo: 32 dB, latency 21 ms, 0 xruns"."""
    return re.split("[:,]", sentence, maxsplit=1)[0]
