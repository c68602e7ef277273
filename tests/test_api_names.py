"""The names and the version that `import apmpi` offers, also in a process forked during an import."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import apmpi

FORKS = 6
# A process forks while one of its threads loads a name. The alarm ends a child that waits for that thread,
# which does not exist in it.
FIRST_USE = """
import apmpi, os, signal, sys, threading, time, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: fork with threads
delay_s, name = float(sys.argv[1]), sys.argv[2]
thread = threading.Thread(target=lambda: getattr(apmpi, name))
thread.start()
time.sleep(delay_s)
child = os.fork()
if child == 0:
    signal.alarm(20)
    getattr(apmpi, name)
    if name == "AudioFrame":
        apmpi.AudioProcessingModule().process_stream(apmpi.AudioFrame.create(16000, 1, 160))
    os._exit(0)
status = os.waitpid(child, 0)[1]
thread.join()
sys.exit(f"the child ended with status {status}" if status else 0)
"""


def in_a_new_process(program: str, *arguments: str, cwd: Path) -> str:
    """Return the program's output; from another folder, so that the installed package is imported."""
    command = (sys.executable, "-c", program, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["AudioFrame", "MediaDevices"])
def test_a_child_forked_while_a_name_is_loaded_loads_it_too(name: str, tmp_path: Path) -> None:
    """Regression: in 6 of 6 runs the child waited permanently for the import of a thread that did not exist
    in it.
    """
    for number in range(FORKS):  # from the beginning of the import to its middle
        in_a_new_process(FIRST_USE, f"{0.004 * number}", name, cwd=tmp_path)


# What is loaded asks for a logger, in the middle of a fork.
LOGGER_WHILE_LOADING = """
import apmpi, logging, os, signal, threading, time, warnings

warnings.simplefilter("ignore", DeprecationWarning)
signal.alarm(20)
begun = threading.Event()

def load(name):
    begun.set()
    time.sleep(0.3)
    return logging.getLogger(name)

apmpi._load = load
thread = threading.Thread(target=lambda: apmpi.AudioFrame)
thread.start()
begun.wait()
if (child := os.fork()) == 0:
    os._exit(0)
os.waitpid(child, 0)
thread.join()
"""


def test_a_fork_does_not_wait_for_what_is_loaded(tmp_path: Path) -> None:
    """Regression: the fork held logging's lock and waited for the import, which waited for that lock."""
    in_a_new_process(LOGGER_WHILE_LOADING, cwd=tmp_path)


def test_a_name_once_used_is_bound(tmp_path: Path) -> None:
    program = """
import apmpi
names = apmpi.__all__
before = [name for name in names if name in vars(apmpi)]
used = [getattr(apmpi, name) for name in names]
assert before == [], before
assert all(vars(apmpi)[name] is value for name, value in zip(names, used))
"""
    in_a_new_process(program, cwd=tmp_path)


def test_importing_loads_neither_numpy_nor_alsa(tmp_path: Path) -> None:
    """Reading a configuration at boot needs neither: they take seconds on a small Pi."""
    program = "import json, sys, apmpi, apmpi.service.yaml_reader; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(in_a_new_process(program, cwd=tmp_path)))
    assert "apmpi.service.yaml_reader" in loaded
    assert not loaded & {"numpy", "alsaaudio", "asyncio", "importlib.metadata", "apmpi._native"}


def test_the_service_starts_without_what_it_does_not_need(tmp_path: Path) -> None:
    """The package's metadata, for the version alone, takes a small Pi 0.3 s."""
    program = """
import json, sys
from apmpi.service import run
from apmpi.tools import cli
cli.parser()
print(json.dumps(list(sys.modules)))
"""
    loaded = set(json.loads(in_a_new_process(program, cwd=tmp_path)))
    assert "apmpi.service.loop" in loaded
    assert not loaded & {"numpy", "asyncio", "importlib.metadata", "email", "zipfile"}


def test_the_public_names_are_listed() -> None:
    assert {*apmpi.__all__, "__version__", "__doc__"} <= set(dir(apmpi))
    assert dir(apmpi) == sorted(set(dir(apmpi)))
    for name in apmpi.__all__:
        assert getattr(apmpi, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'apmpi' has no attribute 'AudioFrames'"):
        _ = apmpi.AudioFrames  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_installed_package() -> None:
    assert apmpi.__version__ == importlib.metadata.version("apmpi")


def test_type_checkers_know_the_public_names(tmp_path: Path) -> None:
    lines = ["import apmpi", "version: str = apmpi.__version__"]
    lines += [f"reveal_type(apmpi.{name})" for name in apmpi.__all__]
    program = tmp_path / "program.py"
    program.write_text("\n".join(lines) + "\n")
    # The types are those of the folder: the installed package has no py.typed file of its own.
    command = (sys.executable, "-m", "mypy", "--strict", program)
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Revealed type") == len(apmpi.__all__) and '"Any"' not in done.stdout
