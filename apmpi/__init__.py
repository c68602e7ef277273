"""Echo cancellation, noise suppression, high-pass filter and gain control for a Raspberry Pi.

- `AudioProcessingModule` processes frames of 10 ms that a program has from somewhere,
- `AudioFrame` is such a frame,
- `MediaDevices` opens microphone and loudspeaker, and does all of it by itself.

Names and meaning are those of LiveKit's Python API (`livekit.rtc`), and each takes the other's frames.
"""

from typing import TYPE_CHECKING, Any

from apmpi.apm import AudioProcessingModule, Frame, Stats
from apmpi.frame import AudioFrame

if TYPE_CHECKING:
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
    """What needs asyncio and ALSA is loaded when it is asked for: the processing alone needs neither."""
    if name in __all__:
        from apmpi import media_devices

        return getattr(media_devices, name)
    raise AttributeError(f"module 'apmpi' has no attribute {name!r}")
