"""YAML file -> frozen, typed `Settings`, or one sentence that says what is wrong and where.

`Settings` and its parts are the one place where defaults live; config/apmpi.yaml explains every key.

The reader is strict, because a device without a keyboard can't ask back: an unknown or doubled key, a wrong
type, a value out of range is a `ConfigError` naming file, line, key, the value given and what was expected.
Aliases, anchors and tags are refused (nothing here needs them), so a small file can't unfold into a huge one.

Which endpoints go together:

- `microphone` is required. Every endpoint is either a `device` (ALSA name) or a `file` (WAV), never both.
- `speaker` needs `far_end`: there would be nothing to play.
- `microphone` a file: every other endpoint must be a file too. A recording can't hear a loudspeaker, a live
  far end can't be its reference, and no sound card sets the pace: the chain runs as fast as it can.
- `microphone` a device and `far_end` a file: `speaker` is needed, or nobody plays what is to be cancelled.
  A `far_end` device without `speaker` is a card's own reference of what its loudspeaker plays.
- Two endpoints of one direction are never the same device, by whatever names: `far_end` = `microphone` would
  cancel the talker, `output` = `speaker` would howl.
- A file that is written is never a file that another endpoint reads or writes.
- `speaker` has as many channels as `far_end`, `output` as many as are used of `microphone`; or one of the two
  is mono.
- At most CHANNELS_MAX of the microphone's channels are used; its card may have more.
- `far_end` may be some channels of the microphone's card, a hardware reference, in place of device and file:
  then there is no `speaker`, for something else plays it, and these channels are not used as microphones.
"""

import contextlib
import difflib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from apmpi.cards import text_file
from apmpi.cards.text_file import printable
from apmpi.errors import ConfigError, FileError

SAMPLE_RATES_HZ = (8000, 16000, 32000, 48000)
CHANNELS_MIN, CHANNELS_MAX = 1, 8
# Of a card, of which `use` picks those that are processed: MADI, the widest connection there is, has 64.
CARD_CHANNELS_MAX = 64
STREAM_DELAY_MIN_MS, STREAM_DELAY_MAX_MS = 0, 500
DEVICE_RATE_MIN_HZ, DEVICE_RATE_MAX_HZ = 8000, 192_000
PERIODS_MIN, PERIODS_MAX = 2, 16
NOISE_SUPPRESSION_LEVELS = ("low", "moderate", "high", "very_high", "auto")
HIGH_PASS_MIN_HZ, HIGH_PASS_MAX_HZ = 20.0, 300.0
GAIN_TARGET_MIN_DBFS, GAIN_TARGET_MAX_DBFS = -40.0, -6.0
GAIN_MAX_MIN_DB, GAIN_MAX_MAX_DB = 0.0, 50.0
HEADROOM_MIN_DB, HEADROOM_MAX_DB = 0.0, 20.0
KEEP_LEARNED = ("ram", "disk", "never")
REPORT_INTERVAL_MIN_S, REPORT_INTERVAL_MAX_S = 0.1, 3600.0
# Where the kernel tells the cards' numbers and names.
SOUND_CARDS = Path("/sys/class/sound")


@dataclass(frozen=True, slots=True)
class Features:
    """The stages that can be switched while running. noise_suppression may also name a level."""

    echo_cancellation: bool = True
    noise_suppression: bool | str = True
    high_pass_filter: bool = True
    auto_gain_control: bool = True
    learned_gain: bool = True


@dataclass(frozen=True, slots=True)
class Tuning:
    """How strongly the stages act; may change while running."""

    high_pass_hz: float = 80.0
    gain_target_dbfs: float = -20.0
    gain_max_db: float = 32.0
    headroom_db: float = 1.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where samples come from or go to: exactly one of `device` (ALSA PCM name) and `file` (WAV), or for a
    far end `microphone_channels`.

    sample_rate_hz        of the device, if it is not that of all
    use                   which channels of a microphone are used, counted from 1; empty: all but those of
                          the far end
    microphone_channels   the channels of the microphone's card that are the far end, counted from 1
    line                  of the YAML file, for messages
    """

    device: str | None = None
    file: Path | None = None
    channels: int = 1
    sample_rate_hz: int | None = None
    use: tuple[int, ...] = ()
    microphone_channels: tuple[int, ...] = ()
    line: int | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a person can set. The ranges are the constants above."""

    sample_rate_hz: int = 48000
    features: Features = Features()
    tuning: Tuning = Tuning()
    microphone: Endpoint
    speaker: Endpoint | None = None
    far_end: Endpoint | None = None
    output: Endpoint | None = None
    stream_delay_ms: int | None = None
    periods: int = 4
    low_latency: bool = False
    report_interval_s: float = 10.0
    keep_learned: str = "ram"
    socket: str | None = "auto"
    metrics: bool = False

    @property
    def near_channels(self) -> tuple[int, ...]:
        """Which of the microphone's channels are used, counted from 0."""
        reference = self.far_end.microphone_channels if self.far_end else ()
        every = range(1, self.microphone.channels + 1)
        used = self.microphone.use or [number for number in every if number not in reference]
        return tuple(number - 1 for number in used)

    @property
    def reference_channels(self) -> tuple[int, ...]:
        """Which of the microphone's channels are the far end, counted from 0."""
        return tuple(number - 1 for number in self.far_end.microphone_channels) if self.far_end else ()


def load(path: Path) -> Settings:
    """Read `path`. Raises ConfigError, also for a file that is missing, unreadable or far too big."""
    with _refused():
        content = text_file.read_bytes(path, "a YAML file")
    return parse(content, str(path))


def parse(text: str | bytes, name: str) -> Settings:
    """Settings out of YAML `text` (bytes: UTF-8). Raises ConfigError and nothing else.

    `name` is the file the text came from: it opens every message, and relative paths in the YAML start at
    its folder.
    """
    with _refused():
        node = text_file.compose_yaml(
            text_file.decoded(text, name) if isinstance(text, bytes) else text, name
        )
    return _Reader(name).settings(node)


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Turn a mistake in the file into one of the configuration."""
    try:
        yield
    except FileError as error:
        raise ConfigError(str(error)) from None


# What a reload changes between two frames.
LIVE = ("features", "tuning", "stream_delay_ms")


def taken_live(running: Settings, fresh: Settings) -> tuple[Settings, list[str]]:
    """What a reload makes of `running`, and the keys of `fresh` that wait for a restart.

    Features, their tuning and hints are taken at once, and so is another device for an endpoint that is as
    before otherwise. All else means other buffers and files.
    """
    waiting = []
    devices: dict[str, Any] = {}
    for entry in fields(Settings):
        old, new = getattr(running, entry.name), getattr(fresh, entry.name)
        if old == new or entry.name in LIVE:
            continue
        both = isinstance(old, Endpoint) and isinstance(new, Endpoint)
        if both and old.device and new.device and replace(old, device=new.device) == new:
            devices[entry.name] = new
        else:
            waiting.append(entry.name)
    taken = replace(running, **{key: getattr(fresh, key) for key in LIVE}, **devices)
    if any(_conflicts(taken)):  # with what has to wait: then all devices wait for it
        waiting += devices
        taken = replace(taken, **{key: getattr(running, key) for key in devices})
    return taken, waiting


class _Reader:
    """Nodes -> settings. One method for each kind of value; each raises ConfigError at the node's line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._folder = Path(name).parent

    def fail(self, node: yaml.Node | None, key: str, problem: str) -> NoReturn:
        line = node.start_mark.line + 1 if node is not None else 1
        raise ConfigError(f"{self._name}:{line}: {key + ': ' if key else ''}{problem}")

    def settings(self, document: yaml.Node | None) -> Settings:
        if document is None:
            self.fail(None, "", "empty, expected at least the key microphone")
        nodes = self.mapping(document, "", (entry.name for entry in fields(Settings)))
        readers: dict[str, Callable[[yaml.Node, str], object]] = {
            "sample_rate_hz": self.sample_rate,
            "features": self.features,
            "tuning": self.tuning,
            "microphone": self.endpoint,
            "speaker": self.optional(self.endpoint),
            "far_end": self.optional(self.endpoint),
            "output": self.optional(self.endpoint),
            "stream_delay_ms": self.optional(self.integer_within(STREAM_DELAY_MIN_MS, STREAM_DELAY_MAX_MS)),
            "periods": self.integer_within(PERIODS_MIN, PERIODS_MAX),
            "low_latency": self.boolean,
            "report_interval_s": self.number_within(REPORT_INTERVAL_MIN_S, REPORT_INTERVAL_MAX_S),
            "keep_learned": self.one_of(KEEP_LEARNED),
            "socket": self.optional(self.socket),
            "metrics": self.boolean,
        }
        values = {key: readers[key](node, key) for key, node in nodes.items()}
        if "microphone" not in values:
            self.fail(document, "microphone", "missing, expected {device: NAME} or {file: PATH}")
        settings = Settings(**values)  # type: ignore[arg-type]
        for key, problem in _conflicts(settings):
            self.fail(nodes[key.split(".")[0]], key, problem)
        return settings

    def mapping(self, node: yaml.Node, path: str, known: Iterable[str]) -> dict[str, yaml.Node]:
        """The values by key, each key known and given once."""
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
        """Fail at a name that a comma cut: within {} it ends one without quotes, so that `{device: hw:1,0}`
        is the device "hw:1" and a key "0" with nothing."""

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

    def features(self, node: yaml.Node, key: str) -> Features:
        nodes = self.mapping(node, key, (entry.name for entry in fields(Features)))
        values: dict[str, Any] = {}
        for name, child in nodes.items():
            read = self.level if name == "noise_suppression" else self.boolean
            values[name] = read(child, f"{key}.{name}")
        return Features(**values)

    def tuning(self, node: yaml.Node, key: str) -> Tuning:
        readers = {
            "high_pass_hz": self.number_within(HIGH_PASS_MIN_HZ, HIGH_PASS_MAX_HZ),
            "gain_target_dbfs": self.number_within(GAIN_TARGET_MIN_DBFS, GAIN_TARGET_MAX_DBFS),
            "gain_max_db": self.number_within(GAIN_MAX_MIN_DB, GAIN_MAX_MAX_DB),
            "headroom_db": self.number_within(HEADROOM_MIN_DB, HEADROOM_MAX_DB),
        }
        nodes = self.mapping(node, key, readers)
        return Tuning(**{name: readers[name](child, f"{key}.{name}") for name, child in nodes.items()})

    def endpoint(self, node: yaml.Node, key: str) -> Endpoint:
        own = {"microphone": ("use",), "far_end": ("sample_rate_hz", "microphone_channels")}
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
            values["microphone_channels"] = self.channel_list(nodes[place], f"{key}.{place}")
            return Endpoint(channels=len(values["microphone_channels"]), **values)
        place_text = self.text(nodes[place], f"{key}.{place}")
        values[place] = self._folder / place_text if place == "file" else place_text
        if "channels" in nodes:
            most = CARD_CHANNELS_MAX if key == "microphone" else CHANNELS_MAX
            values["channels"] = self.integer_within(CHANNELS_MIN, most)(nodes["channels"], f"{key}.channels")
        if "use" in nodes:
            values["use"] = self.channel_list(nodes["use"], f"{key}.use")
        if "sample_rate_hz" in nodes:
            values["sample_rate_hz"] = self.device_rate(
                nodes["sample_rate_hz"], f"{key}.sample_rate_hz", place
            )
        return Endpoint(**values)

    def channel_list(self, node: yaml.Node, key: str) -> tuple[int, ...]:
        numbers_are = f"{CHANNELS_MAX} different numbers from {CHANNELS_MIN} to {CARD_CHANNELS_MAX}"
        expected = f"expected a list of at most {numbers_are}, as [1, 2]"
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.fail(node, key, f"{_shown(node)} given, {expected}")
        if len(node.value) > CHANNELS_MAX:
            self.fail(node, key, f"{len(node.value)} numbers given, {expected}")
        numbers = [self.integer_within(CHANNELS_MIN, CARD_CHANNELS_MAX)(item, key) for item in node.value]
        if len(set(numbers)) < len(numbers):
            self.fail(node, key, f"a number given twice, {expected}")
        return tuple(numbers)

    def device_rate(self, node: yaml.Node, key: str, place: str) -> int:
        if place != "device":
            self.fail(node, key, "given for a file, expected the files' rate to be that of all")
        value = self.integer_within(DEVICE_RATE_MIN_HZ, DEVICE_RATE_MAX_HZ)(node, key)
        if value % 100:
            self.fail(node, key, f"{value} given, expected a multiple of 100 (Hz): whole samples in 10 ms")
        return value

    def sample_rate(self, node: yaml.Node, key: str) -> int:
        value = _integer(node)
        if value not in SAMPLE_RATES_HZ:
            self.fail(
                node,
                key,
                f"{_shown(node)} given, expected one of {', '.join(map(str, SAMPLE_RATES_HZ))} (Hz)",
            )
        return value

    def boolean(self, node: yaml.Node, key: str) -> bool:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
            return node.value.lower() in ("true", "yes", "on")
        self.fail(node, key, f"{_shown(node)} given, expected true or false")

    def level(self, node: yaml.Node, key: str) -> bool | str:
        if isinstance(node, yaml.ScalarNode) and node.value in NOISE_SUPPRESSION_LEVELS:
            return str(node.value)
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
            return self.boolean(node, key)
        levels = ", ".join(NOISE_SUPPRESSION_LEVELS)
        self.fail(node, key, f"{_shown(node)} given, expected true, false or one of {levels}")

    def text(self, node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            self.fail(node, key, f"{_shown(node)} given, expected text (in quotes if it looks like a number)")
        if not node.value or not node.value.isprintable():
            self.fail(
                node, key, f"{_shown(node)} given, expected text without line breaks or control characters"
            )
        return str(node.value)

    def socket(self, node: yaml.Node, key: str) -> str:
        place = self.text(node, key)
        return place if place == "auto" else str(self._folder / place)

    def one_of(self, words: tuple[str, ...]) -> Callable[[yaml.Node, str], str]:
        def read(node: yaml.Node, key: str) -> str:
            if not isinstance(node, yaml.ScalarNode) or node.value not in words:
                self.fail(node, key, f"{_shown(node)} given, expected one of {', '.join(words)}")
            return str(node.value)

        return read

    def integer_within(self, low: int, high: int) -> Callable[[yaml.Node, str], int]:
        def read(node: yaml.Node, key: str) -> int:
            value = _integer(node)
            if value is None or not low <= value <= high:
                self.fail(node, key, f"{_shown(node)} given, expected a whole number from {low} to {high}")
            return value

        return read

    def number_within(self, low: float, high: float) -> Callable[[yaml.Node, str], float]:
        def read(node: yaml.Node, key: str) -> float:
            value = _number(node)
            if value is None or not low <= value <= high:
                self.fail(node, key, f"{_shown(node)} given, expected a number from {low:g} to {high:g}")
            return value

        return read

    def optional(self, read: Callable[[yaml.Node, str], object]) -> Callable[[yaml.Node, str], object]:
        """`null` is "not there", but has to be written: `speaker:` alone is how a half-written file ends."""

        def read_unless_null(node: yaml.Node, key: str) -> object:
            return None if _is_null(node) and node.value else read(node, key)

        return read_unless_null


def _conflicts(settings: Settings) -> Iterator[tuple[str, str]]:
    """(key, problem) for each of the module's rules about endpoints that `settings` breaks."""
    endpoints: dict[str, Endpoint] = {
        key: endpoint
        for key in ("microphone", "far_end", "speaker", "output")
        if (endpoint := getattr(settings, key)) is not None
    }

    def present(*pairs: tuple[str, str]) -> Iterator[tuple[str, Endpoint, str, Endpoint]]:
        for one, other in pairs:
            if one in endpoints and other in endpoints:
                yield one, endpoints[one], other, endpoints[other]

    if "speaker" in endpoints and "far_end" not in endpoints:
        yield "speaker", "given without far_end, expected far_end too: it is what is played"
    if settings.microphone.file is not None:
        for key, endpoint in endpoints.items():
            if endpoint.device is not None:
                given = f"{_quoted(endpoint.device)} given while microphone is a file"
                yield f"{key}.device", f"{given}, expected {key}.file"
    elif settings.far_end and settings.far_end.file and not settings.speaker:
        given = f"{_quoted(settings.far_end.file)} given without speaker"
        yield "far_end.file", f"{given}, expected speaker.device that plays it"
    for key, endpoint, other, like in present(("far_end", "microphone"), ("output", "speaker")):
        if endpoint.device and like.device and _hardware(endpoint.device) == _hardware(like.device):
            also = "" if endpoint.device == like.device else f" as {_quoted(like.device)}"
            yield (
                f"{key}.device",
                f"{_quoted(endpoint.device)} given for {other} too{also}, expected another device",
            )
    yield from _channel_conflicts(settings)
    written = [("output", "microphone"), ("output", "far_end"), ("output", "speaker")]
    written += [("speaker", "microphone"), ("speaker", "far_end")]
    for key, endpoint, other, like in present(*written):
        if endpoint.file and like.file and os.path.realpath(endpoint.file) == os.path.realpath(like.file):
            yield f"{key}.file", f"{_quoted(endpoint.file)} is {other}.file too, expected another file"


def _channel_conflicts(settings: Settings) -> Iterator[tuple[str, str]]:
    microphone, far_end = settings.microphone, settings.far_end
    reference = far_end.microphone_channels if far_end else ()
    expected = "expected 1, the microphone's only channel"
    if microphone.channels > 1:
        expected = f"expected numbers from 1 to {microphone.channels}, the microphone's channels"
    for key, numbers in (("microphone.use", microphone.use), ("far_end.microphone_channels", reference)):
        if numbers and max(numbers) > microphone.channels:
            yield key, f"{max(numbers)} given, {expected}"
    if both := set(microphone.use) & set(reference):
        yield (
            "far_end.microphone_channels",
            f"{min(both)} given, which microphone.use has too, expected another",
        )
    elif not settings.near_channels:
        given = f"all {microphone.channels} given"
        yield "far_end.microphone_channels", f"{given}, expected to leave the microphone one at least"
    elif len(settings.near_channels) > CHANNELS_MAX:
        given = f"{len(settings.near_channels)} of the microphone's channels given"
        yield "microphone.use", f"{given}, expected at most {CHANNELS_MAX} to be used, as [1, 2]"
    if reference and settings.speaker:
        given = "given while far_end is a channel of the microphone's card"
        yield "speaker", f"{given}, expected none: something else plays it"
    for key, sink, other, count in (
        ("speaker", settings.speaker, "far_end", far_end.channels if far_end else 1),
        ("output", settings.output, "microphone", len(settings.near_channels)),
    ):
        if sink and sink.channels != count and 1 not in (sink.channels, count):
            yield f"{key}.channels", f"{sink.channels} given for {count} of {other}, expected {count} or 1"


def _quoted(name: object) -> str:
    """A device or file for a place within a sentence; a path of usual length is shown whole."""
    return f"'{printable(str(name), length_max=200)}'"


def _hardware(device: str) -> tuple[str, ...]:
    """(card, device, subdevice) that an ALSA name leads to, or the name itself if it does not say: one card
    has many names, "hw:0" and "plughw:CARD=Device,DEV=0" for instance."""
    name, _, arguments = device.partition(":")
    if name not in ("hw", "plughw", "dsnoop", "dmix", "sysdefault", "front"):
        return (device,)
    places = ("CARD", "DEV", "SUBDEV")
    parts = dict.fromkeys(places, "0")
    for place, argument in zip(places, arguments.split(","), strict=False):
        key, equals, value = argument.strip().rpartition("=")
        parts[key if equals else place] = value.strip("'\" ")
    card = parts["CARD"]
    if not card.isdigit():
        for path in SOUND_CARDS.glob("card*/id"):
            with contextlib.suppress(OSError):
                if path.read_text().strip() == card:
                    card = path.parent.name.removeprefix("card")
    return card, parts["DEV"], parts["SUBDEV"]


def _is_plain(node: yaml.Node) -> bool:
    """A scalar without quotes."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _is_empty(node: yaml.Node) -> bool:
    """A key without a value."""
    return _is_null(node) and not node.value


def _integer(node: yaml.Node) -> int | None:
    """Decimal only: YAML 1.1 would also take 010 as eight and 1:30 as ninety."""
    decimal = _is_plain(node) and re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,8})", node.value)
    return int(node.value) if decimal else None


def _number(node: yaml.Node) -> float | None:
    """Decimal only, with or without a fraction."""
    decimal = _is_plain(node) and re.fullmatch(r"[-+]?[0-9]{1,9}(\.[0-9]*)?", node.value)
    return float(node.value) if decimal else None


def _shown(node: yaml.Node) -> str:
    """A value as the user wrote it, short enough for one sentence."""
    if isinstance(node, yaml.MappingNode):
        return "a group of keys"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if _is_empty(node):
        return "nothing"
    assert isinstance(node, yaml.ScalarNode)
    return printable(node.value) if node.style is None else f"'{printable(node.value)}'"
