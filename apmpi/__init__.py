"""Echo cancellation, noise suppression, high-pass filter and gain control for a Raspberry Pi.

- `AudioProcessingModule` processes frames of 10 ms that a program has from somewhere,
- `AudioFrame` is such a frame,
- `MediaDevices` opens microphone and loudspeaker, and does all of it by itself.

Names and meaning are those of LiveKit's Python API (`livekit.rtc`), and each takes the other's frames.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apmpi.apm import AudioProcessingModule, Frame, Stats
    from apmpi.frame import AudioFrame
    from apmpi.media_devices import InputCapture, MediaDevices, MicrophoneSource, OutputPlayer

__all__ = [
    "AudioFrame",
    "AudioProcessingModule",
    "Frame",
    "InputCapture",
    "MediaDevices",
    "MicrophoneSource",
    "OutputPlayer",
    "Stats",
]


def __getattr__(name: str) -> Any:
    """Each is loaded when it is asked for: the processing needs no ALSA, and whoever only reads a
    configuration at boot no NumPy, which takes a small Pi seconds."""
    for home in ("apm", "frame", "media_devices") if name in __all__ else ():
        module = importlib.import_module(f"apmpi.{home}")
        if name in vars(module):
            return getattr(module, name)
    raise AttributeError(f"module 'apmpi' has no attribute {name!r}")
