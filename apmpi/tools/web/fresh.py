"""A reading that takes long, shared by all who ask for it."""

import asyncio
import time
from collections.abc import Callable

Content = dict[str, object]


class Fresh:
    """The last result of a function, used again for some time. For the event loop's thread.

    At most one thread runs the function, however many ask: it takes seconds on a small board.
    """

    def __init__(self, read: Callable[[float], Content], fresh_s: float) -> None:
        """Takes the function, of the time in seconds since 1970, and how long its result is fresh."""
        self._read, self._fresh_s = read, fresh_s
        self._lock = asyncio.Lock()
        self._read_s = -fresh_s
        self._content: Content = {}

    async def content(self) -> Content:
        """Return the result as it was at most `fresh_s` ago."""
        async with self._lock:
            if time.monotonic() - self._read_s >= self._fresh_s:
                self._content = await asyncio.to_thread(self._read, time.time())
                self._read_s = time.monotonic()
            return self._content
