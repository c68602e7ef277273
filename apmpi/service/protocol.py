"""What the service and those who look at it say to each other.

A local stream socket. It is read-only: nothing that is sent there changes the service. Who may connect is a
matter of the file's permissions: the user and the group that the service runs as.

The visitor sends one line, the service answers with lines of JSON until one of the two closes:

    {"want": "figures"}     a line every INTERVAL_S
    {"want": "sound"}       the same, and the sound between them
    GET /metrics HTTP/1.1   one answer of HTTP, for Prometheus; if the configuration says `metrics: true`

The first line of an answer tells the shape of the sound:

    {"apmpi": "0.1.0", "protocol": 1, "sample_rate_hz": 48000,
     "channels": {"far_end": 1, "microphone": 1, "output": 1}}

A line of figures has the time (Unix), a sentence on how it goes, what is waited for ("" if nothing is), the
level of each signal since the line before (null: no sound), and what the journal tells (apmpi.figures) over
the same time, in lower case, without the prefix and by the moment only; null is what is not known:

    {"figures": {"time_s": 1790000000.1, "state": "cancelling echo: 32 dB, ...", "waiting": "",
                 "far_end_dbfs": -21.2, "far_end_peak_dbfs": -9.7, ..., "frames": 6100, "erle_db": 31.6, ...}}

A line of sound has frames of 10 ms, their interleaved 16-bit little-endian samples in base64. A jump in the
frame's number is sound that the visitor was too slow for:

    {"sound": {"frame": 6090, "frames": 10, "far_end": "...", "microphone": "...", "output": "..."}}

What the service does not give it says, and closes: {"error": "..."}.
"""

import os
from pathlib import Path

PROTOCOL = 1
INTERVAL_S = 0.1

# Of what a visitor asks, and of a line of the answer: 0.1 s of sound in 24 channels are 0.3 MB.
REQUEST_MAX_BYTES = 8192
LINE_MAX_BYTES = 4 * 1024 * 1024

SYSTEM_SOCKET = Path("/run/apmpi/socket")


def service_place() -> Path | None:
    """Where a service that was told nothing else opens its socket: in the folder that systemd gave it, or in
    the user's; None if there is neither."""
    if folders := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(folders.split(":")[0]) / "socket"
    if os.environ.get("XDG_RUNTIME_DIR"):
        return _user_place()
    return SYSTEM_SOCKET if os.geteuid() == 0 else None


def visitor_places() -> list[Path]:
    """Where a visitor that was told nothing else looks for one."""
    return [*([_user_place()] if os.environ.get("XDG_RUNTIME_DIR") else []), SYSTEM_SOCKET]


def _user_place() -> Path:
    return Path(os.environ["XDG_RUNTIME_DIR"]) / "apmpi.socket"
