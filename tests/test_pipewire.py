"""The plugin in a real PipeWire: WirePlumber finds the devices, the module cancels the echo of a room.

`make setup-test` has built the plugin. The configuration is that of config/pipewire-apmpi.conf.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipewire_rig import DROP_IN, RATE_HZ, Desktop, Scene, intelligibility
from reference.signals import db, power

from apmpi.settings import Features, Row, Tuning, rows

pytestmark = pytest.mark.real_time

SETTINGS: dict[str, Row] = {**rows(Features), **rows(Tuning)}
DEFAULTS = {name: getattr(part, name) for part in (Features(), Tuning()) for name in rows(type(part))}
NO_ROOM = np.ones(1)


def properties(node: dict[str, Any]) -> dict[str, Any]:
    """The plugin's settings among the properties of a node."""
    every = [props["params"] for props in node["info"]["params"]["Props"] if "params" in props]
    pairs = {name: value for props in every for name, value in zip(props[::2], props[1::2], strict=True)}
    return {name: pairs[name] for name in SETTINGS}


def test_programs_get_a_microphone_without_echo(tmp_path: Path, rng: np.random.Generator) -> None:
    scene = Scene(rng, far_s=4.0, both_s=3.0, near_s=3.0)
    desktop = Desktop(tmp_path)
    with desktop.running(DROP_IN.read_text(), scene.room):
        heard = desktop.hear(scene)
        for device, kind in (("apmpi_speaker", "SINK"), ("apmpi_microphone", "SOURCE")):
            assert f'node.name = "{device}"' in desktop.ask("wpctl", "inspect", f"@DEFAULT_AUDIO_{kind}@")
    assert desktop.daemon is not None and desktop.daemon.returncode == 0

    settled = slice(scene.far_alone.start + 2 * RATE_HZ, scene.far_alone.stop)
    reduction_db = db(power(heard.mic[settled])) - db(power(heard.out[settled]))
    both, alone = (
        intelligibility(heard.out[part], heard.near[part]) for part in (scene.both, scene.near_alone)
    )
    print(f"echo reduced by {reduction_db:.1f} dB; STOI {both:.2f} in double talk, {alone:.2f} alone")
    assert reduction_db > 30
    assert both > 0.75 and alone > 0.9
    log = desktop.log.read_text()
    figures = re.search(r"(?:paused|stopped): (.*), echo reduced by (\d+) dB, delay (\d+) ms", log)
    assert figures and figures[1] == "converged" and int(figures[2]) > 15, log


def test_settings_are_properties_that_change_while_it_runs(tmp_path: Path) -> None:
    desktop = Desktop(tmp_path)
    configured = DROP_IN.read_text().replace("# gain_max_db = 32", "gain_max_db = 12.5")
    with desktop.running(configured, NO_ROOM):
        desktop.wait_for("apmpi_capture:")
        node = desktop.nodes()["apmpi_capture"]
        described = {info.get("name"): info for info in node["info"]["params"]["PropInfo"]}
        for name, row in SETTINGS.items():
            values = described[name]["type"]
            assert described[name]["description"] == row.meaning
            default = "high" if name == "noise_suppression" else DEFAULTS[name]
            assert (values["default"] if isinstance(values, dict) else values) == default
            assert row.low == -np.inf or (values["min"], values["max"]) == (row.low, row.high)
        assert properties(node) == {**DEFAULTS, "noise_suppression": "high", "gain_max_db": 12.5}

        wanted = '{ params = [ "auto_gain_control" false "noise_suppression" "low" "headroom_db" 21.0 ] }'
        desktop.ask("pw-cli", "set-param", "apmpi_capture", "Props", wanted)
        after = properties(desktop.nodes()["apmpi_capture"])
    assert after["auto_gain_control"] is False and after["noise_suppression"] == "low"
    assert after["headroom_db"] == DEFAULTS["headroom_db"]
    assert "headroom_db: 21.000000 given, expected a number from 0 to 20 dB" in desktop.log.read_text()


@pytest.mark.parametrize(
    ("line", "mistake", "sentence"),
    [
        (
            "# headroom_db = 1",
            "headroom = 1",
            "aec.args: headroom is not a setting, expected one of echo_canc",
        ),
        ("audio.rate = 48000", "audio.rate = 44100", "44100 Hz (far end) given, expected 8000, 16000, 32000"),
    ],
)
def test_a_mistake_is_named_and_pipewire_starts_without_the_devices(
    tmp_path: Path, line: str, mistake: str, sentence: str
) -> None:
    desktop = Desktop(tmp_path)
    with desktop.running(DROP_IN.read_text().replace(line, mistake), NO_ROOM):
        assert sentence in desktop.log.read_text()
        assert not any(name.startswith("apmpi") for name in desktop.nodes())
