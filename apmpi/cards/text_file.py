"""Untrusted text files: their text or YAML, or an error of one sentence.

For every file and content these functions return or raise FileError, within bounded time and memory: only
regular files are opened, no more is read than allowed, and YAML is limited in length and depth before it is
composed. Aliases, anchors, tags and merge keys are refused (no file here needs them), so that a small file
cannot expand into a huge one.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from apmpi.errors import FileError

# About ten times the commented default configuration; a longer file is another one, named by mistake.
SIZE_MAX_BYTES = 64 * 1024
# Document > endpoint > value are the levels in use; without a limit `[[[[...` would exhaust the stack.
DEPTH_MAX = 8


def open_regular(path: Path, expected: str, name: str = "") -> BinaryIO:
    """Open a regular file for reading; never waits for the other end of a pipe. Raises FileError.

    expected, name: end ("a YAML file") and beginning (default: the path) of the error's sentence
    """
    name = name or str(path)
    try:
        # Checked before it is opened, since opening alone starts some devices (a watchdog), and once more
        # afterwards, since the name may refer to another file by then.
        _check_regular(path.stat().st_mode, name, expected)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            _check_regular(os.fstat(descriptor).st_mode, name, expected)
        except FileError:
            os.close(descriptor)
            raise
        return os.fdopen(descriptor, "rb")
    except OSError as error:
        raise FileError(f"{name}: cannot be read ({error.strerror}), expected {expected}") from None
    except FileError:
        raise
    except ValueError as error:  # a NUL in the path
        raise FileError(f"{name}: is no file name ({error}), expected {expected}") from None


def read_bytes(path: Path, expected: str, size_max_bytes: int = SIZE_MAX_BYTES, name: str = "") -> bytes:
    """Return the content of a regular file of at most `size_max_bytes`. Raises FileError."""
    name = name or str(path)
    content = bytearray()
    with open_regular(path, expected, name) as file:
        try:
            # Up to one byte more than allowed. os.read: a file of /proc without data is an OSError, not a
            # wait.
            while more := os.read(file.fileno(), size_max_bytes + 1 - len(content)):
                content += more
        except OSError as error:
            raise FileError(f"{name}: cannot be read ({error.strerror}), expected {expected}") from None
    if len(content) > size_max_bytes:
        raise FileError(f"{name}: more than {_size(size_max_bytes)}, expected {expected}")
    return bytes(content)


def read_text(path: Path, expected: str, size_max_bytes: int = SIZE_MAX_BYTES, name: str = "") -> str:
    """Return the text of a regular file in UTF-8, with or without a byte order mark. Raises FileError."""
    return decoded(read_bytes(path, expected, size_max_bytes, name), name or str(path))


def decoded(content: bytes, name: str) -> str:
    """Return the text of `content`, UTF-8 with or without a byte order mark. Raises FileError."""
    if encoding := _other_encoding(content):
        raise FileError(f"{name}: is {encoding} text, expected UTF-8: save it again with that encoding")
    try:
        return content.decode("utf-8-sig")  # Windows editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise FileError(f"{name}:{line}: byte 0x{byte:02x} given, expected UTF-8 text") from None


def compose_yaml(text: str, name: str) -> yaml.Node | None:
    """Return the node tree of the one document in `text`, every node with its line; None if it is empty.

    Scalars are still text, with tags for the types that YAML resolves them to. Raises FileError.
    """
    if len(text) > SIZE_MAX_BYTES:
        raise FileError(f"{name}: more than {_size(SIZE_MAX_BYTES)}, expected a short YAML file")
    with _yaml_errors(text, name):
        loader = _StrictLoader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()


def yaml_values(text: str, name: str) -> object:
    """Return the YAML value of `text`: dict, list, str, bool, int, float, date or None. Raises FileError."""
    node = compose_yaml(text, name)
    if node is None:
        return None
    with _yaml_errors(text, name):
        values: object = _StrictLoader("").construct_document(node)
        return values


@contextlib.contextmanager
def _yaml_errors(text: str, name: str) -> Iterator[None]:
    """Turns every exception into a FileError."""
    try:
        yield
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FileError(f"{name}:{line}: a control character given, expected YAML text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        lines = text.splitlines()
        where = lines[line - 1] if line <= len(lines) else ""
        if "\t" in where[: len(where) - len(where.lstrip())]:
            raise FileError(f"{name}:{line}: a tab given, expected spaces for indentation") from None
        problem = printable(" ".join((error.problem or error.context or "").split()), 120)
        if not isinstance(error, _Refusal):
            problem = f"not valid YAML ({problem}), expected KEY: VALUE lines"
        raise FileError(f"{name}:{line}: {problem}") from None
    except Exception:  # PyYAML raises others on "\UFFFFFFFF", the date 2026-13-32, the number 0x_
        problem = "an escape, number or date out of range"
        raise FileError(f"{name}:1: not readable as YAML ({problem}), expected KEY: VALUE lines") from None


def one_line(text: str) -> str:
    """Return `text` for one line of a terminal, with escapes for characters that are not printable."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def printable(text: str, length_max: int = 60) -> str:
    """Return `text` for a place within a sentence: as one_line(), cut to `length_max` characters."""
    shown = one_line(text[: length_max + 1])
    return shown if len(shown) <= length_max else shown[: length_max - 3] + "..."


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's node composer without aliases, anchors, tags, merge keys and unlimited nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _Refusal("an alias or anchor (* or &) given, expected each value written out", event)
        if event.tag is not None:
            raise _Refusal("a tag (!) given, expected a plain value", event)
        if self._depth == DEPTH_MAX:
            raise _Refusal("nested too deep, expected keys as in the commented default", event)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Raises _Refusal for keys not allowed, where PyYAML would expand merge keys."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise _Refusal("a merge key (<<) given, expected each key written out", key)
            if not isinstance(key, yaml.ScalarNode):
                raise _Refusal("a group or list given as a key, expected KEY: VALUE lines", key)
            if key.value in lines:
                name = printable(key.value)
                problem = f"{name}: given twice, first in line {lines[key.value]}, expected once"
                raise _Refusal(problem, key)
            lines[key.value] = key.start_mark.line + 1


class _Refusal(yaml.MarkedYAMLError):
    """Valid YAML that is not allowed in these files."""

    def __init__(self, problem: str, where: Any) -> None:
        super().__init__(problem=problem, problem_mark=where.start_mark)


def _check_regular(mode: int, name: str, expected: str) -> None:
    if not stat.S_ISREG(mode):
        raise FileError(f"{name}: is a {_kind(mode)}, expected {expected}")


def _kind(mode: int) -> str:
    """Return the kind of a file that is no regular one, as a word."""
    names = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return names.get(stat.S_IFMT(mode), "device")


def _other_encoding(content: bytes) -> str | None:
    """Return another Unicode encoding, found by its byte order mark or by every second byte being 0."""
    begin = content[:64]
    for mark, encoding in (
        (b"\xff\xfe\x00\x00", "UTF-32"),
        (b"\x00\x00\xfe\xff", "UTF-32"),
        (b"\xff\xfe", "UTF-16"),
        (b"\xfe\xff", "UTF-16"),
    ):
        if begin.startswith(mark):
            return encoding
    halves = begin[0::2], begin[1::2]
    if len(begin) >= 4 and any(not any(one) and all(other) for one, other in (halves, halves[::-1])):
        return "UTF-16"
    return None


def _size(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >= 1 << 20 else f"{size_bytes >> 10} KiB"
