"""apmpi: echo cancellation, noise suppression, high-pass filter and gain control for a Raspberry Pi."""

from apmpi.apm import AudioProcessingModule, Stats
from apmpi.frame import AudioFrame

__all__ = ["AudioFrame", "AudioProcessingModule", "Stats"]
