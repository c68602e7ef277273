"""Readers of outside bytes in C, fed by libFuzzer under the address and undefined-behaviour sanitizers.

An input that a fuzzer finds becomes a test as a new file in its corpus.
"""

from __future__ import annotations

import math
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "native"
FLAGS = [
    *("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wdouble-promotion", "-Werror"),
    *("-fsanitize=fuzzer,address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
]


def core() -> Iterable[Path]:
    """The signal path without its tests."""
    for path in sorted(NATIVE.glob("*/*.c")):
        if path.parent.name not in {"cards", "pipewire", "roomcard", "training"} and not path.name.startswith(
            "test_"
        ):
            yield path


# name of a source here and of a folder of corpus/ -> its other sources, and the longest input in bytes
FUZZERS: dict[str, tuple[list[str | Path], int]] = {
    "state": ([*core()], 4096),
    "wav": ([NATIVE / "roomcard" / "wav.c"], 4096),
    "room": (
        [
            *(NATIVE / "roomcard" / f"{part}.c" for part in ("options", "timeline", "paths", "noise", "wav")),
            "-lasound",
        ],
        4096,
    ),
}


@pytest.mark.parametrize("name", FUZZERS)
def test_nothing_breaks_it(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    # An option of this folder alone: unknown if pytest was started above it.
    seconds = math.ceil(request.config.getoption("--fuzz-seconds", default=60.0))
    sources, longest = FUZZERS[name]
    found = tmp_path / "found"
    found.mkdir()
    fuzzer = tmp_path / name
    build = ["clang", *FLAGS, f"-I{NATIVE}", HERE / f"{name}.c", *sources, "-lm", "-o", fuzzer]
    subprocess.run(build, check=True)
    command = [
        fuzzer,
        f"-max_total_time={max(1, seconds)}",
        f"-max_len={longest}",
        f"-seed={request.config.getoption('--seed')}",
        "-timeout=30",
        "-print_final_stats=1",
        f"-artifact_prefix={tmp_path}/",
        found,
        HERE / "corpus" / name,
    ]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", text=True
    )
    inputs = [path for path in tmp_path.iterdir() if re.match(r"(crash|timeout|oom|leak)-", path.name)]
    for path in inputs:
        data = path.read_bytes()
        print(f"input, {len(data)} bytes: {data.hex()}")
        print("to repeat it:")
        print(" ", shlex.join(map(str, build)))
        print(f'  python3 -c \'open("input", "wb").write(bytes.fromhex("{data.hex()}"))\' && {fuzzer} input')
    assert done.returncode == 0 and not inputs, done.stdout[-8000:]
    runs = re.search(r"stat::number_of_executed_units: (\d+)", done.stdout)
    assert runs is not None, done.stdout[-8000:]
    print(f"{runs[1]} inputs in {seconds} s, {len(list(found.iterdir()))} of them new ways through the code")
    assert int(runs[1]) > len(list((HERE / "corpus" / name).iterdir()))
