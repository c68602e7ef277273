"""Lines of JSON that the service sends over the local socket (apmpi.service.protocol)."""

import base64
import json
import math
import time
from collections.abc import Mapping, Sequence

from apmpi.cards.formats import level
from apmpi.figures import SIGNALS
from apmpi.service.feed import Frame
from apmpi.service.instruments import Interval


def json_line(content: Mapping[str, object]) -> bytes:
    """Return one line of JSON."""
    return json.dumps(content, allow_nan=False).encode() + b"\n"


def figures_line(interval: Interval, waiting: str, frames: Sequence[Frame]) -> bytes:
    """Return the line of figures; `frames` are the interval's sound, `waiting` the device that is waited for
    or ""."""
    values: dict[str, object] = {
        "time_s": round(time.time(), 3),
        "state": waiting or interval.sentence(),
        "waiting": waiting,
    }
    for name in SIGNALS:
        rms_dbfs, peak_dbfs = _levels(b"".join(getattr(frame, name) for frame in frames))
        values |= {f"{name}_dbfs": rms_dbfs, f"{name}_peak_dbfs": peak_dbfs}
    return json_line({"figures": values | {key: _plain(value) for key, value in interval.values().items()}})


def sound_lines(frames: Sequence[Frame]) -> bytes:
    """Return a line of sound for each run of frames without a gap."""
    runs: list[list[Frame]] = []
    for frame in frames:
        if runs and frame.number == runs[-1][-1].number + 1:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return b"".join(map(_sound_line, runs))


def _sound_line(frames: Sequence[Frame]) -> bytes:
    content: dict[str, object] = {"frame": frames[0].number, "frames": len(frames)}
    for name in SIGNALS:
        content[name] = base64.b64encode(b"".join(getattr(frame, name) for frame in frames)).decode()
    return json_line({"sound": content})


def _plain(value: object) -> object:
    """Return a number with three decimals, None for what is not finite, which JSON does not have."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value


def _levels(sound: bytes) -> tuple[float | None, float | None]:
    """Return RMS and peak over all channels in dBFS; None without sound."""
    if not sound:
        return None, None
    half_step = 0.5  # the level of all zeros: less cannot be told apart in 16 bits
    rms, peak = level(sound)
    return _dbfs(max(rms, half_step)), _dbfs(max(peak, half_step))


def _dbfs(value: float) -> float:
    return round(20 * math.log10(value / 32768), 2)
