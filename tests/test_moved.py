"""Import paths of before the subpackages still lead to the same objects."""

from __future__ import annotations

import importlib
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apmpi import AudioFrame
from apmpi.moved import MOVED

# Names that programs and the project's own documents have used, by their old module.
NAMES = {
    "alsa": "AlsaError Offer offer complaints",
    "apm": "AudioProcessingModule Frame Stats KERNELS",
    "clock": "Timebase Drift Settling Resampler",
    "config": "ConfigError EndpointError Endpoint Features Tuning Settings load parse taken_live",
    "doctor": "Finding listen main paths sound_findings",
    "downmix": "Downmix",
    "endpoints": "Slot Caretaker Follower Place Microphone FileMicrophone FarEnd FileFarEnd ReadAhead Player"
    " FileSink WriteBehind picked repeated",
    "frame": "AudioFrame",
    "latency": "FrameTimes LatencyLog LatencySummary",
    "loop": "Loop run",
    "media_devices": "MicrophoneSource DelayEstimator InputCapture OutputPlayer MediaDevices",
    "pcm": "DeviceLost Pcm Capture Playback FORMATS to_int16 from_int16 hardware names abilities busy_with",
    "report": "Reporter Board Instruments Moment notify",
    "socket_server": "SocketServer",
    "text_file": "FileError read_text one_line printable",
    "wav": "SoundReader WavSource WavSink open_sound",
}
ONE_TO_ONE = sorted(old for old, parts in MOVED.items() if len(parts) == 1)


@pytest.mark.parametrize("old", sorted(MOVED))
def test_every_old_path_can_be_imported(old: str) -> None:
    module = importlib.import_module(f"apmpi.{old}")
    assert getattr(importlib.import_module("apmpi"), old) is module
    for name in NAMES.get(old, "").split():
        assert hasattr(module, name), name


@pytest.mark.parametrize("old", ONE_TO_ONE)
def test_an_undivided_module_is_one_object_under_both_names(old: str) -> None:
    (new,) = MOVED[old]
    module = importlib.import_module(f"apmpi.{old}")
    assert module is importlib.import_module(f"apmpi.{new}")
    assert module.__name__ == module.__spec__.name == f"apmpi.{new}"  # type: ignore[union-attr]


def test_a_frame_pickled_under_the_old_path_loads() -> None:
    frame = AudioFrame.from_ndarray(np.arange(160, dtype=np.int16), 16000)
    old = pickle.dumps(frame, protocol=0).replace(b"apmpi.api.frame", b"apmpi.frame")
    assert any(argument == "apmpi.frame AudioFrame" for _, argument, _ in pickletools.genops(old))
    loaded = pickle.loads(old)
    assert type(loaded) is AudioFrame and loaded.data == frame.data


@pytest.mark.parametrize(
    "program",
    [
        "from apmpi.config import load; load",
        "import apmpi.wav; apmpi.wav.WavSink",
        "from apmpi import wav; wav.WavSink",
        "from apmpi.frame import AudioFrame; import apmpi; assert apmpi.AudioFrame is AudioFrame",
        "import apmpi, sys; assert not {'apmpi.api', 'apmpi.cards', 'apmpi.settings'} & {*sys.modules}",
    ],
)
def test_in_a_new_process(program: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_other_names_are_refused_as_by_any_package() -> None:
    for name in ("apmpi.waves", "apmpi.wav.other", "apmpi.cards.endpoints"):
        with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'"):
            importlib.import_module(name)
