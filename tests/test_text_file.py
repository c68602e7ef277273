"""A user's text file of any content: its text, or one sentence. Never a wait or another exception."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apmpi.cards.text_file import decoded, one_line, printable, read_bytes, read_text, yaml_values
from apmpi.errors import FileError


def refusal(content: str) -> str:
    with pytest.raises(FileError) as caught:
        yaml_values(content, "network.yaml")
    message = str(caught.value)
    print(message)
    assert message.startswith("network.yaml:")
    assert message.isprintable()
    return message


def test_a_pipe_is_refused_though_nobody_writes_into_it(tmp_path: Path) -> None:
    pipe = tmp_path / "authorized_keys"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match="authorized_keys: is a pipe, expected public keys"):
        read_text(pipe, "public keys")


def test_what_becomes_a_pipe_after_the_look_at_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, regular = tmp_path / "pipe", tmp_path / "regular"
    os.mkfifo(pipe)
    regular.touch()
    of_a_regular_file = regular.stat()
    monkeypatch.setattr(Path, "stat", lambda path: of_a_regular_file)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileError, match="is a pipe"):
        read_bytes(pipe, "a YAML file")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_bound_is_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"x" * 1024)
    assert len(read_bytes(path, "keys", 1024)) == 1024
    path.write_bytes(b"x" * 1025)
    with pytest.raises(FileError, match="keys: more than 1 KiB, expected keys"):
        read_bytes(path, "keys", 1024)


def test_a_name_of_ones_own_opens_the_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"^network.yaml: is a folder, expected a YAML file$"):
        read_text(tmp_path, "a YAML file", name="network.yaml")


def test_a_path_that_is_none() -> None:
    with pytest.raises(FileError, match="is no file name"):
        read_text(Path("a\0b"), "a YAML file", name="x")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_with_and_without_a_mark(encoding: str) -> None:
    assert decoded("ssh-ed25519 AAAA Küche".encode(encoding), "keys") == "ssh-ed25519 AAAA Küche"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", ["ssh-ed25519 AAAA", "a: b", "\n\n# x"])
def test_other_encodings_are_named(encoding: str, text: str) -> None:
    with pytest.raises(FileError, match=f"keys: is {encoding[:6].upper()} text, expected UTF-8"):
        decoded(text.encode(encoding), "keys")


def test_values() -> None:
    text = "wifi: {name: Küche, password: '12345678'}\ndns: 1.1.1.1\nlist: [1, 2.5, true, null]\n"
    assert yaml_values(text, "network.yaml") == {
        "wifi": {"name": "Küche", "password": "12345678"},
        "dns": "1.1.1.1",
        "list": [1, 2.5, True, None],
    }
    assert yaml_values("# nothing\n", "network.yaml") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        'a: "\\UFFFFFFFF"': ":1: not readable as YAML",
        "a: !!bool foo": ":1: a tag (!) given",
        '\na: !!int ""': ":2: a tag (!) given",
        "a: !!timestamp foo": ":1: a tag (!) given",
        "a: 2026-13-32": ":1: not readable as YAML",
        "a: 0x_": ":1: not readable as YAML",
        "a: " + "9" * 5000: ":1: not readable as YAML",
        "a: =": ":1: not valid YAML",
        "? [a]\n: b": ":1: a group or list given as a key",
        "a: 1\nb: 2\na: 3": ":3: a: given twice, first in line 1",
        "a: &x 1\nb: *x": ":1: an alias or anchor",
        "b:\n  <<: {a: 1}": ":2: a merge key (<<) given",
        "a: [" * 50: "nested too deep",
        "a: \x1b[2J": "a control character given",
        "'\\e[2J': 1\n'\\e[2J': 2": "given twice",
        "#" * 70_000: "more than 64 KiB",
    }.items(),
)
def test_refused_values(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_the_longest_bomb_of_merge_keys_takes_no_time() -> None:
    levels = [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}" for level in range(1, 50)]
    assert "alias or anchor" in refusal("\n".join(["a0: &a0 {x: 1}", *levels]))


def test_printable() -> None:
    assert one_line("hw:\x1b[2J\n\u202e\udcfc") == r"hw:\x1b[2J\n\u202e\udcfc"
    assert one_line("Küche") == "Küche"
    assert printable("\x1b" * 1000) == r"\x1b" * 14 + "\\..."
    assert printable("x" * 60) == "x" * 60
    assert printable("x" * 1000) == "x" * 57 + "..."
