"""A configuration is accepted whole, or refused in one sentence that leads to the mistake."""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from apmpi.errors import ConfigError
from apmpi.service.yaml_reader import load, parse
from apmpi.settings import NOISE_SUPPRESSION_LEVELS, Endpoint, Features, Settings, Tuning

ROOT = Path(__file__).parents[1]
DEFAULT = ROOT / "config" / "apmpi.yaml"
DEFAULT_WITHOUT_COMMENTS = re.sub(rb" *#.*\n|\n(?=\n)", b"\n", DEFAULT.read_bytes())

# derandomize: the same examples every time, so that a red test stays red until it is mended.
EXAMPLES = settings(max_examples=400, derandomize=True)


def refusal(text: str | bytes, name: str = "apmpi.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, name)
    message = str(caught.value)
    print(message)
    assert "\n" not in message
    assert message.startswith(name + ":")
    return message


def accepted_or_refused(text: str | bytes) -> None:
    """Anything but Settings or a ConfigError of one line fails the test that calls this."""
    try:
        assert isinstance(parse(text, "apmpi.yaml"), Settings)
    except ConfigError as error:
        message = str(error)
        assert message.startswith("apmpi.yaml:")
        assert message.isprintable()
        assert len(message) < 400


# ---- what is accepted


def test_defaults_are_those_of_the_contract() -> None:
    assert parse("microphone: {device: default}", "apmpi.yaml") == Settings(
        sample_rate_hz=48000,
        features=Features(
            echo_cancellation=True, noise_suppression=True, high_pass_filter=True, auto_gain_control=True
        ),
        microphone=Endpoint(device="default", channels=1),
        speaker=None,
        far_end=None,
        output=None,
        tuning=Tuning(high_pass_hz=80.0, gain_target_dbfs=-20.0, gain_max_db=32.0, headroom_db=1.0),
        stream_delay_ms=None,
        periods=4,
        low_latency=False,
        report_interval_s=10.0,
        keep_learned="ram",
    )


def test_every_value_arrives() -> None:
    text = """
sample_rate_hz: 16000
features: {echo_cancellation: no, noise_suppression: false, high_pass_filter: off, auto_gain_control: False}
tuning: {high_pass_hz: 120.5, gain_target_dbfs: -26, gain_max_db: 0, headroom_db: 20}
microphone: {device: "hw:CARD=Device,DEV=0", channels: 2, use: [2]}
speaker: {device: plughw:1, sample_rate_hz: 44100}
far_end: {file: far.wav, channels: 8}
output: {file: /tmp/clean.wav}
stream_delay_ms: 500
periods: 16
low_latency: true
report_interval_s: 0.1
keep_learned: disk
"""
    got = parse(text, "/etc/apmpi/apmpi.yaml")
    assert got == Settings(
        sample_rate_hz=16000,
        features=Features(
            echo_cancellation=False,
            noise_suppression=False,
            high_pass_filter=False,
            auto_gain_control=False,
        ),
        tuning=Tuning(high_pass_hz=120.5, gain_target_dbfs=-26.0, gain_max_db=0.0, headroom_db=20.0),
        microphone=Endpoint(device="hw:CARD=Device,DEV=0", channels=2, use=(2,)),
        speaker=Endpoint(device="plughw:1", sample_rate_hz=44100),
        far_end=Endpoint(file=Path("/etc/apmpi/far.wav"), channels=8),
        output=Endpoint(file=Path("/tmp/clean.wav")),
        stream_delay_ms=500,
        periods=16,
        low_latency=True,
        report_interval_s=0.1,
        keep_learned="disk",
    )
    assert got.far_end is not None
    assert got.far_end.line == 7


@pytest.mark.parametrize(
    ("given", "taken"),
    [("true", True), ("off", False), *((word, word) for word in NOISE_SUPPRESSION_LEVELS)],
)
def test_noise_suppression_is_a_switch_or_a_level(given: str, taken: bool | str) -> None:
    got = parse(f"microphone: {{device: x}}\nfeatures: {{noise_suppression: {given}}}", "apmpi.yaml")
    assert got.features.noise_suppression == taken
    assert type(got.features.noise_suppression) is type(taken)


def test_a_whole_number_will_do_for_a_fraction_and_null_for_what_is_optional() -> None:
    text = (
        "microphone: {device: x}\nspeaker: null\nfar_end: ~\nstream_delay_ms: null\nreport_interval_s: 3600"
    )
    got = parse(text, "apmpi.yaml")
    assert (got.speaker, got.far_end, got.stream_delay_ms) == (None, None, None)
    assert isinstance(got.report_interval_s, float)


@pytest.mark.parametrize("encode", ["utf-8", "utf-8-sig"])
def test_files_from_other_systems(tmp_path: Path, encode: str) -> None:
    path = tmp_path / "apmpi.yaml"
    path.write_bytes('microphone: {device: "Küche"}\r\nperiods: 3\r\n'.encode(encode))
    assert load(path) == Settings(microphone=Endpoint(device="Küche"), periods=3)


def test_the_commented_default_has_every_key_with_the_default_value_and_a_comment() -> None:
    got = load(DEFAULT)
    default = Settings(microphone=got.microphone)
    for field in fields(Settings):
        if field.name not in ("microphone", "speaker", "far_end", "output"):
            assert getattr(got, field.name) == getattr(default, field.name), field.name
    lines = DEFAULT.read_text().splitlines()
    for key in [field.name for part in (Settings, Features, Tuning) for field in fields(part)]:
        (number,) = (number for number, line in enumerate(lines) if re.match(rf" *{key}:", line))
        assert "#" in lines[number] or lines[number - 1].startswith("#"), f"{key} is not explained"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_valid(path: Path) -> None:
    assert load(path).microphone is not None


# ---- what is refused, and in which words

MIC = "microphone: {device: x}\n"

REFUSED = {
    "unknown key": (
        "features:\n  noise_suppresion: true\n",
        "apmpi.yaml:2: features.noise_suppresion: unknown key, expected one of echo_cancellation, "
        "noise_suppression, high_pass_filter, auto_gain_control, learned_gain, array; "
        "did you mean noise_suppression?",
    ),
    "unknown top key": (
        MIC + "spaeker: {device: y}\n",
        "apmpi.yaml:2: spaeker: unknown key, * mean speaker?",
    ),
    "merge key": ("<<: {periods: 3}\n" + MIC, "apmpi.yaml:1: <<: unknown key, expected one of *"),
    "twice": (
        MIC + "periods: 4\n\nperiods: 5\n",
        "apmpi.yaml:4: periods: given twice, first in line 2, expected once",
    ),
    "no microphone": ("periods: 4\n", "apmpi.yaml:1: microphone: missing, expected {device: *"),
    "rate": (
        MIC + "sample_rate_hz: 44100\n",
        "apmpi.yaml:2: sample_rate_hz: 44100 given, expected one of 8000, 16000, 32000, 48000 (Hz)",
    ),
    "boolean for a number": (
        MIC + "periods: true",
        "apmpi.yaml:2: periods: true given, expected a whole number from 2 to 16",
    ),
    "number for a boolean": (
        "features: {high_pass_filter: 1}",
        "apmpi.yaml:1: features.high_pass_filter: 1 given, expected true or false",
    ),
    "level": (
        "features: {noise_suppression: medium}",
        "apmpi.yaml:1: features.noise_suppression: medium given, expected true, false or one of "
        "low, moderate, high, very_high, auto",
    ),
    "cut-off": (
        MIC + "tuning:\n  high_pass_hz: 10",
        "apmpi.yaml:3: tuning.high_pass_hz: 10 given, expected a number from 20 to 300",
    ),
    "target": (
        MIC + "tuning: {gain_target_dbfs: 20}",
        "apmpi.yaml:2: tuning.gain_target_dbfs: 20 given, expected a number from -40 to -6",
    ),
    "quoted number": (MIC + "periods: '4'", "apmpi.yaml:2: periods: '4' given, expected a whole number *"),
    "octal": (MIC + "periods: 010", "apmpi.yaml:2: periods: 010 given, expected a whole number *"),
    "too many": (
        MIC + "periods: 17",
        "apmpi.yaml:2: periods: 17 given, expected a whole number from 2 to 16",
    ),
    "fraction": (MIC + "periods: 2.5", "apmpi.yaml:2: periods: 2.5 given, expected a whole number *"),
    "endless digits": (MIC + "periods: " + "9" * 5000, "apmpi.yaml:2: periods: 999*... given, expected *"),
    "delay": (
        MIC + "stream_delay_ms: 501",
        "apmpi.yaml:2: stream_delay_ms: 501 given, expected a whole number from 0 to 500",
    ),
    "negative": (MIC + "stream_delay_ms: -1", "apmpi.yaml:2: stream_delay_ms: -1 given, expected *"),
    "interval": (
        MIC + "report_interval_s: 0.05",
        "apmpi.yaml:2: report_interval_s: 0.05 given, expected a number from 0.1 to 3600",
    ),
    "where to keep": (
        MIC + "keep_learned: flash",
        "apmpi.yaml:2: keep_learned: flash given, expected one of ram, disk, never",
    ),
    "no word": (MIC + "keep_learned: [ram]", "apmpi.yaml:2: keep_learned: a list given, expected one of *"),
    "not a number": (MIC + "report_interval_s: .nan", "apmpi.yaml:2: report_interval_s: .nan given, *"),
    "infinite": (MIC + "report_interval_s: .inf", "apmpi.yaml:2: report_interval_s: .inf given, *"),
    "no channel": (
        "microphone:\n  device: x\n  channels: 0",
        "apmpi.yaml:3: microphone.channels: 0 given, expected a whole number from 1 to 64",
    ),
    "number for a name": (
        "microphone: {device: 0}",
        "apmpi.yaml:1: microphone.device: 0 given, expected text *",
    ),
    "empty name": ("microphone: {device: ''}", "apmpi.yaml:1: microphone.device: '' given, expected text *"),
    "NUL in a name": (
        'microphone: {device: "hw\\0"}',
        "apmpi.yaml:1: microphone.device: 'hw\\x00' given, expected text without line breaks *",
    ),
    "list": ("microphone: [x]", "apmpi.yaml:1: microphone: a list given, expected keys with values *"),
    "group for a value": (
        MIC + "periods: {a: 1}",
        "apmpi.yaml:2: periods: a group of keys given, expected *",
    ),
    "top level list": ("- microphone", "apmpi.yaml:1: a list given, expected keys with values (*"),
    "top level text": ("microphone", "apmpi.yaml:1: microphone given, expected keys with values (*"),
    "empty": ("", "apmpi.yaml:1: empty, expected at least the key microphone"),
    "only comments": ("# periods: 4\n", "apmpi.yaml:1: empty, expected *"),
    "two documents": (MIC + "---\n" + MIC, "apmpi.yaml:2: not valid YAML (*), expected *"),
    "tab": ("microphone:\n\tdevice: x\n", "apmpi.yaml:2: a tab given, expected spaces for indentation"),
    "half written": (
        MIC + "far_end: {device: y",
        "apmpi.yaml:2: not valid YAML (*), expected KEY: VALUE lines",
    ),
    "half written key": (
        MIC + "far_end: {device: y}\nspeaker:",
        "apmpi.yaml:3: speaker: nothing given, expected keys with values (device, file, channels, *)",
    ),
    "half written word": (MIC + "far_end: {device: y}\nspea", "apmpi.yaml:3: not valid YAML (*), expected *"),
    "binary": (b"\x7fELF\x02\x01\x01\x00", "apmpi.yaml:1: a control character given, expected YAML text"),
    "not UTF-8": (
        b"periods: 4\nmicrophone: {device: K\xfcche}\n",
        "apmpi.yaml:2: byte 0xfc given, expected UTF-8 text",
    ),
    "alias": ("microphone: &a {device: x}\noutput: *a", "apmpi.yaml:1: an alias or anchor (* or &) given, *"),
    "tag": (
        "microphone: !!python/name:os.system {}",
        "apmpi.yaml:1: a tag (!) given, expected a plain value",
    ),
    "escape beyond Unicode": ('microphone: {device: "\\UFFFFFFFF"}', "apmpi.yaml:1: not readable as YAML *"),
    "UTF-16": (
        "microphone: {device: x}".encode("utf-16"),
        "apmpi.yaml: is UTF-16 text, expected UTF-8: save it again with that encoding",
    ),
    "UTF-16 without its mark": ("# Küche\n".encode("utf-16-be"), "apmpi.yaml: is UTF-16 text, expected *"),
    "UTF-32": ("periods: 3".encode("utf-32"), "apmpi.yaml: is UTF-32 text, expected *"),
    "too big": (b"#" * 65537, "apmpi.yaml: more than 64 KiB, expected a short YAML file"),
    # endpoints that don't go together
    "device and file": (
        "microphone: {device: x, file: y.wav}",
        "apmpi.yaml:1: microphone: both device and file given, expected exactly one of them",
    ),
    "neither": ("microphone: {channels: 1}", "apmpi.yaml:1: microphone: neither device nor file given, *"),
    "nothing to play": (
        MIC + "speaker: {device: y}\n",
        "apmpi.yaml:2: speaker: given without far_end, expected far_end too: it is what is played",
    ),
    "a recording hears no speaker": (
        "microphone: {file: m.wav}\nfar_end: {file: f.wav}\nspeaker: {device: y}\n",
        "apmpi.yaml:3: speaker.device: 'y' given while microphone is a file, expected speaker.file",
    ),
    "a recording has no live reference": (
        "microphone: {file: m.wav}\nfar_end: {device: y}\n",
        "apmpi.yaml:2: far_end.device: 'y' given while microphone is a file, expected far_end.file",
    ),
    "nobody plays the reference": (
        MIC + "far_end: {file: f.wav}\n",
        "apmpi.yaml:2: far_end.file: 'f.wav' given without speaker, expected speaker.device that plays it",
    ),
    "the talker as reference": (
        MIC + "far_end: {device: x}\n",
        "apmpi.yaml:2: far_end.device: 'x' given for microphone too, expected another device",
    ),
    "howling": (
        MIC + "far_end: {device: y}\nspeaker: {device: z}\noutput: {device: z}\n",
        "apmpi.yaml:4: output.device: 'z' given for speaker too, expected another device",
    ),
    "a channel too many": (
        "microphone: {device: x, channels: 2, use: [1, 3]}\n",
        "apmpi.yaml:1: microphone.use: 3 given, expected numbers from 1 to 2, the microphone's channels",
    ),
    "a position without y": (
        "microphone: {device: x, channels: 2, positions_mm: [[0], [50, 0]]}\n",
        "apmpi.yaml:1: microphone.positions_mm: a list of 1 given, expected a pair of numbers for each "
        "microphone, as *",
    ),
    "a position that is no pair": (
        "microphone: {device: x, channels: 2, positions_mm: [0, 50]}\n",
        "apmpi.yaml:1: microphone.positions_mm: 0 given, expected a pair of numbers for each *",
    ),
    "positions that are no list": (
        "microphone: {device: x, channels: 2, positions_mm: round}\n",
        "apmpi.yaml:1: microphone.positions_mm: round given, expected a pair of numbers for each *",
    ),
    "a position in metres": (
        "microphone: {device: x, channels: 2, positions_mm: [[0, 0], [1001, 0]]}\n",
        "apmpi.yaml:1: microphone.positions_mm: 1001 given, expected a number from -1000 to 1000",
    ),
    "a position twice": (
        "microphone: {device: x, channels: 2, positions_mm: [[5, 0], [5.0, 0]]}\n",
        "apmpi.yaml:1: microphone.positions_mm: [5, 0] given twice, expected different places",
    ),
    "a position too few": (
        "microphone: {device: x, channels: 4, use: [2, 3, 4], positions_mm: [[0, 0], [50, 0]]}\n"
        "features: {array: on}\n",
        "apmpi.yaml:1: microphone.positions_mm: 2 given, expected 3, one for each channel that is used",
    ),
    "positions without a beam": (
        "microphone: {device: x, channels: 2, positions_mm: [[0, 0], [50, 0]]}\n",
        "apmpi.yaml:1: microphone.positions_mm: given without features.array, expected features: {array: on}",
    ),
    "positions of a loudspeaker": (
        MIC + "far_end: {device: y}\nspeaker: {device: z, positions_mm: [[0, 0]]}\n",
        "apmpi.yaml:3: speaker.positions_mm: unknown key, expected one of device, file, channels, *",
    ),
    "a channel twice": (
        "microphone: {device: x, channels: 2, use: [1, 1]}\n",
        "apmpi.yaml:1: microphone.use: a number given twice, expected a list of at most 8 *",
    ),
    "no list": (
        "microphone: {device: x, use: 1}\n",
        "apmpi.yaml:1: microphone.use: 1 given, expected a list *, as [1, 2]",
    ),
    "the talker as hardware reference": (
        "microphone: {device: x, channels: 3, use: [1, 3]}\nfar_end: {microphone_channels: [3]}\n",
        "apmpi.yaml:2: far_end.microphone_channels: 3 given, which microphone.use has too, expected another",
    ),
    "nothing left for the talker": (
        "microphone: {device: x}\nfar_end: {microphone_channels: [1]}\n",
        "apmpi.yaml:2: far_end.microphone_channels: all 1 given, expected to leave the microphone one*",
    ),
    "a hardware reference played": (
        "microphone: {device: x, channels: 2}\nfar_end: {microphone_channels: [2]}\nspeaker: {device: y}\n",
        "apmpi.yaml:3: speaker: given while far_end is a channel of the microphone's card, expected none: *",
    ),
    "a reference in two places": (
        MIC + "far_end: {device: y, microphone_channels: [2]}\n",
        "apmpi.yaml:2: far_end: both device and microphone_channels given, expected exactly one of them",
    ),
    "a rate for a file": (
        MIC + "output: {file: y.wav, sample_rate_hz: 8000}\n",
        "apmpi.yaml:2: output.sample_rate_hz: given for a file, expected *",
    ),
    "no whole samples": (
        MIC + "output: {device: y, sample_rate_hz: 22050}\n",
        "apmpi.yaml:2: output.sample_rate_hz: 22050 given, expected a multiple of 100 (Hz): *",
    ),
    "a rate for the microphone": (
        "microphone: {device: x, sample_rate_hz: 44100}\n",
        "apmpi.yaml:1: microphone.sample_rate_hz: unknown key, expected one of device, file, channels, use, "
        "positions_mm",
    ),
    "two channels of three": (
        "microphone: {device: x, channels: 3}\noutput: {device: y, channels: 2}\n",
        "apmpi.yaml:2: output.channels: 2 given for 3 of microphone, expected 3 or 1",
    ),
    "more than are processed": (
        "microphone: {device: x, channels: 16}\n",
        "apmpi.yaml:1: microphone.use: 16 of the microphone's channels given, expected at most 8 to be used, "
        "as [1, 2]",
    ),
    "nine used": (
        "microphone: {device: x, channels: 16, use: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n",
        "apmpi.yaml:1: microphone.use: 9 numbers given, expected a list of at most 8 different numbers *",
    ),
    "more than any card has": (
        "microphone: {device: x, channels: 65}\n",
        "apmpi.yaml:1: microphone.channels: 65 given, expected a whole number from 1 to 64",
    ),
    "a beam of one microphone": (
        "features: {array: on}\nmicrophone: {device: x}\n",
        "apmpi.yaml:1: features.array: on given for one channel of the microphone, expected two or more: "
        "a beam needs two microphones",
    ),
    "a channel too many of one": (
        "microphone: {device: x, use: [2]}\n",
        "apmpi.yaml:1: microphone.use: 2 given, expected 1, the microphone's only channel",
    ),
    "no quotes": (
        "periods: 3\nmicrophone: {device: hw:1,0}\n",
        "apmpi.yaml:2: microphone.device: hw:1,0 given without quotes, expected 'hw:1,0': within {} a comma "
        "ends a value",
    ),
    "no quotes, long": (
        "microphone: {channels: 2, device: plughw:CARD=Loopback,DEV=1,SUBDEV=0, use: [1]}\n",
        "apmpi.yaml:1: microphone.device: plughw:CARD=Loopback,DEV=1,SUBDEV=0 given without quotes, expected "
        "'plughw:CARD=Loopback,DEV=1,SUBDEV=0': *",
    ),
    "no quotes, a doubled rest": (
        "microphone: {device: hw:0,0,0}\n",
        "apmpi.yaml:1: microphone.device: hw:0,0,0 given without quotes, *",
    ),
    "no quotes, then a list": (
        "microphone: {device: hw:0,0,[x]}\n",
        "apmpi.yaml:1: microphone.device: hw:0,0 given without quotes, *",
    ),
    "no quotes are missing at a misspelt key": (
        "microphone: {device: x, chanels}\n",
        "apmpi.yaml:1: microphone.chanels: unknown key, *; did you mean channels?",
    ),
    "no quotes are missing at a value in quotes": (
        "microphone: {device: 'hw:0', 0}\n",
        "apmpi.yaml:1: microphone.0: unknown key, *",
    ),
    "no quotes around a path": (
        "microphone: {file: mic, left.wav}\n",
        "apmpi.yaml:1: microphone.file: mic,left.wav given without quotes, *",
    ),
    "output over input": (
        "microphone: {file: m.wav}\noutput: {file: ./sub/../m.wav}\n",
        "apmpi.yaml:2: output.file: 'sub/../m.wav' is microphone.file too, expected another file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence_that_leads_to_the_mistake(case: str) -> None:
    text, expected = REFUSED[case]
    # "*" in the expectation stands for anything, the rest is literal.
    pattern = ".*".join(map(re.escape, expected.split("*")))
    message = refusal(text)
    assert re.fullmatch(pattern, message), message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hw:0", "plughw:0,0"),
        ("hw:0,0", "plughw:CARD=Device,DEV=0"),
        ("hw:Device", "hw:CARD=Device"),
        ("plughw:CARD=1,DEV=2", "hw:1,2,0"),
        ("dsnoop:0", "hw:DEV=0,CARD=0"),
        ("sysdefault:CARD=Device", "hw:0"),
    ],
)
def test_one_device_by_two_names_is_one_device(
    one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(["Device", "Loopback"]):
        (tmp_path / f"card{number}").mkdir()
        (tmp_path / f"card{number}" / "id").write_text(f"{name}\n")
    monkeypatch.setattr("apmpi.service.layout.SOUND_CARDS", tmp_path)
    assert refusal(f'microphone: {{device: "{one}"}}\nfar_end: {{device: "{other}"}}\n') == (
        f"apmpi.yaml:2: far_end.device: '{other}' given for microphone too as '{one}', "
        "expected another device"
    )
    assert f"'{one}' given for speaker too as '{other}'" in refusal(
        f'microphone: {{device: x}}\nfar_end: {{device: y}}\nspeaker: {{device: "{other}"}}\n'
        f'output: {{device: "{one}"}}\n'
    )


def test_a_name_without_end_makes_no_sentence_without_end() -> None:
    device = "hw:" + "CARD=De" * 100
    text = f'microphone: {{device: "{device}"}}\nfar_end: {{device: "{device}"}}\n'
    sentence = refusal(text)
    print(len(sentence), sentence)
    assert "given for microphone too" in sentence and len(sentence) < 500


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hw:0", "hw:1"),
        ("hw:0,0", "hw:0,1"),
        ("hw:CARD=Loopback,DEV=1,SUBDEV=0", "hw:CARD=Loopback,DEV=1,SUBDEV=1"),
        ("plughw:CARD=Device,DEV=0", "hw:CARD=Device_1,DEV=0"),
        ("hw:0", "default"),
    ],
)
def test_two_devices_are_two(one: str, other: str) -> None:
    parse(f'microphone: {{device: "{one}"}}\nfar_end: {{device: "{other}"}}\n', "apmpi.yaml")


def test_some_channels_of_a_wide_card() -> None:
    got = parse(
        "microphone: {device: x, channels: 16, use: [1, 16]}\nfar_end: {microphone_channels: [15]}\n",
        "apmpi.yaml",
    )
    assert got.near_channels == (0, 15)
    assert got.reference_channels == (14,)


def test_a_written_file_is_told_apart_through_links(tmp_path: Path) -> None:
    (tmp_path / "m.wav").touch()
    (tmp_path / "link.wav").symlink_to("m.wav")
    text = "microphone: {file: m.wav}\noutput: {file: link.wav}\n"
    assert "is microphone.file too" in refusal(text, str(tmp_path / "apmpi.yaml"))


def unreadable(tmp_path: Path) -> dict[str, Path]:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    sparse = tmp_path / "sparse.yaml"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    pipe, unix_socket = tmp_path / "pipe.yaml", tmp_path / "socket.yaml"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(unix_socket))
    return {
        "No such file or directory": tmp_path / "missing.yaml",
        "is a folder": tmp_path,
        "Too many levels of symbolic links": loop,
        "more than 64 KiB": sparse,
        "is a device": Path("/dev/zero"),
        "is a pipe": pipe,
        "is a socket": unix_socket,
        "File name too long": tmp_path / ("x" * 300),
    }


def test_unreadable_files(tmp_path: Path) -> None:
    for reason, path in unreadable(tmp_path).items():
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert reason in str(caught.value)
        assert "YAML file" in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "apmpi.yaml"
    path.write_text(MIC)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:  # root may read everything: be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            load(path)
    finally:
        if root:
            os.seteuid(0)


# ---- whatever the bytes


@EXAMPLES
@given(st.binary(max_size=300) | st.text(max_size=300))
def test_any_bytes(content: bytes | str) -> None:
    accepted_or_refused(content)


KEYS = [field.name for part in (Settings, Features, Endpoint) for field in fields(part)] + ["<<"]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(KEYS)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@EXAMPLES
@given(TREES, st.booleans())
def test_any_yaml(tree: object, flow: bool) -> None:
    accepted_or_refused(yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True))


@EXAMPLES
@given(st.data())
def test_the_default_with_some_bytes_changed(data: st.DataObject) -> None:
    content = bytearray(DEFAULT_WITHOUT_COMMENTS)
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(content)))
        end = begin + data.draw(st.integers(0, 3))
        content[begin:end] = data.draw(
            st.sampled_from(b"\t\n\0 :{}[]&*!|>'\"%@`#-,?\xff0a").map(lambda b: bytes([b]))
        )
    accepted_or_refused(bytes(content))


def test_the_default_half_written() -> None:
    content = DEFAULT.read_bytes()
    for end in range(0, len(content), 7):
        accepted_or_refused(content[:end])


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9)),
        "[" * 60_000,
        "{a: " * 15_000,
        "- " * 30_000,
        "? " * 30_000,
        "%YAML " + "9" * 60_000 + ".1\n---\n",
        "periods: " + ":".join(["59"] * 20_000),
    ],
    ids=["aliases", "lists", "groups", "dashes", "keys", "version", "base 60"],
)
def test_bombs_are_refused_in_no_time(text: str) -> None:
    started = time.monotonic()
    refusal(text)
    took_s = time.monotonic() - started
    print(f"{took_s:.3f} s")
    assert took_s < 2
