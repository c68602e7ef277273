"""Stream: one open direction of a sound device, shared by the event loop and the audio thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from apmpi.cards.pcm import Capture, Playback
from apmpi.cards.slot import Slot


class Stream:
    """One direction, until it is closed or its device fails. Meanwhile only the audio thread uses the device.

    closing         set by the event loop: the audio thread closes the device before its next frame
    ended, error    set by the audio thread: the device is closed; the exception that was the reason
    done            future of the event loop, completed after `ended`
    """

    def __init__(self, slot: Slot[Capture] | Slot[Playback], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closing = self.ended = False
        self.error: Exception | None = None
        self.done: asyncio.Future[None] = loop.create_future()
        self._slot = slot

    # -- audio thread (event loop, for a stream that no thread serves)

    def finish(self, error: Exception | None) -> None:
        """Closes the device, because of `error` if there is one."""
        if self.ended:
            return
        self.ended, self.error = True, error
        self._slot.close()
        self.call_back(self._finished, error)

    def call_back(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Has the event loop call `callback`, unless the loop has been closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *arguments)

    # -- event loop

    def _finished(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    async def until_end(self) -> None:
        """Waits for the end, or causes it by being cancelled. Raises RuntimeError if the device failed."""
        try:
            await asyncio.shield(self.done)
        finally:
            self.closing = True
        if self.error:
            raise RuntimeError(str(self.error)) from self.error

    async def close(self, task: asyncio.Task[None]) -> None:
        """Ends the stream and waits for it and for `task`, which runs until_end()."""
        self.closing = True
        # An error is not raised here: the task raises it.
        await asyncio.gather(asyncio.shield(self.done), task, return_exceptions=True)
