"""Protocol of the local socket, between the service and its clients.

A stream socket. It is read-only: nothing that is sent there changes the service. The file's permissions let
the user and the group connect that the service runs as.

The client sends one line, the service answers with lines of JSON until one of the two closes:

    {"want": "figures"}     a line every INTERVAL_S
    {"want": "sound"}       the same, and the sound between them
    GET /metrics HTTP/1.1   one answer of HTTP, for Prometheus; if the configuration says `metrics: true`

The first line of an answer has the format of the sound:

    {"apmpi": "0.1.0", "protocol": 1, "sample_rate_hz": 48000,
     "channels": {"far_end": 1, "microphone": 1, "output": 1}}

A line of figures has the time (Unix), a sentence on how it goes, what is waited for ("" if nothing is), and
the figures of apmpi.figures since the line before, without the histories by the second; null is what is not
known, as a level without sound:

    {"figures": {"time_s": 1790000000.1, "state": "cancelling echo: 32 dB, ...", "waiting": "",
                 "far_end_dbfs": -21.2, "far_end_peak_dbfs": -9.7, ..., "frames": 6100, "erle_db": 31.6, ...}}

A line of sound has frames of 10 ms, their interleaved 16-bit little-endian samples in base64. A jump in the
frame's number is sound that the client was too slow for:

    {"sound": {"frame": 6090, "frames": 10, "far_end": "...", "microphone": "...", "output": "..."}}

Before it refuses a client, the service sends the reason: {"error": "..."}.
"""

import os
from pathlib import Path

PROTOCOL = 1
INTERVAL_S = 0.1

# Of a request, and of a line of the answer: 0.1 s of sound in 24 channels are 0.3 MB.
REQUEST_MAX_BYTES = 8192
LINE_MAX_BYTES = 4 * 1024 * 1024

SYSTEM_SOCKET = Path("/run/apmpi/socket")


def service_path() -> Path | None:
    """Return the path of the service's socket with `socket: auto`: in the folder that systemd gave it, or in
    the user's; None if there is neither."""
    if folders := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(folders.split(":")[0]) / "socket"
    if os.environ.get("XDG_RUNTIME_DIR"):
        return _user_path()
    return SYSTEM_SOCKET if os.geteuid() == 0 else None


def client_paths() -> list[Path]:
    """Return the paths at which a client looks for a service if it was given none."""
    return [*([_user_path()] if os.environ.get("XDG_RUNTIME_DIR") else []), SYSTEM_SOCKET]


def _user_path() -> Path:
    return Path(os.environ["XDG_RUNTIME_DIR"]) / "apmpi.socket"
