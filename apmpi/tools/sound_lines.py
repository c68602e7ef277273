"""Sound from the lines of the local socket (apmpi.service.protocol)."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apmpi.errors import EndpointError
from apmpi.service.socket_client import Subscription
from apmpi.units import FRAMES_PER_S


class SoundLines:
    """Sound of one client of the socket, line by line."""

    def __init__(self, source: Subscription) -> None:
        self._source = source
        self._frame_samples = source.sample_rate_hz // FRAMES_PER_S
        self._next_number: int | None = None

    def read(self, sound: Mapping[str, Any]) -> tuple[int, dict[str, NDArray[np.int16]]]:
        """Return how many frames of 10 ms are missing before a line, for which the client was too slow, and
        int16 as [samples, channels] for each signal. Raises EndpointError for what is not such a line."""
        no_line = EndpointError(f"{self._source.path}: what answers there is not apmpi")
        try:
            number, frames = int(sound["frame"]), int(sound["frames"])
            parts: dict[str, NDArray[np.int16]] = {
                name: np.frombuffer(base64.b64decode(sound[name], validate=True), "<i2").reshape(
                    frames * self._frame_samples, channels
                )
                for name, channels in self._source.channels.items()
            }
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error):
            raise no_line from None
        missing = 0 if self._next_number is None else number - self._next_number
        if missing < 0:
            raise no_line
        self._next_number = number + frames
        return missing, parts
