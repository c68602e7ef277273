"""The compiled module under the undefined-behaviour sanitizer: buffers begin at any address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import apmpi

apm = apmpi.AudioProcessingModule(echo_cancellation=True, noise_suppression=True, auto_gain_control=True)
for channels in (1, 2):
    for at in range(4):
        for _ in range(3):
            shared = memoryview(bytearray(320 * channels + at))[at:]
            frame = apmpi.AudioFrame(shared, 16000, channels, 160)
            apm.process_reverse_stream(frame)
            apm.process_stream(frame)
state = apm.save_state()
for at in range(4):
    apm.load_state(memoryview(bytes(at) + state)[at:])
print(apmpi.__file__)
"""


def test_a_buffer_may_begin_at_an_odd_address(tmp_path: Path) -> None:
    flags = "-fsanitize=undefined,float-cast-overflow -fno-sanitize-recover=all"
    install = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    install += ["--no-build-isolation", f"--config-settings=build-dir={tmp_path / 'build'}"]
    install += ["--config-settings=cmake.build-type=Debug", "--config-settings=cmake.define.APMPI_ROOM=OFF"]
    environment = os.environ | {"CFLAGS": flags, "LDFLAGS": flags, "UBSAN_OPTIONS": "print_stacktrace=1"}
    subprocess.run([*install, "--target", tmp_path / "site", ROOT], env=environment, check=True)
    environment["PYTHONPATH"] = str(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-8000:]
    assert done.stdout.startswith(str(tmp_path)), "another module was tried"
