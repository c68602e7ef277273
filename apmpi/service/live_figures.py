"""Figures of the running service as they come, over any number of its stops and starts."""

import select
import time
from pathlib import Path
from typing import Any

from apmpi.errors import EndpointError
from apmpi.service.socket_client import Figures, Subscription, figures_of

# Interval of the search for a service that has stopped.
RETRY_S = 0.5


class LiveFigures:
    """Connection to the service, made again after the service has stopped. For one thread.

    path      of its socket, None before the first connection if none was given
    problem   why there are no figures, as a sentence; "" while there are
    """

    def __init__(self, path: Path | None) -> None:
        self.problem = ""
        self.path = self._given = path
        self._retry_s = 0.0
        self._subscription: Subscription | None = None

    def connect(self) -> None:
        """Connect now. Raises EndpointError if there is no service."""
        self._retry_s = time.monotonic() + RETRY_S
        self._subscription = Subscription("figures", self._given)
        self.path = self._subscription.path

    def close(self) -> None:
        """Disconnect."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def next(self, timeout_s: float, wake: int | None = None) -> list[Figures]:
        """Return the figures that have come, oldest first; wait for them at most `timeout_s`, or until the
        descriptor `wake` can be read."""
        if self._subscription is None and time.monotonic() >= self._retry_s:
            try:
                self.connect()
            except EndpointError as error:
                self.problem = str(error)
        sources: list[Any] = [source for source in (self._subscription, wake) if source is not None]
        ready, _, _ = select.select(sources, [], [], timeout_s)
        if self._subscription is None or self._subscription not in ready:
            return []
        try:
            lines = self._subscription.next_lines()
        except EndpointError as error:
            self.close()
            self.problem = str(error)
            return []
        self.problem = ""
        return [figures for line in lines if (figures := figures_of(line))]
