"""YAML file -> frozen, typed `Settings`, or one sentence that states the mistake and its place.

The reader is strict, because a device without a keyboard cannot ask back: an unknown or doubled key, a wrong
type, a value out of range is a `ConfigError` naming file, line, key, the value given and what was expected.
Aliases, anchors and tags are refused (nothing here needs them), so a small file cannot unfold into a huge
one. Keys, types and ranges are those of the rows in apmpi.settings; config/apmpi.yaml explains every key;
the rules for endpoints that go together are in apmpi.service.layout.
"""

import contextlib
import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

import yaml

from apmpi.cards import text_file
from apmpi.cards.text_file import printable
from apmpi.errors import ConfigError, FileError
from apmpi.service.layout import conflicts
from apmpi.settings import CARD_CHANNELS_MAX, CHANNELS_MAX, Endpoint, Features, Row, Settings, Tuning, rows

# The configuration of the system's service.
SYSTEM_FILE = Path("/etc/apmpi/apmpi.yaml")


def load(path: Path) -> Settings:
    """Read `path`. Raises ConfigError, also for a file that is missing, unreadable or above 64 KiB."""
    with _refused():
        content = text_file.read_bytes(path, "a YAML file")
    return parse(content, str(path))


def parse(text: str | bytes, name: str) -> Settings:
    """Return the settings in YAML `text` (bytes: UTF-8). Raises ConfigError and nothing else.

    `name` is the file that the text came from: every message begins with it, and relative paths in the YAML
    start at its folder.
    """
    with _refused():
        node = text_file.compose_yaml(
            text_file.decoded(text, name) if isinstance(text, bytes) else text, name
        )
    return _Reader(name).settings(node)


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Turn a FileError into a ConfigError."""
    try:
        yield
    except FileError as error:
        raise ConfigError(str(error)) from None


class _Reader:
    """Converts nodes into settings. Each method raises ConfigError at the node's line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._folder = Path(name).parent

    def fail(self, node: yaml.Node | None, key: str, problem: str) -> NoReturn:
        line = node.start_mark.line + 1 if node is not None else 1
        raise ConfigError(f"{self._name}:{line}: {key + ': ' if key else ''}{problem}")

    def settings(self, document: yaml.Node | None) -> Settings:
        if document is None:
            self.fail(None, "", "empty, expected at least the key microphone")
        nodes = self.mapping(document, "", rows(Settings))
        values = self.values(Settings, nodes, "")
        if "microphone" not in values:
            self.fail(document, "microphone", "missing, expected {device: NAME} or {file: PATH}")
        settings = Settings(**values)
        for key, problem in conflicts(settings):
            self.fail(nodes[key.split(".")[0]], key, problem)
        return settings

    def group(self, part: type[Any], node: yaml.Node, key: str, _row: Row) -> object:
        return part(**self.values(part, self.mapping(node, key, rows(part)), f"{key}."))

    def values(self, part: type[Any], nodes: dict[str, yaml.Node], prefix: str) -> dict[str, Any]:
        """Return the value of each node by its name, read as the row and type of that name demand."""
        known, types = rows(part), get_type_hints(part)
        readers: dict[object, Callable[[yaml.Node, str, Row], object]] = {
            bool: self.boolean,
            bool | str: self.level,
            int: self.integer,
            float: self.number,
            str: self.word,
            Features: partial(self.group, Features),
            Tuning: partial(self.group, Tuning),
            Endpoint: self.endpoint,
        }
        values: dict[str, Any] = {}
        for name, node in nodes.items():
            kind = types[name]
            if NoneType in get_args(kind):
                # `null` means absent, but has to be written: a half-written file ends with `speaker:` alone.
                if _is_null(node) and node.value:
                    values[name] = None
                    continue
                kind = get_args(kind)[0]
            values[name] = readers[kind](node, prefix + name, known[name])
        return values

    def mapping(self, node: yaml.Node, path: str, known: Iterable[str]) -> dict[str, yaml.Node]:
        """Return the values by key; each key is known and given once."""
        known = tuple(known)
        expected = f"expected one of {', '.join(known)}"
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, path, f"{_shown(node)} given, expected keys with values ({', '.join(known)})")
        nodes: dict[str, yaml.Node] = {}
        self.refuse_cut_value(node, path, known)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fail(key_node, path, f"{_shown(key_node)} given as a key, {expected}")
            full = f"{path}.{printable(key_node.value)}" if path else printable(key_node.value)
            if key_node.value not in known:
                near = difflib.get_close_matches(key_node.value[:80], known, n=1)
                self.fail(
                    key_node,
                    full,
                    f"unknown key, {expected}" + (f"; did you mean {near[0]}?" if near else ""),
                )
            if key_node.value in nodes:
                first = nodes[key_node.value].start_mark.line + 1
                self.fail(key_node, full, f"given twice, first in line {first}, expected once")
            nodes[key_node.value] = value_node
        return nodes

    def refuse_cut_value(self, node: yaml.MappingNode, path: str, known: tuple[str, ...]) -> None:
        """Fail at a name that a comma cut: within {} a comma ends a value without quotes, so that
        `{device: hw:1,0}` is the device "hw:1" and a key "0" without a value."""

        def is_rest(pair: tuple[yaml.Node, yaml.Node]) -> bool:
            key, value = pair
            misspelt = _is_plain(key) and difflib.get_close_matches(key.value[:80], known, n=1)
            return _is_plain(key) and _is_empty(value) and not misspelt

        for place, (key, value) in enumerate(node.value if node.flow_style else []):
            if key.value not in ("device", "file") or not _is_plain(value):
                continue
            # No name has more parts than card, device, subdevice.
            if cut := [*itertools.takewhile(is_rest, node.value[place + 1 : place + 4])]:
                whole = printable(",".join([value.value, *(part.value for part, _ in cut)]))
                problem = f"{whole} given without quotes, expected '{whole}'"
                full = f"{path}.{key.value}" if path else key.value
                self.fail(value, full, f"{problem}: within {{}} a comma ends a value")

    def endpoint(self, node: yaml.Node, key: str, _row: Row) -> Endpoint:
        known_rows = rows(Endpoint)
        own = {"microphone": ("use", "positions_mm"), "far_end": ("sample_rate_hz", "microphone_channels")}
        known = ("device", "file", "channels", *own.get(key, ("sample_rate_hz",)))
        nodes = self.mapping(node, key, known)
        places = [name for name in ("device", "file", "microphone_channels") if name in nodes]
        if len(places) != 1:
            given = f"both {' and '.join(places)}" if places else "neither device nor file"
            self.fail(node, key, f"{given} given, expected exactly one of them")
        place = places[0]
        values: dict[str, Any] = {"line": node.start_mark.line + 1}
        if place == "microphone_channels":
            for name in ("channels", "sample_rate_hz"):
                if name in nodes:
                    problem = f"{_shown(nodes[name])} given beside microphone_channels, expected that alone"
                    self.fail(nodes[name], f"{key}.{name}", problem)
            numbers = self.channel_list(nodes[place], f"{key}.{place}", known_rows[place])
            return Endpoint(channels=len(numbers), microphone_channels=numbers, **values)
        place_text = self.text(nodes[place], f"{key}.{place}")
        values[place] = self._folder / place_text if place == "file" else place_text
        if "channels" in nodes:
            row = known_rows["channels"]
            row = replace(row, high=CARD_CHANNELS_MAX) if key == "microphone" else row
            values["channels"] = self.integer(nodes["channels"], f"{key}.channels", row)
        if "use" in nodes:
            values["use"] = self.channel_list(nodes["use"], f"{key}.use", known_rows["use"])
        if "positions_mm" in nodes:
            values["positions_mm"] = self.positions(
                nodes["positions_mm"], f"{key}.positions_mm", known_rows["positions_mm"]
            )
        if "sample_rate_hz" in nodes:
            values["sample_rate_hz"] = self.device_rate(
                nodes["sample_rate_hz"], f"{key}.sample_rate_hz", place
            )
        return Endpoint(**values)

    def channel_list(self, node: yaml.Node, key: str, row: Row) -> tuple[int, ...]:
        numbers_are = f"{CHANNELS_MAX} different numbers from {row.low:g} to {row.high:g}"
        expected = f"expected a list of at most {numbers_are}, as [1, 2]"
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.fail(node, key, f"{_shown(node)} given, {expected}")
        if len(node.value) > CHANNELS_MAX:
            self.fail(node, key, f"{len(node.value)} numbers given, {expected}")
        numbers = [self.integer(item, key, row) for item in node.value]
        if len(set(numbers)) < len(numbers):
            self.fail(node, key, f"a number given twice, {expected}")
        return tuple(numbers)

    def positions(self, node: yaml.Node, key: str, row: Row) -> tuple[tuple[float, float], ...]:
        expected = "expected a pair of numbers for each microphone, as [[-50, 0], [50, 0]]"
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.fail(node, key, f"{_shown(node)} given, {expected}")
        positions: list[tuple[float, float]] = []
        for pair in node.value:
            if not isinstance(pair, yaml.SequenceNode) or len(pair.value) != 2:
                given = (
                    f"a list of {len(pair.value)}" if isinstance(pair, yaml.SequenceNode) else _shown(pair)
                )
                self.fail(pair, key, f"{given} given, {expected}")
            x, y = (self.number(item, key, row) for item in pair.value)
            if (x, y) in positions:
                self.fail(pair, key, f"[{x:g}, {y:g}] given twice, expected different places")
            positions.append((x, y))
        return tuple(positions)

    def device_rate(self, node: yaml.Node, key: str, place: str) -> int:
        if place != "device":
            self.fail(node, key, "given for a file, expected the files' rate to be that of all")
        value = self.integer(node, key, rows(Endpoint)["sample_rate_hz"])
        if value % 100:
            self.fail(node, key, f"{value} given, expected a multiple of 100 (Hz): whole samples in 10 ms")
        return value

    def boolean(self, node: yaml.Node, key: str, _row: Row) -> bool:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
            return node.value.lower() in ("true", "yes", "on")
        self.fail(node, key, f"{_shown(node)} given, expected true or false")

    def level(self, node: yaml.Node, key: str, row: Row) -> bool | str:
        if isinstance(node, yaml.ScalarNode) and node.value in row.choices:
            return str(node.value)
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
            return self.boolean(node, key, row)
        levels = ", ".join(map(str, row.choices))
        self.fail(node, key, f"{_shown(node)} given, expected true, false or one of {levels}")

    def text(self, node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            self.fail(node, key, f"{_shown(node)} given, expected text (in quotes if it looks like a number)")
        if not node.value or not node.value.isprintable():
            self.fail(
                node, key, f"{_shown(node)} given, expected text without line breaks or control characters"
            )
        return str(node.value)

    def word(self, node: yaml.Node, key: str, row: Row) -> str:
        """One of the row's choices; without any, "auto" or a path."""
        if not row.choices:
            place = self.text(node, key)
            return place if place == "auto" else str(self._folder / place)
        if not isinstance(node, yaml.ScalarNode) or node.value not in row.choices:
            self.fail(node, key, f"{_shown(node)} given, expected one of {', '.join(map(str, row.choices))}")
        return str(node.value)

    def integer(self, node: yaml.Node, key: str, row: Row) -> int:
        value = _integer(node)
        if row.choices and value not in row.choices:
            expected = f"one of {', '.join(map(str, row.choices))} ({row.unit})"
        elif value is None or not row.low <= value <= row.high:
            expected = f"a whole number from {row.low:g} to {row.high:g}"
        else:
            return value
        self.fail(node, key, f"{_shown(node)} given, expected {expected}")

    def number(self, node: yaml.Node, key: str, row: Row) -> float:
        value = _number(node)
        if value is None or not row.low <= value <= row.high:
            expected = f"a number from {row.low:g} to {row.high:g}"
            self.fail(node, key, f"{_shown(node)} given, expected {expected}")
        return value


def _is_plain(node: yaml.Node) -> bool:
    """True for a scalar without quotes."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _is_empty(node: yaml.Node) -> bool:
    """True for the value of a key without one."""
    return _is_null(node) and not node.value


def _integer(node: yaml.Node) -> int | None:
    """Return a decimal integer: YAML 1.1 would also take 010 as eight and 1:30 as ninety."""
    decimal = _is_plain(node) and re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,8})", node.value)
    return int(node.value) if decimal else None


def _number(node: yaml.Node) -> float | None:
    """Return a decimal number, with or without a fraction."""
    decimal = _is_plain(node) and re.fullmatch(r"[-+]?[0-9]{1,9}(\.[0-9]*)?", node.value)
    return float(node.value) if decimal else None


def _shown(node: yaml.Node) -> str:
    """Return a value as the user wrote it, short enough for one sentence."""
    if isinstance(node, yaml.MappingNode):
        return "a group of keys"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if _is_empty(node):
        return "nothing"
    assert isinstance(node, yaml.ScalarNode)
    return printable(node.value) if node.style is None else f"'{printable(node.value)}'"
