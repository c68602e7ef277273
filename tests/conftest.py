"""Fixtures of all tests: a seeded random generator that prints its seed, and the room card."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
import signal
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import standstill
from _pytest.runner import runtestprotocol

# A busy machine makes an example slow, but never wrong.
hypothesis.settings.register_profile("apmpi", deadline=None, print_blob=True)
hypothesis.settings.load_profile("apmpi")


# A shell's background job ignores SIGINT, and so would the programs that tests stop with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# These fixtures depend on real time: a test with one of them is marked real_time, and runs apart from those
# that compute as much as they can.
REAL_TIME_FIXTURES = {"room_card", "card"}


MEASUREMENTS_MAX = 3
MEASURED_AGAIN = "measured again"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if Path(__file__).with_name("fuzz") in item.path.parents:
            item.add_marker(pytest.mark.fuzz)
        if REAL_TIME_FIXTURES & fixtures and not item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.real_time)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Measure again if a real-time test failed while the machine, measurably, stood still.

    The simulated card waits then, but sound that is in transit is late: the test has measured the machine. A
    failure without a standstill remains a failure, and so does one of the last measurement.
    """
    if not any(map(item.get_closest_marker, ("real_time", "alone"))):
        return None
    watch = _standstill_watch(item.config)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    repeated = []
    for number in range(MEASUREMENTS_MAX):
        began_s = time.monotonic()
        if number:
            item._initrequest()  # type: ignore[attr-defined]  # fixtures of their own
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        still_ms = watch.longest_ms(since_s=began_s)
        if not any(report.failed for report in reports) or not still_ms or number == MEASUREMENTS_MAX - 1:
            break
        repeated.append((MEASURED_AGAIN, f"{item.nodeid}: the machine stood still for {still_ms} ms"))
    for report in reports:
        report.user_properties += repeated if report.when == "call" else []
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in itertools.chain(*terminalreporter.stats.values()):
        for name, line in getattr(report, "user_properties", []):
            if name == MEASURED_AGAIN:
                terminalreporter.write_line(f"{name}: {line}")


def _standstill_watch(config: pytest.Config) -> standstill.Watch:
    if not hasattr(config, "standstill_watch"):
        stack = contextlib.ExitStack()
        config.add_cleanup(stack.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config.standstill_watch = stack.enter_context(standstill.watch(folder))  # type: ignore[attr-defined]
    watch: standstill.Watch = config.standstill_watch
    return watch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=60.0, help="seconds that each fuzzer runs")
    parser.addoption("--seed", type=int, default=1, help="seed of everything random in the tests")


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('--seed')} (another one: --seed N)"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on this test and this --seed, and not on other tests."""
    seed = [request.config.getoption("--seed"), zlib.crc32(request.node.nodeid.encode())]
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True, scope="session")
def own_runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a runtime folder of the tests' own for sockets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield


needs_livekit = pytest.mark.skipif(
    not list(importlib.metadata.distributions(name="livekit")), reason="needs apmpi[livekit]"
)

RoomCard = Callable[..., str]


@pytest.fixture
def room_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RoomCard]:
    """Configure the simulated sound card for this process and its children.

    room_card(delay_ms=40, near=path, ...) takes the options of the ALSA type `apmpi_room` and returns the
    name of the PCM to open. Each call adds a card of its own; pass `name` for a particular one.
    """
    package = importlib.util.find_spec("apmpi")
    assert package is not None and package.origin is not None
    library = Path(package.origin).with_name("libasound_module_pcm_apmpi_room.so")
    assert library.exists(), f"the room card is not installed: {library}"
    conf = tmp_path / "room.conf"
    conf.write_text(f'pcm_type.apmpi_room {{ lib "{library}" }}\n')
    monkeypatch.setenv("ALSA_CONFIG_PATH", f"/usr/share/alsa/alsa.conf:{conf}")
    names: list[str] = []

    def configure(name: str = "", **options: str | float | Path) -> str:
        name = name or f"room{len(names)}"
        names.append(name)
        # A card of this name may be in use by another run of the tests: the process makes it unique.
        lines = {"card": f"{name}-{os.getpid()}-{tmp_path.name}", **options}
        with conf.open("a") as file:
            file.write(f"pcm.{name} {{\n    type apmpi_room\n")
            for key, value in lines.items():
                number = isinstance(value, int | float)
                file.write(f"    {key} {value}\n" if number else f'    {key} "{value}"\n')
            file.write("}\n")
        return name

    yield configure
