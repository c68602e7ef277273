"""A file written beside its place replaces that file alone, whatever exists beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from apmpi.cards.replace import Part, replace
from apmpi.cards.wav import WavSink
from apmpi.errors import EndpointError
from apmpi.tools.record import _LineSink

Write = Callable[[Path], None]


def write_recording(path: Path) -> None:
    with WavSink(path, 16000) as sink:
        sink.write(bytes(320))
        sink.close()


def write_lines(path: Path) -> None:
    with _LineSink(path) as sink:
        sink.write({"a": 1})
        sink.close()


WRITERS = {
    "replace": lambda path: replace(path, b"new"),
    "recording": write_recording,
    "statistics": write_lines,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("points_to", ["precious", "nothing", "folder", "out.part"])
def test_a_link_in_place_of_the_part_is_not_followed(tmp_path: Path, write: Write, points_to: str) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "out.part").symlink_to(points_to)
    write(tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "precious"
    assert stat.S_ISREG((tmp_path / "out").lstat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "out", "precious"]
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_hard_link_in_place_of_the_part_keeps_its_other_name(tmp_path: Path, write: Write) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out.part").hardlink_to(tmp_path / "precious")
    write(tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_pipe_in_place_of_the_part_is_not_waited_for(tmp_path: Path, write: Write) -> None:
    os.mkfifo(tmp_path / "out.part")
    write(tmp_path / "out")
    assert stat.S_ISREG((tmp_path / "out").lstat().st_mode)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_folder_in_place_of_the_part_is_an_error_in_words(tmp_path: Path, write: Write) -> None:
    (tmp_path / "out.part").mkdir()
    with pytest.raises((OSError, EndpointError), match="Is a directory"):
        write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out.part"]


def test_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        for mode, expected in ((None, 0o644), (0o600, 0o600), (0o666, 0o666)):
            replace(tmp_path / "out", b"x", mode)
            assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == expected
        write_lines(tmp_path / "lines")
        assert stat.S_IMODE((tmp_path / "lines").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_what_another_program_writes_stays(tmp_path: Path) -> None:
    first = Part(tmp_path / "out")
    first.write(b"first")
    with pytest.raises(OSError, match="another program is writing it"):
        replace(tmp_path / "out", b"second")
    first.finish()
    first.abort()  # nothing is left to do
    assert (tmp_path / "out").read_bytes() == b"first"
    replace(tmp_path / "out", b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    (tmp_path / "out.part").symlink_to("nothing")
    first = Part(tmp_path / "out")
    before = opened()
    for _ in range(3):
        with pytest.raises(OSError, match="another program"):
            Part(tmp_path / "out")
    assert opened() == before
    first.abort()
    assert opened() == before - 1
