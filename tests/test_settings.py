"""Each setting is one row of apmpi.settings: every place that has to write a setting out agrees with it."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from reference.c_constants import c_constants

from apmpi import AudioProcessingModule, _native
from apmpi.settings import (
    CARD_CHANNELS_MAX,
    CHANNELS_MAX,
    NOISE_SUPPRESSION_DEFAULT,
    NOISE_SUPPRESSION_LEVELS,
    STREAM_DELAY_MAX_MS,
    Endpoint,
    Features,
    Row,
    Settings,
    Tuning,
    rows,
)

ROOT = Path(__file__).parents[1]
CONFIG = (ROOT / "config" / "apmpi.yaml").read_text()
HEADER = (ROOT / "native" / "apm" / "apm.h").read_text()
# Of the chain, but not among its features and their tuning.
GIVEN_ONCE = {name: rows(Settings)[name] for name in ("low_latency", "stream_delay_ms")}
# In the API, which has no endpoints, by another name and as any sequence.
PLACES = "microphone_positions_mm"
PARTS = {**dict.fromkeys(rows(Features), Features), **dict.fromkeys(rows(Tuning), Tuning)}
CHAIN = {**rows(Features), **rows(Tuning)}
CONFIGURED = {**rows(Settings), **CHAIN}
# LiveKit's signature has these four, and they are off there.
LIVEKIT = ("echo_cancellation", "noise_suppression", "high_pass_filter", "auto_gain_control")


def sentence(row: Row) -> str:
    """Meaning and range of a row, as documentation has to state them."""
    if math.isinf(row.low):
        return row.meaning
    return f"{row.meaning}, {row.low:g} to {row.high:g} {row.unit}".rstrip()


def plain(text: str) -> str:
    """`text` on one line, in lower case."""
    return " ".join(text.split()).casefold()


def explanation(key: str) -> str:
    """The comments of a key of config/apmpi.yaml: on its own line and on those directly above it."""
    lines = CONFIG.splitlines()
    (number,) = (number for number, line in enumerate(lines) if re.match(rf" *{key}:", line))
    begin = number
    while lines[begin - 1].startswith("#"):
        begin -= 1
    return plain(" ".join(line.partition("#")[2] for line in lines[begin : number + 1]))


@pytest.mark.parametrize("key", CONFIGURED)
def test_the_commented_configuration_states_meaning_range_and_choices(key: str) -> None:
    row = CONFIGURED[key]
    assert plain(sentence(row)) in explanation(key)
    where = explanation("features" if key == "noise_suppression" else key)
    assert all(re.search(rf"\b{choice}\b", where) for choice in row.choices)


def test_the_commented_configuration_states_what_endpoints_have_and_what_changes_live() -> None:
    text = plain(CONFIG.replace("#", ""))
    for key in ("channels", "sample_rate_hz", "positions_mm"):
        row = rows(Endpoint)[key]
        assert f"{row.low:g} to {row.high:g}" in text
    assert f"many channels, up to {CARD_CHANNELS_MAX}" in text and f"{CHANNELS_MAX} at most" in text
    assert all(re.search(rf"\b{key}\b", text) for key in rows(Endpoint))
    live = [f"`{key}`" for key, row in rows(Settings).items() if row.live]
    assert f"{', '.join(live[:-1])} and {live[-1]} change without a click" in text


def test_the_api_has_every_setting_of_the_chain_as_a_keyword_with_its_type_and_default() -> None:
    parameters = dict(inspect.signature(AudioProcessingModule).parameters)
    types = get_type_hints(AudioProcessingModule.__init__)
    assert [*parameters] == [*CHAIN, *GIVEN_ONCE, PLACES]
    assert parameters.pop(PLACES).default == ()
    defaults = {**asdict(Features()), **asdict(Tuning()), "low_latency": False, "stream_delay_ms": None}
    for name, parameter in parameters.items():
        assert parameter.default == (False if name in LIVEKIT else defaults[name]), name
        assert types[name] == get_type_hints(PARTS.get(name, Settings))[name], name


def test_the_api_changes_every_setting_of_the_chain() -> None:
    parameters = dict(inspect.signature(AudioProcessingModule.configure).parameters)
    types = get_type_hints(AudioProcessingModule.configure)
    assert [*parameters] == ["self", *CHAIN]
    for name, part in PARTS.items():
        assert parameters[name].default is None, name
        assert types[name] == get_type_hints(part)[name] | None, name


@pytest.mark.parametrize("name", [*CHAIN, *GIVEN_ONCE, PLACES])
def test_the_documentation_of_the_api_states_meaning_range_and_choices(name: str) -> None:
    row = {**CHAIN, **GIVEN_ONCE, PLACES: rows(Endpoint)["positions_mm"]}[name]
    arguments = str(inspect.getdoc(AudioProcessingModule)).partition("Args:")[2].partition("Raises:")[0]
    (explained,) = re.findall(rf"^ {{4}}{name}: (.*(?:\n {{8}}.*)*)", arguments, re.MULTILINE)
    assert plain(explained).startswith(plain(sentence(row)))
    assert all(f'"{choice}"' in explained for choice in row.choices)


def test_the_chain_takes_every_setting_by_its_name_and_has_the_same_defaults() -> None:
    level = NOISE_SUPPRESSION_LEVELS.index(NOISE_SUPPRESSION_DEFAULT) + 1
    defaults: dict[str, Any] = {**asdict(Features()), **asdict(Tuning()), "low_latency": False}
    assert {**defaults, "noise_suppression": level} == _native.DEFAULTS
    settings = dict(_native.DEFAULTS)
    del settings["gain_max_db"]
    for wrong in (settings, {**_native.DEFAULTS, "gain_min_db": 0.0}):
        with pytest.raises(TypeError, match=r"settings are .*, expected echo_cancellation, "):
            _native.Chain(16000, 1, 1, wrong)


@pytest.mark.parametrize("name", rows(Tuning))
def test_the_header_of_the_chain_states_the_range(name: str) -> None:
    stated = rf"(?<![-\d]){CHAIN[name].low:g}\.\.{CHAIN[name].high:g}\b"
    members = re.search(r"typedef struct \{([^}]*)\} apm_config_t;", HEADER)
    assert members
    # In the comment behind the member, or in the one above it.
    assert re.search(rf"\b{name};[^\n]*{stated}|{stated}[^;]*\b{name};", members[1])


def test_the_chain_has_the_same_limits_and_levels() -> None:
    header = c_constants("apm/apm.h")
    assert header.APM_MAX_CHANNELS == _native.MAX_CHANNELS == CHANNELS_MAX
    assert header.APM_MAX_DELAY_HINT_MS == STREAM_DELAY_MAX_MS
    for number, level in enumerate(NOISE_SUPPRESSION_LEVELS, start=1):
        assert getattr(header, f"APM_NOISE_{level.upper()}") == number
