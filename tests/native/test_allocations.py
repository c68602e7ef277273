"""Processing a frame allocates nothing: calls of the C library's allocator, counted through Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = """
import ctypes, random, sys
from apmpi import AudioFrame, AudioProcessingModule

counter = ctypes.CDLL(sys.argv[1])
counter.allocations.restype = ctypes.c_ulong
features = ("echo_cancellation", "noise_suppression", "high_pass_filter", "auto_gain_control")
places = [(-35, 0), (0, 0), (35, 0)]
for rate_hz, channels in ((16000, 1), (48000, 2), (16000, 3)):
    beam = {"array": True, "microphone_positions_mm": places} if channels == len(places) else {}
    module = AudioProcessingModule(**dict.fromkeys(features, True), **beam)
    far = AudioFrame.create(rate_hz, 1, rate_hz // 100)
    mic = AudioFrame.create(rate_hz, channels, rate_hz // 100)
    dice = random.Random(1)
    sound = [dice.randrange(-9000, 9000) for _ in range(len(mic.data))]

    def process(frames):
        for _ in range(frames):
            for at in range(0, len(far.data), 3):
                far.data[at] = sound[at]
            for at in range(len(mic.data)):
                mic.data[at] = sound[at]
            module.process_reverse_stream(far)
            module.set_stream_delay_ms(30)
            module.process_stream(mic)
            sound.append(sound.pop(0))

    before = counter.allocations()
    process(20)
    first = counter.allocations()
    process(500)
    print(rate_hz, channels, first - before, counter.allocations() - first)
"""


def test_processing_allocates_nothing(tmp_path: Path) -> None:
    library = tmp_path / "liballocations.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", HERE / "allocations.c", "-o", library], check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, library],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        cwd=tmp_path,  # the installed package, not the folder
    )
    assert done.returncode == 0, done.stderr
    lines = [[int(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert len(lines) == 3
    for rate_hz, channels, first, later in lines:
        print(f"{rate_hz} Hz, {channels} channels: {first} allocations in 20 frames, {later} in 500 more")
        assert first > 0, "the counter does not count: the first frames make the module"
        assert later == 0
