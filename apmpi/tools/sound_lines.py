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


def decoded(sound: Mapping[str, Any], source: Subscription) -> tuple[int, dict[str, NDArray[np.int16]]]:
    """Return the number of a line's first frame, and int16 as [samples, channels] for each signal. Raises
    EndpointError for what is not such a line."""
    frame_samples = source.sample_rate_hz // FRAMES_PER_S
    try:
        number, frames = int(sound["frame"]), int(sound["frames"])
        parts: dict[str, NDArray[np.int16]] = {
            name: np.frombuffer(base64.b64decode(sound[name], validate=True), "<i2").reshape(
                frames * frame_samples, channels
            )
            for name, channels in source.channels.items()
        }
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error):
        raise EndpointError(f"{source.path}: what answers there is not apmpi") from None
    return number, parts
