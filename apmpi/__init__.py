"""Echo cancellation, noise suppression, high-pass filter and gain control for a Raspberry Pi.

- `AudioProcessingModule` processes frames of 10 ms that the program records and plays itself,
- `AudioFrame` is such a frame,
- `MediaDevices` opens microphone and loudspeaker, and records, processes and plays frames.

Names and meaning are those of LiveKit's Python API (`livekit.rtc`); each library accepts the other's frames.
"""

import importlib
import logging  # noqa: F401 (registers its lock before _loading)
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from apmpi import errors, moved
from apmpi._version import __version__ as __version__

if TYPE_CHECKING:
    from apmpi.api.apm import AudioProcessingModule, Frame, Stats
    from apmpi.api.capture import InputCapture, MicrophoneSource
    from apmpi.api.devices import MediaDevices
    from apmpi.api.frame import AudioFrame
    from apmpi.api.player import OutputPlayer

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

# Held while a name is loaded, and while the process forks: a child that is forked in the middle of another
# thread's import would wait for that import without end. Reentrant, because what is loaded may fork. A fork
# takes such locks in the reverse order of their registration. Modules take logging's while they are loaded,
# so logging is imported above, and its lock is taken after this one.
_loading = threading.RLock()
os.register_at_fork(
    before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
)
sys.meta_path.append(moved.MovedFinder)


def __getattr__(name: str) -> Any:
    """Load a name at its first use, bind it and return it.

    The processing needs no ALSA, and a program that reads a configuration at boot needs no NumPy, whose
    import takes a small Pi seconds.
    """
    if name not in __all__:
        raise AttributeError(f"module 'apmpi' has no attribute {name!r}")
    with _loading:
        value = globals()[name] = _load(name)
    return value


def _load(name: str) -> Any:
    try:
        return _found(name)
    except ImportError as error:
        if error.name not in errors.ALSA_MODULES:
            raise
        raise ImportError(errors.ALSA_MISSING.format(error), name=error.name, path=error.path) from None


def _found(name: str) -> Any:
    homes = (importlib.import_module(f"apmpi.api.{home}") for home in ("apm", "frame", "devices"))
    return next(vars(home)[name] for home in homes if name in vars(home))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
